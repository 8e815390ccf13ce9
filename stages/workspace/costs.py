"""What stages cost when they were last measured, and what they would cost now.

metrics/costs.json holds the measurements by stage. `python -m stages.plan --record` writes it from
what runs left on this machine; no stage does, since a result must not change with the clock.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.run.files import read_json, shaped, write_json
from stages.run.provenance import Cost, recorded_costs
from stages.workspace.repository import Step

# Time grows with the product of these params.
_STEPS = {
    "train": ("train.max_steps",),
    "tune": ("tune.steps",),
    "fixed_views": ("distill.rounds", "distill.steps"),
}
_KEPT = ("seconds", "peak_memory_gib", "device", "gpu_peak_memory_gib")

Costs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Estimate:
    """What a stage would cost; None where nothing like it was measured."""

    seconds: float | None
    out_bytes: int | None
    is_scaled: bool = False  # from another number of steps


def read_costs(path: Path) -> Costs:
    """Measurements by stage; none where there is no file."""
    found = read_json(path) if path.is_file() else {}
    with shaped(path, "seconds by stage", f"delete it, or `git checkout {path}`"):
        for one in found.values():
            float(one["seconds"]), one.get("steps")
    return found


def record(steps: Iterable[Step], path: Path) -> int:
    """Add what the last runs on this machine cost to the file; return how many stages it has."""
    costs, left = dict(read_costs(path)), recorded_costs()
    for step in steps:
        kept = _of_step(step.name, left)
        if kept is not None:
            costs[step.name] = {key: kept[key] for key in _KEPT if key in kept}
            costs[step.name]["steps"] = _work(step.name, step.locked_params)
    if costs:
        write_json(path, dict(sorted(costs.items())))
    return len(costs)


def estimate(step: Step, steps: Sequence[Step], costs: Costs) -> Estimate:
    """From the stage's own measurement, else the median of its like, in proportion to steps."""
    if step.in_run_cache:
        return Estimate(0.0, step.out_bytes)
    kind = step.name.partition("@")[0]
    alike = [one for one in costs if one.partition("@")[0] == kind]
    taken = [step.name] if step.name in costs else alike
    now = _work(step.name, step.params)
    found = [_scaled(costs[name], now) for name in taken]
    sizes = [one.out_bytes for one in steps
             if one.name.partition("@")[0] == kind and one.out_bytes is not None]  # fmt: skip
    size = step.out_bytes
    if size is None and sizes:
        size = round(statistics.median(sizes))
    return Estimate(
        statistics.median(found) if found else None,
        size,
        any(costs[name].get("steps") not in (None, now) for name in taken),
    )


def _of_step(name: str, left: Mapping[str, Mapping[str, Cost]]) -> Cost | None:
    """What a stage left when it last ran here.

    A stage without items has one record alone; two variables of an item are joined by a dot.
    """
    kind, _, item = name.partition("@")
    found = left.get(kind.removesuffix("_test"), {})
    if not item:
        return next(iter(found.values()), None)
    return found.get(item) or found.get(".".join(item.rsplit("-", 1)))


def _scaled(cost: Mapping[str, Any], now: float | None) -> float:
    before = cost.get("steps")
    return cost["seconds"] * (now / before if now and before else 1)


def _work(name: str, params: Mapping[str, Any]) -> float | None:
    """The product of the params that a stage's time grows with."""
    found = [_value(params, key) for key in _STEPS.get(name.partition("@")[0], ())]
    return math.prod(found) if found and None not in found else None


def _value(params: Mapping[str, Any], dotted: str) -> Any:
    section, _, key = dotted.partition(".")
    return params.get(section, {}).get(key)
