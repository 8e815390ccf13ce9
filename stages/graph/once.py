"""What DVC does anew for every stage, done once per process: same results, linear in the stages.

- `params`: it parses params.yaml for every stage, and for every key it walks through all of it
  (DVC's pull request 10942 asks for a faster parser).
- `vars` of a stage: it copies all params for every stage that has them (DVC's issue 4963).
- The graph: it looks for a cycle along all edges in all ways.
- Folders: it keeps their hashes' texts in a file system in memory, and for each new one walks
  through all of them; `forget_folders` empties it between stages.
- `.dvc/tmp/rwlock`: it reads and writes the file eight times to look at one stage; `reading` asks
  it once for all.
- Hashes: it walks through a folder for the stage that makes it and for each that reads it; within
  `reading` each is hashed once.
- A stage's deps: it hashes each about five times, when it looks at the stage, restores it from the
  run cache and saves it; within `hashing_deps` once.
- dvc.lock, and a stage's file in the run cache: see `stages.graph.lock_file`.

Its own commands, such as `dvc status`, stay as they are. The digests of the code are computed again
when a file that they are of has changed.
"""

import logging
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dvc import rwlock as dvc_rwlock
from dvc.dependency import Dependency, param
from dvc.dvcfile import Lockfile
from dvc.fs import LocalFileSystem
from dvc.output import Output
from dvc.parsing.context import Context
from dvc.repo import graph as dvc_graph
from dvc.stage.serialize import to_lockfile
from dvc.utils import serialize
from fsspec.implementations.memory import MemoryFileSystem

from stages.graph import lock_file
from stages.run import digests
from stages.run.files import text_hash, whole_file, work_root

if TYPE_CHECKING:
    from networkx import DiGraph

_GLOB = set("*?[]")
_ABSENT, _UNCLEAR = object(), object()

_read_param_file = param.read_param_file
_clone = Context.clone
_dump_stages = Lockfile.dump_stages
_check_acyclic = dvc_graph.check_acyclic
_rwlock = dvc_rwlock.rwlock
_load_lock = Lockfile._load_yaml
_parsed: dict[str, tuple[bytes, Any]] = {}  # params files by path, each with its content
_get_hash = Output.get_hash
_dump_yaml = serialize.dump_yaml
_reads_all = _hashes_deps = False
# By path and kind, within `reading` and `hashing_deps`.
_hashes: dict[tuple[str, str], Any] = {}
_digested: dict[Path, list[Any]] = {}  # code and digests by root, as they were then
_CLOCK_NS = 2 * 10**9  # what was written less long ago may be written again in the same tick


def read_params(
    fs: Any, path: str, key_paths: list[str] | None = None, flatten: bool = False, **words: Any
) -> Any:
    """As DVC's `read_param_file`; a file is parsed again when its content has changed."""
    if not (flatten and key_paths) or words or not isinstance(fs, LocalFileSystem):
        return _read_param_file(fs, path, key_paths, flatten, **words)
    content = Path(path).read_bytes()
    if path not in _parsed or _parsed[path][0] != content:
        _parsed[path] = content, param.load_path(path, fs)
    values = {}
    for keys in key_paths:
        value = _at(_parsed[path][1], keys)
        if value is _UNCLEAR:
            values |= _read_param_file(fs, path, [keys], flatten)
        elif value is not _ABSENT:
            values[keys] = value
    return deepcopy(values)


def _at(node: Any, dotted: str) -> Any:
    """The value of plain keys of nested mappings; what else DVC takes for keys is unclear here."""
    if _GLOB & set(dotted):
        return _UNCLEAR
    for key in dotted.split("."):
        if not isinstance(node, dict) or not key or not all(isinstance(one, str) for one in node):
            return _UNCLEAR
        if key not in node:
            return _ABSENT
        node = node[key]
    return node


class _SharedContext(Context):
    """A copy that shares values with its origin; those that vars are merged into are copied."""

    def merge_update(self, other: Any, overwrite: bool = False) -> None:
        for key in other:
            if key in self.data:
                self.data[key] = deepcopy(self.data[key])
        super().merge_update(other, overwrite=overwrite)


def clone(origin: Context) -> Context:
    """As DVC's `Context.clone`, without a copy of what is not changed."""
    copied = _SharedContext()
    copied.data = dict(origin.data)
    copied.meta = deepcopy(origin.meta)
    copied.imports = deepcopy(origin.imports)
    copied._reserved_keys = dict(origin._reserved_keys)
    return copied


@wraps(_load_lock)
def load_lock(file: Lockfile, **words: Any) -> tuple[Any, str]:
    """As DVC's loader of dvc.lock."""
    if not words and isinstance(file.repo.fs, LocalFileSystem):
        value = lock_file.load(Path(file.path))
        if value is not None:
            return file.validate(value, file.relpath), ""
    return _load_lock(file, **words)


def check_acyclic(graph: "DiGraph") -> None:
    """As DVC's `check_acyclic`, which looks for the cycle to report only where there is one."""
    # Imported where a graph is made: a job looks at one stage.
    from networkx import is_directed_acyclic_graph

    if not is_directed_acyclic_graph(graph):
        _check_acyclic(graph)


@contextmanager
def reading(repo: Any, stages: Iterable[Any]) -> Iterator[None]:
    """Look at stages under DVC's lock, which keeps others from beginning to write their files.

    Raises DVC's LockError where a stage that runs now writes one.
    """
    global _reads_all
    paths = {one.fs_path for stage in stages for one in (*stage.deps, *stage.outs)}
    hardlink = repo.config["core"].get("hardlink_lock", False)
    command = " ".join(sys.argv)
    with _rwlock(repo.tmp_dir, repo.fs, command, sorted(paths), [], hardlink):
        pass
    _reads_all = True
    try:
        yield
    finally:
        _reads_all = False
        _hashes.clear()


@contextmanager
def hashing_deps() -> Iterator[None]:
    """Look at a stage, or save it, with one look at each of its deps."""
    global _hashes_deps
    _hashes_deps = True
    try:
        yield
    finally:
        _hashes_deps = False
        _hashes.clear()


@wraps(_get_hash)
def get_hash(out: Output) -> Any:
    """As DVC's hash of an out or a dep."""
    is_kept = _reads_all or (_hashes_deps and isinstance(out, Dependency))
    if not is_kept or not isinstance(out.fs, LocalFileSystem):
        return _get_hash(out)
    key = out.fs_path, out.hash_name
    if key not in _hashes:
        _hashes[key] = _get_hash(out)
    return _hashes[key]


@contextmanager
def rwlock(
    tmp_dir: str, fs: Any, command: str, read: list[str], write: list[str], hardlink: bool
) -> Iterator[None]:
    """As DVC's `rwlock`, or nothing for a reader within `reading`."""
    if _reads_all and not write:
        yield
    else:
        with _rwlock(tmp_dir, fs, command, read, write, hardlink):
            yield


def install() -> None:
    """Make DVC in this process use these."""
    param.read_param_file = read_params
    Context.clone = staticmethod(clone)
    dvc_graph.check_acyclic = check_acyclic
    dvc_rwlock.rwlock = rwlock
    Output.get_hash = get_hash
    Lockfile._load_yaml = load_lock
    Lockfile.dump_stages = dump_stages
    serialize.dump_yaml = dump_yaml


@wraps(_dump_yaml)
def dump_yaml(path: str, data: Any, *more: Any, **words: Any) -> None:
    """As DVC's writer of YAML; what has the parts of a stage is one in the run cache."""
    if more or words or not isinstance(data, dict) or not {"cmd", "outs", "params"} <= set(data):
        _dump_yaml(path, data, *more, **words)
    else:
        Path(path).write_text(lock_file.alone(data), "utf-8")


@wraps(_dump_stages)
def dump_stages(file: Lockfile, stages: Sequence[Any], **words: Any) -> None:
    """As DVC's writer of dvc.lock, with the same message and the same staging in git."""
    values: dict[str, Any] = {}
    for stage in stages:
        values |= to_lockfile(stage, **words)
    path = Path(file.path)
    before = path.read_bytes() if path.exists() else b""
    if not lock_file.record(path, values):
        _dump_stages(file, stages, **words)
    elif path.read_bytes() != before:
        what = "Updating" if before else "Generating"
        logging.getLogger("dvc.dvcfile").info("%s lock file '%s'", what, file.relpath)
        file.repo.scm_context.track_file(file.relpath)


def forget_folders() -> None:
    """Drop what DVC keeps of folders that it has hashed; not before their outs are in the cache."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


def bring_digests_up_to_date(root: Path = Path()) -> None:
    """`digests.bring_up_to_date`, unless neither the code nor a digest has changed since.

    Nor since another process did it: each job of a submission would spend 0.2 s.
    """
    root = root.resolve()
    if _digested.get(root) == (now := _code_and_digests(root)):
        return
    path = work_root() / f"digested.{text_hash(str(root))[:12]}"
    if not path.is_file() or path.read_text() != _fingerprint(now):
        before = _code(root)
        digests.bring_up_to_date(root)
        now = _code_and_digests(root)
        if before != _code(root):  # edited meanwhile, so the digests may be of either
            return
        if max(ctime for _, _, ctime, *_ in now) < time.time_ns() - _CLOCK_NS:
            with suppress(OSError), whole_file(path) as scratch:
                scratch.write_text(_fingerprint(now))
    _digested[root] = now


def _code(root: Path) -> list[tuple[Any, ...]]:
    files = [_status(root / path) for path in (digests.LOCK, digests.GRAPH)]
    return sorted(files + _statuses(root / "stages"))


def _code_and_digests(root: Path) -> list[tuple[Any, ...]]:
    return sorted(_code(root) + _statuses(root / digests.FOLDER))


def _fingerprint(statuses: Iterable[tuple[Any, ...]]) -> str:
    return text_hash(*map(repr, statuses))


def _statuses(folder: Path) -> list[tuple[Any, ...]]:
    """What the file system says of all files below a folder, without byte code."""
    return [
        _status(os.path.join(path, name))
        for path, _, names in os.walk(folder)
        for name in names
        if not name.endswith(".pyc")
    ]


def _status(path: str | Path) -> tuple[Any, ...]:
    """Path, times of its content and of its entry in ns, size, number; zeros for none."""
    with suppress(FileNotFoundError):
        one = os.stat(path)
        return str(path), one.st_mtime_ns, one.st_ctime_ns, one.st_size, one.st_ino
    return str(path), 0, 0, 0, 0
