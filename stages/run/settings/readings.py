"""What a run has read of params.yaml: handed to its children, and compared at its end.

DVC records the params as they stand when a stage ends. What was made from others must not be
recorded as made from these.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.files import work_root

# Names a copy of params.yaml that a run reads in its place, so that an edit does not reach it.
PARAMS_ENV = "SPLATFIX_PARAMS"
_ABSENT = "absent"
_SHOWN = 5
# A text of few lines can stand for more values than memory holds, by aliases of aliases.
_MOST_VALUES, _MOST_DEPTH = 100_000, 50

Keys = tuple[str, ...]


class InvalidYaml(ValueError):
    """Why a text is no YAML that can be used, and the line of it where that is known."""

    def __init__(self, told: str, line: int | None = None):
        super().__init__(told)
        self.line = line


@dataclass
class Reading:
    """One file as it was read, and which of its keys were asked for."""

    path: Path
    content: bytes
    keys: set[Keys] = field(default_factory=set)


_readings: list[Reading] | None = None


@contextmanager
def tracking() -> Iterator[None]:
    """Remember what is read for as long as the block lasts."""
    global _readings
    before, _readings = _readings, []
    try:
        yield
    finally:
        _readings = before


def read_content(path: Path) -> tuple[bytes, Reading]:
    """The file's bytes, or those that were handed to this run, and where to note what is used."""
    handed = os.environ.get(PARAMS_ENV) if path == Path("params.yaml") else None
    content = Path(handed or path).read_bytes()
    reading = Reading(path.absolute(), content)
    if _readings is not None and not handed:
        _readings.append(reading)
    return content, reading


@contextmanager
def params_for_children() -> Iterator[dict[str, str]]:
    """Environment of children that are to read what this run has read, whatever is edited."""
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
    """Tell of params that changed since this run read them.

    Raises UserError where DVC would record them with the result.
    """
    for reading in _readings or []:
        changed = _changes(reading)
        if not changed:
            continue
        told = ", ".join(changed[:_SHOWN]) + (", ..." if len(changed) > _SHOWN else "")
        if "DVC_STAGE" in os.environ:
            raise UserError(
                reading.path,
                f"edited while this ran: {told}",
                expected="the params that the result was made with; DVC would record the new ones",
                fix="run again, for a result by the new params; with the old ones put back it goes "
                "on from its last state",
            )
        print(
            f"WARNING: {reading.path} was edited while this ran: {told}; the result was made with "
            "the old params",
            file=sys.stderr,
            flush=True,
        )
        reading.content = _content(reading.path)  # told once


def _changes(reading: Reading) -> list[str]:
    """`train.lr: 1 -> 2` for each value that was used and is another now."""
    now = _content(reading.path)
    if now == reading.content:
        return []
    old, new = _parsed(reading.content), _parsed(now)
    keys = _recorded(reading) if "DVC_STAGE" in os.environ else reading.keys
    return [
        line for key in sorted(keys) for line in _differences(key, _at(old, key), _at(new, key))
    ]


def _recorded(reading: Reading) -> set[Keys]:
    """What DVC records for the stage that runs; an item's own keys are those that it has read."""
    name = os.environ["DVC_STAGE"].partition("@")[0]
    stages = _parsed(_content(Path("dvc.yaml"))).get("stages") or {}
    definition = stages.get(name)
    if not isinstance(definition, Mapping):
        return reading.keys
    listed = definition.get("do", definition).get("params") or []
    found: set[Keys] = set()
    for one in listed:
        before, template, _ = str(one).partition(".${")
        keys = tuple(before.split("."))
        found |= (
            {read for read in reading.keys if read[: len(keys)] == keys} if template else {keys}
        )
    return found


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
        found = parse_yaml(content, "safe")
    except InvalidYaml:
        found = None
    return found if isinstance(found, Mapping) else {}


def parse_yaml(content: bytes | str, kind: str = "rt") -> Any:
    """The value of a YAML text, by ruamel's round-trip or its safe loader.

    Raises NotYaml for any other text, and for a value that is too large once its aliases are
    followed, or holds itself.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        found = YAML(typ=kind, pure=True).load(content)
        _extent(found, {})
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise InvalidYaml(str(error.problem), line) from error
    except RecursionError as error:
        raise InvalidYaml("nested too deep") from error
    # Scalars that their tag or form promises to be numbers or dates, and are none, keys that cannot
    # be told apart, and directives of other versions fail in the loader's own code.
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
    return found


def _extent(node: Any, known: dict[int, tuple[int, int] | None]) -> tuple[int, int]:
    """How many values a node holds, with aliases followed, and how deep they lie in it.

    Raises ValueError beyond what params are ever made of, and for a node that holds itself.
    """
    if isinstance(node, Mapping):
        parts = [*node.keys(), *node.values()]
    elif isinstance(node, list | tuple | AbstractSet):
        parts = [*node]
    else:
        return 1, 0
    if id(node) in known:
        found = known[id(node)]
        if found is None:
            raise ValueError("an alias of what holds it")
        return found
    known[id(node)] = None
    inside = [_extent(part, known) for part in parts]
    count = 1 + sum(count for count, _ in inside)
    depth = 1 + max((depth for _, depth in inside), default=0)
    if count > _MOST_VALUES or depth > _MOST_DEPTH:
        raise ValueError(f"more than {_MOST_VALUES} values, or more than {_MOST_DEPTH} levels")
    known[id(node)] = count, depth
    return count, depth
