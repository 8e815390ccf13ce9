"""Copies of embedded data where raw data is read from, unless the user's own data is there.

DVC removes the outs of a stage before the stage runs, so no folder that a user may write to is an
out: stage `demo` writes data/demo/<name>, and stage `raw` copies it to data/raw/<name>. The copy
has a file `.demo.json` with the digests of its files; a folder without it, or with other files, is
the user's.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from stages.run.errors import UserError
from stages.run.files import file_hash, read_json, whole_folder, write_json
from stages.run.user_paths import is_empty

MARK = ".demo.json"


def place_embedded_data(copies: Mapping[Path, Path]) -> None:
    """Copy each folder of the demo (a key of `copies`) to its place in the raw data (the value).

    Raises UserError, and changes nothing, when one of the places holds other data. A folder that
    is equal to the demo's counts as the demo's even without the mark: older versions wrote none.
    """
    for demo, raw in copies.items():
        _require_ours(demo, raw)
    for demo, raw in copies.items():
        digests = contents(demo)
        if _marked(raw) == digests == contents(raw):
            continue
        with whole_folder(raw) as scratch:
            shutil.copytree(demo, scratch, dirs_exist_ok=True)
            write_json(scratch / MARK, {"files": digests})


def _require_ours(demo: Path, raw: Path) -> None:
    """Raise UserError when `raw` holds data that was not copied from `demo`."""
    if is_empty(raw) and not raw.is_file():
        return
    if raw.is_dir() and not raw.is_symlink() and contents(raw) in (_marked(raw), contents(demo)):
        return
    raise UserError(
        raw,
        "holds data that the demo did not make, which stays as it is",
        expected="no folder, or the demo's own data, untouched",
        fix=f"for real data take {raw.name} out of the lists of demo scenes and captures "
        "(a scene: and set its `source: hi4d`); else move it away",
    )


def contents(folder: Path) -> dict[str, str]:
    """Digests of the files below a folder, by relative name, without the mark.

    A link counts as its target's path, whether or not that exists: the demo makes none.
    """
    digests = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            digests[name] = f"link to {os.readlink(path)}"
        elif path.is_file() and name != MARK:
            digests[name] = file_hash(path)
    return digests


def _marked(folder: Path) -> dict[str, str] | None:
    mark = folder / MARK
    try:
        return read_json(mark).get("files") if mark.is_file() else None
    except UserError:  # a damaged mark counts as none
        return None
