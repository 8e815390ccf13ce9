"""Tables of the report: cells with their text and sort key."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.pages.report.costs import StageCost, total
from stages.pages.report.results import Results, Row
from stages.quality.keys import (
    ALIGNED,
    COLOR_CORRECTED,
    CROPPED,
    MASKED,
    MEASURED,
    MEASURES,
    better,
)
from stages.quality.paired_differences import MEAN
from stages.run.methods import PLAIN

_PLAIN_TITLES = {"mean_color_psnr": "mean colour, dB"}
FORMS = {"psnr": ".2f", "ssim": ".4f", "lpips": ".4f"}
TITLES = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS"}
_COMPARED = (*MEASURES, "psnr_aligned")
_SHOWN = (*MEASURED, "mean_color_psnr")


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
    """
    if metric in CROPPED:
        return _with_unit(metric, f"{metric.removeprefix('crop_').upper()} of people")
    if metric == COLOR_CORRECTED:
        return _with_unit(metric, "PSNR colour-corrected")
    kind, masked = metric.removesuffix("_aligned"), metric in MASKED
    name = ("m" if masked else "") + kind.removeprefix("m" if masked else "").upper()
    aligned = " aligned" if metric in ALIGNED else ""
    return _with_unit(metric, f"{name}{aligned}")


def _with_unit(metric: str, title: str) -> str:
    return f"{title}, dB" if "psnr" in metric else title


def number(value: float | None, form: str, style: str = "") -> Cell:
    """The cell of a number; missing ones sort last."""
    if value is None:
        return Cell("\N{EN DASH}", "", style)
    return Cell(minus(format(value, form)), value, style)


def minus(text: str) -> str:
    """A text with true minus signs, as wide as the plus."""
    return text.replace("-", "\N{MINUS SIGN}")


def style_of(metric: str, difference: float, low: float | None, high: float | None) -> str:
    """`good` or `bad` if the interval excludes zero, else `open`.

    >>> style_of("lpips", -0.04, -0.05, -0.03), style_of("psnr", 0.1, -0.1, 0.3)
    ('good', 'open')
    """
    if low is None or high is None or low <= 0 <= high:
        return "open"
    return "good" if difference * better(metric) > 0 else "bad"


def methods_table(results: Results) -> Table:
    """Means over the downstream scenes; the best of each column is highlighted."""
    metrics = [name for name in MEASURED if any(row[name] is not None for row in _rows(results))]
    best = {
        name: max(row[name] * better(name) for row in _rows(results) if row[name] is not None)
        for name in metrics
    }
    rows = []
    for method in results.study.methods:
        row = results.means[method]
        cells = [Cell(method, method, "method")]
        for name in metrics:
            won = row[name] is not None and row[name] * better(name) == best[name]
            cells.append(number(row[name], form_of(name), "best" if won else ""))
        rows.append(tuple(cells))
    titles = tuple(title_of(name) for name in metrics)
    return Table(("method", *titles), tuple(rows), frozenset(titles), "methods")


def deltas_table(results: Results) -> Table:
    """One row per comparison: differences over the downstream scenes, with intervals."""
    count = len(results.downstream)
    means = [row for row in results.deltas if row["scene"] == MEAN]
    known = {(row["comparison"], row["metric"]): row for row in means}
    metrics = [name for name in _COMPARED if name in {metric for _, metric in known}]
    rows = []
    for comparison in dict.fromkeys(name for name, _ in known):
        cells = [Cell(comparison.replace("_vs_", " \N{MINUS SIGN} "), comparison, "method")]
        for metric in metrics:
            row = known.get((comparison, metric))
            cells.append(_difference(row, count) if row else number(None, ""))
        rows.append(tuple(cells))
    titles = tuple(title_of(metric) for metric in metrics)
    return Table(("comparison", *titles), tuple(rows), frozenset(titles), "deltas")


def scenes_table(results: Results) -> Table:
    """Every scene by every method."""
    gain = "gain over none, dB" if PLAIN in results.study.methods else ""
    titles = [*(title_of(name) for name in _COMPARED), *([gain] if gain else [])]
    rows = []
    for scene in results.evaluations.scenes:
        plain = results.evaluations.of(scene, PLAIN).means if gain else {}
        for method in results.evaluations.methods:
            means = results.evaluations.of(scene, method).means
            cells = [Cell(scene, scene), Cell(_role(results, scene)), Cell(method, method)]
            cells += [number(means[name], form_of(name)) for name in _COMPARED]
            if gain:
                difference = means["psnr"] - plain["psnr"]
                cells.append(number(difference, "+.2f", _sign(difference)))
            rows.append(tuple(cells))
    return Table(("scene", "role", "method", *titles), tuple(rows), frozenset(titles), "scenes")


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


def costs_table(rows: Sequence[StageCost]) -> Table:
    """Costs of the stages; the last row is their sum."""
    columns = (
        "stage",
        "items",
        "time, s",
        "GPU time, s",
        "energy, Wh",
        "memory, GiB",
        "GPU memory, GiB",
        "device",
    )
    cells = tuple(
        (
            Cell(row.stage, row.stage),
            number(row.items, "d"),
            number(row.seconds, ".1f"),
            number(row.gpu_seconds, ".1f"),
            number(row.energy_wh, ".2f"),
            number(row.peak_memory_gib, ".2f"),
            number(row.gpu_peak_memory_gib, ".2f"),
            Cell(", ".join(row.devices)),
        )
        for row in [*rows, total(rows)]
    )
    return Table(columns, cells, frozenset(columns[1:-1]), "costs")


def plain_tables(name: str, results: Mapping[str, Row]) -> list[Table]:
    """Results of another workflow: their measures, and all other numbers one below the other.

    A set of views such as `eval` in `eval.psnr` is a row of its own.
    """
    rows: dict[str, dict[str, Any]] = {}
    for item, row in results.items():
        for key, value in row.items():
            before, _, last = key.rpartition(".")
            if value not in (None, ""):
                rows.setdefault(f"{item} {before}".strip(), {})[last] = value
    measured = {item: row for item, row in rows.items() if set(_SHOWN) & row.keys()}
    return [*_measures_table(name, measured), *_details_table(name, rows)]


def _measures_table(name: str, rows: Mapping[str, Row]) -> Iterator[Table]:
    """One row per result, without measures that none of them has."""
    kept = [key for key in ("views", *_SHOWN) if any(key in row for row in rows.values())]
    titles = tuple(plain_title(key) for key in kept)
    cells = tuple(
        (Cell(item, item, "text"), *(_any(key, row.get(key)) for key in kept))
        for item, row in rows.items()
    )
    if rows:
        caption = (
            f"Measures of {name}, means over views. m: over the pixels that the training cameras "
            "see, or of a mask. Mean colour: an image of one colour, as a lower reference."
        )
        yield Table(("result", *titles), cells, frozenset(titles), f"{name}-measures", caption)


def _details_table(name: str, rows: Mapping[str, Row]) -> Iterator[Table]:
    """Quantities that are no measures, one per row."""
    cells = tuple(
        (Cell(item, item, "text"), Cell(plain_title(key), key, "text"), _any(key, value))
        for item, row in rows.items()
        for key, value in row.items()
        if key not in ("views", *_SHOWN)
    )
    if cells:
        caption = f"Counts, calibration and protocols of {name}"
        yield Table(("result", "quantity", "value"), cells, frozenset(), f"{name}-details", caption)


def plain_title(key: str) -> str:
    """A key as a heading.

    >>> plain_title("test.psnr_aligned"), plain_title("without_pose")
    ('test PSNR aligned, dB', 'without pose')
    """
    before, _, last = key.rpartition(".")
    title = _PLAIN_TITLES.get(last, last.replace("_", " "))
    title = title_of(last) if last in MEASURED else title
    return f"{before} {title}".strip()


def _rows(results: Results) -> Iterator[Row]:
    return (results.means[method] for method in results.study.methods)


def _difference(row: Row, count: int) -> Cell:
    """A difference; below it the interval, the number of improved scenes and the p-value."""
    form = "+" + form_of(row["metric"])
    style = style_of(row["metric"], row["difference"], row["low"], row["high"])
    interval = ""
    if row["low"] is not None and row["high"] is not None:
        interval = f"{row['low']:{form}} to {row['high']:{form}}, "
    detail = minus(f"{interval}{row['won']:g}/{count}, p {row['sign_flip_p']:.3g}")
    return Cell(minus(f"{row['difference']:{form}}"), row["difference"], style, detail)


def _role(results: Results, scene: str) -> str:
    study = results.study
    roles = {
        "tuning": study.tuning_scenes,
        "internal eval": study.internal_eval_scenes,
        "downstream": study.downstream_scenes,
    }
    return next((role for role, scenes in roles.items() if scene in scenes), "")


def _sign(difference: float) -> str:
    return "good" if difference > 0 else "bad" if difference < 0 else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _any(key: str, value: Any) -> Cell:
    if _is_number(value):
        form = form_of(key) if key in _SHOWN else ".6g"
        return Cell(minus(format(value, form)), value)
    return Cell("\N{EN DASH}") if value is None else Cell(str(value), "", "text")
