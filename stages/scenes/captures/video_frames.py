"""A video as the images of a capture: at a constant rate, the sharpest frame of each interval.

A hand-held camera blurs some frames and not their neighbours. Within an interval the scene hardly
changes, so the variance of the Laplacian (Pech-Pacheco et al. 2000) compares the blur alone.
"""

from pathlib import Path

import numpy as np

from stages.run.errors import UserError, warn_once
from stages.run.plurals import counted
from stages.scenes.formats.video import Levels, read_video
from stages.scenes.image_folder import SUFFIXES, VIDEO_SUFFIXES, walk_folder
from stages.scenes.images import write_png

_MIN_DECODED = 0.9  # as a share of the duration that the header states


def video_of(source: Path) -> Path | None:
    """The video that is meant by a source: itself, or the only one in a folder without images."""
    if source.is_file():
        return source if source.suffix.lower() in VIDEO_SUFFIXES else None
    if not source.is_dir():
        return None
    files = walk_folder(source).files
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES]
    has_images = any(path.suffix.lower() in SUFFIXES for path in files)
    return videos[0] if len(videos) == 1 and not has_images else None


def extract_sharp_frames(video: Path, folder: Path, fps: float) -> int:
    """Write the sharpest frame of each 1/fps seconds as PNG; return their number.

    Names are `frame_000123.png`, by the frame's number in the video from 0. Raises UserError for a
    video that cannot be decoded or gives fewer than two images.
    """
    clip = read_video(video)
    best: tuple[float, int, Levels] | None = None
    interval = count = decoded = 0
    for number, levels in enumerate(clip.frames):
        decoded = number + 1
        if int(number * fps / clip.fps) > interval and best is not None:
            count += _write(folder, best)
            interval, best = int(number * fps / clip.fps), None
        score = sharpness(levels)
        if best is None or score > best[0]:
            best = score, number, levels
    count += _write(folder, best) if best is not None else 0
    if count < 2:
        raise UserError(
            video,
            f"{counted(count, 'image')} of {counted(decoded, 'frame')} at {clip.fps:g} per second",
            expected="at least two",
            fix="raise capture_calibrate.video_fps, or take a longer video",
        )
    if decoded < _MIN_DECODED * clip.duration_s * clip.fps:
        seconds = decoded / clip.fps
        warn_once(f"{video}: only {seconds:.1f} of {clip.duration_s:.1f} s could be decoded")
    return count


def sharpness(levels: Levels) -> float:
    """Variance of the Laplacian of the green channel; larger is sharper.

    >>> sharpness(np.full((4, 4, 3), 9, np.uint8))
    0.0
    """
    green = levels[..., 1].astype(np.float32)
    inner = green[1:-1, 1:-1]
    around = green[:-2, 1:-1] + green[2:, 1:-1] + green[1:-1, :-2] + green[1:-1, 2:]
    return float((4 * inner - around).var())


def _write(folder: Path, frame: tuple[float, int, Levels]) -> int:
    _, number, levels = frame
    folder.mkdir(parents=True, exist_ok=True)
    write_png(folder / f"frame_{number:06d}.png", levels.astype(np.float32) / 255)
    return 1
