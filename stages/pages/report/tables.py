"""Tables of the report: cells with their text and sort key."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.pages.report.costs import StageCost, WallTime, total
from stages.pages.report.results import Results, Row
from stages.quality.findings import GAIN, LOSS, finding, measure_of
from stages.quality.keys import (
    ALIGNED,
    COLOR_CORRECTED,
    CROPPED,
    FLICKER,
    FURTHER,
    FURTHER_ALIGNED,
    MASKED,
    MEASURES,
    NONE_MEAN,
    better,
)
from stages.quality.keys import TITLES as NAMES
from stages.quality.paired_differences import MEAN
from stages.run.methods import PLAIN
from stages.run.plurals import counted

_PLAIN_TITLES = {"mean_color_psnr": "mean colour, dB"}
TITLES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS"}
FLAT = "mean_color_psnr"
STYLES = {GAIN: "good", LOSS: "bad"}  # classes of what a difference is; of anything else `open`
_BY_SCENE = (*MEASURES, *FURTHER, FLICKER, "psnr_aligned", "crop_psnr")
# Measures side by side in one table, with its caption.
_GROUPS = {
    "whole": ((*MEASURES, *FURTHER, COLOR_CORRECTED, FLICKER, FLAT), "Whole images"),
    "people": (
        (*CROPPED, *MASKED),
        "People: the box around them, and the pixels of their masks (m)",
    ),
    "aligned": ((*ALIGNED, *FURTHER_ALIGNED), "Whole images, poses aligned to the Gaussians"),
}


@dataclass(frozen=True)
class Cell:
    """One cell: `key` sorts, `style` is a class of the style sheet, `detail` is smaller text."""

    text: str
    key: float | str = ""
    style: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Table:
    """Rows of cells; columns named in `numeric` are right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: frozenset[str]
    id: str = ""
    caption: str = ""
    folded: bool = False  # until a reader opens it
    sums: tuple[tuple[Cell, ...], ...] = ()  # below the rows, not sorted with them


def form_of(metric: str) -> str:
    """The format of a measure.

    >>> form_of("psnr_aligned"), form_of("mlpips")
    ('.2f', '.4f')
    """
    return ".2f" if "psnr" in metric else ".4f"


def title_of(metric: str) -> str:
    """A measure's name with its unit.

    >>> title_of("psnr_aligned"), title_of("mssim"), title_of("crop_psnr"), title_of("cc_psnr")
    ('PSNR aligned, dB', 'mSSIM', 'PSNR of people, dB', 'PSNR colour-corrected, dB')
    >>> title_of("flicker"), title_of("mean_color_psnr"), title_of("lpips_vgg_aligned")
    ('flicker', 'mean colour, dB', 'LPIPS (vgg) aligned')
    """
    if metric in (FLICKER, FLAT):
        return _PLAIN_TITLES.get(metric, metric)
    unit = ", dB" if "psnr" in metric else ""
    if metric == COLOR_CORRECTED:
        return f"PSNR colour-corrected{unit}"
    if metric in MASKED:
        return f"m{NAMES[metric.removeprefix('m')]}{unit}"
    kind = metric.removesuffix("_aligned")
    return NAMES[kind] + (" aligned" if kind != metric else "") + unit


def number(value: float | None, form: str, style: str = "") -> Cell:
    """The cell of a number; missing ones sort last."""
    if value is None:
        return Cell("\N{EN DASH}", "", style)
    return Cell(minus(format(value, form)), value, style)


def minus(text: str) -> str:
    """A text with true minus signs, as wide as the plus."""
    return text.replace("-", "\N{MINUS SIGN}")


def style_of(
    metric: str,
    difference: float,
    low: float | None,
    high: float | None,
    least: float | None = None,
) -> str:
    """`good` for a gain and `bad` for a loss, by the rule of all outputs, else `open`.

    Without a noise floor, `least`, there is neither.

    >>> style_of("lpips", -0.04, -0.05, -0.03, 0.01), style_of("lpips", -0.04, -0.05, -0.03)
    ('good', 'open')
    >>> style_of("psnr", 0.12, 0.1, 0.14, least=0.13)
    'open'
    """
    found = finding(metric, difference, low, high, floor_of(metric, least))
    return STYLES.get(found, "open")


def floor_of(metric: str, least: float | None) -> dict[str, float]:
    """The noise floor of one metric, as `finding` takes it; empty where it was not measured."""
    return {} if least is None else {f"{measure_of(metric)}_least": least}


def least_of(results: Results, row: Row) -> float | None:
    """The noise floor that a row of deltas is judged by; None where there is none.

    Repeats of the plain splat, `seed1` and so on, are what the floor is made from.
    """
    return None if row["comparison"].startswith("seed") else results.least(row["metric"])


def methods_tables(results: Results) -> list[Table]:
    """Means over the downstream scenes, by group; the best of each column is highlighted."""
    shown = [name for name in (*results.study.methods, NONE_MEAN) if name in results.means]
    # The mean colour is the same for all methods.
    means = {
        method: {name: value for name, value in results.means[method].items() if name != FLAT}
        for method in shown
    }
    return [
        _methods_table(means, names, f"methods-{group}", caption)
        for group, caption, names in groups_of(means.values())
    ]


def _methods_table(means: Mapping[str, Row], names: Sequence[str], id_: str, caption: str) -> Table:
    best = {
        name: max(row[name] * better(name) for row in means.values() if row.get(name) is not None)
        for name in names
    }
    rows = []
    for method, row in means.items():
        cells = [Cell(method, method, "method")]
        for name in names:
            value = row.get(name)
            won = value is not None and value * better(name) == best[name]
            cells.append(number(value, form_of(name), "best" if won else ""))
        rows.append(tuple(cells))
    titles = tuple(title_of(name) for name in names)
    return Table(("method", *titles), tuple(rows), frozenset(titles), id_, caption)


def groups_of(rows: Iterable[Row]) -> Iterator[tuple[str, str, list[str]]]:
    """(group, caption, measures) of the groups that any row has."""
    rows = list(rows)
    for group, (names, caption) in _GROUPS.items():
        known = [name for name in names if any(row.get(name) is not None for row in rows)]
        if known:
            yield group, caption, known


def deltas_tables(results: Results) -> list[Table]:
    """One row per comparison: differences over the downstream scenes, with intervals."""
    means = [row for row in results.deltas if row["scene"] == MEAN]
    known = {(row["comparison"], row["metric"]): row for row in means}
    return [
        _deltas_table(results, known, names, f"deltas-{group}", caption)
        for group, caption, names in groups_of([{metric: True for _, metric in known}])
    ]


def full_strength_table(results: Results) -> Table | None:
    """The subject against its references at full strength; None where that is its strength."""
    subject = results.judged
    if results.strengths.get(subject, 1) == 1:
        return None
    means = [row for row in results.deltas if row["scene"] == MEAN]
    known = {
        (row["comparison"], row["metric"]): row
        for row in means
        if row["comparison"].startswith(f"{subject}_vs_")
    }
    names = [name for name in MEASURES if any(name == metric for _, metric in known)]
    return _deltas_table(results, known, names, "full-strength", "At full strength")


def _deltas_table(
    results: Results,
    known: Mapping[tuple[str, str], Row],
    names: Sequence[str],
    id_: str,
    caption: str,
) -> Table:
    rows = []
    for comparison in dict.fromkeys(name for name, _ in known):
        found = [known.get((comparison, name)) for name in names]
        if any(found):
            cells = [_difference(results, row) if row else number(None, "") for row in found]
            title = comparison.replace("_vs_", " \N{MINUS SIGN} ")
            rows.append((Cell(title, comparison, "method"), *cells))
    titles = tuple(title_of(name) for name in names)
    folded = not set(names) & set(MEASURES)
    columns = ("comparison", *titles)
    return Table(columns, tuple(rows), frozenset(titles), id_, caption, folded)


def scenes_table(results: Results) -> Table:
    """Every scene by every method, with what it gains over the plain splat."""
    gain = "gain over none, dB" if PLAIN in results.study.methods else ""
    scenes = {
        scene: {
            method: results.evaluations.of(scene, method).means
            for method in results.evaluations.methods
        }
        | ({NONE_MEAN: results.averages[scene]} if scene in results.averages else {})
        for scene in results.evaluations.scenes
    }
    every = [means for of_scene in scenes.values() for means in of_scene.values()]
    names = [name for name in _BY_SCENE if any(row.get(name) is not None for row in every)]
    rows = []
    for scene, of_scene in scenes.items():
        for method, means in of_scene.items():
            cells = [Cell(scene, scene), Cell(_role(results, scene)), Cell(method, method)]
            cells += [number(means.get(name), form_of(name)) for name in names]
            if gain:
                difference = means["psnr"] - of_scene[PLAIN]["psnr"]
                cells.append(number(difference, "+.2f", _sign(difference)))
            rows.append(tuple(cells))
    titles = [*(title_of(name) for name in names), *([gain] if gain else [])]
    columns = ("scene", "role", "method", *titles)
    caption = f"{counted(len(scenes), 'evaluated scene')} by every method"
    return Table(columns, tuple(rows), frozenset(titles), "scenes", caption, folded=True)


def training_table(results: Results) -> Table:
    """Calibration and training of every scene."""
    columns = {
        "registered": ("cameras", "g"),
        "rotation_error_deg": ("rotation error, \N{DEGREE SIGN}", ".3f"),
        "centre_error_m": ("centre error, m", ".4f"),
        "points": ("points", ".0f"),
        "train_psnr": ("training PSNR, dB", ".2f"),
        "gaussians": ("Gaussians", ".0f"),
    }
    rows = []
    for scene in results.study.scenes:
        metrics = results.calibration.get(scene, {}) | results.training.get(scene, {})
        cells = [Cell(scene, scene), Cell(_role(results, scene))]
        cells += [number(metrics.get(key), form) for key, (_, form) in columns.items()]
        rows.append(tuple(cells))
    titles = tuple(title for title, _ in columns.values())
    return Table(("scene", "role", *titles), tuple(rows), frozenset(titles), "training")


def costs_table(rows: Sequence[StageCost], wall: WallTime | None) -> Table:
    """Costs of the stages; below them their sum, and how it adds up to the wall time."""
    columns = {
        "items": ("items", "d"),
        "seconds": ("time, s", ".1f"),
        "gpu_seconds": ("GPU time, s", ".1f"),
        "energy_wh": ("energy, Wh", ".2f"),
        "peak_memory_gib": ("memory, GiB", ".2f"),
        "gpu_peak_memory_gib": ("GPU memory, GiB", ".2f"),
    }
    whole = total(rows)
    known = {key: column for key, column in columns.items() if getattr(whole, key) is not None}

    def cells(row: StageCost) -> tuple[Cell, ...]:
        numbers = (number(getattr(row, key), form) for key, (_, form) in known.items())
        return Cell(row.stage, row.stage), *numbers, Cell(", ".join(row.devices))

    sums = [cells(whole)]
    if wall:
        times = {
            "of this at the same time": -wall.parallel_s if wall.parallel_s else 0.0,
            "between stages": wall.between_s,
            "wall time": wall.wall_s,
        }
        empty = [Cell("")] * (len(known) - 1)
        sums += [
            (Cell(name), Cell(""), number(seconds, ".1f"), *empty)
            for name, seconds in times.items()
        ]
    titles = tuple(title for title, _ in known.values())
    return Table(
        ("stage", *titles, "device"),
        tuple(map(cells, rows)),
        frozenset(titles),
        "costs",
        "Costs of the stages when they last ran here",
        sums=tuple(sums),
    )


def _difference(results: Results, row: Row) -> Cell:
    """A difference; below it the interval, the number of improved scenes and the p-value."""
    metric, difference = row["metric"], row["difference"]
    form, least = "+" + form_of(metric), least_of(results, row)
    found = finding(metric, difference, row["low"], row["high"], floor_of(metric, least))
    interval = ""
    if row["low"] is not None and row["high"] is not None:
        interval = f"{row['low']:{form}} to {row['high']:{form}}\n"
    detail = f"{interval}{row['won']:g}/{len(results.downstream)}, p {row['sign_flip_p']:.3g}"
    if least is not None:
        detail += f"\n{found}"
    style = STYLES.get(found, "open")
    return Cell(minus(f"{difference:{form}}"), difference, style, minus(detail))


def _role(results: Results, scene: str) -> str:
    study = results.study
    roles = {
        "tuning": (*study.tuning_scenes, *study.tuning_imports),
        "internal eval": (*study.internal_eval_scenes, *study.internal_eval_imports),
        "downstream": study.downstream_scenes,
    }
    return next((role for role, scenes in roles.items() if scene in scenes), "")


def _sign(difference: float) -> str:
    return "good" if difference > 0 else "bad" if difference < 0 else ""
