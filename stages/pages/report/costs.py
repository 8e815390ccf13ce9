"""Costs of the stages, summed over their items."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stages.run.provenance import Cost


@dataclass(frozen=True)
class StageCost:
    """The cost of all recorded items of one stage."""

    stage: str
    items: int
    seconds: float
    gpu_seconds: float | None
    energy_wh: float | None
    peak_memory_gib: float
    gpu_peak_memory_gib: float | None
    devices: tuple[str, ...]


def stage_costs(
    recorded: Mapping[str, Mapping[str, Cost]], others: Sequence[str]
) -> list[StageCost]:
    """One row per stage with costs, without items of `others`, scenes outside the study."""
    rows = []
    for stage, items in recorded.items():
        counted = {name: one for name, one in items.items() if _scene(name) not in others}
        if counted:
            rows.append(_stage_cost(stage, counted))
    return rows


def total(rows: Sequence[StageCost]) -> StageCost:
    """The sum over stages; memory is the largest."""
    return StageCost(
        "total",
        sum(row.items for row in rows),
        sum(row.seconds for row in rows),
        _sum(row.gpu_seconds for row in rows),
        _sum(row.energy_wh for row in rows),
        max(row.peak_memory_gib for row in rows),
        max((row.gpu_peak_memory_gib or 0 for row in rows), default=0) or None,
        tuple(dict.fromkeys(name for row in rows for name in row.devices)),
    )


def _scene(item: str) -> str:
    """The scene of an item such as `scene`, `scene.000021` or `scene.tuned`."""
    return item.partition(".")[0]


def _stage_cost(stage: str, items: Mapping[str, Cost]) -> StageCost:
    # `scene.000021` is a part of `scene`, which includes its time, but not its GPU time.
    parts = {name for name in items if _scene(name) != name and _scene(name) in items}
    whole = [one for name, one in items.items() if name not in parts]
    on_gpu = _on_gpu(items[name] for name in parts) or _on_gpu(whole)
    return StageCost(
        stage,
        len(whole),
        sum(one["seconds"] for one in whole),
        _sum(one["gpu_seconds"] for one in on_gpu),
        _sum(one.get("gpu_energy_wh") for one in on_gpu),
        max(one["peak_memory_gib"] for one in items.values()),
        max((one["gpu_peak_memory_gib"] for one in on_gpu), default=None),
        tuple(dict.fromkeys(one["device"] for one in on_gpu or whole)),
    )


def _on_gpu(items: Iterable[Cost]) -> list[Cost]:
    return [one for one in items if "gpu_seconds" in one]


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
