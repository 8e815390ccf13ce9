"""What `dvc repro` would run, with its time and disk space."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.graph.repository import StageStatus, due
from stages.run.errors import UserError
from stages.run.plurals import counted, first_few
from stages.workspace import probes
from stages.workspace.costs import Costs, Estimate, by_kind, estimate

_GIB = 2**30


@dataclass(frozen=True)
class ReproPlan:
    """Stages that would run, each with its estimate."""

    total: int  # stages in the graph
    rows: tuple[tuple[StageStatus, Estimate], ...]

    @property
    def seconds(self) -> float:
        """Sum of the known times, run one after another."""
        return sum(one.seconds or 0.0 for _, one in self.rows)

    @property
    def unmeasured(self) -> int:
        """Stages without an estimate."""
        return sum(one.seconds is None for _, one in self.rows)

    def bytes(self, copies: int) -> int:
        """Space for the outs, in the cache and, with copies, in the workspace."""
        return copies * sum(one.out_bytes or 0 for _, one in self.rows)


def plan(steps: Sequence[StageStatus], costs: Costs) -> ReproPlan:
    """The plan for some stages of the graph."""
    steps_of: dict[str, list[StageStatus]] = {}
    for step in steps:
        steps_of.setdefault(_kind(step.name), []).append(step)
    costs_of = by_kind(costs)
    rows = ((one, estimate(one, steps_of[_kind(one.name)], costs_of)) for one in due(steps))
    return ReproPlan(len(steps), tuple(rows))


def plan_text(plan: ReproPlan, copies: int, cache: Path) -> str:
    """A line for each kind of stage, then the sums."""
    if not plan.rows:
        return f"nothing would run: all {plan.total} stages are up to date"
    free = probes.free_bytes(cache)
    lines = list(_lines(plan))
    cached = sum(step.in_run_cache for step, _ in plan.rows)
    lines += [
        "",
        f"{len(plan.rows)} of {plan.total} stages would run"
        + (f", {cached} of them from the run cache" if cached else ""),
    ]
    measured = plan.unmeasured < len(plan.rows)
    time = f"about {duration(plan.seconds)}, one stage after another" if measured else "unknown"
    lines += [f"time: {time}{_doubts(plan)}"]
    unknown = sum(one.out_bytes is None for _, one in plan.rows)
    doubt = f" ({unknown} of unknown size)" if unknown else ""
    lines += [f"disk: about {_size(plan.bytes(copies))}{doubt}; {_size(free)} are free"]
    if _params_changed(plan):
        lines += [
            "both by the images, Gaussians and fixers of the last runs: "
            "changed params may need more or less"
        ]
    return "\n".join(lines)


def on_one_line(plan: ReproPlan) -> str:
    """Such as `5 stages (pairs, 2 times; tune; compare), about 3 min 20 s`."""
    if not plan.rows:
        return "no stage"
    kinds: dict[str, list[StageStatus]] = {}
    for step, _ in plan.rows:
        kinds.setdefault(_kind(step.name), []).append(step)
    names = "; ".join(_name(kind, steps) for kind, steps in kinds.items())
    return f"{counted(len(plan.rows), 'stage')} ({names}), {expected_time(plan)}"


def expected_time(plan: ReproPlan) -> str:
    """Such as `about 3 min 20 s (2 never measured)`, for stages one after another."""
    if plan.unmeasured == len(plan.rows):
        return "for a time that was never measured"
    return f"about {duration(plan.seconds)}{_doubts(plan)}"


def require_room(plan: ReproPlan, copies: int, cache: Path) -> None:
    """Raise UserError when the outs do not fit."""
    needed, free = plan.bytes(copies), probes.free_bytes(cache)
    if needed > free:
        raise UserError(
            cache.name,
            f"{_size(free)} free",
            expected=f"about {_size(needed)}",
            fix="dvc gc --workspace, or a cache elsewhere: dvc cache dir --local PATH",
        )


def duration(seconds: float) -> str:
    """Such as `3 h 5 min`.

    >>> duration(42), duration(200), duration(11100)
    ('42 s', '3 min 20 s', '3 h 5 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _kind(name: str) -> str:
    """`train` of `train@scene`."""
    return name.partition("@")[0]


def _lines(plan: ReproPlan) -> Iterator[str]:
    kinds: dict[str, list[tuple[StageStatus, Estimate]]] = {}
    for step, one in plan.rows:
        kinds.setdefault(_kind(step.name), []).append((step, one))
    names = {kind: _name(kind, [step for step, _ in rows]) for kind, rows in kinds.items()}
    width = max(map(len, names.values()))
    for kind, rows in kinds.items():
        seconds = [one.seconds for _, one in rows]
        time = "?" if None in seconds else duration(sum(seconds))
        yield f"{names[kind]:{width}}  {time:>11}  {_why([step for step, _ in rows])}"


def _name(kind: str, steps: Sequence[StageStatus]) -> str:
    """`tune`, `train@scene`, or `train, 7 times`."""
    return steps[0].name if len(steps) == 1 else f"{kind}, {len(steps)} times"


def _why(steps: Sequence[StageStatus]) -> str:
    reasons = list(dict.fromkeys(reason for step in steps for reason in step.changed))
    return first_few(reasons) if reasons else "its inputs may change"


def _doubts(plan: ReproPlan) -> str:
    doubts = [f"{plan.unmeasured} never measured"] if plan.unmeasured else []
    scaled = sum(one.is_scaled for _, one in plan.rows)
    doubts += [f"{scaled} in proportion to their steps"] if scaled else []
    return f" ({'; '.join(doubts)})" if doubts else ""


def _params_changed(plan: ReproPlan) -> bool:
    reasons = [(step, reason) for step, _ in plan.rows for reason in step.changed]
    return any(reason.partition(".")[0] in step.params for step, reason in reasons)


def _size(count: int) -> str:
    return f"{count / _GIB:.2f} GiB" if count < 10 * _GIB else f"{count / _GIB:.0f} GiB"
