"""Blends of raw and fixed renders: what a fixer gives at a part of its strength.

A blend is `raw + strength * (fixed - raw)` of two stored renders of one view, with values in
[0, 1]; it is measured and not stored.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from stages.quality.evaluation import Image, MeasuredView, Measures, Meter, means_of
from stages.quality.keys import CROPPED, MEASURES
from stages.run.methods import PLAIN

_MEASURED = (*MEASURES, *CROPPED)
COLUMNS = ["strength", "views", *_MEASURED]
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
    start = {RAW: means[PLAIN]} if PLAIN in means else {}
    inner = [one for one in strengths if one not in {FULL, *start}]
    fixed = {method: views_of(method) for method in means if method != PLAIN}
    blended = _measured(views_of(PLAIN), fixed, inner, meter) if fixed and inner else {}
    rows = {}
    for method, of_method in means.items():
        if method == PLAIN:
            rows[method] = [_row(RAW, of_method)]
            continue
        known = start | {one: blended[method, one] for one in inner} | {FULL: of_method}
        rows[method] = [_row(one, known[one]) for one in strengths]
    return rows


def _measured(
    raw: Iterable[MeasuredView],
    fixed: Mapping[str, Iterable[MeasuredView]],
    strengths: Sequence[float],
    meter: Meter,
) -> dict[tuple[str, float], Measures]:
    """Means over the views by method and strength; what is of the ground truth is computed once."""
    rows: dict[tuple[str, float], list[Measures]] = {key: [] for key in product(fixed, strengths)}
    for before, *after in zip(raw, *fixed.values(), strict=True):
        blends = (_blend(before, one, strength) for one, strength in product(after, strengths))
        measured = meter.measure_others(before, blends)
        for of_key, row in zip(rows.values(), measured, strict=True):
            of_key.append(row)
    return {
        key: {"views": len(of_key)} | means_of(of_key, _MEASURED) for key, of_key in rows.items()
    }


def _blend(raw: MeasuredView, fixed: MeasuredView, strength: float) -> Image:
    assert (raw.timestamp, raw.camera) == (fixed.timestamp, fixed.camera), "views in another order"
    return np.clip(raw.given + np.float32(strength) * (fixed.given - raw.given), 0, 1)


def _row(strength: float, means: Mapping[str, Any]) -> Measures:
    return {"strength": strength} | {name: means[name] for name in COLUMNS[1:]}
