"""Blends of raw and fixed renders: what a fixer gives at a part of its strength.

A blend is `raw + strength * (fixed - raw)` of two stored renders of one view, with values in
[0, 1]; it is measured and not stored.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stages.quality.evaluation import Image, MeasuredView, Measures, Meter
from stages.quality.keys import MEASURES
from stages.quality.statistics import column_means
from stages.run.methods import PLAIN

COLUMNS = ["strength", "views", *MEASURES]
RAW, FULL = 0.0, 1.0


def measure_strengths(
    views_of: Callable[[str], Iterable[MeasuredView]],
    strengths: Sequence[float],
    meter: Meter,
    means: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[Measures]]:
    """Rows of every method by strength: means over a scene's views from the given poses.

    The plain splat has one row, strength 0. Full strength, and strength 0 where the plain splat was
    measured, are the means that were measured before.

    Args:
        views_of: The views of a method, also of the plain splat, in equal order.
        strengths: From 0, the raw renders, to 1.
        meter: Measures both.
        means: Of every method at full strength.
    """
    rows = {}
    for method, of_method in means.items():
        if method == PLAIN:
            rows[method] = [_row(RAW, of_method)]
            continue
        known = {FULL: of_method} | ({RAW: means[PLAIN]} if PLAIN in means else {})
        inner = [one for one in strengths if one not in known]
        measured = known | _measured(views_of(PLAIN), views_of(method), inner, meter)
        rows[method] = [_row(one, measured[one]) for one in strengths]
    return rows


def _measured(
    raw: Iterable[MeasuredView],
    fixed: Iterable[MeasuredView],
    strengths: Sequence[float],
    meter: Meter,
) -> dict[float, Measures]:
    rows: dict[float, list[Measures]] = {one: [] for one in strengths}
    if not rows:
        return {}
    for before, after in zip(raw, fixed, strict=True):
        measured = meter.measure_others(before, _blends(before, after, strengths))
        for strength, row in zip(strengths, measured, strict=True):
            rows[strength].append(row)
    return {
        one: {"views": len(of_strength)} | column_means(of_strength, MEASURES)
        for one, of_strength in rows.items()
    }


def _blends(raw: MeasuredView, fixed: MeasuredView, strengths: Sequence[float]) -> Iterator[Image]:
    assert (raw.timestamp, raw.camera) == (fixed.timestamp, fixed.camera), "views in another order"
    change = fixed.given - raw.given
    for strength in strengths:
        yield np.clip(raw.given + np.float32(strength) * change, 0, 1)


def _row(strength: float, means: Mapping[str, Any]) -> Measures:
    return {"strength": strength} | {name: means[name] for name in COLUMNS[1:]}
