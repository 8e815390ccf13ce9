"""What stage `show` made, for the links of the report."""

import os
from collections.abc import Sequence
from pathlib import Path

from stages.pages.report.page import Shown3D
from stages.run import layout

_FILMS = {".mp4"}


def shown_in_3d(scenes: Sequence[str]) -> dict[str, Shown3D]:
    """By scene; one that has no viewer is left out."""
    found = {}
    for scene in scenes:
        folder = layout.shown(scene)
        if (folder / "viewer.html").is_file():
            rest = sorted(path for path in folder.iterdir() if path.name != "viewer.html")
            films = tuple(_link(path) for path in rest if path.suffix in _FILMS)
            files = tuple(_link(path) for path in rest if path.suffix not in _FILMS)
            found[scene] = Shown3D(_link(folder / "viewer.html")[1], films, files)
    return found


def _link(path: Path) -> tuple[str, str]:
    address = Path(os.path.relpath(path, layout.report().parent)).as_posix()
    return path.name.replace("_", " "), address
