"""Loss curves of several runs on the same data: whether they differ by more than their noise."""

import math
import statistics
from pathlib import Path

from stages.run.files import whole_file, write_tsv

_WINDOW = 20  # steps
_WIDTH, _HEIGHT, _MARGIN = 900, 420, 50
_COLOURS = ("#000000", "#d95f02", "#1b9e77", "#7570b3", "#e7298a", "#66a61e")

Curves = dict[str, list[float]]


def report(path: Path | None, curves: Curves) -> None:
    """Print the difference of each curve from the first; write them as a table and a plot."""
    reference, *others = curves
    for name in others:
        largest, typical = differences(curves[reference], curves[name])
        print(
            f"{name} and {reference}: means of {_WINDOW} steps differ by {typical:.2f} of their "
            f"standard error, at most {largest:.2f}; last {curves[name][-1]:.4g}"
        )
    if path is not None:
        steps = range(1, len(curves[reference]) + 1)
        rows = [
            {"step": step, **{name: f"{values[step - 1]:.6g}" for name, values in curves.items()}}
            for step in steps
        ]
        write_tsv(path, rows, ["step", *curves])
        with whole_file(path.with_suffix(".svg")) as scratch:
            scratch.write_text(plot(curves))


def differences(one: list[float], other: list[float]) -> tuple[float, float]:
    """Difference of the means of each window over their standard error: largest and typical.

    >>> differences([1.0, 3.0] * 20, [2.0, 4.0] * 20)
    (4.358899, 4.358899)
    """
    values = []
    for start in range(0, len(one) - _WINDOW + 1, _WINDOW):
        window = one[start : start + _WINDOW]
        error = statistics.stdev(window) / math.sqrt(_WINDOW)
        means = statistics.fmean(window), statistics.fmean(other[start : start + _WINDOW])
        values.append(abs(means[1] - means[0]) / error)
    return round(max(values), 6), round(statistics.fmean(values), 6)


def plot(curves: Curves) -> str:
    """Moving averages of the curves as an SVG with a logarithmic axis."""
    smooth = {name: moving_average(values) for name, values in curves.items()}
    logs = [math.log10(value) for values in smooth.values() for value in values]
    low, high = min(logs), max(logs)
    count = max(map(len, smooth.values()))

    def point(step: int, value: float) -> str:
        x = _MARGIN + (_WIDTH - 2 * _MARGIN) * step / max(count - 1, 1)
        share = (math.log10(value) - low) / max(high - low, 1e-9)
        return f"{x:.1f},{_HEIGHT - _MARGIN - (_HEIGHT - 2 * _MARGIN) * share:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
    ]
    for index, (name, values) in enumerate(smooth.items()):
        colour, y = _COLOURS[index % len(_COLOURS)], _MARGIN + 18 * index
        points = " ".join(point(step, value) for step, value in enumerate(values))
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"/>',
            f'<text x="{_WIDTH - 3 * _MARGIN}" y="{y}" fill="{colour}">{name}</text>',
        ]
    ticks = ((low, _HEIGHT - _MARGIN), (high, _MARGIN))
    parts += [f'<text x="4" y="{y}">{10**value:.3g}</text>' for value, y in ticks]
    parts += [
        f'<text x="{_MARGIN}" y="{_HEIGHT - 15}">loss, mean of {_WINDOW} steps, '
        f"from step {_WINDOW} to {count + _WINDOW - 1}</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def moving_average(values: list[float]) -> list[float]:
    """Means over every window of a curve.

    >>> len(moving_average([1.0] * 30))
    11
    """
    count = min(_WINDOW, len(values))
    return [statistics.fmean(values[i : i + count]) for i in range(len(values) - count + 1)]
