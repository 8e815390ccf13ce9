"""Embedded data, put where raw data is sought: data/raw/<name>, unless data of a user's is there.

DVC removes the outs of a stage before it runs, so that nothing that a user may write to is an out
that it keeps: stage `demo` has data/demo/<name>, and stage `raw` copies that. The copy has a file
`.demo.json` that names its files by content; a folder without it, or with others, is a user's.
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import file_hash, read_json, whole_folder, write_json
from stages.run.user_paths import is_empty

MARK = ".demo.json"


def _check(names: Iterable[str]) -> None:
    """Raise UserError when data/raw/<name> holds what no demo put there, for the first of these."""
    for name in names:
        folder = layout.raw(name)
        if is_empty(folder) and not folder.is_file():
            continue
        if folder.is_dir() and not folder.is_symlink():
            found = contents(folder)
            if found in (_marked(folder), contents(layout.demo(name))):
                continue
        raise UserError(
            folder, "holds data that the demo did not make, which stays as it is",
            expected="no folder, or the demo's own data, untouched",
            fix=f"for real data take {name} out of the lists of demo scenes and captures "
            "(a scene: and set its `source: hi4d`); else move it away",
        )  # fmt: skip


def place_embedded_data(names: Iterable[str]) -> None:
    """Copy data/demo/<name> to data/raw/<name> for each.

    Raises UserError, and changes nothing, when one of these holds what no demo put there. What is
    equal to data/demo/<name> is the demo's also without a mark, as older versions left it.
    """
    names = list(names)
    _check(names)
    for name in names:
        made = contents(layout.demo(name))
        if _marked(layout.raw(name)) == made == contents(layout.raw(name)):
            continue
        with whole_folder(layout.raw(name)) as scratch:
            shutil.copytree(layout.demo(name), scratch, dirs_exist_ok=True)
            write_json(scratch / MARK, {"files": made})


def contents(folder: Path) -> dict[str, str]:
    """Hashes of the files below a folder, by relative name, without our own mark.

    A link is known by where it leads, whatever is there: the demo makes none.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {os.readlink(path)}"
        elif path.is_file() and name != MARK:
            found[name] = file_hash(path)
    return found


def _marked(folder: Path) -> dict[str, str] | None:
    mark = folder / MARK
    try:
        return read_json(mark).get("files") if mark.is_file() else None
    except UserError:  # a damaged mark says nothing
        return None
