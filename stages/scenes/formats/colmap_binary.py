"""Checks the structure of a binary COLMAP model before COLMAP reads it; reads tracks as arrays.

COLMAP's reader trusts every count in a file: with a damaged file it reads zeros for hours or
exhausts memory. The layouts are those of COLMAP's scene/reconstruction_io_binary.cc. Values are
checked after reading.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError

FILE_NAMES = ("cameras", "images", "points3D", "rigs", "frames")
_POSE = 7 * 8  # quaternion and translation
_POINT_2D = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])  # -1 for none
_POINT_BYTES = 8 + 3 * 8 + 3 + 8 + 8  # without its track
# Number of parameters by the id of a camera model.
_PARAMS = (3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12, 16, 4, 5, 3, 4, 6, 2)


class _Cursor:
    """A position in a file's bytes. Reading past the end raises ValueError."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, layout: str) -> tuple:
        """The values of a struct format."""
        size = struct.calcsize(layout)
        self.skip(size)
        return struct.unpack_from(layout, self.data, self.at - size)

    def skip(self, count: int) -> None:
        """Skip `count` bytes."""
        self.at += count
        if self.at > len(self.data):
            raise ValueError("it is truncated")

    def name(self) -> str:
        """A zero-terminated text; its encoding is not checked."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ValueError("it is truncated in a name")
        text, self.at = self.data[self.at : end], end + 1
        return text.decode("utf-8", "backslashreplace")


def check_files(folder: Path) -> None:
    """Raise UserError for a damaged file of a binary model."""
    for name, read_record in _RECORDS.items():
        path = folder / f"{name}.bin"
        if not path.is_file():
            continue
        cursor = _Cursor(path.read_bytes())
        try:
            (count,) = cursor.take("<Q")
            for _ in range(count):
                read_record(cursor)
            if cursor.at < len(cursor.data):
                raise ValueError(f"{len(cursor.data) - cursor.at} bytes too many")
        except (ValueError, struct.error) as error:
            raise UserError(
                path,
                f"no COLMAP model can be read from it: {error}",
                expected="a file as COLMAP's mapper or model_converter writes it",
                fix="copy the model again from its source",
            ) from error


def count_images(folder: Path) -> int:
    """Number of images of the model in a folder; 0 if unknown."""
    with suppress(OSError, struct.error, UnicodeDecodeError):
        if (folder / "images.bin").is_file():
            with (folder / "images.bin").open("rb") as data:
                return struct.unpack("<Q", data.read(8))[0]
        return sum(1 for _ in _lines(folder / "images.txt")) // 2
    return 0


def read_tracks(
    folder: Path,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Points of a model that COLMAP wrote just now, and their observations.

    Returns the points [P, 3] in the order of their ids, and of each observation, by point and
    image, the number of its point, the id of its image and the number of its feature there, [O].
    """
    cursor = _Cursor((folder / "images.bin").read_bytes())
    (count,) = cursor.take("<Q")
    images, features, ids = [], [], []
    for _ in range(count):
        (image,) = cursor.take("<I")
        cursor.skip(_POSE + 4)
        cursor.name()
        (size,) = cursor.take("<Q")
        observed = np.frombuffer(cursor.data, _POINT_2D, size, cursor.at)["point"]
        cursor.skip(size * _POINT_2D.itemsize)
        rows = np.flatnonzero(observed >= 0)
        images.append(np.full(len(rows), image, np.int64))
        features.append(rows)
        ids.append(observed[rows])
    points = np.concatenate([np.zeros(0, np.int64), *ids])
    image, feature = (
        np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (images, features)
    )
    order = np.lexsort((feature, image, points))
    known, number, lengths = np.unique(points[order], return_inverse=True, return_counts=True)
    data = np.fromfile(folder / "points3D.bin", np.uint8)
    # A record ends with its track; records are sorted by id.
    starts = 8 + np.cumsum([0, *(_POINT_BYTES + 8 * lengths)])
    assert starts[-1] == len(data), "every point has a track"
    head = data[starts[:-1, None] + np.arange(_POINT_BYTES)]
    assert (np.ascontiguousarray(head[:, :8]).view(np.int64)[:, 0] == known).all(), "sorted by id"
    xyz = np.ascontiguousarray(head[:, 8:32]).view(np.float64)
    return xyz.reshape(-1, 3), number, image[order], feature[order]


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text model without comments; an image's second line may be empty."""
    return (line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#")


def _camera(cursor: _Cursor) -> None:
    _, model, width, height = cursor.take("<IiQQ")
    if not 0 <= model < len(_PARAMS):
        raise ValueError(f"a camera of unknown model {model}")
    if not (0 < width < 2**31 and 0 < height < 2**31):
        raise ValueError(f"a camera of {width}x{height} px")
    cursor.skip(8 * _PARAMS[model])


def _image(cursor: _Cursor) -> None:
    cursor.skip(4 + _POSE + 4)
    cursor.name()
    (count,) = cursor.take("<Q")
    cursor.skip(24 * count)


def _point(cursor: _Cursor) -> None:
    cursor.skip(8 + 3 * 8 + 3 + 8)
    (count,) = cursor.take("<Q")
    cursor.skip(8 * count)


def _rig(cursor: _Cursor) -> None:
    _, count = cursor.take("<II")
    cursor.skip(8 * min(count, 1))  # the reference has no pose
    for _ in range(count - 1):
        _, _, has_pose = cursor.take("<iIB")
        cursor.skip(_POSE if has_pose else 0)


def _frame(cursor: _Cursor) -> None:
    cursor.skip(4 + 4 + _POSE)
    (count,) = cursor.take("<I")
    cursor.skip(16 * count)


_RECORDS: dict[str, Callable[[_Cursor], None]] = {
    "cameras": _camera,
    "images": _image,
    "points3D": _point,
    "rigs": _rig,
    "frames": _frame,
}
