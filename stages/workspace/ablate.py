"""Experiments of an ablation, one after another: finished ones are skipped, failed ones rerun."""

import logging
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from stages.graph import repository
from stages.run import digests
from stages.run.errors import UserError
from stages.run.files import work_root
from stages.run.plurals import counted
from stages.run.settings.fan_out import fans_out
from stages.run.settings.params import Params, did_you_mean
from stages.workspace.arms import Arm, changed_params
from stages.workspace.costs import Costs, read_costs
from stages.workspace.repro_plan import ReproPlan, expected_time, on_one_line, plan

_LOGGER = logging.getLogger(__name__)
TARGET = "compare"
_REPEAT = " (the default from another seed, for the noise; `--repeats 0` leaves it out)"


def require_method(method: str | None, methods: Sequence[str]) -> None:
    """Raise UserError for a method to compare, if any, that is none of `study.methods`."""
    if method is not None and method not in methods:
        raise UserError(
            "--method",
            repr(method),
            expected=f"one of study.methods: {', '.join(methods)}",
            hint=did_you_mean(method, list(methods)),
        )


def require_default(steps: Sequence[repository.StageStatus]) -> None:
    """Raise UserError unless the default's results are there and are up to date with the params."""
    due = repository.due(repository.needed(steps, TARGET))
    # An experiment recomputes the digests, which are those of the code here.
    stale = [step for step in due if step.name != digests.STAGE]
    if stale:
        changed = "; ".join(stale[0].changed)
        raise UserError(
            stale[0].name + (f" and {counted(len(stale) - 1, 'other stage')}" if stale[1:] else ""),
            f"not up to date ({changed})",
            expected="results of the current params: all arms are compared with them",
            fix="run `dvc repro` and commit its outputs",
        )


def heading(varied: Sequence[Arm], repeated: Sequence[Arm]) -> str:
    """What is compared, before it is known what that takes."""
    again = f", and {counted(len(repeated), 'repeat')} of it for the noise" if repeated else ""
    return (
        f"{counted(len(varied), 'arm')} to compare with the default{again}; reading the state of "
        "all stages ..."
    )


def announcement(arms: Sequence[Arm], steps: Sequence[repository.StageStatus], costs: Path) -> str:
    """What `run_arms` will run and for how long: a line per arm, then the sum.

    Args:
        arms: all arms and repeats.
        steps: the stages of the default.
        costs: file of the measured costs.
    """
    finished, measured = repository.experiments(), read_costs(costs)
    waiting = [arm for arm in arms if arm.name not in finished]
    plans = [arm_plan(arm, steps, measured) for arm in waiting]
    lines = [
        f"  {arm.label}{_REPEAT if arm.is_repeat else ''}: {on_one_line(one)}"
        for arm, one in zip(waiting, plans, strict=True)
    ]
    widened = [key for arm in waiting for key in arm.values if fans_out(key)]
    if widened:
        lines.append(f"  {', '.join(dict.fromkeys(widened))}: stages that it adds are not counted")
    total = ReproPlan(len(steps), tuple(row for one in plans for row in one.rows))
    before = f", {len(arms) - len(waiting)} finished before" if len(waiting) < len(arms) else ""
    head = f"experiments to run: {len(waiting)} of {len(arms)}{before}"
    if not total.rows:
        return "\n".join([head, *lines])
    most = counted(len(total.rows), "stage")
    cached = "; results of equal inputs come from the cache"
    return "\n".join([head, *lines, f"in all at most {most}, {expected_time(total)}{cached}"])


def arm_plan(arm: Arm, steps: Sequence[repository.StageStatus], costs: Costs) -> ReproPlan:
    """The stages that an arm may run: those with its params, and all downstream of these."""
    return plan([_with(step, arm) for step in repository.needed(steps, TARGET)], costs)


def _with(step: repository.StageStatus, arm: Arm) -> repository.StageStatus:
    """A stage of the default, which is up to date, under an arm's settings."""
    params = changed_params(step.params, arm)
    changed = tuple(key for key in params if params[key] != step.params[key])
    return replace(step, params=params, changed=changed, in_run_cache=False)


def run_arms(arms: Sequence[Arm], default: Params, *, queue: bool) -> list[Arm]:
    """Run every arm that has no experiment yet, or queue it in DVC; return those that failed.

    Each starts from the workspace as it is. Raises UserError when params.yaml no longer equals
    `default`: arms of two defaults do not compare.
    """
    finished, failed = repository.experiments(), []
    folder = work_root() / "ablate"
    for number, arm in enumerate(arms, 1):
        head = f"{number}/{len(arms)} {arm.label}"
        if arm.name in finished:
            _LOGGER.info("%s: finished before, experiment %s", head, arm.name)
            continue
        if default.path.read_bytes() != default.reading.content:
            raise UserError(
                default.path,
                f"edited while arms ran, before {arm.label}",
                expected="the params that all arms are compared with",
                fix="restore them and run the same command again: finished arms are kept",
            )
        log = folder / f"{arm.name}.log"
        _LOGGER.info("%s: %s, log %s", head, "queued" if queue else "running", log)
        began = time.monotonic()
        code = repository.run_experiment(arm.name, arm.settings, TARGET, log, folder, queue=queue)
        if code:
            failed.append(arm)
            tail = "\n".join(log.read_text().splitlines()[-5:])
            _LOGGER.info("%s: FAILED with %s\n%s", head, code, tail)
        elif not queue:
            seconds = time.monotonic() - began
            _LOGGER.info("%s: %.0f s, experiment %s", head, seconds, arm.name)
    return failed


def collect(arms: Sequence[Arm], metrics: Path, into: Path) -> dict[str, Path]:
    """Copy the folder `metrics` of every finished arm into a folder of the arm's; by label."""
    finished, copies = repository.experiments(), {}
    for arm in arms:
        if arm.name in finished:
            copies[arm.label] = into / arm.name
            repository.fetch(metrics.as_posix(), finished[arm.name], copies[arm.label])
    return copies


def require_results(arms: Sequence[Arm], copies: Collection[str]) -> None:
    """Raise UserError for arms without a result; `copies` has the labels of the others."""
    missing = [arm.label for arm in arms if arm.label not in copies]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(arms)} arms have no result",
            "; ".join(missing),
            fix=f"check {work_root() / 'ablate'}/*.log and run the same command again",
        )


def scratch() -> tempfile.TemporaryDirectory:
    """A temporary folder for copies of metrics."""
    return tempfile.TemporaryDirectory(prefix="ablate")
