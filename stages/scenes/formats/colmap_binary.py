"""Files of a binary COLMAP model, walked through before COLMAP reads them.

Its reader believes every count in a file: of a damaged one it reads zeros for hours, or asks for
more memory than there is. Layouts are those of COLMAP's scene/reconstruction_io_binary.cc; what
numbers mean is judged once the model is read.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from stages.run.errors import UserError

NAMES = ("cameras", "images", "points3D", "rigs", "frames")
_POSE = 7 * 8  # quaternion and translation
# Parameters by the number of a camera model.
_PARAMS = (3, 4, 4, 5, 8, 8, 12, 5, 4, 5, 12, 16, 4, 5, 3, 4, 6, 2)


class _Cursor:
    """A place in a file's bytes. Reading past the end raises ValueError."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple:
        """The values of a struct format."""
        size = struct.calcsize(form)
        self.skip(size)
        return struct.unpack_from(form, self.data, self.at - size)

    def skip(self, count: int) -> None:
        """Pass over bytes."""
        self.at += count
        if self.at > len(self.data):
            raise ValueError("it ends in the middle")

    def name(self) -> str:
        """A text that ends with a zero; whoever uses it judges its encoding."""
        end = self.data.find(b"\0", self.at)
        if end < 0:
            raise ValueError("it ends in the middle of a name")
        text, self.at = self.data[self.at : end], end + 1
        return text.decode("utf-8", "backslashreplace")


def check_files(folder: Path) -> None:
    """Raise UserError for a binary model whose files are not whole."""
    for name, walk in _WALKS.items():
        path = folder / f"{name}.bin"
        if not path.is_file():
            continue
        cursor = _Cursor(path.read_bytes())
        try:
            (count,) = cursor.take("<Q")
            for _ in range(count):
                walk(cursor)
            if cursor.at < len(cursor.data):
                raise ValueError(f"{len(cursor.data) - cursor.at} bytes too many")
        except (ValueError, struct.error) as error:
            raise UserError(
                path, f"no COLMAP model can be read from it: {error}",
                expected="what COLMAP's model_converter or mapper writes",
                fix="copy the model again from its source",
            ) from error  # fmt: skip


def count_images(folder: Path) -> int:
    """How many images a model in a folder has; 0 where that cannot be told."""
    with suppress(OSError, struct.error, UnicodeDecodeError):
        if (folder / "images.bin").is_file():
            with (folder / "images.bin").open("rb") as data:
                return struct.unpack("<Q", data.read(8))[0]
        return sum(1 for _ in _lines(folder / "images.txt")) // 2
    return 0


def _lines(path: Path) -> Iterator[str]:
    """Lines of a text model; the second of an image may be empty."""
    return (line for line in path.read_text(encoding="utf-8").splitlines() if line[:1] != "#")


def _camera(cursor: _Cursor) -> None:
    _, model, width, height = cursor.take("<IiQQ")
    if not 0 <= model < len(_PARAMS):
        raise ValueError(f"a camera of the unknown model {model}")
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
        _, _, posed = cursor.take("<iIB")
        cursor.skip(_POSE if posed else 0)


def _frame(cursor: _Cursor) -> None:
    cursor.skip(4 + 4 + _POSE)
    (count,) = cursor.take("<I")
    cursor.skip(16 * count)


_WALKS: dict[str, Callable[[_Cursor], None]] = {
    "cameras": _camera, "images": _image, "points3D": _point, "rigs": _rig, "frames": _frame,
}  # fmt: skip
