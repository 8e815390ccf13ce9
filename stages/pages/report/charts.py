"""Line charts and interval plots as SVG.

Colours come from the page's style sheet by class, so that charts follow its dark and light themes.
Text is escaped here; the result is safe in a page.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 380.0, 210.0
_RING_APART = 4.0  # rings whose centres are nearer would hide each other
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 22.0, 32.0


@dataclass(frozen=True)
class Series:
    """Points of one line; `style` is a class of the style sheet."""

    name: str
    points: Sequence[tuple[float, float]]
    style: str
    titles: Sequence[str] = ()  # of the points, shown on hovering
    ringed: int | None = None  # the point with a ring around it
    ends: str = ""  # text beside the last point


@dataclass(frozen=True)
class Interval:
    """A mean, its interval and the values behind it."""

    label: str
    mean: float
    low: float | None
    high: float | None
    values: Sequence[tuple[str, float]]  # name, value
    style: str  # good, bad or open


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers that divide a range into about `count` intervals.

    >>> ticks(0.03, 0.97)
    [0.2, 0.4, 0.6, 0.8]
    >>> ticks(20.9, 21.8, 4)
    [21.0, 21.2, 21.4, 21.6, 21.8]
    """
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= 0.75 * rough)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(step * index, 12) for index in range(first, last + 1)]


def line_chart(
    series: Sequence[Series], label: str, x: str = "step", y: str = "", *, dots: bool = False
) -> str:
    """Lines over one axis, with `dots` at their points; an empty string without points.

    `x` and `y` name the axes, with units.
    """
    points = [point for one in series for point in one.points]
    if not points:
        return ""
    x_range = _padded(min(p[0] for p in points), max(p[0] for p in points), 0)
    y_range = _padded(min(p[1] for p in points), max(p[1] for p in points), 0.06)

    def position(point: tuple[float, float]) -> str:
        across = _share(point[0], x_range) * (_WIDTH - _LEFT - _RIGHT) + _LEFT
        up = _share(point[1], y_range) * (_HEIGHT - _TOP - _BOTTOM)
        return f"{across:.1f} {_HEIGHT - _BOTTOM - up:.1f}"

    parts = [*_y_axis(y_range), *_x_axis(x_range, x), _text(2, 12, y, "start", "name")]
    ringed: list[tuple[float, float]] = []  # places of the rings so far
    for one in series:
        path = "M" + "L".join(position(point) for point in one.points)
        title = f"<title>{escape(one.name)}</title>"
        parts.append(f'<path class="line {escape(one.style)}" d="{path}">{title}</path>')
        if dots:
            places = [position(point).split() for point in one.points]
            parts += _dots(one, places, ringed)
    return _svg(_WIDTH, _HEIGHT, label, parts)


def _dots(
    one: Series, places: Sequence[Sequence[str]], ringed: list[tuple[float, float]]
) -> Iterator[str]:
    """Points with their ring, which goes around those of earlier lines in the same place."""
    style = escape(one.style)
    for nth, (across, down) in enumerate(places):
        place = f'cx="{across}" cy="{down}"'
        title = f"<title>{escape(one.titles[nth])}</title>" if one.titles else ""
        yield f'<circle class="point {style}" {place} r="2.5">{title}</circle>'
        if nth == one.ringed:
            here = float(across), float(down)
            radius = 6 + 3 * sum(math.dist(here, other) < _RING_APART for other in ringed)
            ringed.append(here)
            yield f'<circle class="ring {style}" {place} r="{radius}"/>'
    if one.ends and places:
        across, down = map(float, places[-1])
        yield _text(across, down - 7, one.ends, "middle")


def interval_plot(rows: Sequence[Interval], label: str, form: str, axis: str) -> str:
    """One row per mean with its interval and values, over one axis that includes zero.

    `axis` names the measure of the differences, with its unit.
    """
    left, right, top, row_height, bottom = 160.0, 12.0, 6.0, 24.0, 36.0
    width, height = 360.0, top + row_height * len(rows) + bottom
    known = [value for row in rows for value in (row.low, row.high, row.mean) if value is not None]
    known += [value for row in rows for _, value in row.values]
    span = _padded(min([0.0, *known]), max([0.0, *known]), 0.05)

    def across(value: float) -> float:
        return left + _share(value, span) * (width - left - right)

    parts = []
    for tick in ticks(*span, 4):
        kind = "zero" if tick == 0 else "grid"
        parts.append(_line(kind, across(tick), top, across(tick), height - bottom))
        parts.append(_text(across(tick), height - 20, _plain(tick), "middle"))
    parts.append(_text(width - right, height - 4, f"difference in {axis}", "end", "name"))
    for place, row in enumerate(rows):
        middle = top + row_height * (place + 0.5)
        parts.append(_text(left - 10, middle + 4, row.label, "end", "name"))
        parts += _interval(row, middle, across, form)
    return _svg(width, height, label, parts)


def interval_strip(row: Interval, form: str) -> str:
    """One row, small and without an axis; zero is the vertical line."""
    width, height, edge = 220.0, 30.0, 8.0
    ends = [value for value in (row.low, row.high) if value is not None]
    known = [0.0, row.mean, *ends, *(value for _, value in row.values)]
    span = _padded(min(known), max(known), 0)

    def across(value: float) -> float:
        return edge + _share(value, span) * (width - 2 * edge)

    zero = _line("zero", across(0), 2, across(0), height - 2)
    parts = [zero, *_interval(row, height / 2, across, form)]
    return _svg(width, height, f"{row.label}: scenes, mean and interval", parts)


def _interval(
    row: Interval, middle: float, across: Callable[[float], float], form: str
) -> Iterator[str]:
    if row.low is not None and row.high is not None:
        yield _line(f"reach {row.style}", across(row.low), middle, across(row.high), middle)
    for name, value in row.values:
        place = f'cx="{across(value):.1f}" cy="{middle:.1f}" r="3"'
        title = f"<title>{escape(name)}: {format(value, form)}</title>"
        yield f'<circle class="dot {row.style}" {place}>{title}</circle>'
    place = f"M{across(row.mean):.1f} {middle - 7:.1f}v14"
    title = f"<title>mean {format(row.mean, form)}</title>"
    yield f'<path class="mean {row.style}" d="{place}">{title}</path>'


def _y_axis(span: tuple[float, float]) -> Iterator[str]:
    for value in ticks(*span, 4):
        down = _HEIGHT - _BOTTOM - _share(value, span) * (_HEIGHT - _TOP - _BOTTOM)
        yield _line("grid", _LEFT, down, _WIDTH - _RIGHT, down)
        yield _text(_LEFT - 6, down + 4, _plain(value), "end")


def _x_axis(span: tuple[float, float], name: str) -> Iterator[str]:
    base = _HEIGHT - _BOTTOM
    yield _line("axis", _LEFT, base, _WIDTH - _RIGHT, base)
    for value in ticks(*span, 5):
        across = _LEFT + _share(value, span) * (_WIDTH - _LEFT - _RIGHT)
        yield _text(across, base + 15, _plain(value), "middle")
    yield _text(_WIDTH - _RIGHT, _HEIGHT - 4, name, "end", "name")


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    if high - low < 1e-12:
        return low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    return low - share * (high - low), high + share * (high - low)


def _share(value: float, span: tuple[float, float]) -> float:
    return (value - span[0]) / (span[1] - span[0])


def _plain(value: float) -> str:
    """Such as 12k, 700, 0.25 or -0.02."""
    if abs(value) >= 10_000:
        return f"{value / 1000:g}k"
    return f"{value:.4g}".replace("-", "\N{MINUS SIGN}")


def _line(style: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{style}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str, style: str = "tick") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'


def _svg(width: float, height: float, label: str, parts: Sequence[str]) -> str:
    box = f'viewBox="0 0 {width:g} {height:g}"'
    return f'<svg {box} role="img" aria-label="{escape(label)}">{"".join(parts)}</svg>'
