"""Code that each stage depends on, as one small text file per entry: data/code/<entry>.txt.

It has a line for each file of the entry's import closure, with a digest of its code, and for each
package that these files import, directly or not, with its version in requirements.lock. Stage
`code` writes the files; commands that determine what is stale update them first.
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
# Packages whose import name differs from the name that they are installed by.
INSTALLED_AS = {
    "PIL": "pillow",
    "cuda": "cuda-bindings",
    "cv2": "opencv-python-headless",
    "hydra": "hydra-core",
    "markdown_it": "markdown-it-py",
    "ruamel": "ruamel-yaml",
    "skimage": "scikit-image",
}
_COMMAND = re.compile(r"^ +cmd: python -m stages\.([\w.]+)", re.MULTILINE)
_PIN = re.compile(r"([A-Za-z0-9][\w.-]*)(?:\[[^]]*\])?==([^\s;]+)")


@dataclass(frozen=True)
class Pin:
    """A package in the lock."""

    version: str
    needed_by: frozenset[str]


def entries(root: Path = Path()) -> list[str]:
    """Entries that stages of dvc.yaml run, except the one that writes the digests."""
    graph = root / GRAPH
    names = _COMMAND.findall(graph.read_text()) if graph.is_file() else []
    return sorted(set(names) - {STAGE})


def path_of(entry: str) -> Path:
    """File of an entry's digests, relative to the root of the repository."""
    return FOLDER / f"{entry}.txt"


def texts(root: Path = Path(), *only: str) -> dict[str, str]:
    """Digests of `only`, or of all entries. Raises UserError for code that is not valid Python."""
    known = _cached_facts()
    code, before, pinned = Code(root, known), len(known), pins(_read(root / LOCK))
    by_entry = {entry: _text(code, f"stages.{entry}", pinned) for entry in only or entries(root)}
    if len(known) > before:
        _write_cache(known if only else code.used)
    return by_entry


def bring_up_to_date(root: Path = Path()) -> None:
    """Write the digests that differ from the current code's, and nothing else."""
    current = texts(root)
    for entry, text in current.items():
        _write(root / path_of(entry), text)
    for path in (root / FOLDER).glob("*.txt"):
        if path.stem not in current:
            path.unlink()


@contextmanager
def recorded() -> Iterator[None]:
    """Make DVC record the result of the block with the digest of the code at its start.

    DVC hashes the deps of a stage after it ended. The code may have been edited during the run,
    or before it if stage `code` was skipped. Jobs hash before the run themselves.
    """
    entry = _running_entry()
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
    """Digests of the running stage; empty outside DVC, which then records nothing."""
    return _read(path_of(_running_entry()))


def changes(before: str, now: str) -> list[str]:
    """Differences between two texts of an entry, such as `stages/splat/raster.py changed`.

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
    """Packages of a lock of uv by normalised name; its `# via` comments name the dependants."""
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
        name: Pin(" or ".join(sorted(pinned)), frozenset(needed_by[name]))
        for name, pinned in versions.items()
    }


def _running_entry() -> str:
    """The entry of this process when DVC runs it as a stage, else an empty string."""
    module = getattr(sys.modules["__main__"].__spec__, "name", "")
    return module.removeprefix("stages.") if "DVC_STAGE" in os.environ else ""


def _text(code: Code, module: str, pinned: Mapping[str, Pin]) -> str:
    imported = set().union(*map(code.foreign, code.closure(module)))
    lines = [f"{file} {digest}" for file, digest in code.files(module).items()]
    lines += [f"{name} {pinned[name].version}" for name in _needed(imported, pinned)]
    return "".join(f"{line}\n" for line in lines)


def _needed(imported: set[str], pinned: Mapping[str, Pin]) -> list[str]:
    """Pinned packages of imported names, and all packages that these need."""
    packages: set[str] = set()
    waiting = [normal(INSTALLED_AS.get(name, name)) for name in imported]
    while waiting:
        name = waiting.pop()
        if name in pinned and name not in packages:
            packages.add(name)
            waiting += [other for other, pin in pinned.items() if name in pin.needed_by]
    return sorted(packages)


def normal(name: str) -> str:
    """The normalised name of a package.

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
    """Replace a file, which may be a link into DVC's cache, if its text differs.

    Jobs on several hosts may do so at once.
    """
    if _read(path) != text or not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.uname().nodename}.{os.getpid()}.part")
        scratch.write_text(text)
        scratch.replace(path)


def _cached_facts() -> dict[str, ModuleFacts]:
    """Cached facts by hash of a module's text; an edit of `stages.run.source` empties the cache."""
    try:
        cached = json.loads(_cache().read_text())
        return {
            key: ModuleFacts(digest, _imports(imports), seeks_files)
            for key, (digest, imports, seeks_files) in cached.items()
        }
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return {}


def _imports(values: list) -> tuple[tuple[int, str, tuple[str, ...]], ...]:
    return tuple((level, base, tuple(names)) for level, base, names in values)


def _write_cache(known: Mapping[str, ModuleFacts]) -> None:
    with suppress(OSError):
        _write(_cache(), json.dumps({key: astuple(facts) for key, facts in known.items()}))


def _cache() -> Path:
    return work_root() / f"code.{text_hash(Path(source.__file__).read_text())[:12]}.json"
