"""Curves of trainings as trackers of experiments take them: named series of values over steps."""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stages.run.errors import UserError
from stages.run.files import read_table
from stages.run.plurals import counted
from stages.run.trainings import Training, Trainings

_LOGGER = logging.getLogger(__name__)

Series = list[tuple[int, float]]  # step, value; steps go up

_VALIDATED = ("untuned", "fixed", "tuned")  # rows of the fixer itself, with its own references
_MEASURES = ("psnr", "ssim", "lpips")


@dataclass(frozen=True)
class Curve:
    """What one training has logged so far."""

    name: str
    series: Mapping[str, Series]
    is_finished: bool
    written_s: float  # Unix time

    @property
    def key(self) -> str:
        """The series that tells two trainings of one name apart."""
        return "loss" if "loss" in self.series else min(self.series)


class Sink(Protocol):
    """A tracker of experiments."""

    def send(self, curve: Curve) -> int:
        """Add the points that it does not have yet; how many these were.

        A curve that begins otherwise than what it has under this name is another run.
        """
        ...


def agrees(before: Series, now: Series) -> bool:
    """Whether one series begins with the other.

    >>> agrees([(1, 0.5)], [(1, 0.5), (2, 0.25)]), agrees([(1, 0.5)], [(1, 0.4), (2, 0.25)])
    (True, False)
    """
    return all(a == b for a, b in zip(before, now, strict=False))


def after(before: Series, now: Series) -> Series:
    """The points of `now` beyond the last step of `before`."""
    last = before[-1][0] if before else -1
    return [point for point in now if point[0] > last]


def of_training(training: Training) -> Curve:
    """The curve of a training that is under way, was stopped, or has just finished."""
    rows: list[Mapping[str, Any]] = list(training.rows["curve"])
    for row in training.rows["evaluations"]:
        scores = {f"{row['split']}_{key}": row.get(key) for key in _MEASURES}
        rows.append({"step": row["step"], **scores})
    for row in training.rows["validations"]:
        if row.get("row") in _VALIDATED:
            scores = {f"validation_{key}": row.get(key) for key in _MEASURES}
            rows.append({"step": row["step"], **scores})
    return Curve(training.label, _series(rows), not training.is_there, training.written / 1e9)


def of_trainings(trainings: Trainings) -> list[Curve]:
    """Curves of trainings whose states were seen, as far as they have points."""
    curves = map(of_training, trainings.known.values())
    return [curve for curve in curves if curve.series]


def send_new(sink: Sink, curves: Iterable[Curve]) -> None:
    """Send what is new. Where the sink does not answer, that is logged, for a later attempt."""
    try:
        for curve in curves:
            if count := sink.send(curve):
                _LOGGER.info("%s: %s sent", curve.name, counted(count, "point"))
    except UserError as error:
        _LOGGER.warning("%s", error)


def of_tables(
    name: str, tables: Mapping[str, Path], only: Mapping[str, str] | None = None
) -> Curve:
    """The curve of a finished training.

    Args:
        name: as `Training.label` had it.
        tables: TSV files by the prefix of their columns' names.
        only: texts that rows have in these columns.

    Raises UserError for a file that cannot be read.
    """
    only, rows = only or {}, []
    for prefix, path in tables.items():
        for row in read_table(path, only.keys()):
            if all(row[column] == text for column, text in only.items()):
                values = {key: value for key, value in row.items() if key not in {"step", *only}}
                kept = {
                    f"{prefix}{k}": v for k, v in values.items() if not k.startswith("identity")
                }
                rows.append({"step": row["step"], **kept})
    written_s = max((path.stat().st_mtime for path in tables.values()), default=time.time())
    return Curve(name, _series(rows), is_finished=True, written_s=written_s)


def _series(rows: Iterable[Mapping[str, Any]]) -> dict[str, Series]:
    series: dict[str, dict[int, float]] = {}
    for row in rows:
        for key, value in row.items():
            if key != "step" and value is not None:
                series.setdefault(key, {})[int(row["step"])] = float(value)
    return {key: sorted(points.items()) for key, points in series.items()}
