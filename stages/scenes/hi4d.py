"""Sequences in Hi4D's raw layout: `cameras/rgb_cameras.npz`, `images/<camera>/<frame>.jpg`, masks.

Extrinsics are world to camera, OpenCV axes, metres; frame numbers start anywhere; `meta.npz` and
masks may be absent. Source: Hi4D's dataset.md and the loaders that read the release; the key
`intrinsics` is spelt `intirnsics` in one of them.
"""

import re
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run import layout
from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera, rigid
from stages.scenes.config import SceneEntry
from stages.scenes.images import (
    BLACK,
    Color,
    Mask,
    Pixels,
    image_size,
    read_image,
    read_mask,
)
from stages.scenes.photographs import SUFFIXES, list_photographs, walk_folder

_FRAME = re.compile(r"\d+")
_MASKS = Path("seg") / "img_seg_mask"


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
        return range(int(values["start"]), int(values["end"]) + 1) or None

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


def raw_errors(entries: Mapping[str, SceneEntry]) -> list[UserError]:
    """Faults of the raw sequences that users bring, one a scene; demo scenes are skipped."""
    brought = {name: entry for name, entry in entries.items() if entry.source == "hi4d"}
    found = (layout_error(layout.raw(name), entry.cameras) for name, entry in brought.items())
    return [error for error in found if error]


def layout_error(root: Path, cameras: Sequence[str]) -> UserError | None:
    """The first fault of a raw sequence that shows without decoding an image, or None."""
    try:
        sequence = open_sequence(root, cameras)
        frame = sequence.common_frames(cameras)[0]
        for name in cameras:
            sequence.camera(name, [frame])
    except UserError as error:
        return error
    return None


def read_arrays(path: Path, keys: Sequence[str]) -> dict[str, NDArray]:
    """Those of `keys` that an .npz file has. Raises UserError when it cannot be read.

    Pickled objects are refused, by NumPy's default.
    """
    try:
        with np.load(path) as values:
            return {key: values[key] for key in keys if key in values}
    except FileNotFoundError as error:
        raise UserError(
            path, "no such file", expected="a file of Hi4D's release", fix="copy it there"
        ) from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            path, f"not a readable .npz ({error})", fix="copy the file again from its source"
        ) from error


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
    spellings = ("intrinsics", "intirnsics")
    values = read_arrays(path, ("ids", *spellings, "extrinsics", "dist_coeffs"))
    K = next((values[key] for key in spellings if key in values), None)
    if K is None or "ids" not in values or "extrinsics" not in values:
        raise UserError(
            path, f"keys {', '.join(values) or 'none'}", expected="ids, intrinsics, extrinsics"
        )
    names = [str(int(number)) for number in values["ids"].ravel()]
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(
            path,
            f"no camera {', '.join(missing)}",
            expected=f"some of {', '.join(names)}",
            fix="name cameras that the sequence has in this scene's entry of params.yaml",
        )
    count, poses = len(names), values["extrinsics"]
    bent = values.get("dist_coeffs", np.zeros((count, 5))).reshape(count, -1)
    shapes = {"intrinsics": K.shape, "extrinsics": poses.shape}
    if K.shape != (count, 3, 3) or poses.shape not in ((count, 3, 4), (count, 4, 4)):
        raise UserError(path, f"shapes {shapes}", expected=f"({count}, 3, 3) and ({count}, 3, 4)")
    places = {name: names.index(name) for name in wanted}
    return {name: _camera(path, name, K[i], poses[i], bent[i]) for name, i in places.items()}


def _camera(path: Path, name: str, K: Array, pose: Array, distortion: Array) -> RawCamera:
    where = f"{path}  camera {name}"
    R = pose[:3, :3].astype(np.float64)
    if not (np.allclose(R @ R.T, np.eye(3), atol=1e-3) and np.linalg.det(R) > 0):
        raise UserError(
            where,
            "its extrinsics hold no rotation",
            expected="[R | t], world to camera, in metres",
        )
    if distortion[5:].any():
        raise UserError(
            where,
            f"{len(distortion)} distortion coefficients",
            expected="k1 k2 p1 p2 k3 and zeros",
            fix="undistort the images and calibrate without further coefficients",
        )
    five = np.pad(distortion.astype(np.float64), (0, 5))[:5]
    # Printed rotations are rounded; what follows relies on an exact one.
    u, _, vt = np.linalg.svd(R)
    return RawCamera(name, K.astype(np.float64), rigid(u @ vt, pose[:3, 3]), five)


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
        raise UserError(folder, "no such folder", expected="one image a frame, such as 000001.jpg")
    images = list_photographs(folder, deep=False).files.values()
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
