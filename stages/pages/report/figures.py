"""Charts and headline of the report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.pages.report.charts import (
    Interval,
    Series,
    interval_plot,
    interval_strip,
    line_chart,
)
from stages.pages.report.results import Cells, Results, Row
from stages.pages.report.tables import (
    STYLES,
    TITLES,
    form_of,
    least_of,
    minus,
    style_of,
    title_of,
)
from stages.quality.findings import DIFFERENCE, GAIN, LOSS, NOT_SHOWN
from stages.quality.keys import CROPPED, FURTHER, MEASURES, NONE_MEAN, better
from stages.quality.paired_differences import MEAN
from stages.run.methods import PLAIN
from stages.run.plurals import counted


@dataclass(frozen=True)
class Card:
    """One difference of the headline."""

    measure: str
    difference: str
    interval: str
    won: str
    style: str
    word: str  # gain, loss, difference or no difference shown
    reason: str  # why none is shown; else empty
    strip: str  # SVG
    people: str  # the same measure on the people's box; empty where it was not measured


@dataclass(frozen=True)
class Comparison:
    """The cards of one method against another, each at its strength."""

    method: str
    strength: str
    reference: str
    reference_strength: str  # empty for what has none
    purpose: str  # what the difference measures
    cards: tuple[Card, ...]
    same_as: str = ""  # a reference with the same images, whose cards hold for this one


@dataclass(frozen=True)
class Chart:
    """A chart with its caption and the names of its lines."""

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()  # name, style


def headline(results: Results, confidence: float) -> list[Comparison]:
    """The study's subject against each of its references, all at their chosen strengths."""
    method, strengths = results.judged, results.strengths
    comparisons: list[Comparison] = []
    for reference, entry in results.headline.items():
        earlier = [one.reference for one in comparisons]
        same_as = next((one for one in earlier if results.headline[one] == entry), "")
        comparisons.append(
            Comparison(
                method,
                f"{strengths[method]:g}",
                reference,
                f"{strengths[reference]:g}" if reference in strengths else "",
                _purpose(results, reference),
                () if same_as else tuple(_cards(results, reference, entry, confidence)),
                same_as,
            )
        )
    return comparisons


def _purpose(results: Results, reference: str) -> str:
    if reference == PLAIN:
        return "what the fixer adds to the plain splat"
    if reference != NONE_MEAN:
        return "what tuning adds to the untuned fixer"
    count = results.noise_floor.get("trainings", 2)
    more = counted(count - 1, "more training")
    return f"the mean of the renders of {count} trainings: what {more} of a scene gives instead"


def delta_charts(results: Results) -> list[Chart]:
    """One interval plot per measure over all comparisons, of whole images and of people."""
    charts = []
    for metric in (*MEASURES, *FURTHER, *CROPPED):
        means = [row for row in results.deltas if (row["scene"], row["metric"]) == (MEAN, metric)]
        rows = [_interval(results, *row["comparison"].split("_vs_"), metric) for row in means]
        if rows:
            title = f"{title_of(metric)}: {'less' if better(metric) < 0 else 'more'} is better"
            form = f"+{form_of(metric)}"
            svg = interval_plot(rows, f"differences in {title}", form, title_of(metric))
            charts.append(Chart(title, svg))
    return charts


def frontier_charts(results: Results) -> Iterator[Chart]:
    """LPIPS over PSNR and over SSIM along the strength, means over the downstream scenes."""
    rows = [row for row in results.frontier if row["scene"] == MEAN and row["lpips"] is not None]
    methods = [name for name in dict.fromkeys(row["method"] for row in rows) if name != PLAIN]
    for metric in ("psnr", "ssim"):
        lines = []
        for index, method in enumerate(methods):
            of_method = [row for row in rows if row["method"] == method]
            shares = [row["strength"] for row in of_method]
            chosen = results.strengths.get(method)
            lines.append(
                Series(
                    method,
                    [(row[metric], row["lpips"]) for row in of_method],
                    f"time{index % 4}",
                    [f"{method}, strength {share:g}" for share in shares],
                    shares.index(chosen) if chosen in shares else None,
                    f"{shares[-1]:g}",
                )
            )
        if lines:
            title = f"LPIPS (less is better) over {TITLES[metric]} (more is better)"
            svg = line_chart(lines, title, TITLES[metric], "LPIPS", dots=True)
            yield Chart(title, svg, tuple((_legend(results, one.name), one.style) for one in lines))


def _legend(results: Results, method: str) -> str:
    chosen = results.strengths.get(method)
    return method if chosen is None else f"{method} (ring: {chosen:g})"


def training_charts(results: Results) -> Iterator[Chart]:
    """Curves of every scene's training."""
    for scene, rows in results.curves.items():
        if rows:
            svg = line_chart(_by_timestamp(rows, "loss"), f"training loss of {scene}", y="loss")
            yield Chart(f"Training loss of {scene}, by timestamp", svg, _times(rows))


def tuning_charts(results: Results) -> Iterator[Chart]:
    """Curves of the tuning; none without one."""
    if not results.tuning_loss:
        return
    loss = [_series(results.tuning_loss, "step", "loss", "tuning loss", "tuned")]
    yield Chart("Tuning: loss", line_chart(loss, "loss of the tuning", y="loss"))
    for metric in MEASURES:
        rows = [row for row in results.tuning_validation if row[metric]]
        if not rows:
            continue
        lines = [
            _series(rows, "step", metric, "tuned fixer", "tuned"),
            _series(rows, "step", f"identity_{metric}", "its input", "plain"),
        ]
        legend = (("tuned fixer", "tuned"), ("its input", "plain"))
        title = f"Tuning: {TITLES[metric]} on internal-eval samples"
        yield Chart(title, line_chart(lines, title, y=TITLES[metric]), legend)


def _cards(results: Results, reference: str, entry: Row, confidence: float) -> Iterator[Card]:
    for metric in MEASURES:
        mean = entry[MEAN]
        if mean.get(metric) is None:
            continue
        one, form = _of_headline(results.judged, reference, entry, metric), form_of(metric)
        reach = "no interval from one scene"
        if one.low is not None and one.high is not None:
            reach = f"{confidence:.0%} t interval {_ends(one, form)}"
        found = mean[f"{metric}_is"]
        is_named = found in (GAIN, LOSS, DIFFERENCE)
        yield Card(
            TITLES[metric],
            minus(f"{one.mean:+{form}}"),
            reach,
            f"{mean[f'{metric}_scenes_improved']:g}/{len(results.downstream)}",
            one.style,
            found if is_named else NOT_SHOWN,
            "" if is_named else found,
            interval_strip(one, f"+{form}"),
            _on_people(results.judged, reference, entry, metric),
        )


def _on_people(method: str, reference: str, entry: Row, metric: str) -> str:
    """Such as `+0.21, 0.10 to 0.32: gain`."""
    name = f"crop_{metric}"
    if entry[MEAN].get(name) is None:
        return ""
    one, form = _of_headline(method, reference, entry, name), form_of(name)
    ends = "" if one.low is None else f" ({_ends(one, form)})"
    return minus(f"{one.mean:+{form}}") + f"{ends}: {entry[MEAN][f'{name}_is']}"


def _ends(one: Interval, form: str) -> str:
    return minus(f"{one.low:+{form}} to {one.high:+{form}}")


def _of_headline(method: str, reference: str, entry: Row, metric: str) -> Interval:
    mean: Mapping[str, Any] = entry[MEAN]
    return Interval(
        f"{method} \N{MINUS SIGN} {reference}",
        mean[metric],
        mean[f"{metric}_t_low"],
        mean[f"{metric}_t_high"],
        [(scene, of[metric]) for scene, of in entry.items() if scene != MEAN],
        STYLES.get(mean[f"{metric}_is"], "open"),
    )


def _interval(results: Results, method: str, reference: str, metric: str) -> Interval:
    *scenes, mean = results.delta_rows(method, reference, metric)
    return Interval(
        f"{method} \N{MINUS SIGN} {reference}",
        mean["difference"],
        mean["low"],
        mean["high"],
        [(row["scene"], row["difference"]) for row in scenes],
        style_of(metric, mean["difference"], mean["low"], mean["high"], least_of(results, mean)),
    )


def _series(rows: Sequence[Cells], x: str, y: str, name: str, style: str) -> Series:
    return Series(name, [(float(row[x]), float(row[y])) for row in rows if row[y]], style)


def _groups(rows: Sequence[Cells]) -> Mapping[str, list[Cells]]:
    groups: dict[str, list[Cells]] = {}
    for row in rows:
        groups.setdefault(row["timestamp"], []).append(row)
    return groups


def _by_timestamp(rows: Sequence[Cells], y: str) -> list[Series]:
    return [
        _series(part, "step", y, timestamp, f"time{index % 4}")
        for index, (timestamp, part) in enumerate(_groups(rows).items())
    ]


def _times(rows: Sequence[Cells]) -> tuple[tuple[str, str], ...]:
    return tuple((name, f"time{index % 4}") for index, name in enumerate(list(_groups(rows))[:4]))
