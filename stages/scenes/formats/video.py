"""Videos: the only module that imports imageio_ffmpeg, which brings its ffmpeg."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.run.files import whole_file

Levels = NDArray[np.uint8]  # [H, W, 3]

# One thread, and neither dates nor program names: the same frames give the same bytes.
_SAME_BYTES = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
_FIX = "convert it by `ffmpeg -i VIDEO -c:v libx264 -pix_fmt yuv420p NEW.mp4`, or extract images"


class Clip(NamedTuple):
    """What the header of a video says."""

    fps: float
    duration_s: float  # 0 where it is not known
    frames: Iterator[Levels]  # upright, decoded one by one


def read_video(path: Path) -> Clip:
    """Open a video of any kind that ffmpeg decodes.

    Raises UserError, here or while frames are taken, for a file that cannot be decoded and where
    there is no ffmpeg.
    """
    # An absolute path cannot be taken for an option or for a protocol such as `concat:`.
    where = str(path.resolve())
    if not path.is_file():
        raise UserError(path, "no such file", expected="a video")
    # Frames as they are stored: none doubled or dropped for a constant rate.
    reader = imageio_ffmpeg.read_frames(where, output_params=["-fps_mode", "passthrough", "-an"])
    try:
        header = next(reader)
    except (OSError, RuntimeError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise _undecodable(path, error) from error
    if not header["fps"] > 0 or 0 in header["size"]:
        raise UserError(path, "no video in it", expected="a video", fix=_FIX)
    shape = (*header["size"][::-1], 3)
    return Clip(header["fps"], header["duration"], _decoded(path, reader, shape))


def _decoded(path: Path, reader: Iterator[bytes], shape: tuple[int, ...]) -> Iterator[Levels]:
    try:
        for frame in reader:
            yield np.frombuffer(frame, np.uint8).reshape(shape)
    except (OSError, RuntimeError, ValueError) as error:
        raise _undecodable(path, error) from error


def _undecodable(path: Path, error: Exception) -> UserError:
    text = str(error)
    if "ffmpeg exe" in text:
        return UserError(
            "ffmpeg",
            "not found",
            expected="the one of package imageio-ffmpeg, or an installed one",
            fix="set IMAGEIO_FFMPEG_EXE to its path",
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    return UserError(path, f"cannot be decoded ({reason})", expected="a whole video", fix=_FIX)


def write_video(path: Path, frames: Iterable[Levels], fps: int) -> None:
    """Write frames of one size, with even sides, as MP4 (H.264)."""
    # ffmpeg takes the kind of file from the suffix, which the scratch file therefore keeps.
    with whole_file(path) as scratch:
        film = scratch.with_suffix(".scratch.mp4")
        try:
            _encode(film, frames, fps)
            film.replace(scratch)
        finally:
            film.unlink(missing_ok=True)


def _encode(path: Path, frames: Iterable[Levels], fps: int) -> None:
    writer = None
    for levels in frames:
        if writer is None:
            height, width = levels.shape[:2]
            writer = imageio_ffmpeg.write_frames(
                str(path),
                (width, height),
                fps=fps,
                codec="libx264",
                quality=None,
                macro_block_size=2,
                output_params=["-crf", "18", *_SAME_BYTES],
            )
            writer.send(None)
        writer.send(np.ascontiguousarray(levels))
    assert writer is not None, "a film without frames"
    writer.close()
