"""What of the code a stage depends on, as a small text an entry: data/code/<entry>.txt.

One line a file of the entry's import closure, with a digest of what of it can change a result, and
one a package that these import or that such a package needs, with the version in requirements.lock.
Stage `code` writes them; whoever judges what is stale brings them up to date before.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from stages.run import source
from stages.run.files import text_hash, work_root
from stages.run.settings.readings import PARAMS_ENV
from stages.run.source import Code, ModuleFacts

STAGE = "code"
FOLDER = Path("data", "code")
LOCK = Path("requirements.lock")
GRAPH = Path("dvc.yaml")
# Packages that are imported by another name than the one that they are installed by.
INSTALLED_AS = {
    "PIL": "pillow",
    "hydra": "hydra-core",
    "markdown_it": "markdown-it-py",
    "ruamel": "ruamel-yaml",
    "skimage": "scikit-image",
}
# These write down what happens and make nothing: one needs all of DVC and its remotes.
_BESIDE_RESULTS = frozenset({"dvclive"})
_COMMAND = re.compile(r"^ +cmd: python -m stages\.([\w.]+)", re.MULTILINE)
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;]+)")


@dataclass(frozen=True)
class Pin:
    """A package as the lock has it."""

    version: str
    needed_by: frozenset[str]


def entries(root: Path = Path()) -> list[str]:
    """Entries that stages of dvc.yaml run, but the one that writes the digests."""
    graph = root / GRAPH
    found = _COMMAND.findall(graph.read_text()) if graph.is_file() else []
    return sorted(set(found) - {STAGE})


def path_of(entry: str) -> Path:
    """File of an entry's digests, relative to the root of the repository."""
    return FOLDER / f"{entry}.txt"


def texts(root: Path = Path(), *only: str) -> dict[str, str]:
    """The digests of entries, of all by default. Raises UserError for code that is no Python."""
    known = _known()
    code, before, pinned = Code(root, known), len(known), pins(_read(root / LOCK))
    found = {entry: _text(code, f"stages.{entry}", pinned) for entry in only or entries(root)}
    if len(known) > before:
        _keep(known if only else code.used)
    return found


def bring_up_to_date(root: Path = Path()) -> None:
    """Write the digests that differ from what the code is now, and nothing else."""
    found = texts(root)
    for entry, text in found.items():
        _write(root / path_of(entry), text)
    for path in (root / FOLDER).glob("*.txt"):
        if path.stem not in found:
            path.unlink()


@contextmanager
def recorded() -> Iterator[None]:
    """Let DVC record a result with the digest of the code that makes it, for one run of a stage.

    DVC hashes what a stage read when it has ended. The code may be edited before this run began,
    where stage `code` was passed over, and while it lasts. Jobs hash before the run themselves.
    """
    entry = _running()
    path = path_of(entry)
    if not entry or PARAMS_ENV in os.environ or not path.is_file():
        yield
        return
    text = texts(Path(), entry)[entry]
    _write(path, text)
    try:
        yield
    finally:
        _write(path, text)


def running_stage_digests() -> str:
    """The digests of what runs here as a stage; empty by hand, where no record is made."""
    return _read(path_of(_running()))


def changes(before: str, now: str) -> list[str]:
    """What differs between two texts of an entry, such as `stages/splat/raster.py changed`.

    >>> changes("s/a.py 1\\nnumpy 2.0\\n", "s/a.py 2\\ns/b.py 1\\nnumpy 2.1\\n")
    ['numpy 2.0 -> 2.1', 's/a.py changed', 's/b.py new']
    """
    old, new = _lines(before), _lines(now)
    return [
        _change(name, old.get(name), new.get(name))
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]


def pins(lock: str) -> dict[str, Pin]:
    """Packages of a lock as uv writes it, by their normal name; `# via` says what needs each."""
    versions: dict[str, list[str]] = {}
    needed_by: dict[str, set[str]] = {}
    name = ""
    for line in lock.splitlines():
        if pin := _PIN.match(line):
            name = normal(pin[1])
            versions.setdefault(name, []).append(pin[2])
            needed_by.setdefault(name, set())
        elif name and line.startswith(" "):
            words = line.replace("#", "").replace("via", "", "via" in line.split()).split()
            needed_by[name] |= {normal(word) for word in words[:1]}
    return {
        name: Pin(" or ".join(sorted(found)), frozenset(needed_by[name]))
        for name, found in versions.items()
    }


def _running() -> str:
    """The entry that this process is of, where it makes a stage's results."""
    module = getattr(sys.modules["__main__"].__spec__, "name", "")
    return module.removeprefix("stages.") if "DVC_STAGE" in os.environ else ""


def _text(code: Code, module: str, pinned: Mapping[str, Pin]) -> str:
    imported = set().union(*map(code.foreign, code.closure(module)))
    lines = [f"{file} {digest}" for file, digest in code.files(module).items()]
    lines += [f"{name} {pinned[name].version}" for name in _needed(imported, pinned)]
    return "".join(f"{line}\n" for line in lines)


def _needed(imported: set[str], pinned: Mapping[str, Pin]) -> list[str]:
    """Pinned packages behind names that are imported, and all that these need."""
    found: set[str] = set()
    waiting = [normal(INSTALLED_AS.get(name, name)) for name in imported]
    while waiting:
        name = waiting.pop()
        if name in pinned and name not in found | _BESIDE_RESULTS:
            found.add(name)
            waiting += [other for other, pin in pinned.items() if name in pin.needed_by]
    return sorted(found)


def normal(name: str) -> str:
    """A package's name as packaging compares them.

    >>> normal("ruamel.yaml"), normal("Jinja2")
    ('ruamel-yaml', 'jinja2')
    """
    return re.sub(r"[-_.]+", "-", name).lower()


def _lines(text: str) -> dict[str, str]:
    return {name: rest for name, _, rest in (line.partition(" ") for line in text.splitlines())}


def _change(name: str, old: str | None, new: str | None) -> str:
    if old is None or new is None:
        return f"{name} {'new' if old is None else 'gone'}"
    return f"{name} changed" if "/" in name else f"{name} {old} -> {new}"


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def _write(path: Path, text: str) -> None:
    """Let a file hold a text. It may be a link into DVC's cache, so it is replaced.

    Jobs of several hosts may do so at once.
    """
    if _read(path) != text or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.part")
        scratch.write_text(text)
        scratch.replace(path)


def _known() -> dict[str, ModuleFacts]:
    """ModuleFacts of texts that were read before, as long as they are read in the same way."""
    try:
        kept = json.loads(_cache().read_text())
        return {key: ModuleFacts(one[0], _imports(one[1]), one[2]) for key, one in kept.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _imports(kept: list) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    return tuple((level, base, tuple(names)) for level, base, names in kept)


def _keep(known: Mapping[str, ModuleFacts]) -> None:
    with suppress(OSError):
        _write(_cache(), json.dumps({key: astuple(one) for key, one in known.items()}))


def _cache() -> Path:
    return work_root() / f"code.{text_hash(Path(source.__file__).read_text())[:12]}.json"
