"""Sequences in EasyVolcap's layout: `intri.yml`, `extri.yml`, `images/<camera>/<frame>.jpg`.

Also EasyMocap's, and that of volumetric-video challenges: `train_intri.yml`, `test_intri.yml` and
so on beside or instead of the two files, and time offsets by camera. Keys are K_<camera>,
D_ (or dist_), H_, W_ (0, -1 or absent: unknown), Rot_ (or R_, a rotation vector) and T_, from
world to camera with OpenCV's axes. Masks are `masks/<camera>/<frame>.png`.
Source: easyvolcap/utils/easy_utils.py and docs/misc/custom_dataset.md of zju3dv/EasyVolcap.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes.cameras import rotation_angle_deg, rotation_from_vector
from stages.scenes.formats.json_file import read_object
from stages.scenes.formats.opencv_yaml import read_opencv_yaml
from stages.scenes.sources.raw_sequence import (
    FIX_CALIBRATION,
    RawCamera,
    RawSequence,
    check_names,
    check_placement,
    find_root,
    list_frames,
    masks_beside,
    raw_camera,
)

_EXPECTED = "intri.yml, extri.yml and images/<camera>/<frame>.jpg"
_PREFIXES = ("", "train_", "test_")
# Seconds by camera: a camera's frame f shows the instant f / fps minus its offset.
_OFFSETS = ("sync.json", "t_offsets.json", "timecode.json")
_MAX_OFFSET_S = 86_400.0
_LARGEST = 1e12
_MAX_ROTATION_DEG = 0.1  # between the two forms of one rotation

_Values = Mapping[str, Any]


def open_sequence(root: Path, cameras: Sequence[str], fps: float | None = None) -> RawSequence:
    """Open a sequence for these cameras; frames of cameras with time offsets are matched by `fps`.

    Raises UserError that names what is missing and where.
    """
    marks = [f"{prefix}intri.yml" for prefix in _PREFIXES]
    root = find_root(root, marks, _EXPECTED)
    calibration = _read_cameras(root, cameras)
    frames = {name: list_frames(root / "images" / name) for name in cameras}
    shifts = _frame_shifts(root, cameras, fps)
    masks = {name: masks_beside(root / "masks" / name, frames[name]) for name in cameras}
    return RawSequence(
        root,
        calibration,
        {name: _shifted(frames[name], shifts.get(name, 0)) for name in cameras},
        {name: _shifted(masks[name], shifts.get(name, 0)) for name in cameras},
    )


def _read_cameras(root: Path, cameras: Sequence[str]) -> dict[str, RawCamera]:
    raw: dict[str, RawCamera] = {}
    known: dict[str, Path] = {}
    for prefix in _PREFIXES:
        path = root / f"{prefix}intri.yml"
        if not path.is_file():
            continue
        intrinsics = read_opencv_yaml(path)
        extrinsics_path = root / f"{prefix}extri.yml"
        extrinsics = read_opencv_yaml(extrinsics_path)
        for name in _names(path, intrinsics):
            known.setdefault(name, path)
            if name in cameras and name not in raw:
                raw[name] = _camera(path, intrinsics, extrinsics_path, extrinsics, name)
    check_names(next(iter(known.values())), cameras, list(known))
    raw = {name: raw[name] for name in cameras}
    files = dict.fromkeys(known[name].name.replace("intri", "extri") for name in cameras)
    check_placement(root / ", ".join(files), raw)
    return raw


def _names(path: Path, values: _Values) -> list[str]:
    names = values.get("names")
    if not isinstance(names, list) or not names:
        raise UserError(f"{path}  names", "no list of cameras", expected="names: and one per line")
    return [str(name) for name in names]


def _camera(
    intrinsics_path: Path,
    intrinsics: _Values,
    extrinsics_path: Path,
    extrinsics: _Values,
    name: str,
) -> RawCamera:
    K = _matrix(intrinsics_path, intrinsics, f"K_{name}", (3, 3))
    key = f"D_{name}" if f"D_{name}" in intrinsics else f"dist_{name}"
    bends = _matrix(intrinsics_path, intrinsics, key) if key in intrinsics else np.zeros(5)
    if f"rdist_{name}" in intrinsics and np.any(
        _matrix(intrinsics_path, intrinsics, f"rdist_{name}")
    ):
        raise UserError(
            f"{intrinsics_path}  rdist_{name}",
            "the distortion of a fisheye",
            expected=f"D_{name} alone: k1 k2 p1 p2 k3",
            fix="undistort the images, and leave it out",
        )
    width, height = (_number(intrinsics_path, intrinsics, f"{side}_{name}") for side in "WH")
    size = (round(width), round(height)) if min(width, height) > 0 else None
    rotation = _rotation(extrinsics_path, extrinsics, name)
    translation = _matrix(extrinsics_path, extrinsics, f"T_{name}", (3, 1))
    pose = np.hstack([rotation, translation])
    where = f"{intrinsics_path}, {extrinsics_path.name}  camera {name}"
    return raw_camera(where, name, K, pose, bends.ravel(), size)


def _rotation(path: Path, values: _Values, name: str) -> NDArray[np.float64]:
    """A camera's rotation from world to camera [3, 3], from either of its two forms."""
    vector_key, matrix_key = f"R_{name}", f"Rot_{name}"
    if matrix_key not in values:
        return rotation_from_vector(_matrix(path, values, vector_key, (3, 1)).ravel())
    matrix = _matrix(path, values, matrix_key, (3, 3))
    # What is no rotation at all is refused with the pose.
    if vector_key in values and np.abs(matrix).max() < 2:
        other = rotation_from_vector(_matrix(path, values, vector_key, (3, 1)).ravel())
        apart = rotation_angle_deg(matrix, other)
        if apart > _MAX_ROTATION_DEG:
            raise UserError(
                f"{path}  camera {name}",
                f"{vector_key} and {matrix_key} differ by {apart:.1f} degrees",
                expected="two forms of one rotation",
                fix=FIX_CALIBRATION,
            )
    return matrix


def _matrix(
    path: Path, values: _Values, key: str, shape: tuple[int, int] | None = None
) -> NDArray[np.float64]:
    """A matrix; a column may also lie as a row."""
    value = values.get(key)
    if isinstance(value, np.ndarray) and shape and value.shape == shape[::-1] and 1 in shape:
        value = value.T
    if not isinstance(value, np.ndarray) or (shape and value.shape != shape):
        got = f"of shape {value.shape}" if isinstance(value, np.ndarray) else "no such matrix"
        expected = f"{shape[0]} x {shape[1]}" if shape else "a matrix"
        raise UserError(f"{path}  {key}", got, expected=expected, fix=FIX_CALIBRATION)
    if not np.isfinite(value).all() or np.abs(value).max(initial=0) > _LARGEST:
        got = "NaN, infinity or a number out of range"
        raise UserError(f"{path}  {key}", got, expected="finite numbers", fix=FIX_CALIBRATION)
    return value


def _number(path: Path, values: _Values, key: str) -> float:
    """A number; -1 where it is absent."""
    value = values.get(key, -1)
    if not isinstance(value, int | float) or not abs(value) < _LARGEST:
        raise UserError(f"{path}  {key}", f"{value!r}", expected="a number of pixels, or -1")
    return float(value)


def _frame_shifts(root: Path, cameras: Sequence[str], fps: float | None) -> dict[str, int]:
    """By camera, how many frames later it shows an instant; empty without time offsets."""
    path = next((root / name for name in _OFFSETS if (root / name).is_file()), None)
    if path is None:
        return {}
    seconds = read_object(path)
    for name in cameras:
        value = seconds.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or abs(value) > _MAX_OFFSET_S:
            got = "no offset" if name not in seconds else f"{value!r}"
            expected = f"seconds, from -{_MAX_OFFSET_S:g} to {_MAX_OFFSET_S:g}"
            raise UserError(f"{path}  camera {name}", got, expected=expected)
    if any(seconds[name] for name in cameras) and fps is None:
        raise UserError(
            path,
            "time offsets in seconds, and no frame rate to apply them by",
            expected="`fps` in this scene's entry of params.yaml",
            fix="set it, for example `fps: 60`; `fps: 0` takes frames of equal number",
        )
    return {name: round(seconds[name] * (fps or 0)) for name in cameras}


def _shifted(values: Mapping[int, Any], shift: int) -> dict[int, Any]:
    """Values by the frame number of a camera without offset; those before its first are left."""
    return {frame - shift: value for frame, value in values.items() if frame >= shift}
