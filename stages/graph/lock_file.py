"""dvc.lock by its entries, one per stage: a record writes only the stages that ran.

For each record DVC parses the whole file and writes it anew, with ruamel's pure Python (DVC's issue
10629): 1 s of CPU at 7 scenes, 25 s at 100. Here an entry is a block of lines, and its params, the
same text in most stages of one kind, are parsed once. A file in another layout than DVC's, such as
one with a merge conflict, is left to DVC.
"""

import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml, loads_yaml
from ruamel.yaml.error import YAMLError

from stages.run.files import whole_file

_HEAD, _STAGES = "schema: '2.0'\n", "stages:\n"
_ENTRY = re.compile(r"^(?=  [^ \n])", re.MULTILINE)
# Texts that YAML reads as other types are quoted, and so are in another layout.
_NAME = re.compile(r"  ([A-Za-z_][\w@.-]*):\n", re.ASCII)
_PART = re.compile(r"^(?=    [a-z])", re.MULTILINE)
_PARAMS = "    params:\n"
# Entries cannot be told apart where one repeats a value of another by an alias.
_ALIAS = re.compile(r"(: |- )[&*]")


def entries(text: str) -> dict[str, str] | None:
    """Lines of each stage by its name; None for a text that is not in DVC's layout."""
    head, *blocks = _ENTRY.split(text)
    if head != _HEAD + _STAGES or _ALIAS.search(text):
        return None
    found = {}
    for block in blocks:
        name, first = _NAME.match(block), len(block.partition("\n")[0]) + 1
        rest = block[first:]
        if not name or name[1] in found or not block.endswith("\n"):
            return None
        if any(line and not line.startswith("    ") for line in rest.split("\n")):
            return None
        found[name[1]] = block
    return found


def parsed(text: str, names: Collection[str] | None = None) -> dict[str, Any] | None:
    """The value of the file as DVC loads it, or of some stages; None for another layout."""
    found = entries(text)
    if not found:
        return None
    rest, params_of = [_STAGES], {}
    for name, block in found.items():
        if names is None or name in names:
            parts = _PART.split(block)
            params_of[name] = "".join(part for part in parts if part.startswith(_PARAMS))
            rest += [part for part in parts if not part.startswith(_PARAMS)]
    try:
        stages = loads_yaml("".join(rest))["stages"] or {}
        params = {part: loads_yaml(part) for part in set(params_of.values())}
    except YAMLError:
        return None
    if set(stages) != set(params_of):  # names such as null
        return None
    for name, part in params_of.items():
        stages[name] = {**(stages[name] or {}), **(params[part] or {})}
    return {"schema": "2.0", "stages": stages}


def replaced(text: str, changed: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The file with other values of some stages, as DVC writes it; None for another layout.

    New stages come last.
    """
    found = entries(text or _HEAD + _STAGES)
    if found is None:
        return None
    for name, value in changed.items():
        block = entries(_HEAD + dumps_yaml({"stages": {name: _unshared(value)}}))
        if block is None or set(block) != {name}:
            return None
        found |= block
    return _HEAD + _STAGES + "".join(found.values())


def load(path: Path, names: Collection[str] | None = None) -> dict[str, Any] | None:
    """`parsed` of a file; None also for one that is absent or no text."""
    text = _text(path)
    return parsed(text, names) if text else None


def record(path: Path, changed: Mapping[str, Mapping[str, Any]]) -> bool:
    """Write values of some stages, all at once; False if the file is not in DVC's layout."""
    text = _text(path)
    new = None if text is None else replaced(text, changed)
    if new is None:
        return False
    with whole_file(path.resolve()) as scratch:
        scratch.write_text(new, "utf-8")
        if path.exists():
            shutil.copymode(path, scratch)
    return True


def _unshared(value: Any) -> Any:
    """A copy in which no value occurs twice as one object, so that YAML needs no alias."""
    if isinstance(value, Mapping):
        return {key: _unshared(inner) for key, inner in value.items()}
    return [_unshared(inner) for inner in value] if isinstance(value, list | tuple) else value


def _text(path: Path) -> str | None:
    """The whole file; empty if it is absent, None if it is no text."""
    try:
        return path.read_text("utf-8") if path.exists() else ""
    except UnicodeDecodeError:
        return None
