"""Measured costs of stages, and estimates of their next runs.

metrics/costs.json holds the measurements by stage. `python -m stages.plan --record` writes it from
the last runs on this machine; no stage does, because results must not depend on timing.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.graph.repository import StageStatus
from stages.run.files import read_json, shaped, write_json
from stages.run.provenance import Cost, recorded_costs
from stages.run.settings.pair_trainings import pair_trainings

# Time is proportional to the product of these params, each with its value where it is left out.
_STEPS = {
    "train": {"train.max_steps": None, "train.steps_scaler": 1.0},
    "tune": {"tune.steps": None},
    "fixed_views": {"distill.rounds": None, "distill.steps": None},
}
_KEPT = ("seconds", "peak_memory_gib", "device", "gpu_peak_memory_gib")

Costs = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a stage; None where no similar one was measured."""

    seconds: float | None
    out_bytes: int | None
    is_scaled: bool = False  # from a run with another number of steps


def read_costs(path: Path) -> Costs:
    """Measurements by stage; empty without a file."""
    costs = read_json(path) if path.is_file() else {}
    with shaped(path, "seconds by stage", f"delete it, or `git checkout {path}`"):
        for one in costs.values():
            float(one["seconds"]), one.get("steps"), _trained(one)
    return costs


def record(steps: Iterable[StageStatus], path: Path) -> int:
    """Add the costs of the last runs on this machine to the file; return its number of stages."""
    costs, recorded = dict(read_costs(path)), recorded_costs()
    for step in steps:
        cost = _of_step(step.name, recorded)
        if cost is not None:
            costs[step.name] = {key: cost[key] for key in _KEPT if key in cost}
            costs[step.name]["steps"] = _work(step.name, step.locked_params)
            if trainings := _trainings(step.name, step.locked_params):
                costs[step.name]["trainings"] = trainings
    if costs:
        write_json(path, dict(sorted(costs.items())))
    return len(costs)


def by_kind(costs: Costs) -> dict[str, dict[str, Any]]:
    """The costs of each kind of stage."""
    found: dict[str, dict[str, Any]] = {}
    for name, cost in costs.items():
        found.setdefault(name.partition("@")[0], {})[name] = cost
    return found


def estimate(
    step: StageStatus, steps: Sequence[StageStatus], costs_of: Mapping[str, Costs]
) -> Estimate:
    """From the stage's own measurement, else the median of its kind, in proportion to steps.

    Trainings of `pairs` count as much as those of stage `train`.

    Args:
        step: the stage.
        steps: others, for the size of its outs where it has none.
        costs_of: the costs of each kind of stage, as `by_kind` has them.
    """
    if step.in_run_cache:
        return Estimate(0.0, step.out_bytes)
    kind = step.name.partition("@")[0]
    costs = costs_of.get(kind, {})
    sources = [step.name] if step.name in costs else list(costs)
    now = _work(step.name, step.params)
    more = [_trainings(step.name, step.params) - _trained(costs[name]) for name in sources]
    training = _seconds_of_training(step, costs_of.get("train", {})) if any(more) else 0.0
    seconds = [
        _scaled(costs[name], now) + count * training
        for name, count in zip(sources, more, strict=True)
    ]
    sizes = [
        one.out_bytes
        for one in steps
        if one.name.partition("@")[0] == kind and one.out_bytes is not None
    ]
    size = step.out_bytes
    if size is None and sizes:
        size = round(statistics.median(sizes))
    return Estimate(
        statistics.median(seconds) if seconds else None,
        size,
        any(more) or any(costs[name].get("steps") not in (None, now) for name in sources),
    )


def _trained(cost: Mapping[str, Any]) -> int:
    return int(cost.get("trainings", 0))


def _trainings(name: str, params: Mapping[str, Any]) -> int:
    """How often a stage trains Gaussians beside stage `train`; only `pairs` does."""
    pairs = params.get("pairs") if name.partition("@")[0] == "pairs" else None
    return pair_trainings(pairs) if isinstance(pairs, Mapping) else 0


def _seconds_of_training(step: StageStatus, costs: Costs) -> float:
    """Of stage `train` on the scene of a step, else of the median scene; 0 where none is known."""
    own = f"train@{step.name.partition('@')[2]}"
    names = [own] if own in costs else list(costs)
    now = _work("train", step.params)
    return statistics.median([_scaled(costs[name], now) for name in names] or [0.0])


def _of_step(name: str, recorded: Mapping[str, Mapping[str, Cost]]) -> Cost | None:
    """The cost of a stage when it last ran here.

    A stage without items has one record; two variables of an item are joined by a dot.
    """
    kind, _, item = name.partition("@")
    costs = recorded.get(kind.removesuffix("_test"), {})
    if not item:
        return next(iter(costs.values()), None)
    return costs.get(item) or costs.get(".".join(item.rsplit("-", 1)))


def _scaled(cost: Mapping[str, Any], now: float | None) -> float:
    before = cost.get("steps")
    return cost["seconds"] * (now / before if now and before else 1)


def _work(name: str, params: Mapping[str, Any]) -> float | None:
    """The product of the params that a stage's time is proportional to."""
    known = _STEPS.get(name.partition("@")[0], {})
    factors = [_value(params, key, default) for key, default in known.items()]
    return math.prod(factors) if factors and None not in factors else None


def _value(params: Mapping[str, Any], dotted: str, default: float | None) -> Any:
    section, _, key = dotted.partition(".")
    return params.get(section, {}).get(key, default)
