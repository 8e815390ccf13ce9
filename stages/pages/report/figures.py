"""Charts and headline of the report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from stages.pages.report.charts import (
    Interval,
    Series,
    interval_plot,
    interval_strip,
    line_chart,
)
from stages.pages.report.results import Cells, Results
from stages.pages.report.tables import TITLES, floor_of, form_of, minus, style_of, title_of
from stages.quality.findings import BELOW, DIFFERENCE, GAIN, LOSS, finding
from stages.quality.keys import CROPPED, FURTHER, MEASURES, NONE_MEAN, better
from stages.quality.paired_differences import MEAN
from stages.run.methods import PLAIN

_UNDECIDED = "undecided"
# Of what a difference is by the rule of all outputs; of anything else nothing is shown.
_WORDS = {GAIN: "better", LOSS: "worse", DIFFERENCE: "different", BELOW: "below noise"}


@dataclass(frozen=True)
class Card:
    """One difference of the headline."""

    measure: str
    difference: str
    interval: str
    won: str
    style: str
    word: str
    strip: str  # SVG
    people: str  # the same measure on the people's box; empty where it was not measured


@dataclass(frozen=True)
class Comparison:
    """The cards of one method against another."""

    method: str
    reference: str
    meaning: str  # what the reference is
    purpose: str  # what the difference measures
    cards: tuple[Card, ...]

    @property
    def words(self) -> str:
        """Such as `better in PSNR and LPIPS, undecided in SSIM`."""
        parts = []
        for word in (*_WORDS.values(), _UNDECIDED):
            names = [card.measure.partition(",")[0] for card in self.cards if card.word == word]
            if names:
                *others, last = names
                listed = f"{', '.join(others)} and {last}" if others else last
                parts.append(f"{word} in {listed}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Chart:
    """A chart with its caption and the names of its lines."""

    title: str
    svg: str
    legend: tuple[tuple[str, str], ...] = ()  # name, style


def headline(results: Results, confidence: float) -> list[Comparison]:
    """The subject against the plain splat and against the untuned fixer."""
    method = results.study.subject
    references = {PLAIN: ("the plain splat", "what the fixer adds to the plain splat")}
    untuned = results.untuned(method)
    if untuned:
        references[untuned] = ("the untuned fixer", "what tuning adds to the untuned fixer")
    equal_compute = "what the fixer adds to a baseline of equal compute"
    references[NONE_MEAN] = ("the mean of several plain splats", equal_compute)
    comparisons = [
        Comparison(method, reference, *words, tuple(_cards(results, method, reference, confidence)))
        for reference, words in references.items()
    ]
    return [one for one in comparisons if one.cards]


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
            yield Chart(title, svg, tuple((one.name, one.style) for one in lines))


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


def _cards(results: Results, method: str, reference: str, confidence: float) -> Iterator[Card]:
    count = len(results.downstream)
    for metric in MEASURES:
        row = results.mean_delta(method, reference, metric)
        if row is None:
            continue
        one, form = _interval(results, method, reference, metric), form_of(metric)
        reach = "no interval from one scene"
        if one.low is not None and one.high is not None:
            reach = f"{confidence:.0%} t interval {_ends(one, form)}"
        yield Card(
            TITLES[metric],
            minus(f"{one.mean:+{form}}"),
            reach,
            f"{row['won']:g}/{count}",
            one.style,
            _word(results, one, metric),
            interval_strip(one, f"+{form}"),
            _on_people(results, method, reference, metric),
        )


def _on_people(results: Results, method: str, reference: str, metric: str) -> str:
    """Such as `+0.21, 0.10 to 0.32: better`."""
    name = f"crop_{metric}"
    if results.mean_delta(method, reference, name) is None:
        return ""
    one, form = _interval(results, method, reference, name), form_of(name)
    ends = "" if one.low is None else f" ({_ends(one, form)})"
    return minus(f"{one.mean:+{form}}") + f"{ends}: {_word(results, one, name)}"


def _ends(one: Interval, form: str) -> str:
    return minus(f"{one.low:+{form}} to {one.high:+{form}}")


def _word(results: Results, one: Interval, metric: str) -> str:
    floor = floor_of(metric, results.least(metric))
    return _WORDS.get(finding(metric, one.mean, one.low, one.high, floor), _UNDECIDED)


def _interval(results: Results, method: str, reference: str, metric: str) -> Interval:
    *scenes, mean = results.delta_rows(method, reference, metric)
    return Interval(
        f"{method} \N{MINUS SIGN} {reference}",
        mean["difference"],
        mean["low"],
        mean["high"],
        [(row["scene"], row["difference"]) for row in scenes],
        style_of(metric, mean["difference"], mean["low"], mean["high"], results.least(metric)),
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
