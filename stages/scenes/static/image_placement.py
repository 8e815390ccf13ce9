"""How images get into a prepared scene: copied, or linked where their bytes need no change."""

import os
import shutil
from pathlib import Path
from typing import Literal

CopyMode = Literal["copy", "hardlink", "symlink"]


def place(source: Path, target: Path, mode: CopyMode) -> bool:
    """Copy a file or link to it; returns whether it is a link.

    Symbolic links to other folders are absolute. What the file system cannot link is copied.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if mode == "hardlink":
            os.link(source.resolve(), target)
            return True
        if mode == "symlink":
            target.symlink_to(source.resolve())
            return True
    except OSError:  # another file system, or one without links
        target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    return False
