"""Stage `tune`: the fixer, tuned on the study's samples, data/difix/tuned."""

import argparse
import os
from contextlib import nullcontext

from stages.difix.config import TuneConfig
from stages.run import layout
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
    argparse.ArgumentParser(description=__doc__).parse_args()

    from stages.samples.manifest import check_dataset

    params = Params.read()
    config = params.section("tune", TuneConfig)
    study = params.section("study", StudyConfig)
    # The data set may have been edited since stage manifest checked it.
    verdict = check_dataset(layout.dataset(), study, look=_PROCESS not in os.environ)
    verdict.enforce()
    for note in verdict.notes if _PROCESS not in os.environ else ():
        print(f"note: {note}", flush=True)

    with alone(layout.tuned()) if is_first() else nullcontext():
        tune(config, study, verdict)


def is_first() -> bool:
    """Whether this process writes the results."""
    return os.environ.get("RANK", "0") == "0"


def tune(config: TuneConfig, study: StudyConfig, verdict: Verdict) -> None:
    """Tune in this process, or start `tune.processes` others."""
    from stages.difix.tuning import runs as tuning
    from stages.run.checkpoint import Checkpoint, forget
    from stages.run.provenance import cost
    from stages.samples.manifest import measured
    from stages.scenes.study.roles import NO_RESERVE

    base, dataset = layout.base(), layout.dataset()
    warned = [note for note in verdict.notes if note == NO_RESERVE]
    data = tuning.Data(dataset)
    if config.processes > 1 and _PROCESS not in os.environ:
        tuning.run_processes("stages.tune", config.processes)
        return
    key = tuning.checkpoint_key(data, base, config)
    checkpoint = Checkpoint(tuning.STAGE, tuning.ITEM, *key)
    with cost(tuning.STAGE, tuning.ITEM) if is_first() else nullcontext():
        tuner = tuning.tune(data, base, layout.WEIGHTS, config, checkpoint, lambda: measured(study))
    if not is_first():
        return
    with whole_folder(layout.tuned()) as folder:
        tuning.write_fixer(tuner, data, base, folder, checkpoint, verdict.hash, warned)
    scalars = tuning.scalars(tuner, data)
    write_json(layout.tune_metrics(), scalars)
    tuning.write_curves(tuner, layout.tune_curve("loss"), layout.tune_curve("validation"))
    forget(tuning.STAGE, tuning.ITEM)
    for row in tuning.ROWS:
        if row in scalars:
            print(f"tune: {row}", *(f"{key} {value}" for key, value in scalars[row].items()))


if __name__ == "__main__":
    launch(main)
