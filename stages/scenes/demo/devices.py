"""Cameras of the embedded static scene: a phone, a stereo and a light-field camera, and a video.

The phone's focal lengths follow from their 35 mm equivalents (13, 26 and 52 mm), by the diagonal.
"""

from collections.abc import Mapping

import numpy as np

from stages.scenes.cameras import Array, Camera, look_at

_TARGET = (0.0, 0.95, 0.0)
_PHONE_MM = {"wide": 26.0, "tele": 52.0, "ultrawide": 13.0}  # 35 mm equivalent
_LENS_OFFSETS_M = {"wide": (0.0, 0.0), "tele": (0.019, 0.0), "ultrawide": (0.0, 0.019)}
_DIAGONAL_35MM = 43.267
_STEREO_BASELINE_M, _STEREO_FIELD_DEG = 0.12, 76.0
_LIGHTFIELD_STEP_M, _LIGHTFIELD_FIELD_DEG = 0.012, 42.0
_LIGHTFIELD_FOCUS_M = 3.2  # points at this distance have the same pixel in every view
_ARC_DEG, _ARC_RADIUS_M = 20.0, 2.55


def equivalent_mm(lens: str) -> float:
    """35 mm equivalent focal length of a lens of the phone, for its EXIF data."""
    return _PHONE_MM[lens]


def phone(width: int, height: int) -> dict[str, Camera]:
    """The three lenses of a phone at rest, by name."""
    pose = look_at([0.05, 1.40, 2.60], _TARGET, [0, 1, 0])
    return {
        lens: _moved(_camera(lens, _phone_focal(mm, width, height), pose, width, height), offset)
        for (lens, mm), offset in zip(_PHONE_MM.items(), _LENS_OFFSETS_M.values(), strict=True)
    }


def stereo(width: int, height: int) -> dict[str, Camera]:
    """A stereo camera, left and right."""
    pose = look_at([-0.42, 1.50, 2.55], _TARGET, [0, 1, 0])
    focal = 0.5 * width / np.tan(np.radians(_STEREO_FIELD_DEG) / 2)
    left = _camera("left", focal, pose, width, height)
    return {"left": left, "right": _moved(left, (_STEREO_BASELINE_M, 0.0), "right")}


def lightfield(side: int, width: int, height: int) -> dict[tuple[int, int], Camera]:
    """The side x side sub-aperture views of a plenoptic camera by (row, column).

    They are parallel; shifted principal points give the focused distance no disparity.
    """
    pose = look_at([0.40, 1.32, 2.62], _TARGET, [0, 1, 0])
    focal = 0.5 * width / np.tan(np.radians(_LIGHTFIELD_FIELD_DEG) / 2)
    centre, views = (side - 1) / 2, {}
    for row in range(side):
        for column in range(side):
            offset = np.array([column - centre, row - centre]) * _LIGHTFIELD_STEP_M
            name = f"{row:02d}_{column:02d}"
            view = _moved(_camera(name, focal, pose, width, height), tuple(offset))
            view.K[:2, 2] += focal * offset / _LIGHTFIELD_FOCUS_M
            views[row, column] = view
    return views


def walk(frames: int, width: int, height: int) -> dict[str, Camera]:
    """Frames of a video by the phone's wide lens on an arc around the scene."""
    views = {}
    for number, angle in enumerate(np.radians(np.linspace(-_ARC_DEG, _ARC_DEG, frames)), start=1):
        sway = 0.12 * np.sin(1.7 * number)
        eye = [_ARC_RADIUS_M * np.sin(angle), 1.40 + sway, _ARC_RADIUS_M * np.cos(angle)]
        pose = look_at(eye, [0.1 * np.sin(2.0 * number), 0.95, 0.0], [0, 1, 0])
        name = f"frame_{number:05d}"
        focal = _phone_focal(_PHONE_MM["wide"], width, height)
        views[name] = _camera(name, focal, pose, width, height)
    return views


def _phone_focal(mm: float, width: int, height: int) -> float:
    return mm / _DIAGONAL_35MM * float(np.hypot(width, height))


def _camera(name: str, focal: float, pose: Array, width: int, height: int) -> Camera:
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(name, K, pose, width, height)


def _moved(camera: Camera, offset: tuple[float, float], name: str = "") -> Camera:
    """The camera moved in its image plane, metres to the right and down."""
    pose = camera.cam_from_world.copy()
    pose[:2, 3] -= offset
    return Camera(name or camera.name, camera.K.copy(), pose, camera.width, camera.height)


def by_name(views: Mapping[tuple[int, int], Camera]) -> dict[str, Camera]:
    """Light-field views by name."""
    return {view.name: view for view in views.values()}
