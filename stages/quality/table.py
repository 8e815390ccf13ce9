"""The comparison of methods as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.quality.comparison import Evaluations, plain_below_floor
from stages.quality.floor import verdict_warning
from stages.quality.keys import FORMATS, FURTHER, MEASURES, titled
from stages.quality.paired_differences import MEAN
from stages.quality.statistics import least_p
from stages.run.plurals import counted

_TITLES = {name: titled(name) for name in (*MEASURES, *FURTHER)} | {"psnr_aligned": "aligned dB"}
_FORMATS = FORMATS | {"psnr_aligned": FORMATS["psnr"]}


def render_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; the first is text, the others are numbers.

    >>> print(render_table([["", "dB"], ["none", "24.31"]]))
             dB
    none  24.31
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    return "\n".join(lines)


def comparison_text(
    evaluations: Evaluations,
    summary: Mapping[str, Any],
    differences: Sequence[Mapping[str, Any]],
    scenes: Sequence[str],
    confidence: float,
) -> str:
    """Every scene by every method, the means over `scenes`, and the paired differences.

    Args:
        evaluations: Of all scenes and methods.
        summary: Means by method.
        differences: Rows of `delta_table`.
        scenes: The downstream scenes.
        confidence: Of the intervals.
    """
    every = summary.values()
    shown = [one for one in _TITLES if one not in FURTHER or all(one in row for row in every)]
    header = ["", "method", "views", *(_TITLES[name] for name in shown)]
    rows = [header]
    for scene in evaluations.scenes:
        label = scene if scene in scenes else f"{scene} (not in the mean)"
        for method in evaluations.methods:
            means = evaluations.of(scene, method).means
            rows.append([label, method, str(means["views"]), *_cells(means, shown)])
            label = ""
    label = f"mean of {counted(len(scenes), 'scene')}"
    for method, means in summary.items():
        rows.append([label, method, "", *_cells(means, shown)])
        label = ""
    flat = next(iter(summary.values()))["mean_color_psnr"]
    lines = [render_table(rows), f"An image of the source images' mean colour: {flat:.2f} dB"]
    if below := plain_below_floor(evaluations, evaluations.scenes):
        lines.append(f"WARNING: {verdict_warning(', '.join(below))}")
    comparison = ""
    for row in differences:
        if row["scene"] == MEAN and row["metric"] in _TITLES:
            if row["comparison"] != comparison:
                comparison = row["comparison"]
                head = comparison.replace("_vs_", " minus ")
                lines += ["", f"{head}, with {confidence:.0%} intervals of Student's t over scenes"]
            lines.append(_difference(row, len(scenes)))
    return "\n".join(lines)


def _cells(means: Mapping[str, Any], shown: Sequence[str]) -> list[str]:
    return [_text(means.get(name), _FORMATS[name]) for name in shown]


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _difference(row: Mapping[str, Any], count: int) -> str:
    """Such as `PSNR dB +0.31 [-0.10, 0.72], 4 of 4 scenes improved (...)`."""
    form = _FORMATS[row["metric"]]
    return (
        f"  {_TITLES[row['metric']]:<11}{row['difference']:+{form}} "
        f"[{_text(row['low'], form)}, {_text(row['high'], form)}], "
        f"{row['won']} of {counted(count, 'scene')} improved "
        f"(sign-flip p {row['sign_flip_p']:.3g}, least possible {least_p(count):.3g})"
    )
