"""The measures of one set of views by several methods as text, with differences to the first."""

from collections.abc import Mapping
from typing import Any

from stages.quality.floor import floor_warnings
from stages.quality.keys import FORMATS, MASKED, MEASURES, titled
from stages.quality.table import render_table
from stages.run.plurals import counted

_TITLES = {
    **{name: titled(name) for name in MEASURES},
    "psnr_aligned": "aligned dB",
    **{f"m{name}": f"m{titled(name)}" for name in MEASURES},
}
_SHOWN = (*MEASURES, "psnr_aligned", *MASKED)


def method_table(title: str, means: Mapping[str, Mapping[str, Any]]) -> str:
    """A title, then a row per method; measures that the first has not are left out.

    >>> rows = {"none": {"psnr": 20.0, "views": 3}, "tuned-post": {"psnr": 20.5, "views": 3}}
    >>> print(method_table("room", rows))
    room, 3 views
                    PSNR dB
    none              20.00
    tuned-post  20.50 +0.50
    """
    first = next(iter(means.values()))
    shown = [name for name in _SHOWN if first.get(name) is not None]
    rows = [["", *(_TITLES[name] for name in shown)]]
    for method, values in means.items():
        cells = (_cell(values[name], first[name], name, values is first) for name in shown)
        rows.append([method, *cells])
    lines = [f"{title}, {counted(first['views'], 'view')}", render_table(rows)]
    lines += [f"WARNING: {warning}" for warning in floor_warnings(means)]
    return "\n".join(lines)


def _cell(value: float | None, plain: float, name: str, is_first: bool) -> str:
    if value is None:
        return "-"
    form = FORMATS[name.removesuffix("_aligned").removeprefix("m" if name in MASKED else "")]
    return f"{value:{form}}" if is_first else f"{value:{form}} {value - plain:+{form}}"
