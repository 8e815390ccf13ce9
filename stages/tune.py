"""Stage `tune`: the untuned fixer, tuned on the study's samples, data/difix/tuned."""

import os
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

from stages.difix.config import TuneConfig
from stages.run import layout
from stages.run.arguments import Arguments
from stages.run.entry import launch
from stages.run.files import whole_folder, write_json
from stages.run.process.locks import alone
from stages.run.settings.params import Params
from stages.scenes.study.config import StudyConfig
from stages.scenes.study.roles import Verdict

# Set in each of several processes, also by the launchers of torch and accelerate.
_PROCESS = "LOCAL_RANK"


def main() -> None:
    """Write data/difix/tuned, metrics/tune.json and the curves; a stopped run continues."""
    Arguments(description=__doc__).parse_args()

    from stages.samples.index import SamplePaths
    from stages.samples.manifest import check_dataset, held_out_subjects

    params = Params.read()
    config = params.section("tune", TuneConfig)
    study = params.section("study", StudyConfig)
    paths = SamplePaths(layout.pairs, layout.pairs_metrics, layout.scene)
    # The dataset may have been edited since stage manifest checked it.
    verdict = check_dataset(layout.dataset(), study, paths, by_content=_PROCESS not in os.environ)
    verdict.enforce()
    for note in verdict.notes if _PROCESS not in os.environ else ():
        print(f"note: {note}", flush=True)

    with alone(layout.tuned()) if is_first() else nullcontext():
        tune(config, verdict, paths.samples_root, partial(held_out_subjects, study, paths))


def is_first() -> bool:
    """Whether this process writes the results."""
    return os.environ.get("RANK", "0") == "0"


def tune(config: TuneConfig, verdict: Verdict, samples: Path, held_out: Callable[[], list]) -> None:
    """Tune in this process, or start the `tune.processes` that do."""
    from stages.difix.tuning import inputs, results, runs
    from stages.run.checkpoint import Checkpoint, forget
    from stages.run.provenance import cost
    from stages.scenes.study.roles import NO_RESERVE

    base, weights, item = layout.base(), layout.WEIGHTS, (runs.STAGE, runs.ITEM)
    warned = [note for note in verdict.notes if note == NO_RESERVE]
    data = inputs.TuningData(layout.dataset(), samples, layout.scene)
    if config.processes > 1 and _PROCESS not in os.environ:
        runs.run_processes("stages.tune", config.processes)
        return
    checkpoint = Checkpoint(*item, *inputs.checkpoint_key(data, base, config))
    with cost(*item) if is_first() else nullcontext():
        tuner = runs.tune(data, base, weights, config, checkpoint, held_out)
    if not is_first():
        return
    with whole_folder(layout.tuned()) as folder:
        results.write_fixer(tuner, data, base, folder, checkpoint, verdict.hash, warned)
    scalars = results.scalars(tuner, data)
    write_json(layout.tune_metrics(), scalars)
    results.write_curves(tuner, layout.tune_curve("loss"), layout.tune_curve("validation"))
    forget(*item)
    for row in results.ROWS:
        if row in scalars:
            print(f"tune: {row}", *(f"{key} {value}" for key, value in scalars[row].items()))


if __name__ == "__main__":
    launch(main)
