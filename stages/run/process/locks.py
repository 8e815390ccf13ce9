"""One run at a time: who writes a place locks a file beside it, and says in it who he is.

The system lets go of the lock when the process ends, however it ends. The file is called
`.<name>.lock.part`, which neither git nor DVC looks at.
"""

import errno
import fcntl
import json
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from stages.run.errors import UserError
from stages.run.process.processes import Process

_SUFFIX = ".lock.part"
_AGAIN_EVERY_S = 0.1
# A run that has just been killed, or whose DVC has, may take this long to be gone.
_ENDING_S = 5.0
_MOST_LOST = 20  # times that a folder may go before a file is in it
_BUSY = (errno.EACCES, errno.EAGAIN)
_held: dict[Path, int] = {}  # by this process, and how many times
_files: set[int] = set()


@dataclass(frozen=True)
class Holder:
    """Who holds a place, as he says himself."""

    process: Process
    since: float  # s, Unix time
    command: str

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(self.since))
        return f"process {self.process.pid} on {self.process.host} since {at} ({self.command})"


@contextmanager
def alone(target: Path, wait_s: float | None = None) -> Iterator[None]:
    """Let no other run write `target` while the block lasts; what it calls may ask again.

    Raises UserError naming the other run when it has not let go after `wait_s`, by default as long
    as one may take that is ending.
    """
    path, made, file = _file_of(target), [], None
    if path not in _held:
        try:
            made = _made(path.parent)
            if not _is_of_parent(path):
                wait_s = _ENDING_S if wait_s is None else wait_s
                file = _take(path, target, time.monotonic() + wait_s)
        except OSError as error:
            if error.filename == str(path):
                error.filename = str(target)  # which the user named
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
            for folder in made:
                with suppress(OSError):
                    folder.rmdir()  # that we made, if nothing else has come into it


def holder_of(target: Path) -> Holder | None:
    """Who writes `target` now.

    Of another host, whose locks may not be seen here, whoever did not say that he was done.
    """
    path = _file_of(target)
    told = _told(path)
    if told is None or path in _held:
        return told
    try:
        file = os.open(path, os.O_RDWR)
    except OSError:
        return told
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return told
    finally:
        os.close(file)
    return None if told.process.host == socket.gethostname() else told


def name_of(file_name: str) -> str:
    """The place that a lock file is for; of any other file its own name.

    >>> name_of(".room.lock.part"), name_of("room")
    ('room', 'room')
    """
    is_lock = file_name.startswith(".") and file_name.endswith(_SUFFIX)
    return file_name[1 : -len(_SUFFIX)] if is_lock else file_name


def _file_of(target: Path) -> Path:
    target = Path(os.path.abspath(target))
    return target.parent.resolve() / f".{target.name}{_SUFFIX}"


def _made(folder: Path) -> list[Path]:
    """Make a folder and what leads to it; those that were made, the innermost first."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return missing


def _take(path: Path, target: Path, until: float) -> int | None:
    """Open and lock the file; None where the file system has no locks."""
    lost = 0
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # another's folder, which he has removed again
            lost += 1
            if lost > _MOST_LOST:  # or one, as /proc, where nothing can be made
                raise
            path.parent.mkdir(parents=True, exist_ok=True)
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(file)
            if error.errno not in _BUSY:
                _say(f"{target}: this file system has no locks: see that no second run writes it")
                return None
            if time.monotonic() < until:
                time.sleep(_AGAIN_EVERY_S)
                continue
            raise UserError(
                target, f"is being written by {_told(path) or 'another run'}",
                fix="wait until it is done, or end it, and run again",
            ) from error  # fmt: skip
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                break
        os.close(file)  # of one who has let go of it, and so removed it
    before = _told(path)
    if before is not None and before.process.host != socket.gethostname():
        _say(f"{target}: {before} did not say that it was done; see that it is gone")
    me = Holder(Process.of(os.getpid()), time.time(), shlex.join(sys.orig_argv[1:])[:80])
    os.ftruncate(file, 0)
    os.write(file, json.dumps(asdict(me)).encode())
    _files.add(file)
    return file


def _let_go() -> None:
    """In a process that was forked, such as a loader of samples: what it inherits outlives us."""
    for file in _files:
        os.close(file)
    _files.clear()


os.register_at_fork(after_in_child=_let_go)


def _is_of_parent(path: Path) -> bool:
    """Whether the process that started this one holds the place, for both."""
    holder = _told(path)
    return holder is not None and holder.process == Process.of(os.getppid())


def _told(path: Path) -> Holder | None:
    try:
        told = json.loads(path.read_text())
        return Holder(Process(**told.pop("process")), **told)
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
