"""Sequences in Hi4D's raw layout: `cameras/rgb_cameras.npz`, `images/<camera>/<frame>.jpg`, masks.

Extrinsics are world to camera, OpenCV axes, metres; frame numbers start anywhere; `meta.npz` and
masks may be absent. Source: Hi4D's dataset.md and the loaders that read the release; the key
`intrinsics` is spelt `intirnsics` in one of them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera, rigid
from stages.scenes.images import Mask, Pixels, image_size, read_image, read_mask

_FRAME = re.compile(r"\d+")
_SUFFIXES = (".jpg", ".jpeg", ".png")
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

    def common_frames(self, cameras: Sequence[str]) -> list[int]:
        """Frame numbers that every one of these cameras has, within meta.npz's range if any."""
        common = set.intersection(*(set(self.frames[name]) for name in cameras))
        meta = self.root / "meta.npz"
        if meta.is_file():
            with np.load(meta) as values:
                if "start" in values and "end" in values:
                    common &= set(range(int(values["start"]), int(values["end"]) + 1))
        if not common:
            counts = ", ".join(f"{name}: {len(self.frames[name])}" for name in cameras)
            raise UserError(
                self.root / "images",
                f"no frame that all cameras share ({counts} frames)",
                expected="the same 6-digit frame names in every camera's folder",
            )
        return sorted(common)

    def image(self, camera: str, frame: int) -> Pixels:
        """One photograph, [H, W, 3]."""
        return read_image(self.frames[camera][frame])

    def mask(self, camera: str, frame: int) -> Mask | None:
        """Pixels of any person, or None without masks: `all`, else the union of `0` and `1`."""
        name = f"{self.frames[camera][frame].stem}.png"
        folder = self.root / _MASKS / camera
        if (folder / "all" / name).is_file():
            return read_mask(folder / "all" / name)
        people = [folder / person / name for person in ("0", "1")]
        found = [read_mask(path) for path in people if path.is_file()]
        return np.any(found, axis=0) if found else None

    def checked_size(self, camera: str, image: Pixels) -> Camera:
        """The camera at this photograph's size. Raises UserError when K contradicts the size."""
        raw = self.cameras[camera]
        height, width = image.shape[:2]
        cx, cy = raw.K[0, 2], raw.K[1, 2]
        if not (0.25 < cx / width < 0.75 and 0.25 < cy / height < 0.75):
            raise UserError(
                self.root / "images" / camera,
                f"images of {width}x{height} px, but K has its principal point at "
                f"({cx:.0f}, {cy:.0f})",
                expected=f"images of about {2 * cx:.0f}x{2 * cy:.0f} px",
                fix="use the images that the calibration was made for, or scale its intrinsics",
            )
        return Camera(raw.name, raw.K, raw.cam_from_world, width, height)


def open_sequence(root: Path, cameras: Sequence[str]) -> Sequence4D:
    """Open a sequence for these cameras. Raises one UserError naming what is missing and where."""
    found = _nested_root(root)
    calibration = _read_cameras(found / "cameras" / "rgb_cameras.npz", cameras)
    frames = {name: _list_frames(found / "images" / name) for name in cameras}
    return Sequence4D(found, calibration, frames)


def layout_error(root: Path, cameras: Sequence[str]) -> UserError | None:
    """The first fault of a raw sequence that shows without decoding an image, or None."""
    try:
        sequence = open_sequence(root, cameras)
        frame = sequence.common_frames(cameras)[0]
        for name in cameras:
            image_size(sequence.frames[name][frame])
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
            fix=f"put it there: `dvc import-url <sequence folder> {root}`",
        )
    if (root / "cameras").is_dir():
        return root
    nested = sorted(path.parent for path in root.glob("**/cameras") if path.is_dir())
    if len(nested) != 1:
        raise UserError(
            root,
            f"{len(nested)} folders with cameras/",
            expected=f"{root / 'cameras' / 'rgb_cameras.npz'} and {root / 'images'}",
            fix="put one sequence there, such as pair15/fight15",
        )
    return nested[0]


def _read_cameras(path: Path, wanted: Sequence[str]) -> dict[str, RawCamera]:
    if not path.is_file():
        raise UserError(path, "no such file", expected="Hi4D's camera calibration")
    with np.load(path) as values:
        intrinsics = "intirnsics" if "intirnsics" in values else "intrinsics"
        for key in ("ids", intrinsics, "extrinsics"):
            if key not in values:
                raise UserError(path, f"no key {key!r}", expected="ids, intrinsics, extrinsics")
        names = [str(int(number)) for number in values["ids"]]
        K = values[intrinsics].astype(np.float64)
        poses = values["extrinsics"].astype(np.float64)
        distortion = values.get("dist_coeffs", np.zeros((len(names), 5))).astype(np.float64)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise UserError(
            path, f"no camera {', '.join(missing)}", expected=f"some of {', '.join(names)}"
        )
    return {
        name: RawCamera(
            name,
            K[index],
            rigid(poses[index, :3, :3], poses[index, :3, 3]),
            np.pad(distortion[index].ravel(), (0, 5))[:5],
        )
        for index, name in enumerate(names)
    }


def _list_frames(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        raise UserError(folder, "no such folder", expected="one image a frame, such as 000001.jpg")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    frames = {int(path.stem): path for path in images if _FRAME.fullmatch(path.stem)}
    if not frames:
        raise UserError(folder, "no images", expected="one image a frame, such as 000001.jpg")
    return frames
