"""Views that a reader kept in a scene's viewer page, as the path of a film."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, camera_fault
from stages.scenes.formats.json_file import read_object
from stages.scenes.poses.camera_paths import through_keys

_EXPECTED = "what key S of viewer.html saved"
_ASPECTS = (0.1, 10.0)


def read_path(
    path: Path, scene: str, timestamps: Sequence[str], count: int, max_side_px: int
) -> list[tuple[Camera, str]]:
    """`count` cameras through the kept views, with the timestamps on the way.

    Images have the aspect of the first view's canvas. Raises UserError for another file, another
    scene's, or views of timestamps that the scene does not have.
    """
    values = read_object(path, _EXPECTED)
    keys = values.get("keys")
    if not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
        raise UserError(path, "no kept views", expected=_EXPECTED)
    if values.get("scene") != scene:
        raise UserError(path, f"a path of {values.get('scene')!r}", expected=f"one of {scene}")
    size = _size(path, keys[0], max_side_px)
    cameras = [_camera(f"{path}  keys.{index}", key, size) for index, key in enumerate(keys)]
    for index, key in enumerate(keys):
        if key.get("time") not in timestamps:
            got = f"time {key.get('time')!r}"
            expected = f"one of {', '.join(timestamps)}"
            raise UserError(f"{path}  keys.{index}", got, expected=expected)
    numbers = [timestamps.index(key["time"]) for key in keys]
    film = []
    for camera, place in through_keys(cameras, count):
        number = np.interp(place, np.arange(len(numbers)), numbers)
        film.append((camera, timestamps[round(float(number))]))
    return film


def _aspect(where: str, key: dict[str, Any]) -> float:
    """Width by height of a view's canvas."""
    aspect = key.get("aspect")
    is_number = isinstance(aspect, int | float) and not isinstance(aspect, bool)
    if not is_number or not _ASPECTS[0] <= aspect <= _ASPECTS[1]:
        raise UserError(where, f"aspect {aspect!r}", expected="width / height")
    return aspect


def _size(path: Path, key: dict[str, Any], max_side_px: int) -> tuple[int, int]:
    aspect = _aspect(f"{path}  keys.0", key)
    sides = max_side_px * min(1.0, aspect), max_side_px * min(1.0, 1 / aspect)
    return max(2, round(sides[0])), max(2, round(sides[1]))


def _camera(where: str, key: dict[str, Any], size: tuple[int, int]) -> Camera:
    try:
        pose = np.concatenate([np.array(key.get("cam_from_world"), np.float64), [[0, 0, 0, 1]]])
        # In shares of the canvas, whose aspect may have changed since the first view.
        fx, fy, cx, cy = np.array(key.get("lens"), np.float64)
        (width, height), focal = size, fy * size[1]
        fx_px = focal * (fx / fy) * _aspect(where, key)
        K = np.array([[fx_px, 0, cx * width], [0, focal, cy * height], [0, 0, 1]])
        fault = camera_fault(K, pose) if pose.shape == (4, 4) else f"shape {pose.shape}"
    except (TypeError, ValueError, ZeroDivisionError) as error:
        fault = str(error)
    if fault:
        raise UserError(where, fault, expected=_EXPECTED)
    return Camera("", K, pose, width, height)
