"""Checks of folders named on the command line, before any work.

Inputs must be folders. Outputs must be writable, and never a folder that holds other things: no
data of the user is replaced or mixed with results.
"""

import os
import re
import tempfile
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import text_hash

_OTHER_FIX = "name another folder"


def run_name(result: Path) -> str:
    """A name of one folder level for what belongs to a folder: a run's resume state, an export.

    Unique to the folder, by its path.

    >>> run_name(Path("/results/my dog/combined"))
    'my_dog-combined-5ef6058f'
    """
    path = result.resolve()
    parts = (re.sub(r"[^A-Za-z0-9]+", "_", name) for name in (path.parent.name, path.name))
    return "-".join([*(part.strip("_") or "x" for part in parts), text_hash(str(path))[:8]])


def check_source(folder: Path) -> None:
    """Raise UserError unless `folder` is one."""
    if not os.path.isdir(folder):
        got = "is a file" if os.path.lexists(folder) else "no such folder"
        raise UserError(folder, got, expected="a folder")


def make_target(folder: Path) -> None:
    """Create `folder` if it does not exist. Raises UserError unless files can be written into it.

    A file is written to find out, since permissions do not say it: root has all of them, and a
    file system may be read-only.
    """
    at = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not os.path.isdir(at):
        kind = "a broken link" if not at.exists() else "a file"
        raise UserError(folder, f"{at} is {kind}", expected="a folder", fix=_OTHER_FIX)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            folder,
            f"cannot be written: {error.strerror}",
            expected="a folder for results",
            fix="name another folder, or grant yourself write access",
        ) from error


def make_file_target(path: Path) -> None:
    """Create the folder of `path`. Raises UserError when no file can be written there."""
    if os.path.isdir(path):
        raise UserError(path, "is a folder", expected="the name of a file")
    make_target(path.parent)


def check_new_file(path: Path, suffix: str) -> None:
    """Raise UserError unless `path` ends in `suffix` and does not exist."""
    if path.suffix != suffix or path.exists():
        got = "exists already" if path.exists() else f"no {suffix}"
        raise UserError(path, got, expected=f"a new file that ends in {suffix}")


def check_apart(source: Path, target: Path, *, kept: str = "") -> None:
    """Raise UserError where the results in `target` and the inputs in `source` would mix.

    Inputs may be inside of `target` in `target`/`kept` only, and results inside of `source` beside
    its folder images/ only, below which images are read.
    """
    results, inputs = target.resolve(), source.resolve()
    folders = [inputs / name for name in ("images", "sparse", "masks")]
    reserved = folders if folders[0].is_dir() else [inputs]
    if results == inputs or any(results.is_relative_to(folder) for folder in reserved):
        raise UserError(
            target,
            f"is inside of {source}, among the images",
            expected="results beside the images",
            fix=f"{_OTHER_FIX} for the results",
        )
    if inputs.is_relative_to(results) and not (kept and inputs.is_relative_to(results / kept)):
        raise UserError(
            target,
            f"holds {source}, which is an input",
            expected="a folder for results only",
            fix=f"{_OTHER_FIX} for the results",
        )


def check_replaceable(folder: Path, mark: str) -> None:
    """Raise UserError for a folder that is not empty and lacks the file `mark` of our results."""
    if not is_empty(folder) and not (folder / mark).is_file():
        raise UserError(
            folder,
            f"is not empty, and no result of this command: it has no {mark}",
            expected="a new folder, or an earlier result",
            fix=f"move it away, or {_OTHER_FIX}",
        )


def is_empty(folder: Path) -> bool:
    """Whether a folder is empty or does not exist."""
    return not os.path.isdir(folder) or not any(os.scandir(folder))
