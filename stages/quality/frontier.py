"""Methods at equal SSIM and at equal PSNR: their frontiers of LPIPS along a fixer's strength.

Full strength is one point of a method, and another strength another trade of PSNR and SSIM against
LPIPS. So a method's curve over all strengths is compared: the best LPIPS that it gives at a PSNR
(SSIM) of at least some level. PSNR and SSIM may rise and then fall along the strength, so LPIPS is
no function of either; the three are interpolated over the strength, by cubic splines.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import CubicSpline

from stages.quality.blends import COLUMNS, FULL
from stages.quality.comparison import Evaluations
from stages.quality.findings import DIFFERENCE, GAIN, LOSS, ONE_SCENE, finding
from stages.quality.keys import MEASURES, better
from stages.quality.paired_differences import MEAN, comparisons_of
from stages.quality.statistics import column_means, t_interval
from stages.run.errors import UserError
from stages.run.files import read_table
from stages.run.methods import PLAIN

LEVELS = ("ssim", "psnr")  # what methods are equal in
AT_EQUAL = tuple(f"lpips_at_{level}" for level in LEVELS)
DOMINATES, DOMINATED, TRADES = "dominates", "is dominated", "trades"
UNSHOWN, UNMEASURED = "no difference shown", "LPIPS was not measured"
APART = "no common range"
GAINS_IN_PART, LOSES_IN_PART = "gains in part", "loses in part"
VERDICTS = (DOMINATES, DOMINATED, TRADES, GAINS_IN_PART, LOSES_IN_PART)
TABLE_COLUMNS = ["scene", "method", "strength", *MEASURES]
_STEPS = 1000  # of the strength, between which the curves are straight
_COMMON = 101  # levels in the range that two methods share
_AGAIN = "run `dvc repro -f evaluate`"
_EQUAL = 1e-9  # of PSNR and SSIM, that floating point may separate

Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Curve:
    """PSNR, SSIM and LPIPS of one scene's renders by strength; of the plain splat one point."""

    strengths: Vector  # [N], rising from 0
    measures: Mapping[str, Vector]  # [N] each

    @classmethod
    def of(cls, strengths: ArrayLike, **measures: ArrayLike) -> "Curve":
        """A curve through points that are listed by strength."""
        arrays = {name: np.asarray(values, np.float64) for name, values in measures.items()}
        return cls(np.asarray(strengths, np.float64), arrays)

    def best(self, by: str, levels: ArrayLike) -> Vector:
        """The lowest LPIPS at a PSNR or SSIM of at least each level; infinite where none is.

        >>> curve = Curve.of([0, 0.5, 1], ssim=[0.8, 0.9, 0.8], lpips=[0.3, 0.2, 0.1])
        >>> [round(float(one), 4) for one in curve.best("ssim", [0.8, 0.9, 0.95])]
        [0.1, 0.2, inf]
        """
        level = np.asarray(levels, np.float64)[:, None]
        x, y = self._dense[by], self._dense["lpips"]
        reached = np.where(x >= level, y, np.inf).min(axis=1)
        # Where the level is crossed between two strengths, LPIPS is that of the crossing.
        left, right = x[:-1] - level, x[1:] - level
        crossed = left * right < 0
        share = left / np.where(crossed, left - right, 1)
        crossing = np.where(crossed, y[:-1] + share * (y[1:] - y[:-1]), np.inf)
        return np.minimum(reached, crossing.min(axis=1, initial=np.inf))

    def lowest(self, by: str) -> float:
        """The lowest PSNR or SSIM of any strength."""
        return float(self._dense[by].min())

    def highest(self, by: str) -> float:
        """The highest PSNR or SSIM of any strength."""
        return float(self._dense[by].max())

    def start(self, by: str) -> float:
        """PSNR or SSIM of the raw renders."""
        return float(self.measures[by][0])

    def thinned(self) -> "Curve":
        """The curve through every other point and the last one."""
        kept = sorted({*range(0, len(self.strengths), 2), len(self.strengths) - 1})
        return Curve(self.strengths[kept], {key: of[kept] for key, of in self.measures.items()})

    @cached_property
    def _dense(self) -> Mapping[str, Vector]:
        """The measures at many strengths; given points are exact."""
        if len(self.strengths) == 1:
            return self.measures
        steps = np.union1d(np.linspace(0, self.strengths[-1], _STEPS + 1), self.strengths)
        dense = {name: CubicSpline(self.strengths, of)(steps) for name, of in self.measures.items()}
        for name, values in dense.items():
            values[np.searchsorted(steps, self.strengths)] = self.measures[name]
        return dense


class Frontiers:
    """The curve of every evaluated scene by every method."""

    def __init__(self, points: Mapping[tuple[str, str], Sequence[Mapping[str, Any]]]):
        """`points` by scene and method: rows of metrics/frontier/<scene>/<method>.tsv."""
        self._points = points
        self.methods = tuple(dict.fromkeys(method for _, method in points))

    @classmethod
    def read(cls, evaluations: Evaluations, file_of: Callable[[str, str], Path]) -> "Frontiers":
        """Read the tables of stage `evaluate`.

        Raises UserError for a missing or broken table, one that is not of the evaluation beside
        it, and one of other strengths than the method's first table has.
        """
        points: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for method in evaluations.methods:
            for scene in evaluations.scenes:
                path, means = file_of(scene, method), evaluations.of(scene, method).means
                rows = read_table(path, set())
                last = rows[-1] if rows else {}
                last = {name: last[name] for name in COLUMNS[2:] if name in last}
                if last != {name: means[name] for name in COLUMNS[2:]}:
                    raise UserError(
                        path,
                        f"{last} in the last row",
                        expected=f"the columns {', '.join(COLUMNS)}, and at the last strength the "
                        f"means of {scene} by {method}",
                        fix=_AGAIN,
                    )
                _check_rows(rows, path, points.get((evaluations.scenes[0], method), rows))
                points[scene, method] = rows
        every = [(scene, one) for scene in evaluations.scenes for one in evaluations.methods]
        return cls({key: points[key] for key in every})

    def at(self, scene: str, method: str, strength: float) -> Mapping[str, Any]:
        """A method's measures in a scene at one of the strengths."""
        return next(row for row in self._points[scene, method] if row["strength"] == strength)

    def curve(self, scene: str, method: str) -> Curve | None:
        """The curve of a method; None where a measure is missing."""
        rows = self._points[scene, method]
        columns = {name: [row[name] for row in rows] for name in MEASURES}
        if any(None in column for column in columns.values()):
            return None
        return Curve.of([row["strength"] for row in rows], **columns)

    def choose_strengths(self, scenes: Sequence[str]) -> dict[str, float]:
        """Of every method with a fixer the first strength of the highest mean PSNR over `scenes`.

        Full strength when none of them is evaluated. Raises UserError without their PSNR.
        """
        chosen = {}
        for method in self.methods:
            if method == PLAIN:
                continue
            ranked = _ranked(self._mean_psnr(method, scenes))
            chosen[method] = ranked[0] if ranked else FULL
        return chosen

    def chosen(self, method: str, scenes: Sequence[str]) -> dict[str, Any]:
        """A method's strength of `choose_strengths` and what chose it, for metrics/delta.json.

        `strength_second` has the strength of the second highest mean PSNR and by how many dB it is
        behind, `margin`; None where nothing was chosen. `strength` is None of the plain splat.
        """
        means = self._mean_psnr(method, scenes) if method != PLAIN else {}
        best, *others = _ranked(means) or [None if method == PLAIN else FULL]
        second = None
        if others:
            margin = round(means[best] - means[others[0]], 6)
            second = {"strength": others[0], "margin": margin}
        return {
            "strength": best,
            "strength_chosen_on": ", ".join(scenes),
            "strength_second": second,
        }

    def _mean_psnr(self, method: str, scenes: Sequence[str]) -> dict[float, float]:
        """Mean PSNR over those of `scenes` that were evaluated, by strength."""
        found: dict[float, list[float]] = {}
        for scene in scenes:
            for row in self._points.get((scene, method), ()):
                if row["psnr"] is None:
                    raise UserError(
                        f"{scene} by {method}",
                        "no PSNR was measured",
                        expected="PSNR of the internal-eval scenes, which chooses the strength",
                        fix=f"take {scene} out of study.internal_eval_scenes",
                    )
                found.setdefault(row["strength"], []).append(row["psnr"])
        return {strength: float(np.mean(values)) for strength, values in found.items()}

    def table(self, scenes: Sequence[str]) -> list[dict[str, Any]]:
        """Rows of metrics/plots/frontier.tsv: every scene, and the mean over `scenes`."""
        rows = [
            {"scene": scene, "method": method} | {key: row[key] for key in TABLE_COLUMNS[2:]}
            for (scene, method), points in self._points.items()
            for row in points
        ]
        for method in self.methods:
            for points in zip(*(self._points[scene, method] for scene in scenes), strict=True):
                row = {"scene": MEAN, "method": method, "strength": points[0]["strength"]}
                rows.append(row | column_means(points, MEASURES))
        return rows


def _ranked(means: Mapping[float, float]) -> list[float]:
    """Strengths by their mean PSNR, the highest first, of equal ones the first."""
    return sorted(means, key=lambda one: -means[one])


def _check_rows(
    rows: Sequence[Mapping[str, Any]], path: Path, first: Sequence[Mapping[str, Any]]
) -> None:
    """Raise UserError for rows without the strengths of `first`, or with gaps in a measure."""
    strengths, wanted = ([row.get("strength") for row in of] for of in (rows, first))
    if None in strengths or strengths != sorted(set(strengths)) or strengths != wanted:
        raise UserError(
            path,
            f"strengths {strengths}",
            expected=f"rising strengths, in all scenes the same: {wanted}",
            fix=_AGAIN,
        )
    for name in MEASURES:
        if len({row[name] is None for row in rows}) > 1:
            expected = f"{name} at every strength, or at none"
            raise UserError(path, f"an empty cell of {name}", expected=expected, fix=_AGAIN)


def frontier_metrics(
    frontiers: Frontiers,
    scenes: Sequence[str],
    confidence: float,
    floor: Mapping[str, Any],
) -> dict[str, dict[str, Any]]:
    """Every comparison of `comparisons_of` by scene, in the mean, and as a verdict.

    Args:
        frontiers: Of the scenes and methods.
        scenes: The downstream scenes.
        confidence: Of the intervals over scenes.
        floor: The noise floor of the measures; empty where it was not measured.
    """
    found = {}
    for method, reference in comparisons_of(frontiers.methods):
        curves = [
            (frontiers.curve(scene, method), frontiers.curve(scene, reference)) for scene in scenes
        ]
        key = f"{method}_vs_{reference}"
        if any(None in pair for pair in curves):
            found[key] = {"verdict": UNMEASURED}
        else:
            by_scene = dict(zip(scenes, curves, strict=True))
            found[key] = compare_curves(by_scene, confidence, floor, plain=reference == PLAIN)
    return found


def compare_curves(
    pairs: Mapping[str, tuple[Curve, Curve]],
    confidence: float,
    floor: Mapping[str, Any],
    *,
    plain: bool,
) -> dict[str, Any]:
    """Differences between the curves of a method and its reference, paired over scenes.

    `lpips_at_<level>` is the mean difference of the best LPIPS at equal PSNR or SSIM over the range
    that both reach, None where they share none; `..._of_none` the one at the level of the raw
    renders; `highest_<level>` the difference of the highest PSNR or SSIM; `full_<measure>` that of
    full strength. `common_<level>` is the width of that range, 0 where it is one level, that of the
    raw renders; in the mean, `common_<level>_scenes` counts scenes where it is more. The error of
    interpolation is the largest change in a scene when every other strength is left out; None with
    fewer than three strengths.

    Args:
        pairs: Curves of the method and of the reference, by scene.
        confidence: Of Student's interval over scenes.
        floor: The noise floor of the measures.
        plain: Whether the reference is the plain splat.
    """
    by_scene = {scene: _differences(*pair) for scene, pair in pairs.items()}
    thinned = [_differences(one.thinned(), other.thinned()) for one, other in pairs.values()]
    is_thin = any(len(one.strengths) < 3 for one, _ in pairs.values())
    widths = {scene: _widths(*pair) for scene, pair in pairs.items()}
    mean: dict[str, Any] = {}
    found: dict[str, str] = {}
    for name in next(iter(by_scene.values())):
        values = [of[name] for of in by_scene.values()]
        if None in values:
            mean[name], found[name] = None, APART
            continue
        low, high = t_interval(values, confidence) or (None, None)
        error = None
        if not name.startswith("full_") and not is_thin:
            # Where fewer strengths share no range, nothing is known.
            error = max(abs(a - (b[name] or 0.0)) for a, b in zip(values, thinned, strict=True))
        found[name] = finding(name, float(np.mean(values)), low, high, floor, error)
        mean[name] = _rounded(np.mean(values))
        mean |= {f"{name}_t_low": _rounded(low), f"{name}_t_high": _rounded(high)}
        mean[f"{name}_scenes_improved"] = sum(value * better(name) > 0 for value in values)
        mean[f"{name}_is"] = found[name]
        if name in AT_EQUAL:
            mean[f"{name}_error"] = _rounded(error)
    for level in LEVELS:
        of_level = [of[f"common_{level}"] for of in widths.values()]
        if None not in of_level:
            mean[f"common_{level}"] = _rounded(np.mean(of_level))
            mean[f"common_{level}_scenes"] = sum(width > 0 for width in of_level)
    verdict = _against_plain(found) if plain else _against_fixer(found)
    rounded = {
        scene: {name: _rounded(value) for name, value in (of | widths[scene]).items()}
        for scene, of in by_scene.items()
    }
    return {"verdict": verdict} | rounded | {MEAN: mean}


def _differences(method: Curve, reference: Curve) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for level in LEVELS:
        low, high = _common(method, reference, level)
        if low - high > _EQUAL:
            found |= {f"lpips_at_{level}": None, f"lpips_at_{level}_of_none": None}
            continue
        levels = np.linspace(low, high, _COMMON) if high > low else [high]
        of_none = [min(reference.start(level), high)]
        for name, where in (("", levels), ("_of_none", of_none)):
            gap = method.best(level, where) - reference.best(level, where)
            found[f"lpips_at_{level}{name}"] = float(np.mean(gap))
    for level in LEVELS:
        found[f"highest_{level}"] = method.highest(level) - reference.highest(level)
    for name in MEASURES:
        found[f"full_{name}"] = float(method.measures[name][-1] - reference.measures[name][-1])
    return found


def _common(method: Curve, reference: Curve, level: str) -> tuple[float, float]:
    """Lowest and highest PSNR or SSIM that both curves reach; crossed where there is none."""
    low = max(method.lowest(level), reference.lowest(level))
    return low, min(method.highest(level), reference.highest(level))


def _widths(method: Curve, reference: Curve) -> dict[str, float | None]:
    """`common_<level>` of one scene."""
    found: dict[str, float | None] = {}
    for level in LEVELS:
        low, high = _common(method, reference, level)
        width = high - low if high - low > _EQUAL else 0.0
        found[f"common_{level}"] = None if low - high > _EQUAL else width
    return found


def _against_fixer(found: Mapping[str, str]) -> str:
    """The verdict on two fixers; reaching a higher PSNR or SSIM counts as an advantage."""
    equal = [found[name] for name in AT_EQUAL]
    every = [*equal, *(found[f"highest_{level}"] for level in LEVELS)]
    return _undecided(equal, every) or _verdict(equal, every)


def _against_plain(found: Mapping[str, str]) -> str:
    """The verdict on a fixer and the plain splat, which is each curve's own beginning.

    At equal SSIM and PSNR a curve cannot be worse than its beginning, so a loss is one of full
    strength.
    """
    equal = [found[name] for name in AT_EQUAL]
    full = [found[f"full_{name}"] for name in MEASURES]
    if undecided := _undecided(equal, [*equal, *full]):
        return undecided
    return DOMINATES if set(equal) == {GAIN} else _verdict(full, [*equal, *full])


def _verdict(decisive: Sequence[str], every: Sequence[str]) -> str:
    """From what each difference is; to dominate takes the same of all decisive ones."""
    words = {GAIN, LOSS} & set(every)
    if len(words) == 2:
        return TRADES
    if not words:
        return UNSHOWN
    whole = words == set(decisive)
    if GAIN in words:
        return DOMINATES if whole else GAINS_IN_PART
    return DOMINATED if whole else LOSES_IN_PART


def _undecided(equal: Sequence[str], every: Sequence[str]) -> str | None:
    """Why there is no verdict: curves apart, no noise floor, one scene; None where there is one."""
    if APART in equal:
        return APART
    return next((word for word in (DIFFERENCE, ONE_SCENE) if word in every), None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)
