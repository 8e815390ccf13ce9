"""Folders that are named on the command line, looked at before any work.

What is read must be a folder. What is written must be writable, and is never a folder that holds
other things: nothing that a user has is replaced or mixed with results.
"""

import os
import re
import tempfile
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import text_hash

_OTHER = "name another folder"


def run_name(result: Path) -> str:
    """A name of one folder level for what a run keeps aside, unlike that of any other result.

    >>> run_name(Path("/results/my dog/combined"))
    'my_dog-combined-5ef6058f'
    """
    whole = result.resolve()
    told = (
        re.sub(r"[^A-Za-z0-9]+", "_", whole.parent.name),
        re.sub(r"[^A-Za-z0-9]+", "_", whole.name),
    )
    return "-".join([*(part.strip("_") or "x" for part in told), text_hash(str(whole))[:8]])


def check_source(folder: Path) -> None:
    """Raise UserError unless `folder` is one."""
    if not os.path.isdir(folder):
        told = "is a file" if os.path.lexists(folder) else "no such folder"
        raise UserError(folder, told, expected="a folder")


def make_target(folder: Path) -> None:
    """Make `folder`, if it is not there, and see that files can be written into it.

    It is tried, as permissions do not tell all: root has every one, and a file system may be
    read-only. Raises UserError when it fails.
    """
    at = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not os.path.isdir(at):
        told = "a link to nothing" if not at.exists() else "a file"
        raise UserError(folder, f"{at} is {told}", expected="a folder", fix=_OTHER)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            folder, f"cannot be written: {error.strerror}", expected="a folder for results",
            fix="name another folder, or give yourself the right to write there",
        ) from error  # fmt: skip


def make_file_target(path: Path) -> None:
    """See that a file can be written at `path`. Raises UserError when it cannot."""
    if os.path.isdir(path):
        raise UserError(path, "is a folder", expected="the name of a file")
    make_target(path.parent)


def check_apart(source: Path, target: Path, *, kept: str = "") -> None:
    """Raise UserError where results in `target` would lie among the inputs in `source`.

    Or the inputs among the results: they may only lie in `target`/`kept`. Beside a folder images/
    there is room, as photographs are sought below that.
    """
    ours, theirs = target.resolve(), source.resolve()
    own = [theirs / name for name in ("images", "sparse", "masks")]
    taken = own if own[0].is_dir() else [theirs]
    if ours == theirs or any(ours.is_relative_to(folder) for folder in taken):
        raise UserError(
            target, f"lies in {source}, among the photographs",
            expected="results beside the photographs", fix=f"{_OTHER} for the results",
        )  # fmt: skip
    if theirs.is_relative_to(ours) and not (kept and theirs.is_relative_to(ours / kept)):
        raise UserError(
            target, f"holds {source}, which is read", expected="a folder for results alone",
            fix=f"{_OTHER} for the results",
        )  # fmt: skip


def check_replaceable(folder: Path, mark: str) -> None:
    """Raise UserError when things are in a folder, but not the file `mark` of our own results."""
    if not is_empty(folder) and not (folder / mark).is_file():
        raise UserError(
            folder, f"is not empty, and no result of this command: there is no {mark} in it",
            expected="a new folder, or an earlier result", fix=f"move it away, or {_OTHER}",
        )  # fmt: skip


def is_empty(folder: Path) -> bool:
    """Whether nothing is in a folder, or there is none."""
    return not os.path.isdir(folder) or not any(os.scandir(folder))
