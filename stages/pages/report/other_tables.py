"""Tables of captures and static scenes: measures by kind, and all other numbers below them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.pages.report.results import Row
from stages.pages.report.tables import FLAT, Cell, Table, form_of, groups_of, minus, title_of
from stages.quality.keys import FLICKER, FURTHER, FURTHER_ALIGNED, MASKED, MEASURED
from stages.run.methods import PLAIN, Method

_MEASURES = (*MEASURED, *FURTHER, *FURTHER_ALIGNED, FLICKER, FLAT)
_SHARE = "covisible"
_COUNTS = {"trained_on": "training views", "train_views": "training views", "views": "views"}
_MASKS = "Pixels that the training cameras see, or of a mask (m)"
# Folders of metrics/static in the order of the page, with what their numbers are of.
_PARTS = {
    "table": "means over scenes",
    "scenes": "",
    "train": "on the training views",
    "prepare": "preparation",
}
_HELD_OUT = "means over the views that were held out of training"
_HEADS = {"captures": ("capture", "variant"), "static": ("scene", "cameras")}


@dataclass(frozen=True)
class _Item:
    """What a row of numbers is of."""

    part: str  # of the workflow; empty for the held-out views
    scene: str
    result: str
    method: str


def other_tables(kind: str, results: Mapping[str, Row]) -> list[Table]:
    """Tables of a workflow (captures or static), from its numbers by file name without suffix.

    A set of views such as `eval` in `eval.psnr` is a row of its own.
    """
    rows: dict[_Item, dict[str, Any]] = {}
    for name, row in results.items():
        for key, value in row.items():
            views, _, last = key.rpartition(".")
            if value not in (None, ""):
                rows.setdefault(_item(kind, name, views), {})[last] = value
    measured: dict[str, dict[_Item, Row]] = {part: {} for part in ("", *_PARTS.values())}
    several = len({item.scene for item in rows if item.scene}) > 1
    for item, row in sorted(rows.items(), key=lambda one: (one[0].scene, one[0].result)):
        if row.keys() & set(_MEASURES) and (several or item.part != _PARTS["table"]):
            measured.setdefault(item.part, {})[item] = row
    tables = [
        table
        for part in dict.fromkeys((*_PARTS.values(), *measured))
        for table in _measures_tables(kind, part, measured[part])
    ]
    return [*tables, *_details_table(kind, rows)]


def _item(kind: str, name: str, views: str) -> _Item:
    """What a file of numbers is of, by its path below the folder of its kind.

    >>> _item("captures", "room/tuned/combined-post", "")
    _Item(part='', scene='room', result='combined', method='tuned-post')
    >>> _item("static", "table", "stereo by tuned-post")
    _Item(part='means over scenes', scene='', result='stereo', method='tuned-post')
    """
    first, *others = name.split("/")
    part = ""
    if kind == "static":
        part = _PARTS.get(first, first)
        if not others:
            result, _, method = views.partition(" by ")
            return _Item(part, "", result, method or PLAIN)
        first, *others = others
    *fixers, result = others or [""]
    method = PLAIN
    if fixers:
        result, _, form = result.rpartition("-")
        method = str(Method(fixers[0], form))
    return _Item(part, first, f"{result} {views}".strip(), method)


def _measures_tables(kind: str, part: str, rows: Mapping[_Item, Row]) -> Iterator[Table]:
    """One table per group of measures, without measures that no result has."""
    for group, caption, names in groups_of(rows.values()):
        of_group = {item: row for item, row in rows.items() if row.keys() & set(names)}
        masked = bool(set(names) & set(MASKED))
        before = [*_COUNTS, *([_SHARE] if masked else [])]
        kept = [key for key in before if any(key in row for row in of_group.values())] + names
        heads = _heads(kind, of_group)
        titles = tuple(map(plain_title, kept))
        cells = tuple(
            (*_named(item, heads), *(_any(key, row.get(key)) for key in kept))
            for item, row in of_group.items()
        )
        yield Table(
            (*heads, *titles),
            cells,
            frozenset(titles),
            "-".join(filter(None, (kind, part.replace(" ", "-"), group))),
            f"{_MASKS if masked else caption}, {part or _HELD_OUT}",
            folded=part == _PARTS["train"] or group == "aligned",
        )


def _details_table(kind: str, rows: Mapping[_Item, Row]) -> Iterator[Table]:
    """Quantities that are no measures, one per row."""
    known = {*_MEASURES, *_COUNTS, _SHARE}
    details = {
        item: {key: value for key, value in row.items() if key not in known}
        for item, row in rows.items()
    }
    details = {item: row for item, row in details.items() if row}
    heads = _heads(kind, details)
    cells = tuple(
        (*_named(item, heads), Cell(plain_title(key), key, "text"), _any(key, value))
        for item, row in details.items()
        for key, value in row.items()
    )
    if cells:
        caption = "Counts, calibration and protocols"
        columns = (*heads, "quantity", "value")
        yield Table(columns, cells, frozenset(), f"{kind}-details", caption, folded=True)


def _heads(kind: str, rows: Iterable[_Item]) -> dict[str, str]:
    """Titles of the columns that tell rows apart, with their fields of an item."""
    first, second = _HEADS[kind]
    heads = {first: "scene", second: "result", "method": "method"}
    known = list(rows)
    return {
        title: field
        for title, field in heads.items()
        if (field == "scene" and any(item.scene for item in known))
        or len({getattr(item, field) for item in known}) > 1
        or (field == "result" and any(item.result for item in known))
    }


def _named(item: _Item, heads: Mapping[str, str]) -> Iterator[Cell]:
    for field in heads.values():
        name = str(getattr(item, field))
        yield Cell(name, name)


def plain_title(key: str) -> str:
    """A key as a heading.

    >>> plain_title("psnr_aligned"), plain_title("without_pose"), plain_title("train_views")
    ('PSNR aligned, dB', 'without pose', 'training views')
    """
    return title_of(key) if key in _MEASURES else _COUNTS.get(key, key.replace("_", " "))


def _any(key: str, value: Any) -> Cell:
    """The cell of any scalar."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        form = form_of(key) if key in _MEASURES else ".3f" if key == _SHARE else ".6g"
        return Cell(minus(format(value, form)), value)
    return Cell("\N{EN DASH}") if value is None else Cell(str(value), "", "text")
