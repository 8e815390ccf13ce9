"""A raw multi-view sequence, whatever its layout: calibrated cameras, images by frame, masks."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError, raise_all
from stages.scenes.cameras import Array, Camera, camera_fault, rigid, rotation_angle_deg
from stages.scenes.formats.npz import finite
from stages.scenes.image_folder import SUFFIXES, list_images
from stages.scenes.images import (
    BLACK,
    Color,
    Mask,
    Pixels,
    image_size,
    read_image,
    read_mask,
)

FRAME = re.compile(r"(\d+)")
FIX_CALIBRATION = "calibrate again, or correct the values at their source"
# Cameras closer than this share of their coordinates are in one place.
_SAME_PLACE, _SAME_ROTATION_DEG = 1e-7, 0.01
# As a share of the focal length.
_MAX_SKEW = 0.1


@dataclass(frozen=True, eq=False)
class RawCamera:
    """Calibration of one camera, in OpenCV's conventions whatever those of the layout are."""

    name: str
    K: Array  # [3, 3], px
    cam_from_world: Array  # [4, 4]
    distortion: Array  # [5], OpenCV's k1 k2 p1 p2 k3
    size: tuple[int, int] | None = None  # (width, height) of its images, px, where it is stated


@dataclass(frozen=True, eq=False)
class RawSequence:
    """An opened raw sequence."""

    root: Path
    cameras: dict[str, RawCamera]
    frames: dict[str, dict[int, Path]]  # camera -> frame number -> image
    # camera -> frame number -> masks, whose union counts; a camera without masks is left out.
    masks: dict[str, dict[int, tuple[Path, ...]]] = field(default_factory=dict)
    span: range | None = None  # frames to keep to
    span_from: str = ""  # the file that says so
    image_root: str = "images"  # below `root`, for messages
    background: Color = BLACK  # behind images with alpha

    def common_frames(self, cameras: Sequence[str]) -> list[int]:
        """Frame numbers that all these cameras have, within `span` if there is one.

        They need not be contiguous. Raises UserError when there are none.
        """
        shared = set.intersection(*(set(self.frames[name]) for name in cameras))
        span = self.span
        common = sorted(frame for frame in shared if span is None or frame in span)
        if not common:
            counts = ", ".join(f"{name}: {len(self.frames[name])}" for name in cameras)
            limits = f" from {span[0]} to {span[-1]}, the range of {self.span_from}" if span else ""
            raise UserError(
                self.root / self.image_root,
                f"no frame that all cameras share{limits} (frames by camera: {counts})",
                expected="the same frame numbers in every camera's folder",
            )
        return common

    def dropped_frames(self, cameras: Sequence[str]) -> int:
        """Number of frames in the same range that some but not all of these cameras have."""
        common = self.common_frames(cameras)
        frames = set().union(*(self.frames[name] for name in cameras))
        return sum(self.span is None or frame in self.span for frame in frames) - len(common)

    def image(self, camera: str, frame: int) -> Pixels:
        """One image, [H, W, 3]."""
        return read_image(self.frames[camera][frame], background=self.background)

    def mask(self, camera: str, frame: int, shape: tuple[int, ...]) -> Mask | None:
        """Pixels that count, the union of a frame's masks; None where the camera has no masks.

        `shape` is the image's [H, W]. Raises UserError when a mask has another shape, or is
        missing while other frames of the camera have one.
        """
        paths = self.masks.get(camera, {}).get(frame, ())
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

        Raises UserError when their sizes differ, or do not fit K or the stated size.
        """
        raw = self.cameras[name]
        paths = [self.frames[name][frame] for frame in frames]
        width, height = image_size(paths[0])
        for path in paths[1:]:
            if image_size(path) != (width, height):
                got = "{}x{} px".format(*image_size(path))
                expected = f"{width}x{height} px, the size of {paths[0].name}"
                raise UserError(path, got, expected=expected)
        fix = "use the images of the calibration, or scale its intrinsics"
        if raw.size not in (None, (width, height)):
            raise UserError(
                paths[0],
                f"{width}x{height} px",
                expected="{}x{} px, as the calibration says".format(*raw.size),
                fix=fix,
            )
        cx, cy = raw.K[0, 2], raw.K[1, 2]
        if not (0.25 < cx / width < 0.75 and 0.25 < cy / height < 0.75):
            raise UserError(
                paths[0],
                f"{width}x{height} px, but K has its principal point at ({cx:.0f}, {cy:.0f})",
                expected=f"images of about {2 * cx:.0f}x{2 * cy:.0f} px",
                fix=fix,
            )
        return Camera(name, raw.K, raw.cam_from_world, width, height)


def no_folder(root: Path, expected: str) -> UserError:
    """The error for raw data that is not where it is sought."""
    is_tracked = root.with_name(f"{root.name}.dvc").is_file()
    fix = f"`dvc pull {root}`" if is_tracked else f"put it there: `dvc import-url FOLDER {root}`"
    return UserError(root, "no such folder", expected=expected, fix=fix)


def find_root(root: Path, marks: Sequence[str], expected: str) -> Path:
    """`root`, or the one folder up to two levels below it with one of the files `marks`.

    Archives nest differently. Raises UserError when there is none, or more than one.
    """
    if not root.is_dir():
        raise no_folder(root, expected)
    for level in ("", "*/", "*/*/"):
        candidates = {path.parent for mark in marks for path in root.glob(level + mark)}
        if len(candidates) == 1:
            return candidates.pop()
        if candidates:
            names = ", ".join(sorted(path.relative_to(root).as_posix() for path in candidates))
            raise UserError(
                root,
                f"{len(candidates)} folders with {marks[0]}: {names}",
                expected=expected,
                fix="put one of them there",
            )
    raise UserError(root, f"no {' or '.join(marks)}", expected=expected)


def check_names(path: Path, cameras: Sequence[str], names: Sequence[str]) -> None:
    """Raise UserError for cameras of an entry that a calibration, with `names`, lacks."""
    missing = [name for name in cameras if name not in names]
    if missing:
        raise UserError(
            path,
            f"no camera {', '.join(missing)}",
            expected=f"some of {', '.join(names)}",
            fix="name cameras that the sequence has in this scene's entry of params.yaml",
        )


def raw_camera(
    where: str,
    name: str,
    K: NDArray,
    pose: NDArray,
    distortion: NDArray,
    size: tuple[int, int] | None = None,
) -> RawCamera:
    """A camera of checked values. Raises UserError, for `where`, that says what is wrong.

    Args:
        where: the file and the camera in it.
        name: of the camera.
        K: intrinsics [3, 3], px.
        pose: [R | t] from world to camera, OpenCV's axes, [3, 4] or [4, 4].
        distortion: OpenCV's coefficients [N]; only the first five may differ from 0.
        size: (width, height) of its images, px, if the calibration states it.
    """
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
            fix=FIX_CALIBRATION,
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
    return RawCamera(name, K, rigid(u @ vt, matrix[:3, 3]), padded, size)


def check_placement(path: Path, cameras: Mapping[str, RawCamera]) -> None:
    """Raise UserError for cameras that are all in one place, and for two with the same pose."""
    raise_all(_placement_errors(path, cameras))


def list_frames(folder: Path, pattern: re.Pattern[str] = FRAME) -> dict[int, Path]:
    """The images directly in a camera's folder by frame number, the pattern's first group.

    Images whose stem does not match the pattern are passed over. Raises UserError for a missing
    folder, two images of one frame, and no image.
    """
    example = "one image per frame, such as 000001.jpg"
    if not folder.is_dir():
        folders = sorted(path.name for path in folder.parent.glob("*") if path.is_dir())
        similar = [name for name in folders if plain(name) == plain(folder.name)]
        raise UserError(
            folder,
            "no such folder",
            expected=example,
            hint=f"is {similar[0]} meant? Cameras are named after their folders" if similar else "",
        )
    frames: dict[int, Path] = {}
    for path in list_images(folder, deep=False).files.values():
        match = pattern.fullmatch(path.stem)
        if not match:
            continue
        other = frames.setdefault(int(match[1]), path)
        if other != path:
            raise UserError(
                folder,
                f"two images of frame {int(match[1])}: {other.name}, {path.name}",
                expected="one image per frame",
                fix="remove the one that is not of this sequence",
            )
    if not frames:
        raise UserError(folder, "no images", expected=example)
    return frames


def masks_beside(
    folder: Path, frames: Mapping[int, Path], rename: Callable[[str], str] = str
) -> dict[int, tuple[Path, ...]]:
    """One mask per frame in a folder, named as `rename` of the image's stem; none without it."""
    if not folder.is_dir():
        return {}
    return {frame: (mask_path(folder, rename(image.stem)),) for frame, image in frames.items()}


def mask_path(folder: Path, stem: str) -> Path:
    """A frame's mask: PNG as is usual, or an image of another format."""
    candidates = (folder / f"{stem}{suffix}" for suffix in (".png", *sorted(SUFFIXES)))
    return next((path for path in candidates if path.is_file()), folder / f"{stem}.png")


def plain(name: str) -> str:
    """A camera's name without spaces around it and leading zeros.

    >>> plain("04"), plain(" 4 "), plain("cam04")
    ('4', '4', 'cam04')
    """
    name = name.strip()
    return str(int(name)) if name.isascii() and name.isdigit() else name


def _placement_errors(path: Path, cameras: Mapping[str, RawCamera]) -> Iterator[UserError]:
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
    for fault in faults:
        yield UserError(path, fault, expected="cameras around a scene", fix=FIX_CALIBRATION)


def _mask_of_shape(path: Path, shape: tuple[int, ...]) -> Mask:
    mask = read_mask(path)
    if mask.shape != tuple(shape):
        raise UserError(
            path,
            f"{mask.shape[1]}x{mask.shape[0]} px",
            expected=f"{shape[1]}x{shape[0]} px, the size of its image",
        )
    return mask
