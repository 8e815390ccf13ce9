"""dvc.lock by its entries, one per stage: a record writes only the stages that ran.

For each record DVC parses the whole file and writes it anew, with ruamel's pure Python (DVC's issue
10629): 1 s of CPU at 7 scenes, 25 s at 100. Here an entry is a block of lines, and its params, the
same text in most stages of one kind, are parsed and dumped once. A file in another layout than
DVC's, such as one with a merge conflict, is left to DVC.
"""

import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dumps_yaml, loads_yaml
from ruamel.yaml.error import YAMLError

from stages.run.files import whole_file

_HEAD, _STAGES = "schema: '2.0'\n", "stages:\n"
_ENTRY = re.compile(r"^(?=  [^ \n])", re.MULTILINE)
# Texts that YAML reads as other types are quoted, and so are in another layout.
_ENTRY_BYTES = re.compile(rb"^(?=  [^ \n])", re.MULTILINE)
_NAME = re.compile(r"  ([A-Za-z_][\w@.-]*):\n", re.ASCII)
_PART = re.compile(r"^(?=    [a-z])", re.MULTILINE)
_SHALLOW = re.compile(r"^(?!    )[^\n]", re.MULTILINE)
_PARAMS = "    params:\n"
_NO_PARAMS = re.compile(r"^(?:    )?params:\n", re.MULTILINE)
_CONFLICT = "\n<<<<<<< "
_params_texts: dict[tuple[Callable[[Any], str], str], str] = {}
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
        if _SHALLOW.search(rest):
            return None
        found[name[1]] = block
    return found


def entry(text: str, name: str) -> str:
    """The lines of one stage; empty if there are none."""
    first = text.find(f"\n  {name}:\n") + 1
    if not first:
        return ""
    after = _ENTRY.search(text, first + 1)
    return text[first : after.start() if after else len(text)]


def stored(path: Path, name: str) -> str:
    """`entry` of a file, of which little more is decoded: it has 20 MB at a thousand scenes."""
    data = _content(path)
    if data.find(b"\r") < 0:
        return _entry_of(data, name).decode("utf-8", errors="surrogateescape")
    return entry(read(path) or "", name)  # with other ends of lines


def _entry_of(data: bytes, name: str) -> bytes:
    first = data.find(f"\n  {name}:\n".encode()) + 1
    if not first:
        return b""
    after = _ENTRY_BYTES.search(data, first + 1)
    return data[first : after.start() if after else len(data)]


def _content(path: Path) -> bytes:
    """The bytes of a file; none if it is absent.

    Read, not mapped: DVC writes the file in place, and one that another node replaces is gone.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def block(name: str, value: Mapping[str, Any]) -> str | None:
    """The lines of a stage as DVC writes them; None if they could not be told apart in a file."""
    text = _dumped(value, lambda inner: dumps_yaml({"stages": {name: inner}}), _params)
    found = entries(_HEAD + text)
    return text.removeprefix(_STAGES) if found is not None and set(found) == {name} else None


def alone(value: Mapping[str, Any]) -> str:
    """The text of DVC's file for one stage in the run cache."""
    return _dumped(value, dumps_yaml, _params_alone)


def _dumped(
    value: Mapping[str, Any], dump: Callable[[Any], str], dump_params: Callable[[Any], str]
) -> str:
    """YAML of a stage: params, most of its lines, are dumped once for all that have the same.

    Args:
        value: The stage.
        dump: Dumps a stage.
        dump_params: Dumps its line `params` and those below.
    """
    value = _unshared(value)
    params = value.get("params")
    parts = _NO_PARAMS.split(dump({**value, "params": None})) if params else []
    if len(parts) != 2:
        return dump(value)
    key = dump_params, repr(params)
    if key not in _params_texts:
        _params_texts[key] = dump_params(params)
    return parts[0] + _params_texts[key] + parts[1]


def _params(params: Any) -> str:
    return dumps_yaml({0: {0: {"params": params}}}).removeprefix("0:\n  0:\n")


def _params_alone(params: Any) -> str:
    return dumps_yaml({"params": params})


def parsed(text: str, names: Collection[str] | None = None) -> dict[str, Any] | None:
    """The value of the file as DVC loads it, or of some stages; None for another layout."""
    if names is not None:
        text = _some(text.encode(), names) or text
    found = entries(text)
    if not found:
        return None
    rest, params_of = [_STAGES], {}
    for name, one in found.items():
        if names is None or name in names:
            parts = _PART.split(one)
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


def load(path: Path, names: Collection[str] | None = None) -> dict[str, Any] | None:
    """`parsed` of a file; None also for one that is absent or no text."""
    text = (None if names is None else _some(_content(path), names)) or read(path)
    return parsed(text, names) if text else None


def _some(data: bytes, names: Collection[str]) -> str | None:
    """The text of a file with some stages alone; None if they cannot be told apart.

    A look at the others takes half a second at a thousand scenes.
    """
    head = (_HEAD + _STAGES).encode()
    if data[: len(head)] != head or data.find(_CONFLICT.encode()) >= 0 or data.find(b"\r") >= 0:
        return None
    places = [f"\n  {name}:\n".encode() for name in names]
    if any(data.find(one) < 0 or data.find(one) != data.rfind(one) for one in places):
        return None
    try:
        return (head + b"".join(_entry_of(data, name) for name in names)).decode("utf-8")
    except UnicodeDecodeError:
        return None


def record(path: Path, changed: Mapping[str, Mapping[str, Any]]) -> bool:
    """Write values of some stages, all at once; False if the file is not in DVC's layout.

    New stages come last.
    """
    blocks = {name: block(name, value) for name, value in changed.items()}
    return None not in blocks.values() and record_blocks(path, blocks)


def record_blocks(path: Path, blocks: Mapping[str, str]) -> bool:
    """`record` of what `block` returned."""
    text = read(path)
    found = None if text is None else entries(text or _HEAD + _STAGES)
    if found is None:
        return False
    new = _HEAD + _STAGES + "".join({**found, **blocks}.values())
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


def read(path: Path) -> str | None:
    """The whole file; empty if it is absent, None if it is no text."""
    try:
        return path.read_text("utf-8") if path.exists() else ""
    except UnicodeDecodeError:
        return None
