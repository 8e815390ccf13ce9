"""One run at a time: a lock file beside each path that is written, which names its holder.

The system releases the lock when the process ends, however it ends. The file is called
`.<name>.lock.part`, which git and DVC ignore.
"""

import errno
import fcntl
import json
import logging
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.process.processes import Process

_LOGGER = logging.getLogger(__name__)
_SUFFIX = ".lock.part"
_RETRY_S = 0.1
# A run that has just been killed, or whose DVC has, may take this long to end.
_ENDING_S = 5.0
_MAX_LOST = 20  # times that a folder may vanish before the lock file is in it
_BUSY = (errno.EACCES, errno.EAGAIN)
_held: dict[Path, int] = {}  # locks of this process, and how often each was taken
_files: set[int] = set()


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as its file says."""

    process: Process
    since: float  # s, Unix time
    command: str

    @classmethod
    def current(cls) -> "Holder":
        """This process, from now on."""
        return cls(Process.of(os.getpid()), time.time(), shlex.join(sys.orig_argv[1:])[:80])

    @classmethod
    def of(cls, fields: dict[str, Any]) -> "Holder":
        """The holder that `asdict` made these fields of. Raises TypeError or LookupError."""
        return cls(**{**fields, "process": Process(**fields["process"])})

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.process.pid} on {self.process.host} since {at} ({self.command})"


@contextmanager
def alone(target: Path, wait_s: float | None = None) -> Iterator[None]:
    """Keep other runs from writing `target` during the block, which may take the lock again.

    Raises UserError naming the other run if it still holds the lock after `wait_s`; by default
    that is as long as a run may take to end.
    """
    path, created, file = _file_of(target), [], None
    if path not in _held:
        try:
            created = _create(path.parent)
            if not _is_of_parent(path):
                wait_s = _ENDING_S if wait_s is None else wait_s
                file = _take(path, target, time.monotonic() + wait_s)
        except OSError as error:
            if error.filename == str(path):
                error.filename = str(target)  # as the user named it
            raise
    _held[path] = _held.get(path, 0) + 1
    try:
        yield
    finally:
        _held[path] -= 1
        if not _held[path]:
            del _held[path]
            if file is not None:
                path.unlink(missing_ok=True)
                _files.discard(file)
                os.close(file)
            for folder in created:
                with suppress(OSError):
                    folder.rmdir()  # if it is empty again


def holder_of(target: Path) -> Holder | None:
    """Who writes `target` now.

    A holder on another host, whose locks may be invisible here, counts until it removes the file.
    """
    path = _file_of(target)
    holder = _read(path)
    if holder is None or path in _held:
        return holder
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return holder
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return holder
    finally:
        os.close(file)
    return None if holder.process.host == socket.gethostname() else holder


def name_of(file_name: str) -> str:
    """The name that a lock file is for; of any other file its own name.

    >>> name_of(".room.lock.part"), name_of("room")
    ('room', 'room')
    """
    is_lock = file_name.startswith(".") and file_name.endswith(_SUFFIX)
    return file_name[1 : -len(_SUFFIX)] if is_lock else file_name


def _file_of(target: Path) -> Path:
    target = Path(os.path.abspath(target))
    return target.parent.resolve() / f".{target.name}{_SUFFIX}"


def _create(folder: Path) -> list[Path]:
    """Create a folder and its parents; returns the new ones, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _take(path: Path, target: Path, until: float) -> int | None:
    """Open and lock the file; None where the file system has no locks."""
    lost = 0
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another run has removed its empty folder
            lost += 1
            if lost > _MAX_LOST:  # or nothing can be created there, as in /proc
                raise
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno not in _BUSY:
                _LOGGER.warning(
                    "%s: this file system has no locks: make sure that no second run writes it",
                    target,
                )
                return None
            if time.monotonic() < until:
                time.sleep(_RETRY_S)
                continue
            raise UserError(
                target,
                f"is being written by {_read(path) or 'another run'}",
                fix="wait until it is done, or end it, and run again",
            ) from error
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                break
        os.close(file)  # its former holder has removed it
    before = _read(path)
    if before is not None and before.process.host != socket.gethostname():
        _LOGGER.warning("%s: %s did not release the lock; make sure that it ended", target, before)
    os.ftruncate(file, 0)
    os.write(file, json.dumps(asdict(Holder.current())).encode())
    _files.add(file)
    return file


def _close_inherited() -> None:
    """Close lock files in a forked process, such as a data loader, which may outlive its parent."""
    for file in _files:
        os.close(file)
    _files.clear()


os.register_at_fork(after_in_child=_close_inherited)


def _is_of_parent(path: Path) -> bool:
    """Whether the process that started this one holds the lock, for both."""
    holder = _read(path)
    return holder is not None and holder.process == Process.of(os.getppid())


def _read(path: Path) -> Holder | None:
    try:
        return Holder.of(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
