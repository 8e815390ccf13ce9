"""Vary some params in DVC experiments and compare every arm with the default, noise included."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from stages.quality.config import CompareConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig

if TYPE_CHECKING:
    from stages.workspace.arms import Arm


def main() -> None:
    """Run every arm that has no result yet, then print the table of all results."""
    parser = Arguments(description=__doc__)
    parser.add_argument("factors", nargs="+", metavar="KEY=A,B", help="a param and values to try")
    parser.add_argument("--singly", action="store_true", help="one factor at a time, no products")
    parser.add_argument("--repeats", type=int, default=1, help="runs with other seeds; default 1")
    parser.add_argument("--method", help="the method to compare; default study.subject")
    parser.add_argument("--collect", action="store_true", help="print the table, run nothing")
    parser.add_argument("--queue", action="store_true", help="fill DVC's queue, run nothing here")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, run nothing")
    args = parser.parse_args()

    from stages.check import judged
    from stages.graph import repository
    from stages.run.settings.fan_out import require_names
    from stages.workspace import ablate
    from stages.workspace.arms import arms, parse, repeats, require_valid

    params = Params.read()
    require_names(params)
    ablate.require_method(args.method, params.section("study", StudyConfig).methods)
    factors = [parse(text, params) for text in args.factors]
    varied, repeated = arms(factors, params, args.singly), repeats(factors, params, args.repeats)
    every = [*varied, *repeated]
    require_valid(every, params, judged)
    print(ablate.heading(varied, repeated), flush=True)
    steps = repository.stage_statuses()
    ablate.require_default(steps)
    if not args.collect:
        print(ablate.announcement(every, steps, layout.COSTS), flush=True)
        if args.dry_run:
            return
        ablate.run_arms(every, params, queue=args.queue)
        if args.queue:
            print("next: dvc queue start -j 2, then the same command with --collect")
            return
    with ablate.scratch() as folder:
        copies = ablate.collect(every, layout.METRICS, Path(folder))
        _print(params, args.method, (varied, repeated), copies)
    ablate.require_results(every, copies)


def _print(
    params: Params, method: str | None, groups: "Sequence[Sequence[Arm]]", copies: dict[str, Path]
) -> None:
    from stages.quality.ablation import ablation
    from stages.quality.comparison import Evaluations

    study = params.section("study", StudyConfig)
    method, scenes = method or study.subject, study.evaluated_scenes
    default = Evaluations.read(scenes, (method,), layout.evaluation)
    read = {
        label: Evaluations.read(scenes, (method,), partial(layout.evaluation, root=folder))
        for label, folder in copies.items()
    }
    roles = {"to choose by": study.internal_eval_scenes, "to report": study.downstream_scenes}
    labels = [[arm.label for arm in some if arm.label in copies] for some in groups]
    print(ablation(default, read, *labels, roles, method, params.section("compare", CompareConfig)))


if __name__ == "__main__":
    launch(main)
