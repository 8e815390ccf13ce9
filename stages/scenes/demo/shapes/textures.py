"""Images inside scikit-image's wheel as textures; nothing is downloaded.

All are sRGB float arrays [h, w, 3] in [0, 1].
"""

from pathlib import Path

import numpy as np
import skimage
from PIL import Image

from stages.scenes.cameras import Array

# Each is used once per room, as SIFT would mismatch repeated images.
IMAGES = {
    "astronaut": "astronaut.png",
    "coffee": "coffee.png",
    "rocket": "rocket.jpg",
    "chelsea": "chelsea.png",
    "hubble": "hubble_deep_field.jpg",
    "coins": "coins.png",
    "page": "page.png",
    "cameraman": "camera.png",
    "ihc": "ihc.png",
    "retina": "retina.jpg",
    "moon": "moon.png",
    "cell": "cell.png",
    "text": "text.png",
    "motorcycle": "motorcycle_left.png",
}
SURFACES = {"brick": "brick.png", "grass": "grass.png", "gravel": "gravel.png"}


def load_texture(name: str, size: tuple[int, int] = (256, 256)) -> Array:
    """The image of a name above, resized to (width, height)."""
    # skimage.data's own functions open the same files, but import for half a second first.
    path = Path(skimage.data_dir) / (IMAGES | SURFACES)[name]
    with Image.open(path) as image:
        small = image.convert("RGB").resize(size, Image.Resampling.BOX)
    return np.asarray(small, np.float64) / 255


def grain(name: str, size: tuple[int, int]) -> Array:
    """Brightness [h, w] of a surface's image, normalised, to roughen a painted surface."""
    grey = load_texture(name, size).mean(axis=-1)
    return (grey - grey.mean()) / grey.std()
