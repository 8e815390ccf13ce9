"""Sequences of MVHumanNet: `camera_intrinsics.json`, `camera_extrinsics.json`, `camera_scale.pkl`.

Extrinsics are world to camera, OpenCV's axes, by keys such as `1_CC32871A059.png`; translations in
mm times the scale are metres. One K is that of all cameras at full size, while images are
smaller: `images_lr/<camera>/0005_img.jpg`, masks `fmask_lr/<camera>/0005_img_fmask.png` (or
`images`, `fmask`). Source: README.md of GAP-LAB-CUHK-SZ/MVHumanNet and loaders of the release.
"""

import pickletools
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes.formats.json_file import read_object
from stages.scenes.images import image_size
from stages.scenes.sources.raw_sequence import (
    RawSequence,
    check_names,
    check_placement,
    find_root,
    list_frames,
    masks_beside,
    raw_camera,
)

_EXPECTED = "camera_intrinsics.json, camera_extrinsics.json, camera_scale.pkl and images_lr/"
_FRAME = re.compile(r"(\d+)_img")
# Full sizes, px, of the release's two studios.
_FULL_SIZES = ((4096, 3000), (2448, 2048))
_MAX_ASPECT_ERROR = 0.01
_MM_PER_M = 1000.0
_LARGEST_SCALE = 1e6


def open_sequence(root: Path, cameras: Sequence[str]) -> RawSequence:
    """Open a sequence for these cameras. Raises UserError that names what is missing and where."""
    root = find_root(root, ["camera_extrinsics.json"], _EXPECTED)
    path = root / "camera_extrinsics.json"
    poses = {_camera_name(key): value for key, value in read_object(path, _EXPECTED).items()}
    check_names(path, cameras, list(poses))
    images, masks = (
        next((name for name in (f"{kind}_lr", kind) if (root / name).is_dir()), f"{kind}_lr")
        for kind in ("images", "fmask")
    )
    frames = {name: list_frames(root / images / name, _FRAME) for name in cameras}
    K_full = _intrinsics(root / "camera_intrinsics.json")
    scale = read_scale(root / "camera_scale.pkl")
    calibration = {}
    for name in cameras:
        first = next(iter(frames[name].values()))
        pose = _pose(f"{path}  camera {name}", poses[name], scale)
        K = _shrunk(first, K_full)
        calibration[name] = raw_camera(f"{path}  camera {name}", name, K, pose, np.zeros(5))
    check_placement(path, calibration)
    beside = {
        name: masks_beside(root / masks / name, frames[name], "{}_fmask".format) for name in cameras
    }
    return RawSequence(root, calibration, frames, beside, image_root=images)


def read_scale(path: Path) -> float:
    """The one number that a pickle holds, read without running anything that it names.

    Raises UserError for any other content.
    """
    expected = "a pickle of one number"
    try:
        data = path.read_bytes()
        found = [(code.name, value) for code, value, _ in pickletools.genops(data[:4096])]
    except FileNotFoundError as error:
        raise UserError(path, "no such file", expected=expected) from error
    # Damaged pickles raise many types.
    except Exception as error:
        raise UserError(path, f"no whole pickle ({error})", expected=expected) from error
    numbers = [value for name, value in found if name in _NUMBERS]
    named = " ".join(str(value) for name, value in found if name in _WORDS)
    packed = [value for name, value in found if name in _BYTES and len(value) == 8]
    if "numpy" in named and "scalar" in named and "f8" in named and len(packed) == 1:
        raw = packed[0].encode("latin-1") if isinstance(packed[0], str) else packed[0]
        numbers = list(struct.unpack("<d", raw))
    if len(numbers) != 1 or not 0 < numbers[0] < _LARGEST_SCALE:
        got = f"{len(numbers)} numbers" if len(numbers) != 1 else f"{numbers[0]}"
        raise UserError(path, got, expected=f"{expected} above 0")
    return float(numbers[0])


_NUMBERS = ("FLOAT", "BINFLOAT", "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1")
_WORDS = ("GLOBAL", "SHORT_BINUNICODE", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "SHORT_BINSTRING", "BINSTRING")


def _camera_name(key: str) -> str:
    """The camera of a key.

    >>> _camera_name("1_CC32871A059.png"), _camera_name("CC32871A059")
    ('CC32871A059', 'CC32871A059')
    """
    return key.rsplit("/", 1)[-1].split(".", 1)[0].rsplit("_", 1)[-1]


def _intrinsics(path: Path) -> NDArray[np.float64]:
    return _array(f"{path}  intrinsics", read_object(path, _EXPECTED).get("intrinsics"), (3, 3))


def _pose(where: str, value: Any, scale: float) -> NDArray[np.float64]:
    fields = value if isinstance(value, Mapping) else {}
    rotation = _array(f"{where}  rotation", fields.get("rotation"), (3, 3))
    translation = _array(f"{where}  translation", fields.get("translation"), (3,))
    return np.column_stack([rotation, translation / _MM_PER_M * scale])


def _array(where: str, value: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    try:
        array = np.array(value, np.float64)
        array = array.reshape(shape) if array.size == np.prod(shape) else array
    except (TypeError, ValueError, OverflowError):
        array = np.zeros(0)
    if array.shape != shape:
        raise UserError(where, f"shape {array.shape}", expected=f"numbers of shape {shape}")
    return array


def _shrunk(image: Path, K: NDArray[np.float64]) -> NDArray[np.float64]:
    """K for the size of an image; the full size is the one whose middle is nearest to K's."""
    middle = np.array([K[0, 2], K[1, 2]])
    full = min(_FULL_SIZES, key=lambda size: np.abs(np.array(size) / 2 - middle).sum())
    size = image_size(image)
    scales = np.array(size) / full
    if abs(scales[0] / scales[1] - 1) > _MAX_ASPECT_ERROR:
        raise UserError(
            image,
            "{}x{} px".format(*size),
            expected="an image of {}x{} px, or smaller in proportion".format(*full),
        )
    return np.diag([*scales, 1.0]) @ K
