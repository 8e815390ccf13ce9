"""Experiments of an ablation, one after the other: what is done stays, what failed runs again."""

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from stages.run import digests
from stages.run.errors import UserError
from stages.run.files import work_root
from stages.workspace import repository
from stages.workspace.arms import Arm

TARGET = "compare"


def require_default(steps: Sequence[repository.Step]) -> None:
    """Raise UserError unless the default's results are there and belong to the params in force."""
    due = repository.due(repository.needed(steps, TARGET))
    # An experiment makes the digests of the code anew, and they are of what is here.
    stale = [step for step in due if step.name != digests.STAGE]
    if stale:
        changed = "; ".join(stale[0].changed)
        raise UserError(
            f"{stale[0].name} and {len(stale) - 1} other stages" if stale[1:] else stale[0].name,
            f"not up to date ({changed})",
            expected="results of the params in force: all arms are compared with them",
            fix="run `dvc repro` and commit what it wrote",
        )


def run_arms(arms: Sequence[Arm], *, queue: bool) -> list[Arm]:
    """Run every arm that has no experiment yet, or put it in DVC's queue; return what failed."""
    done, failed = repository.experiments(), []
    folder = work_root() / "ablate"
    for number, arm in enumerate(arms, 1):
        head = f"{number}/{len(arms)} {arm.label}"
        if arm.name in done:
            print(f"{head}: done before, experiment {arm.name}", flush=True)
            continue
        log = folder / f"{arm.name}.log"
        print(f"{head}: {'queued' if queue else 'running'}, log {log}", flush=True)
        began = time.monotonic()
        code = repository.run_experiment(arm.name, arm.settings, TARGET, log, folder, queue=queue)
        if code:
            failed.append(arm)
            tail = "\n".join(log.read_text().splitlines()[-5:])
            print(f"{head}: FAILED with {code}\n{tail}", flush=True)
        elif not queue:
            print(f"{head}: {time.monotonic() - began:.0f} s, experiment {arm.name}", flush=True)
    return failed


def collect(arms: Sequence[Arm], metrics: Path, into: Path) -> dict[str, Path]:
    """Copy the folder `metrics` of every finished arm into a folder of the arm's; by label."""
    finished, copies = repository.experiments(), {}
    for arm in arms:
        if arm.name in finished:
            copies[arm.label] = into / arm.name
            repository.fetch(metrics.as_posix(), finished[arm.name], copies[arm.label])
    return copies


def scratch() -> tempfile.TemporaryDirectory:
    """A folder for copies of metrics."""
    return tempfile.TemporaryDirectory(prefix="ablate")
