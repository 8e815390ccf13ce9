"""Frames of films: their size, and several methods side by side."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from stages.scenes.cameras import Camera
from stages.scenes.formats.video import Levels

_LABEL_PX = 12


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
