"""What stage `show` made, for the links of the report."""

import os
from collections.abc import Sequence
from pathlib import Path

from stages.pages.report.page import SceneLinks
from stages.run import layout

_KINDS = {"Films": ".mp4", "PLY": ".ply", "SPZ": ".spz"}


def shown_in_3d(scenes: Sequence[str]) -> dict[str, SceneLinks]:
    """By scene; one that has no viewer is left out."""
    found = {}
    for scene in scenes:
        folder = layout.shown(scene)
        if (folder / "viewer.html").is_file():
            links = {
                kind: tuple(_link(path) for path in sorted(folder.glob(f"*{suffix}")))
                for kind, suffix in _KINDS.items()
            }
            others = {kind: some for kind, some in links.items() if some}
            found[scene] = SceneLinks(_link(folder / "viewer.html")[1], others)
    return found


def _link(path: Path) -> tuple[str, str]:
    """Title and address, such as `none 000021` for none_000021.ply."""
    address = Path(os.path.relpath(path, layout.report().parent)).as_posix()
    return path.stem.removeprefix("orbit_").replace("_", " "), address
