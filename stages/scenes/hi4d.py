"""Sequences in Hi4D's raw layout: `cameras/rgb_cameras.npz`, `images/<camera>/<frame>.jpg`, masks.

Extrinsics are world to camera, OpenCV axes, metres; frame numbers start anywhere; `meta.npz` and
masks may be absent. Source: Hi4D's dataset.md and loaders of the release, one of which spells
the key `intrinsics` as `intirnsics`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError, raise_all
from stages.scenes.cameras import Array, Camera, camera_fault, rigid, rotation_angle_deg
from stages.scenes.config import SceneEntry
from stages.scenes.formats.npz import finite, read_arrays
from stages.scenes.image_folder import SUFFIXES, list_images, walk_folder
from stages.scenes.images import (
    BLACK,
    Color,
    Mask,
    Pixels,
    image_size,
    read_image,
    read_mask,
)

_FRAME = re.compile(r"\d+")
_MASKS = Path("seg") / "img_seg_mask"
_SPELLINGS = ("intrinsics", "intirnsics")
# Cameras closer than this share of their coordinates are in one place.
_SAME_PLACE, _SAME_ROTATION_DEG = 1e-7, 0.01
# As a share of the focal length.
_MAX_SKEW = 0.1
_RELEASE, _COPY = "a file of Hi4D's release", "copy it there"
_FIX_CALIBRATION = "calibrate again, or correct the values at their source"
_FIX_META = "correct it, or remove meta.npz to use all frames"

# Selects frames of those that all cameras share.
ChooseFrames = Callable[[list[int]], list[int]]


@dataclass(frozen=True, eq=False)
class RawCamera:
    """Calibration of one camera in the conventions of the release."""

    name: str
    K: Array  # [3, 3], px
    cam_from_world: Array  # [4, 4]
    distortion: Array  # [5], OpenCV's k1 k2 p1 p2 k3


@dataclass(frozen=True, eq=False)
class Sequence4D:
    """An opened raw sequence."""

    root: Path
    cameras: dict[str, RawCamera]
    frames: dict[str, dict[int, Path]]  # camera -> frame number -> image
    background: Color = BLACK  # behind images with alpha

    def common_frames(self, cameras: Sequence[str]) -> list[int]:
        """Frame numbers that all these cameras have, within the range of meta.npz if there is one.

        They need not be contiguous. Raises UserError when there are none.
        """
        shared = set.intersection(*(set(self.frames[name]) for name in cameras))
        span = self._span()
        common = sorted(frame for frame in shared if span is None or frame in span)
        if not common:
            counts = ", ".join(f"{name}: {len(self.frames[name])}" for name in cameras)
            limits = f" from {span[0]} to {span[-1]}, the range of meta.npz" if span else ""
            raise UserError(
                self.root / "images",
                f"no frame that all cameras share{limits} (frames by camera: {counts})",
                expected="the same 6-digit frame names in every camera's folder",
            )
        return common

    def dropped_frames(self, cameras: Sequence[str]) -> int:
        """Number of frames in the same range that some but not all of these cameras have."""
        common = self.common_frames(cameras)
        span = self._span()
        frames = set().union(*(self.frames[name] for name in cameras))
        return sum(span is None or frame in span for frame in frames) - len(common)

    def _span(self) -> range | None:
        """Frames from `start` to `end` (inclusive) of meta.npz; None without them."""
        meta = self.root / "meta.npz"
        values = read_arrays(meta, ("start", "end")) if meta.is_file() else {}
        if len(values) < 2:
            return None
        first, last = (_frame_number(meta, key, values[key]) for key in ("start", "end"))
        if last < first:
            got = f"start {first} lies after end {last}"
            raise UserError(meta, got, expected="the first and the last frame", fix=_FIX_META)
        return range(first, last + 1)

    def image(self, camera: str, frame: int) -> Pixels:
        """One image, [H, W, 3]."""
        return read_image(self.frames[camera][frame], background=self.background)

    def mask(self, camera: str, frame: int, shape: tuple[int, ...]) -> Mask | None:
        """Pixels of all people: mask `all`, or the union of `0` and `1`; None without masks.

        `shape` is the image's [H, W]. Raises UserError when a mask has another shape, or is
        missing while other frames of the camera have one.
        """
        stem = self.frames[camera][frame].stem
        folder = self.root / _MASKS / camera
        kinds = ("all",) if (folder / "all").is_dir() else ("0", "1")
        paths = [_mask_path(folder / kind, stem) for kind in kinds if (folder / kind).is_dir()]
        for path in paths:
            if not path.is_file():
                raise UserError(
                    path,
                    "no such file, but other frames of this camera have a mask",
                    fix="copy it there, or set `prepare.masks: false`",
                )
        masks = [_mask_of_shape(path, shape) for path in paths]
        return np.any(masks, axis=0) if masks else None

    def camera(self, name: str, frames: Sequence[int]) -> Camera:
        """The camera, with the image size of these frames.

        Raises UserError when their sizes differ or do not fit K.
        """
        raw = self.cameras[name]
        paths = [self.frames[name][frame] for frame in frames]
        width, height = image_size(paths[0])
        for path in paths[1:]:
            if image_size(path) != (width, height):
                got = "{}x{} px".format(*image_size(path))
                expected = f"{width}x{height} px, the size of {paths[0].name}"
                raise UserError(path, got, expected=expected)
        cx, cy = raw.K[0, 2], raw.K[1, 2]
        if not (0.25 < cx / width < 0.75 and 0.25 < cy / height < 0.75):
            raise UserError(
                paths[0],
                f"{width}x{height} px, but K has its principal point at ({cx:.0f}, {cy:.0f})",
                expected=f"images of about {2 * cx:.0f}x{2 * cy:.0f} px",
                fix="use the images of the calibration, or scale its intrinsics",
            )
        return Camera(name, raw.K, raw.cam_from_world, width, height)


def open_sequence(root: Path, cameras: Sequence[str]) -> Sequence4D:
    """Open a sequence for these cameras. Raises UserError that names what is missing and where."""
    sequence_root = _nested_root(root)
    calibration = _read_cameras(sequence_root / "cameras" / "rgb_cameras.npz", cameras)
    frames = {name: _list_frames(sequence_root / "images" / name) for name in cameras}
    return Sequence4D(sequence_root, calibration, frames)


def raw_errors(
    entries: Mapping[str, SceneEntry],
    raw_folder: Callable[[str], Path],
    choose: Callable[[str, Sequence[int], SceneEntry], list[int]] | None = None,
) -> list[UserError]:
    """The first fault of each raw sequence that a user brought; demo scenes are skipped.

    `raw_folder` gives the folder of a scene, `choose` the frames that its entry selects (without
    it: all).
    """
    errors = []
    for name, entry in entries.items():
        if entry.source == "hi4d":
            chosen = partial(choose, name, entry=entry) if choose else None
            errors.append(layout_error(raw_folder(name), entry.cameras, chosen))
    return [error for error in errors if error]


def layout_error(
    root: Path, cameras: Sequence[str], choose: ChooseFrames | None = None
) -> UserError | None:
    """The first error of a raw sequence that is found without decoding images, or None."""
    try:
        sequence = open_sequence(root, cameras)
        frames = sequence.common_frames(cameras)
        for name in cameras:
            sequence.camera(name, choose(frames) if choose else frames)
    except UserError as error:
        return error
    return None


def _nested_root(root: Path) -> Path:
    """`root`, or the one folder below it with `cameras/`, as archives nest differently."""
    if not root.is_dir():
        raise UserError(
            root,
            "no such folder",
            expected="a raw sequence with cameras/ and images/",
            fix=(
                f"`dvc pull {root}`"
                if root.with_name(f"{root.name}.dvc").is_file()
                else f"put it there: `dvc import-url FOLDER {root}`"
            ),
        )
    if (root / "cameras").is_dir():
        return root
    nested = sorted(path.parent for path in walk_folder(root).folders if path.name == "cameras")
    if len(nested) != 1:
        raise UserError(
            root,
            f"{len(nested)} folders with cameras/",
            expected=f"{root / 'cameras' / 'rgb_cameras.npz'} and {root / 'images'}",
            fix="put one sequence there, for example pair15/fight15",
        )
    return nested[0]


def _read_cameras(path: Path, cameras: Sequence[str]) -> dict[str, RawCamera]:
    values = read_arrays(path, ("ids", *_SPELLINGS, "extrinsics", "dist_coeffs"), _RELEASE, _COPY)
    K = next((values[key] for key in _SPELLINGS if key in values), None)
    if K is None or "ids" not in values or "extrinsics" not in values:
        raise UserError(
            path, f"keys {', '.join(values) or 'none'}", expected="ids, intrinsics, extrinsics"
        )
    names = _ids(path, values["ids"])
    missing = [name for name in cameras if _plain(name) not in names]
    if missing:
        raise UserError(
            path,
            f"no camera {', '.join(missing)}",
            expected=f"some of {', '.join(names)}",
            fix="name cameras that the sequence has in this scene's entry of params.yaml",
        )
    count, poses = len(names), values["extrinsics"]
    shapes = {"intrinsics": K.shape, "extrinsics": poses.shape}
    if K.shape != (count, 3, 3) or poses.shape not in ((count, 3, 4), (count, 4, 4)):
        raise UserError(path, f"shapes {shapes}", expected=f"({count}, 3, 3) and ({count}, 3, 4)")
    distortion = _coefficients(path, values.get("dist_coeffs", np.zeros((count, 5))), count)
    rows = {name: names.index(_plain(name)) for name in cameras}
    raw = {name: _camera(path, name, K[i], poses[i], distortion[i]) for name, i in rows.items()}
    raise_all(_placement_errors(path, raw))
    return raw


def _ids(path: Path, values: NDArray) -> list[str]:
    """Names of the cameras in the order of the file: numbers or words, normalised by `_plain`."""
    try:
        names = _texts(values.ravel())
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated or not all(names) or not names:
            raise ValueError(
                f"several of {', '.join(repeated)}" if repeated else "none, or an empty one"
            )
    except ValueError as error:
        raise UserError(
            f"{path}  ids",
            str(error),
            expected="one integer or word per camera",
            fix=_FIX_CALIBRATION,
        ) from error
    return names


def _texts(values: NDArray) -> list[str]:
    """Numbers or words [C] as normalised text. Raises ValueError for anything else."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "U":
        return [_plain(name) for name in values.tolist()]
    numbers = finite(values)
    if (numbers != np.rint(numbers)).any():
        raise ValueError(f"{numbers.tolist()}")
    return [str(int(number)) for number in numbers]


def _plain(name: str) -> str:
    """A camera's name without spaces around it and leading zeros.

    >>> _plain("04"), _plain(" 4 "), _plain("cam04")
    ('4', '4', 'cam04')
    """
    name = name.strip()
    return str(int(name)) if name.isascii() and name.isdigit() else name


def _coefficients(path: Path, values: NDArray, count: int) -> NDArray:
    """Distortion by camera, [C, N]."""
    if values.ndim < 2 or len(values) != count:
        raise UserError(
            f"{path}  dist_coeffs",
            f"shape {values.shape} for {count} cameras",
            expected=f"({count}, 5): one row per camera",
            fix=_FIX_CALIBRATION,
        )
    return values.reshape(count, -1) if values.size else np.zeros((count, 5))


def _camera(path: Path, name: str, K: NDArray, pose: NDArray, distortion: NDArray) -> RawCamera:
    where = f"{path}  camera {name}"
    try:
        K, rows, distortion = finite(K), finite(pose), finite(distortion)
        matrix = np.concatenate([rows, np.eye(4)[len(rows) :]])
        fault = camera_fault(K, matrix)
    except ValueError as error:
        fault = str(error)
    if not fault and abs(K[0, 1]) > _MAX_SKEW * K[0, 0]:
        fault = f"a skew of {K[0, 1]:g} px"
    if not fault and matrix[3].tolist() != [0, 0, 0, 1]:
        fault = f"a pose with last row {matrix[3].tolist()}"
    if fault:
        raise UserError(
            where,
            fault,
            fix=_FIX_CALIBRATION,
            expected="K in px with f > 0 and last row 0 0 1; [R | t] from world to camera, metres",
        )
    if distortion[5:].any():
        raise UserError(
            where,
            f"{len(distortion)} distortion coefficients",
            expected="k1 k2 p1 p2 k3 and zeros",
            fix="undistort the images, and calibrate without further coefficients",
        )
    padded = np.pad(distortion, (0, 5))[:5]
    # The file's rotations are rounded; make them orthogonal.
    u, _, vt = np.linalg.svd(matrix[:3, :3])
    return RawCamera(name, K, rigid(u @ vt, matrix[:3, 3]), padded)


def _placement_errors(path: Path, cameras: Mapping[str, RawCamera]) -> list[UserError]:
    """Errors for cameras that are all in one place, and for two with the same pose."""
    names, poses = list(cameras), [camera.cam_from_world for camera in cameras.values()]
    centres = np.stack([-pose[:3, :3].T @ pose[:3, 3] for pose in poses])
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)
    coincide = distances <= _SAME_PLACE * np.abs(centres).max()
    if len(cameras) > 1 and coincide.all():
        faults = [f"all {len(cameras)} cameras are in one place"]
    else:
        faults = [
            f"cameras {names[a]} and {names[b]} have one pose"
            for a, b in zip(*np.nonzero(np.triu(coincide, 1)), strict=True)
            if rotation_angle_deg(poses[a][:3, :3], poses[b][:3, :3]) < _SAME_ROTATION_DEG
        ]
    return [
        UserError(path, fault, expected="cameras around a scene", fix=_FIX_CALIBRATION)
        for fault in faults
    ]


def _frame_number(path: Path, key: str, value: NDArray) -> int:
    try:
        (number,) = finite(value.ravel())
        if number != np.rint(number):
            raise ValueError(f"{number:g}")
    except ValueError as error:
        got = f"{key} is not a frame number ({error})"
        raise UserError(path, got, expected="one integer", fix=_FIX_META) from error
    return int(number)


def _mask_path(folder: Path, stem: str) -> Path:
    """A frame's mask: PNG as in the release, or an image of another format."""
    candidates = (folder / f"{stem}{suffix}" for suffix in (".png", *sorted(SUFFIXES)))
    return next((path for path in candidates if path.is_file()), folder / f"{stem}.png")


def _mask_of_shape(path: Path, shape: tuple[int, ...]) -> Mask:
    mask = read_mask(path)
    if mask.shape != tuple(shape):
        raise UserError(
            path,
            f"{mask.shape[1]}x{mask.shape[0]} px",
            expected=f"{shape[1]}x{shape[0]} px, the size of its image",
        )
    return mask


def _list_frames(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        folders = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        similar = [name for name in folders if _plain(name) == _plain(folder.name)]
        raise UserError(
            folder,
            "no such folder",
            expected="one image per frame, such as 000001.jpg",
            hint=f"is {similar[0]} meant? Cameras are named after their folders" if similar else "",
        )
    images = list_images(folder, deep=False).files.values()
    frames: dict[int, Path] = {}
    for path in (path for path in images if _FRAME.fullmatch(path.stem)):
        other = frames.setdefault(int(path.stem), path)
        if other != path:
            raise UserError(
                folder,
                f"two images of frame {int(path.stem)}: {other.name}, {path.name}",
                expected="one image per frame",
                fix="remove the one that is not of this sequence",
            )
    if not frames:
        raise UserError(folder, "no images", expected="one image per frame, such as 000001.jpg")
    return frames
