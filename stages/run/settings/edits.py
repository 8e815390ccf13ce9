"""Edits of params.yaml by the values of another YAML file; comments and formatting stay.

Only the lines of changed values are replaced. Dumping the whole file would lose comments: ruamel
ties the comment after a list to the list, and drops it with the list's old value.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from stages.run.errors import UserError, raise_all
from stages.run.settings.params import Params, no_such_key, plain
from stages.run.settings.readings import InvalidYaml, parse_yaml

# Line width of ruamel, and so of DVC when it rewrites the file.
_WIDTH = 80


@dataclass(frozen=True)
class Change:
    """One key of params.yaml with its value before and after."""

    keys: tuple[str, ...]
    old: Any
    new: Any


def changes(params: Params, overlay: Params) -> list[Change]:
    """Changes that an overlay makes to params.yaml, in the overlay's order.

    Raises UserError for keys that params.yaml lacks: an overlay changes values and adds no keys.
    """
    items = list(_compare((), params.raw, overlay.raw, overlay.where, params.raw))
    raise_all(item for item in items if isinstance(item, UserError))
    return [item for item in items if isinstance(item, Change)]


def left_over(params: Params, overlay: Params, committed: str) -> list[tuple[str, ...]]:
    """Keys whose values differ from the committed text of params.yaml and that no overlay sets.

    Empty where that text is none.
    """
    try:
        before = parse_yaml(committed)
    except InvalidYaml:
        return []
    if not isinstance(before, Mapping):
        return []
    items = _compare((), before, params.raw, params.where, before)
    changed = [item.keys for item in items if isinstance(item, Change)]
    return [keys for keys in changed if not _sets(overlay.raw, keys)]


def all_from(params: Params, overlay: Params, keys: Sequence[tuple[str, ...]]) -> bool:
    """Whether the values that params.yaml has at these keys are an overlay's."""
    differing = {change.keys for change in changes(params, overlay)}
    return all(_sets(overlay.raw, one) and one not in differing for one in keys)


def applied(text: str, changes: Sequence[Change]) -> str:
    """The text of params.yaml with the changed values."""
    lines = text.splitlines(keepends=True)
    raw = parse_yaml(text)
    positions = [(*_position(raw, change.keys), change) for change in changes]
    for line, column, change in sorted(positions, key=lambda item: item[0], reverse=True):
        lines[line : _end(lines, line, column)] = _lines(change.keys[-1], change.new, column)
    return "".join(lines)


def _compare(
    keys: tuple[str, ...],
    old: Mapping[str, Any],
    new: Mapping[str, Any],
    where: Callable[[tuple[str, ...]], str],
    root: Mapping[str, Any],
) -> Iterator[Change | UserError]:
    for key, value in new.items():
        here = (*keys, key)
        if key not in old:
            yield no_such_key(where(here), "params.yaml", root, here, old)
        elif isinstance(value, Mapping) != isinstance(old[key], Mapping):
            kind = "`key: value` lines" if isinstance(old[key], Mapping) else "one value or a list"
            yield UserError(where(here), f"got {plain(value)!r}", expected=kind)
        elif isinstance(value, Mapping):
            yield from _compare(here, old[key], value, where, root)
        # By repr: 1, 1.0 and True compare equal.
        elif repr(plain(value)) != repr(plain(old[key])):
            yield Change(here, old[key], value)


def _sets(raw: Any, keys: tuple[str, ...]) -> bool:
    """Whether an overlay has a key."""
    for key in keys:
        if not isinstance(raw, Mapping) or key not in raw:
            return False
        raw = raw[key]
    return True


def _position(raw: Any, keys: tuple[str, ...]) -> tuple[int, int]:
    """Line and column of a key, from 0."""
    for key in keys[:-1]:
        raw = raw[key]
    return raw.lc.key(keys[-1])


def _end(lines: Sequence[str], line: int, column: int) -> int:
    """The line after a key's value, without the comments and blank lines that follow it."""
    end = line + 1
    for number in range(line + 1, len(lines)):
        text = lines[number].strip()
        indent = len(lines[number]) - len(lines[number].lstrip(" "))
        if not text or text.startswith("#"):
            continue
        if indent < column or (indent == column and not text.startswith("- ")):
            break
        end = number + 1
    return end


def _lines(key: str, value: Any, column: int) -> list[str]:
    yaml = YAML(typ="rt")
    yaml.width = _WIDTH - column
    buffer = io.StringIO()
    yaml.dump({key: _bare(value)}, buffer)
    return [" " * column + line for line in buffer.getvalue().splitlines(keepends=True)]


def _bare(value: Any) -> Any:
    """The value without the comments and flow style that ruamel ties to lists."""
    return [_bare(item) for item in value] if isinstance(value, list) else value
