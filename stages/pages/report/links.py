"""Links from the report to the files of stage `show`."""

import os
from collections.abc import Mapping
from pathlib import Path

from stages.pages.report.page import SceneLinks

_KINDS = {"Videos": ".mp4", "PLY": ".ply", "SPZ": ".spz"}


def scene_links(folders: Mapping[str, Path], report: Path) -> dict[str, SceneLinks]:
    """Links from the page `report` into the folders of scenes that have a viewer."""
    return {
        scene: SceneLinks(_link(folder / "viewer.html", report)[1], _downloads(folder, report))
        for scene, folder in folders.items()
        if (folder / "viewer.html").is_file()
    }


def _downloads(folder: Path, report: Path) -> dict[str, tuple[tuple[str, str], ...]]:
    """Titles and addresses of films and models, by kind."""
    links = {
        kind: tuple(_link(path, report) for path in sorted(folder.glob(f"*{suffix}")))
        for kind, suffix in _KINDS.items()
    }
    return {kind: of_kind for kind, of_kind in links.items() if of_kind}


def _link(path: Path, report: Path) -> tuple[str, str]:
    """Title and address, such as `none 000021` for none_000021.ply."""
    address = Path(os.path.relpath(path, report.parent)).as_posix()
    return path.stem.removeprefix("orbit_").replace("_", " "), address
