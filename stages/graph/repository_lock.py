"""DVC's lock of a repository: taken with a note that says who holds it, waited for with a message.

DVC's lock file names its holder by a number of this host, or, with `core.hardlink_lock`, not at
all; that kind also outlives a killed holder, by a year. So whoever takes the lock here writes
`.dvc/tmp/splatfix-lock.json` beside it, and a lock whose holder has ended on this host is released.
"""

import fcntl
import json
import logging
import os
import pwd
import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dvc.lock import HardlinkLock, LockError

from stages.run.errors import UserError
from stages.run.files import text_hash, write_json
from stages.run.process.locks import Holder

_LOGGER = logging.getLogger(__name__)
_NOTE = "splatfix-lock.json"
_AGAIN_S = 60.0
# HardlinkLock dates its file by so much into the future.
_LIFETIME_S = 365 * 86400


@contextmanager
def repository_lock(repo: Any) -> Iterator[None]:
    """Hold the lock of a DVC repository, opened without `_wait_for_lock`, during the block.

    Waits as long as another process holds it. After some seconds, and each minute, a warning says
    which one, and what to do if it has ended.
    """
    _take(repo.lock)
    path = Path(repo.lock.lockfile)
    note = path.with_name(_NOTE)
    try:
        write_json(note, {"claim": _claim(path), "holder": asdict(Holder.current())})
        remove_broken_rwlock(path.parent)
        yield
    finally:
        note.unlink(missing_ok=True)
        repo.lock.unlock()


def remove_broken_rwlock(folder: Path) -> None:
    """Remove DVC's list of files in use if a process was killed while it wrote the list.

    Every command of DVC would fail. Whoever writes it holds the repository's lock, as this process
    does now; entries of commands that run are lost, as they are when DVC on another host looks.
    """
    path = folder / "rwlock"
    try:
        json.loads(path.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        path.unlink(missing_ok=True)
        _LOGGER.warning("%s was left half written by a process that was killed: removed", path)


def busy_error(lock: Any) -> UserError:
    """Who holds a lock of DVC that could not be taken, and the way out."""
    return _error(Path(lock.lockfile), hardlink=isinstance(lock, HardlinkLock))


def holder_of_repository(root: Path, *, hardlink: bool) -> UserError | None:
    """Who holds the lock of the repository in `root`, and the way out; None if nobody does."""
    path = root / ".dvc" / "tmp" / "lock"
    if not path.is_file():
        return None
    if not hardlink:
        with path.open("r+") as file, suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return None
    return _error(path, hardlink=hardlink)


def _take(lock: Any) -> None:
    logging.getLogger("flufl.lock").setLevel(logging.CRITICAL)  # it logs each timeout as an error
    is_hardlink, warned_s = isinstance(lock, HardlinkLock), 0.0
    path = Path(lock.lockfile)
    while True:
        try:
            lock.lock()  # gives up after 3 s
            return
        except LockError:
            if is_hardlink and _release_of_ended(path):
                continue
            if time.monotonic() - warned_s > _AGAIN_S:
                warned_s = time.monotonic()
                error = busy_error(lock)
                _LOGGER.warning("waiting for DVC's lock, %s; %s", error.got, error.fix)


def _error(path: Path, *, hardlink: bool) -> UserError:
    """The holder of a lock that could not be taken."""
    folder = shlex.quote(os.path.relpath(path.parent))
    remove = f"`rm -f {folder}/lock {folder}/rwlock*`"
    claim = _claim(path)
    holder = _noted(path, claim)
    if holder is not None and not holder.process.is_here:
        fix = f"wait for it; once it has ended on {holder.process.host}: {remove}"
        return UserError(path, f"held by {holder}", fix=fix)
    if holder is not None and holder.process.is_alive():
        fix = f"wait for it, or end it: `kill {holder.process.pid}`"
        return UserError(path, f"held by {holder}, which runs", fix=fix)
    if holder is not None:
        return UserError(path, f"held by {holder}, which has ended", fix=remove)
    try:
        status = path.stat()
    except FileNotFoundError:
        return UserError(path, "was held by another process just now", fix="try again")
    fix = f"once no dvc runs in this workspace, on any host: {remove}"
    if hardlink and status.st_nlink == 1:
        return UserError(path, "a file of the other kind, without core.hardlink_lock", fix=fix)
    at = status.st_mtime - (_LIFETIME_S if hardlink else 0)
    since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
    number = "" if hardlink else f", process {claim} of its host,"
    got = f"held by a dvc command of {_owner(status.st_uid)}{number} since {since}"
    return UserError(path, got, fix=f"wait for it; {fix}")


def _release_of_ended(path: Path) -> bool:
    """Remove a lock whose holder ended on this host, as by kill -9; whether it was one.

    Only processes of the holder's host can know, and of these one at a time looks.
    """
    guard = Path(tempfile.gettempdir(), f"splatfix-{os.getuid()}-{text_hash(str(path))[:16]}.lock")
    with guard.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        claim = _claim(path)
        holder = _noted(path, claim)
        if holder is None or not holder.process.is_here or holder.process.is_alive():
            return False
        _LOGGER.warning("DVC's lock was held by %s, which has ended: released", holder)
        # Whoever edits rwlock holds the repository's lock, so its own lock is left over as well.
        for left in (path.with_name("rwlock.lock"), path):
            with suppress(FileNotFoundError):
                Path(left.read_text()).unlink(missing_ok=True)
                left.unlink()
        return True


def _claim(path: str | Path) -> str:
    """What the lock file says of its holder: a number, or the path of its claim."""
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _noted(path: Path, claim: str) -> Holder | None:
    """The holder by its note, if the note belongs to this claim."""
    try:
        values = json.loads(path.with_name(_NOTE).read_text())
        return Holder.of(values["holder"]) if claim and values["claim"] == claim else None
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _owner(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
