"""Photographs inside scikit-image's wheel as textures; nothing is downloaded.

All are sRGB float arrays [h, w, 3] in [0, 1].
"""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from stages.scenes.cameras import Array

# Each hangs or lies in one place only: the same picture twice is a wrong match to SIFT.
PICTURES = {
    "astronaut": "astronaut.png", "coffee": "coffee.png", "rocket": "rocket.jpg",
    "chelsea": "chelsea.png", "hubble": "hubble_deep_field.jpg", "coins": "coins.png",
    "page": "page.png", "cameraman": "camera.png", "ihc": "ihc.png", "retina": "retina.jpg",
    "moon": "moon.png", "cell": "cell.png", "text": "text.png", "motorcycle": "motorcycle_left.png",
}  # fmt: skip
GROUNDS = {"brick": "brick.png", "grass": "grass.png", "gravel": "gravel.png"}


def photograph(name: str, size: tuple[int, int] = (256, 256)) -> Array:
    """A photograph by its name here, stretched to (width, height)."""
    # skimage.data's own functions open the same files, but import for half a second first.
    path = Path(skimage.data_dir) / (PICTURES | GROUNDS)[name]
    with Image.open(path) as image:
        small = image.convert("RGB").resize(size, Image.Resampling.BOX)
    return np.asarray(small, np.float64) / 255


def grain(name: str, size: tuple[int, int]) -> Array:
    """A ground's light and dark [h, w] around 0, to roughen a painted surface."""
    grey = photograph(name, size).mean(axis=-1)
    return (grey - grey.mean()) / grey.std()
