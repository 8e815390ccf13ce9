"""Sequences in Hi4D's raw layout: `cameras/rgb_cameras.npz`, `images/<camera>/<frame>.jpg`, masks.

Extrinsics are world to camera, OpenCV axes, metres; frame numbers start anywhere; `meta.npz` and
masks may be absent. Source: Hi4D's dataset.md and the loaders that read the release; the key
`intrinsics` is spelt `intirnsics` in one of them.
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
# Cameras nearer to each other than this share of their coordinates stand in one place.
_ONE_PLACE, _ONE_TURN_DEG = 1e-7, 0.01
# A pixel is no more slanted than this, as a share of the focal length.
_MOST_SKEW = 0.1
_RELEASE, _COPY = "a file of Hi4D's release", "copy it there"
_MEND = "calibrate again, or mend the values at their source"
_META = "mend it, or take meta.npz away to use all frames"

# The frames to look at, of those that all cameras share.
Choose = Callable[[list[int]], list[int]]


@dataclass(frozen=True, eq=False)
class RawCamera:
    """Calibration of one camera as the release gives it."""

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
    background: Color = BLACK  # behind photographs with alpha

    def common_frames(self, cameras: Sequence[str]) -> list[int]:
        """Frame numbers that every one of these cameras has, within meta.npz's range if any.

        They need not be contiguous. Raises UserError when there is none.
        """
        shared = set.intersection(*(set(self.frames[name]) for name in cameras))
        span = self._span()
        kept = sorted(frame for frame in shared if span is None or frame in span)
        if not kept:
            counts = ", ".join(f"{name}: {len(self.frames[name])}" for name in cameras)
            within = f" from {span[0]} to {span[-1]}, as meta.npz says" if span else ""
            raise UserError(
                self.root / "images",
                f"no frame that all cameras share{within} (frames by camera: {counts})",
                expected="the same 6-digit frame names in every camera's folder",
            )
        return kept

    def dropped_frames(self, cameras: Sequence[str]) -> int:
        """How many frames some of these cameras have and others lack, within the same range."""
        common = self.common_frames(cameras)
        span = self._span()
        seen = set().union(*(self.frames[name] for name in cameras))
        return sum(span is None or frame in span for frame in seen) - len(common)

    def _span(self) -> range | None:
        """Frames from `start` to `end`, inclusive, of meta.npz; None where it says nothing."""
        meta = self.root / "meta.npz"
        values = read_arrays(meta, ("start", "end")) if meta.is_file() else {}
        if len(values) < 2:
            return None
        first, last = (_frame_number(meta, key, values[key]) for key in ("start", "end"))
        if last < first:
            told = f"start {first} lies after end {last}"
            raise UserError(meta, told, expected="the first and the last frame", fix=_META)
        return range(first, last + 1)

    def image(self, camera: str, frame: int) -> Pixels:
        """One photograph, [H, W, 3]."""
        return read_image(self.frames[camera][frame], background=self.background)

    def mask(self, camera: str, frame: int, shape: tuple[int, ...]) -> Mask | None:
        """Pixels of any person, or None without masks: `all`, else the union of `0` and `1`.

        `shape` is the photograph's [H, W]. Raises UserError when the mask has another, or when
        other frames of the camera have a mask and this one has none.
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
        """The camera at the size, px, that its photographs of these frames have.

        Raises UserError when one differs or when K contradicts them all.
        """
        raw = self.cameras[name]
        paths = [self.frames[name][frame] for frame in frames]
        width, height = image_size(paths[0])
        for path in paths[1:]:
            if image_size(path) != (width, height):
                other = "{}x{} px".format(*image_size(path))
                expected = f"{width}x{height} px, the size of {paths[0].name}"
                raise UserError(path, other, expected=expected)
        cx, cy = raw.K[0, 2], raw.K[1, 2]
        if not (0.25 < cx / width < 0.75 and 0.25 < cy / height < 0.75):
            raise UserError(
                paths[0],
                f"{width}x{height} px, but K has its principal point at ({cx:.0f}, {cy:.0f})",
                expected=f"images of about {2 * cx:.0f}x{2 * cy:.0f} px",
                fix="use the images that the calibration was made for, or scale its intrinsics",
            )
        return Camera(name, raw.K, raw.cam_from_world, width, height)


def open_sequence(root: Path, cameras: Sequence[str]) -> Sequence4D:
    """Open a sequence for these cameras. Raises one UserError naming what is missing and where."""
    found = _nested_root(root)
    calibration = _read_cameras(found / "cameras" / "rgb_cameras.npz", cameras)
    frames = {name: _list_frames(found / "images" / name) for name in cameras}
    return Sequence4D(found, calibration, frames)


def raw_errors(
    entries: Mapping[str, SceneEntry],
    raw_folder: Callable[[str], Path],
    choose: Callable[[str, Sequence[int], SceneEntry], list[int]] | None = None,
) -> list[UserError]:
    """The first fault of each raw sequence that a user brought; demo scenes are skipped.

    `raw_folder` gives the folder of a scene, `choose` the frames that its entry selects (without
    it: all).
    """
    found = []
    for name, entry in entries.items():
        if entry.source == "hi4d":
            chosen = partial(choose, name, entry=entry) if choose else None
            found.append(layout_error(raw_folder(name), entry.cameras, chosen))
    return [error for error in found if error]


def layout_error(
    root: Path, cameras: Sequence[str], choose: Choose | None = None
) -> UserError | None:
    """The first fault of a raw sequence that shows without decoding an image, or None."""
    try:
        sequence = open_sequence(root, cameras)
        frames = sequence.common_frames(cameras)
        for name in cameras:
            sequence.camera(name, choose(frames) if choose else frames)
    except UserError as error:
        return error
    return None


def _nested_root(root: Path) -> Path:
    """`root`, or the one folder below it that holds `cameras/`: archives nest inconsistently."""
    if not root.is_dir():
        raise UserError(
            root,
            "no such folder",
            expected="a raw sequence with cameras/ and images/",
            fix=(
                f"`dvc pull {root}`"
                if root.with_name(f"{root.name}.dvc").is_file()
                else f"put it there: `dvc import-url <sequence folder> {root}`"
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
            fix="put one sequence there, such as pair15/fight15",
        )
    return nested[0]


def _read_cameras(path: Path, wanted: Sequence[str]) -> dict[str, RawCamera]:
    values = read_arrays(path, ("ids", *_SPELLINGS, "extrinsics", "dist_coeffs"), _RELEASE, _COPY)
    K = next((values[key] for key in _SPELLINGS if key in values), None)
    if K is None or "ids" not in values or "extrinsics" not in values:
        raise UserError(
            path, f"keys {', '.join(values) or 'none'}", expected="ids, intrinsics, extrinsics"
        )
    names = _ids(path, values["ids"])
    missing = [name for name in wanted if _plain(name) not in names]
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
    bent = _coefficients(path, values.get("dist_coeffs", np.zeros((count, 5))), count)
    places = {name: names.index(_plain(name)) for name in wanted}
    found = {name: _camera(path, name, K[i], poses[i], bent[i]) for name, i in places.items()}
    raise_all(_misplaced(path, found))
    return found


def _ids(path: Path, values: NDArray) -> list[str]:
    """Names of the cameras in the order of the file: numbers, or text, in plain form."""
    try:
        names = _texts(values.ravel())
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not all(names) or not names:
            raise ValueError(f"several of {', '.join(twice)}" if twice else "none, or an empty one")
    except ValueError as error:
        raise UserError(
            f"{path}  ids", str(error), expected="one whole number, or one word, a camera",
            fix=_MEND,
        ) from error  # fmt: skip
    return names


def _texts(values: NDArray) -> list[str]:
    """Numbers or words [C] as plain text. Raises ValueError for anything else."""
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8")
    if values.dtype.kind == "U":
        return [_plain(name) for name in values.tolist()]
    numbers = finite(values)
    if (numbers != np.rint(numbers)).any():
        raise ValueError(f"{numbers.tolist()}")
    return [str(int(number)) for number in numbers]


def _plain(name: str) -> str:
    """A camera's name without what only its spelling adds.

    >>> _plain("04"), _plain(" 4 "), _plain("cam04")
    ('4', '4', 'cam04')
    """
    name = name.strip()
    return str(int(name)) if name.isascii() and name.isdigit() else name


def _coefficients(path: Path, values: NDArray, count: int) -> NDArray:
    """Distortion by camera, [C, N]."""
    if values.ndim < 2 or len(values) != count:
        raise UserError(
            f"{path}  dist_coeffs", f"shape {values.shape} for {count} cameras",
            expected=f"({count}, 5): a row for each of ids", fix=_MEND,
        )  # fmt: skip
    return values.reshape(count, -1) if values.size else np.zeros((count, 5))


def _camera(path: Path, name: str, K: NDArray, pose: NDArray, distortion: NDArray) -> RawCamera:
    where = f"{path}  camera {name}"
    try:
        K, rows, distortion = finite(K), finite(pose), finite(distortion)
        whole = np.concatenate([rows, np.eye(4)[len(rows) :]])
        told = camera_fault(K, whole)
    except ValueError as error:
        told = str(error)
    if not told and abs(K[0, 1]) > _MOST_SKEW * K[0, 0]:
        told = f"a skew of {K[0, 1]:g} px"
    if not told and whole[3].tolist() != [0, 0, 0, 1]:
        told = f"a pose whose last row is {whole[3].tolist()}"
    if told:
        raise UserError(
            where, told, fix=_MEND,
            expected="K in px with f > 0 and last row 0 0 1; [R | t] from world to camera, metres",
        )  # fmt: skip
    if distortion[5:].any():
        raise UserError(
            where,
            f"{len(distortion)} distortion coefficients",
            expected="k1 k2 p1 p2 k3 and zeros",
            fix="undistort the images and calibrate without further coefficients",
        )
    five = np.pad(distortion, (0, 5))[:5]
    # Printed rotations are rounded; what follows relies on an exact one.
    u, _, vt = np.linalg.svd(whole[:3, :3])
    return RawCamera(name, K, rigid(u @ vt, whole[:3, 3]), five)


def _misplaced(path: Path, cameras: Mapping[str, RawCamera]) -> list[UserError]:
    """What is wrong with where cameras stand: all in one place, or two as if they were one."""
    names, poses = list(cameras), [camera.cam_from_world for camera in cameras.values()]
    centres = np.stack([-pose[:3, :3].T @ pose[:3, 3] for pose in poses])
    distances = np.linalg.norm(centres[:, None] - centres, axis=-1)
    near = distances <= _ONE_PLACE * np.abs(centres).max()
    if len(cameras) > 1 and near.all():
        told = [f"all {len(cameras)} cameras stand in one place"]
    else:
        told = [
            f"cameras {names[a]} and {names[b]} have one pose"
            for a, b in zip(*np.nonzero(np.triu(near, 1)), strict=True)
            if rotation_angle_deg(poses[a][:3, :3], poses[b][:3, :3]) < _ONE_TURN_DEG
        ]
    return [UserError(path, one, expected="cameras around a scene", fix=_MEND) for one in told]


def _frame_number(path: Path, key: str, value: NDArray) -> int:
    try:
        (number,) = finite(value.ravel())
        if number != np.rint(number):
            raise ValueError(f"{number:g}")
    except ValueError as error:
        told = f"{key} is no frame number ({error})"
        raise UserError(path, told, expected="one whole number", fix=_META) from error
    return int(number)


def _mask_path(folder: Path, stem: str) -> Path:
    """A frame's mask: PNG as in the release, or whatever picture is there instead."""
    found = (folder / f"{stem}{suffix}" for suffix in (".png", *sorted(SUFFIXES)))
    return next((path for path in found if path.is_file()), folder / f"{stem}.png")


def _mask_of_shape(path: Path, shape: tuple[int, ...]) -> Mask:
    mask = read_mask(path)
    if mask.shape != tuple(shape):
        raise UserError(
            path,
            f"{mask.shape[1]}x{mask.shape[0]} px",
            expected=f"{shape[1]}x{shape[0]} px, the photograph's size",
        )
    return mask


def _list_frames(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        beside = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        likely = [name for name in beside if _plain(name) == _plain(folder.name)]
        raise UserError(
            folder, "no such folder", expected="one image a frame, such as 000001.jpg",
            hint=f"is {likely[0]} meant? Cameras are named as their folders" if likely else "",
        )  # fmt: skip
    images = list_images(folder, deep=False).files.values()
    frames: dict[int, Path] = {}
    for path in (path for path in images if _FRAME.fullmatch(path.stem)):
        other = frames.setdefault(int(path.stem), path)
        if other != path:
            raise UserError(
                folder, f"two images of frame {int(path.stem)}: {other.name}, {path.name}",
                expected="one image a frame", fix="remove the one that is not of this sequence",
            )  # fmt: skip
    if not frames:
        raise UserError(folder, "no images", expected="one image a frame, such as 000001.jpg")
    return frames
