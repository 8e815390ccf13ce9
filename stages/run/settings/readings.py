"""Params that a run has read: passed to its children, and compared with params.yaml at its end.

DVC records the params at the time when a stage ends. A result of earlier values must not be
recorded with later ones.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.files import work_root
from stages.run.plurals import first_few

_LOGGER = logging.getLogger(__name__)
# Path of a copy of params.yaml that a run reads instead, so that an edit does not affect it.
PARAMS_ENV = "SPLATFIX_PARAMS"
_ABSENT = "absent"
# By aliases of aliases, a few lines can expand to more values than fit into memory.
_MOST_VALUES, _MOST_DEPTH = 100_000, 50

Keys = tuple[str, ...]


class InvalidYaml(ValueError):
    """A text that is not usable YAML, with the reason and the line if known."""

    def __init__(self, reason: str, line: int | None = None):
        super().__init__(reason)
        self.line = line


@dataclass
class Reading:
    """The content of a file when it was read, and the keys that were read."""

    path: Path
    content: bytes
    keys: set[Keys] = field(default_factory=set)


_readings: list[Reading] | None = None


@contextmanager
def tracking() -> Iterator[None]:
    """Track what is read within the block."""
    global _readings
    before, _readings = _readings, []
    try:
        yield
    finally:
        _readings = before


def read_content(path: Path) -> tuple[bytes, Reading]:
    """Bytes of a file, or of the copy passed to this run, and the reading that tracks its keys."""
    copy = os.environ.get(PARAMS_ENV) if path == Path("params.yaml") else None
    content = Path(copy or path).read_bytes()
    reading = Reading(path.absolute(), content)
    if _readings is not None and not copy:
        _readings.append(reading)
    return content, reading


@contextmanager
def params_for_children() -> Iterator[dict[str, str]]:
    """Environment in which child processes read the same params as this run despite edits."""
    if not _readings:
        yield {}
        return
    path = work_root().absolute() / "handed" / f"{os.uname().nodename}.{os.getpid()}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_readings[-1].content)
    try:
        yield {PARAMS_ENV: str(path)}
    finally:
        path.unlink(missing_ok=True)


def check() -> None:
    """Warn about params that changed since this run read them.

    Raises UserError if DVC would record the new values with the result.
    """
    for reading in _readings or []:
        changed = _changes(reading)
        if not changed:
            continue
        shown = first_few(changed)
        if "DVC_STAGE" in os.environ:
            raise UserError(
                reading.path,
                f"edited while this ran: {shown}",
                expected="the params of this result; DVC would record the new ones",
                fix="run again for a result of the new params; with the old ones restored it "
                "resumes from its last state",
            )
        _LOGGER.warning(
            "%s was edited while this ran: %s; the result was made with the old params",
            reading.path,
            shown,
        )
        reading.content = _content(reading.path)  # so that a change is reported once


def _changes(reading: Reading) -> list[str]:
    """`train.lr: 1 -> 2` for each value that was read and differs now."""
    now = _content(reading.path)
    if now == reading.content:
        return []
    old, new = _parsed(reading.content), _parsed(now)
    keys = _recorded(reading) if "DVC_STAGE" in os.environ else reading.keys
    return [
        line for key in sorted(keys) for line in _differences(key, _at(old, key), _at(new, key))
    ]


def _recorded(reading: Reading) -> set[Keys]:
    """Keys that DVC records for the running stage; for `${item...}`, those that were read."""
    name = os.environ["DVC_STAGE"].partition("@")[0]
    stages = _parsed(_content(Path("dvc.yaml"))).get("stages") or {}
    definition = stages.get(name)
    if not isinstance(definition, Mapping):
        return reading.keys
    listed = definition.get("do", definition).get("params") or []
    recorded: set[Keys] = set()
    for param in listed:
        before, template, _ = str(param).partition(".${")
        keys = tuple(before.split("."))
        recorded |= (
            {read for read in reading.keys if read[: len(keys)] == keys} if template else {keys}
        )
    return recorded


def _differences(keys: Keys, old: Any, new: Any) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in {**old, **new}:
            pair = old.get(key, _ABSENT), new.get(key, _ABSENT)
            yield from _differences((*keys, str(key)), *pair)
    elif old != new or type(old) is not type(new):
        yield f"{'.'.join(keys)}: {old!r} -> {new!r}"


def _at(node: Any, keys: Keys) -> Any:
    for key in keys:
        node = node.get(key, _ABSENT) if isinstance(node, Mapping) else _ABSENT
    return node


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parsed(content: bytes) -> Mapping[str, Any]:
    try:
        value = parse_yaml(content, "safe")
    except InvalidYaml:
        value = None
    return value if isinstance(value, Mapping) else {}


def parse_yaml(content: bytes | str, kind: str = "rt") -> Any:
    """The value of a YAML text, by ruamel's round-trip or its safe loader.

    Raises InvalidYaml for any other text, and for a value that contains itself or is too large
    with its aliases resolved.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        value = YAML(typ=kind, pure=True).load(content)
        _extent(value, {})
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise InvalidYaml(str(error.problem), line) from error
    except RecursionError as error:
        raise InvalidYaml("nested too deep") from error
    # The loader raises these for invalid scalars with a tag or form of numbers or dates, for keys
    # that it cannot hash, and for directives of other versions.
    except (
        YAMLError,
        ValueError,
        TypeError,
        ArithmeticError,
        LookupError,
        AttributeError,
        AssertionError,
        NotImplementedError,
    ) as error:
        raise InvalidYaml(str(error) or type(error).__name__) from error
    return value


def _extent(node: Any, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node contains, with aliases resolved, and how deeply they are nested.

    Raises ValueError beyond the limits of params, and for a node that contains itself.
    """
    if isinstance(node, Mapping):
        parts = [*node.keys(), *node.values()]
    elif isinstance(node, list | tuple | AbstractSet):
        parts = [*node]
    else:
        return 1, 0
    if id(node) in known:
        extent = known[id(node)]
        if extent is None:
            raise ValueError("an alias of a value that contains it")
        return extent
    known[id(node)] = None
    inside = [_extent(part, known) for part in parts]
    count = 1 + sum(count for count, _ in inside)
    depth = 1 + max((depth for _, depth in inside), default=0)
    if count > _MOST_VALUES or depth > _MOST_DEPTH:
        raise ValueError(f"more than {_MOST_VALUES} values, or more than {_MOST_DEPTH} levels")
    known[id(node)] = count, depth
    return count, depth
