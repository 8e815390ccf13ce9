"""Costs of the stages, summed over their items, and how they add up to the wall time."""

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


@dataclass(frozen=True)
class WallTime:
    """How the times of items add up: wall_s = sum_s - parallel_s + between_s."""

    sum_s: float
    parallel_s: float  # counted more than once in the sum, because items ran at the same time
    between_s: float  # in which no item ran, in gaps of at most PAUSE_S
    pauses: int  # longer gaps, which are no part of the wall time
    paused_s: float

    @property
    def wall_s(self) -> float:
        """From the first start to the last end, without pauses."""
        return self.sum_s - self.parallel_s + self.between_s


# Between items of one run pass seconds: the start of Python, DVC's hashing.
PAUSE_S = 120.0


def study_costs(
    recorded: Mapping[str, Mapping[str, Cost]], others: Sequence[str]
) -> dict[str, dict[str, Cost]]:
    """Costs by stage and item, without items of `others`, scenes outside the study."""
    costs = {
        stage: {name: one for name, one in items.items() if _scene(name) not in others}
        for stage, items in recorded.items()
    }
    return {stage: items for stage, items in costs.items() if items}


def stage_costs(costs: Mapping[str, Mapping[str, Cost]]) -> list[StageCost]:
    """One row per stage."""
    return [_stage_cost(stage, items) for stage, items in costs.items()]


def wall_time(costs: Mapping[str, Mapping[str, Cost]]) -> WallTime | None:
    """The wall time of all items; None without items, or where one has no time of its end."""
    items = [one for of_stage in costs.values() for one in _whole(of_stage)]
    if not items or any("ended" not in one for one in items):
        return None
    spans = sorted((one["ended"] - one["seconds"], one["ended"]) for one in items)
    busy, gaps, reached = 0.0, [], spans[0][0]
    for start, end in spans:
        gaps.append(max(0.0, start - reached))
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    total_s = sum(one["seconds"] for one in items)
    pauses = [gap for gap in gaps if gap > PAUSE_S]
    parallel_s = max(0.0, round(total_s - busy, 3))
    return WallTime(total_s, parallel_s, sum(gaps) - sum(pauses), len(pauses), sum(pauses))


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
    parts, whole = _parts(items), _whole(items)
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


def _parts(items: Mapping[str, Cost]) -> set[str]:
    """Such as `scene.000021` of `scene`, which includes their time, but not their GPU time."""
    return {name for name in items if _scene(name) != name and _scene(name) in items}


def _whole(items: Mapping[str, Cost]) -> list[Cost]:
    parts = _parts(items)
    return [one for name, one in items.items() if name not in parts]


def _on_gpu(items: Iterable[Cost]) -> list[Cost]:
    return [one for one in items if "gpu_seconds" in one]


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
