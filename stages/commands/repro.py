"""`dvc repro` for a terminal: what it will do, the place of each stage in it, what it found."""

import os
import sys
import tempfile

from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import read_json, work_root
from stages.run.notes import NOTES_ENV
from stages.run.settings.fan_out import require_names
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig
from stages.splat.config import TrainConfig


def main() -> None:
    """Run the stages that are stale; ends with the exit code of DVC."""
    parser = Arguments(description=__doc__)
    parser.add_argument("targets", nargs="*", help="stages, such as compare or train@SCENE")
    at_once = "stages at once; with more than one their output goes to logs (default: 1)"
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help=at_once)
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error("--jobs takes a positive number")

    from stages.graph.repository import of_targets, stage_statuses
    from stages.graph.reproduce import reproduce
    from stages.jobs.submit import SubmitOptions, send
    from stages.jobs.task_process import STOPPED
    from stages.workspace.costs import read_costs
    from stages.workspace.doctor import examine
    from stages.workspace.findings import OK, findings_text
    from stages.workspace.machine import backend
    from stages.workspace.repro_plan import expected_time, plan

    params = Params.read()
    require_names(params)
    if doubts := [one for one in examine(quick=True) if one.status != OK]:
        print(findings_text(doubts), flush=True)
    wanted = params.value("train", "backend", TrainConfig)
    print(f"scenes are trained on {backend(wanted)}", flush=True)
    stages = stage_statuses(wait=True)
    if args.targets:
        stages = of_targets(stages, args.targets)
    planned = plan(stages, read_costs(layout.COSTS))
    names = [step.name for step, _ in planned.rows]
    if names:
        print(f"{len(names)} of {len(stages)} stages may run, {expected_time(planned)}", flush=True)
    scratch = work_root().absolute()
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=scratch, prefix="notes.") as notes:
        os.environ[NOTES_ENV] = notes.name
        if args.jobs > 1:
            code = send(SubmitOptions(args.targets, local=True, jobs=args.jobs))
        else:
            code = reproduce(args.targets, names)
    if code == STOPPED:
        print("stopped; run again to go on", file=sys.stderr)
    if not code and not args.targets:
        print(f"\n{_found(params, wanted)}")
    sys.exit(code)


def _found(params: Params, backend: str) -> str:
    """What the study found, in short."""
    from stages.quality.brief import brief
    from stages.quality.comparison import downstream
    from stages.workspace.probes import gpus

    study = params.section("study", StudyConfig)
    scenes = downstream(study.downstream_scenes, study.evaluated_scenes)
    on_gpu = backend != "cpu" and gpus()
    device = on_gpu[0].partition(",")[0] if on_gpu else "the CPU"
    return brief(read_json(layout.headline()), read_json(layout.delta()), scenes[0], device)


if __name__ == "__main__":
    launch(main)
