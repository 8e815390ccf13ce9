"""Films as MP4 (H.264): the only module that imports imageio_ffmpeg, which brings its ffmpeg."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from stages.run.files import whole_file
from stages.scenes.cameras import Camera

# One thread, and neither dates nor program names: the same frames give the same bytes.
_SAME_BYTES = ["-threads", "1", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
_LABEL_PX = 12


Levels = NDArray[np.uint8]  # [H, W, 3]


def write_video(path: Path, frames: Iterable[Levels], fps: int) -> None:
    """Write frames of one size, with even sides."""
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


def side_by_side(frames: Mapping[str, Levels]) -> Levels:
    """Frames of one size in a row, each with its name in the upper left corner."""
    return np.concatenate([_labelled(name, levels) for name, levels in frames.items()], axis=1)


def film_camera(camera: Camera, max_side_px: int) -> Camera:
    """The camera resized for a film: no side above the limit, both even."""
    scale = min(1.0, max_side_px / max(camera.width, camera.height))
    width, height = (max(2, 2 * round(side * scale / 2)) for side in (camera.width, camera.height))
    return camera.resized(width, height)


def _labelled(name: str, levels: Levels) -> Levels:
    image = Image.fromarray(levels)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_LABEL_PX)
    box = draw.textbbox((6, 5), name, font=font)
    draw.rectangle((box[0] - 3, box[1] - 2, box[2] + 3, box[3] + 2), fill=(0, 0, 0))
    draw.text((6, 5), name, font=font, fill=(255, 255, 255))
    return np.asarray(image)
