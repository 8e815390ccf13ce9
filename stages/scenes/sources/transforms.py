"""Sequences as nerfstudio's `transforms.json`, which Polycam, Record3D and Metashape tools export.

`transform_matrix` is camera to world with OpenGL's axes (y up, z back); intrinsics stand at the
top or with a frame: fl_x, fl_y, cx, cy, w, h, k1 k2 k3 p1 p2, or `camera_angle_x` alone. Each
image is a camera of its own, named after its file, at one instant; where each of several folders
holds the images of one pose, a folder is a camera and its images are the frames. Masks are
`mask_path`: white counts. Source: nerfstudio's docs/quickstart/data_conventions.md and
nerfstudio_dataparser.py.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes.formats.json_file import read_object
from stages.scenes.image_folder import SUFFIXES
from stages.scenes.images import image_size
from stages.scenes.sources.raw_sequence import (
    RawCamera,
    RawSequence,
    check_names,
    check_placement,
    find_root,
    raw_camera,
)

FILES = ("transforms.json", "transforms_train.json", "transforms_val.json", "transforms_test.json")
_EXPECTED = "transforms.json with frames, and their images"
FISHEYE = "OPENCV_FISHEYE"
_PINHOLE = ("", "OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_BENDS = ("k1", "k2", "k3", "k4", "p1", "p2")
_OPENCV_FROM_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
_UNNAMEABLE = re.compile(r"[^A-Za-z0-9_-]+")
_NUMBER = re.compile(r"(\d+)(?!.*\d)")  # the last one
_SAME_POSE = 1e-9
_LARGEST = 1e12


@dataclass(frozen=True, eq=False)
class Frame:
    """An image with what its file says of it."""

    where: str  # for messages
    values: Mapping[str, Any]  # with those at the top of its file
    image: Path
    mask: Path | None
    pose: NDArray[np.float64]  # camera to world, OpenGL's axes, [4, 4]

    def cam_from_world(self) -> NDArray[np.float64]:
        """The pose from world to camera with OpenCV's axes, [4, 4]; zeros if it has none."""
        try:
            pose = np.linalg.inv(self.pose @ _OPENCV_FROM_OPENGL)
        except np.linalg.LinAlgError:
            pose = np.zeros((4, 4))
        pose[3] = self.pose[3]  # without the rounding of an inverse
        return pose


@dataclass(frozen=True, eq=False)
class FrameLens:
    """Intrinsics of a frame."""

    model: str
    K: NDArray[np.float64]  # [3, 3], px
    size: tuple[int, int]  # (width, height), px
    bends: Mapping[str, float]  # k1 k2 k3 k4 p1 p2


def open_sequence(root: Path, cameras: Sequence[str]) -> RawSequence:
    """Open a sequence for these cameras. Raises UserError that names what is missing and where."""
    root = find_root(root, FILES, _EXPECTED)
    whole = root / FILES[0]
    paths = [whole] if whole.is_file() else [root / name for name in FILES[1:]]
    paths = [path for path in paths if path.is_file()]
    frames = read_frames(root, paths)
    by_camera = _by_camera(paths[0], root, frames)
    check_names(paths[0], cameras, list(by_camera))
    chosen = {name: by_camera[name] for name in cameras}
    calibration = {name: _camera(name, next(iter(one.values()))) for name, one in chosen.items()}
    check_placement(paths[0], calibration)
    return RawSequence(
        root,
        calibration,
        {name: {k: one.image for k, one in frames.items()} for name, frames in chosen.items()},
        {name: _masks(frames) for name, frames in chosen.items()},
    )


def read_frames(root: Path, paths: Sequence[Path]) -> list[Frame]:
    """The frames of files of one dataset, whose images lie below `root`. Raises UserError."""
    return [frame for path in paths for frame in _read_frames(root, path)]


def _read_frames(root: Path, path: Path) -> list[Frame]:
    values = read_object(path, _EXPECTED)
    listed = values.get("frames")
    if not isinstance(listed, list) or not listed:
        raise UserError(path, "no frames", expected=_EXPECTED)
    shared = {key: value for key, value in values.items() if key != "frames"}
    frames = []
    for index, own in enumerate(listed):
        where = f"{path}  frames.{index}"
        if not isinstance(own, dict) or not isinstance(own.get("file_path"), str):
            raise UserError(where, "no file_path", expected="file_path and transform_matrix")
        try:
            pose = np.array(own.get("transform_matrix"), np.float64)
        except (TypeError, ValueError, OverflowError):
            pose = np.zeros(0)
        if pose.shape not in ((4, 4), (3, 4)):
            got = f"transform_matrix of shape {pose.shape}"
            raise UserError(where, got, expected="4 rows of 4 numbers, from camera to world")
        pose = np.concatenate([pose, np.eye(4)[len(pose) :]])
        image, mask = (_path(root, where, own.get(key)) for key in ("file_path", "mask_path"))
        frames.append(Frame(where, shared | own, image, mask, pose))
    return frames


def _path(root: Path, where: str, name: Any) -> Path | None:
    """A file below `root`; a name without a suffix is that of an image, as Blender writes it."""
    if not isinstance(name, str):
        return None
    path = Path(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts:
        raise UserError(where, f"{name!r}", expected=f"a path below {root}")
    path = root / path
    if not path.is_file() and path.suffix.lower() not in SUFFIXES:
        named = (path.with_name(path.name + suffix) for suffix in (".png", ".jpg", ".jpeg"))
        path = next((one for one in named if one.is_file()), path)
    if not path.is_file():
        raise UserError(path, f"no such file, but {where} names it", fix="copy it there")
    return path


def _by_camera(path: Path, root: Path, frames: Sequence[Frame]) -> dict[str, dict[int, Frame]]:
    """Frames by camera and number; see the module."""
    folders: dict[Path, list[Frame]] = {}
    for frame in frames:
        folders.setdefault(frame.image.parent, []).append(frame)
    times = sorted({one.values["time"] for one in frames if _is_number(one.values.get("time"))})
    is_still = all(_are_one_pose(group) for group in folders.values())
    if is_still and len(folders) > 1:
        named = {folder: _name(root, folder) for folder in folders}
        cameras = {named[folder]: _numbered(path, group) for folder, group in folders.items()}
        count = len(folders)
    elif len(times) > 1:
        raise UserError(
            path,
            f"a moving camera: {len(times)} instants, and folders with images of several poses",
            expected="several cameras at each instant, one folder for each",
            fix="take one instant of it, or images of a scene that does not move",
        )
    else:
        cameras, count = {_name(root, one.image.with_suffix("")): {0: one} for one in frames}, None
    if len(cameras) != (len(frames) if count is None else count):
        raise UserError(
            path,
            "cameras whose names differ in other characters than letters, digits, _ and - only",
            fix="rename their files",
        )
    return cameras


def _are_one_pose(frames: Sequence[Frame]) -> bool:
    return all(np.abs(one.pose - frames[0].pose).max() <= _SAME_POSE for one in frames)


def _numbered(path: Path, frames: Sequence[Frame]) -> dict[int, Frame]:
    """A camera's frames by the last number in their names; 0 for one without."""
    numbered: dict[int, Frame] = {}
    for frame in frames:
        match = _NUMBER.search(frame.image.stem)
        number = int(match[1]) if match else 0
        if number in numbered:
            other = numbered[number].image.name
            got = f"two images of frame {number}: {other}, {frame.image.name}"
            raise UserError(path, got, expected="one image per frame")
        numbered[number] = frame
    return numbered


def _name(root: Path, path: Path) -> str:
    """A camera's name: its path below `root`, without a leading `images`."""
    parts = path.relative_to(root).parts
    parts = parts[1:] if len(parts) > 1 and parts[0].startswith("images") else parts
    return _UNNAMEABLE.sub("_", "_".join(parts)).lstrip("_-")


def _camera(name: str, frame: Frame) -> RawCamera:
    lens = lens_of(frame)
    if lens.model == FISHEYE or lens.bends["k4"]:
        raise UserError(
            _where(frame),
            f"camera_model {lens.model or 'OPENCV'} with k1 k2 k3 k4",
            expected="OPENCV with k1 k2 k3 p1 p2",
            fix="undistort the images first, or train them as a capture (docs/captures.md)",
        )
    bends = np.array([lens.bends[key] for key in ("k1", "k2", "p1", "p2", "k3")])
    return raw_camera(_where(frame), name, lens.K, frame.cam_from_world(), bends, lens.size)


def lens_of(frame: Frame) -> FrameLens:
    """The lens of a frame. Raises UserError where one is missing, or of another model."""
    values, where = frame.values, _where(frame)
    model = values.get("camera_model", "")
    if model not in (*_PINHOLE, FISHEYE):
        expected = ", ".join((*filter(None, _PINHOLE), FISHEYE))
        raise UserError(where, f"camera_model {model}", expected=expected)
    width, height = image_size(frame.image)
    size = [_number(where, values, key, default) for key, default in (("w", width), ("h", height))]
    if "fl_x" in values or "camera_angle_x" not in values:
        fx = _number(where, values, "fl_x")
    else:
        fx = size[0] / 2 / np.tan(_number(where, values, "camera_angle_x") / 2)
    fy = _number(where, values, "fl_y", fx)
    cx = _number(where, values, "cx", size[0] / 2)
    cy = _number(where, values, "cy", size[1] / 2)
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    bends = {key: _number(where, values, key, 0) for key in _BENDS}
    return FrameLens(model, K, (round(size[0]), round(size[1])), bends)


def _where(frame: Frame) -> str:
    return f"{frame.where}  {frame.image.name}"


def _number(where: str, values: Mapping[str, Any], key: str, default: float | None = None) -> float:
    value = values.get(key, default)
    if not _is_number(value):
        got = f"no {key}" if value is None else f"{key}: {value!r}"
        raise UserError(where, got, expected="a number, at the top of the file or here")
    return float(value)


def _is_number(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= _LARGEST


def _masks(frames: Mapping[int, Frame]) -> dict[int, tuple[Path, ...]]:
    """Masks by frame; {} if none of the frames has one."""
    if all(one.mask is None for one in frames.values()):
        return {}
    for one in frames.values():
        if one.mask is None:
            got = "no mask_path, but other frames of this camera have one"
            raise UserError(one.where, got, expected="a mask for every frame, or for none")
    return {number: (one.mask,) for number, one in frames.items()}
