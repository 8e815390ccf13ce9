"""Novel views on disk: novel_views.json and images `<kind>/<timestamp>/<camera>.png`.

Kind `given` is rendered from the target cameras of the calibration. Kind `aligned` is rendered from
poses fitted to the ground truth with frozen Gaussians, which removes calibration errors from the
metrics; it is absent when the method did not align.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.run.files import read_json, shaped, write_json
from stages.scenes.cameras import camera_fault
from stages.scenes.images import Pixels, read_image
from stages.scenes.view import View

KINDS = ("given", "aligned")
Pose = NDArray[np.float64]  # cam_from_world [4, 4]
INFO = "novel_views.json"


def read_novel_view(folder: Path, kind: str, view: View) -> Pixels:
    """Read the novel view of a target camera. Raises UserError for another size than its own."""
    path = novel_view_path(folder, kind, view)
    image = read_image(path)
    height, width = image.shape[:2]
    if (width, height) != (view.camera.width, view.camera.height):
        raise UserError(
            path,
            f"{width}x{height} px",
            expected=f"{view.camera.width}x{view.camera.height} px, as its ground truth",
            fix="run `dvc repro novel_views`",
        )
    return image


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Write novel_views.json; `info["kinds"]` lists the kinds beside it."""
    assert set(info["kinds"]) <= set(KINDS), f"unknown kinds {info['kinds']}"
    write_json(folder / INFO, info)


def read_kinds(folder: Path) -> tuple[str, ...]:
    """The kinds of novel views in a folder. Raises UserError when it has none."""
    kinds = read_json(folder / INFO).get("kinds")
    if not isinstance(kinds, list) or "given" not in kinds or any(k not in KINDS for k in kinds):
        raise UserError(
            folder / INFO,
            f"kinds {kinds}",
            expected="given, and perhaps aligned",
            fix="run `dvc repro novel_views`",
        )
    return tuple(kinds)


def read_aligned(folder: Path) -> dict[str, dict[str, Pose]]:
    """Poses of the aligned target cameras by timestamp and name. Raises UserError without any."""
    if "aligned" not in read_kinds(folder):
        raise UserError(folder / INFO, "no aligned target poses", fix="run `dvc repro novel_views`")
    info, again = read_json(folder / INFO), "run `dvc repro novel_views`"
    with shaped(folder / INFO, "moves: cam_from_world [4, 4] by timestamp and camera", again):
        return {
            timestamp: {name: _pose(move["cam_from_world"]) for name, move in cameras.items()}
            for timestamp, cameras in info["moves"].items()
        }


def _pose(rows: list[list[float]]) -> Pose:
    pose = np.array(rows, np.float64)
    fault = camera_fault(np.eye(3), pose) if pose.shape == (4, 4) else f"shape {pose.shape}"
    if fault:
        raise ValueError(fault)
    return pose


def novel_view_path(folder: Path, kind: str, view: View) -> Path:
    """The file of a target camera's novel view."""
    return folder / kind / view.timestamp / f"{view.name}.png"
