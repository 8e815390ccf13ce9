"""Textures: photographs inside scikit-image's wheel, and painted cloth, skin and faces.

All are sRGB float arrays [h, w, 3] in [0, 1].
"""

import numpy as np
from skimage import data

from stages.scenes.cameras import Array

# Each hangs or lies in one place only: the same picture twice is a wrong match to SIFT.
PICTURES = (
    "astronaut", "coffee", "rocket", "chelsea", "hubble_deep_field", "coins", "page", "camera",
    "immunohistochemistry", "retina", "moon", "text", "clock",
)  # fmt: skip

_SIZE = 96


def photographs() -> dict[str, Array]:
    """Room textures by name; none needs a download. Grey ones are tinted."""
    tinted = {
        "brick": (data.brick(), (1.0, 0.62, 0.48)),
        "grass": (data.grass(), (0.62, 0.95, 0.45)),
        "gravel": (data.gravel(), (0.95, 0.88, 0.78)),
    }
    found = {name: _tint(image, np.array(tint)) for name, (image, tint) in tinted.items()}
    for name in PICTURES:
        image = np.asarray(getattr(data, name)()[::2, ::2], np.float64) / 255
        found[name] = image[..., :3] if image.ndim == 3 else np.repeat(image[..., None], 3, -1)
    return found


def _tint(grey: np.ndarray, tint: Array) -> Array:
    """A grey photograph at half of its size and contrast, in a colour.

    At full size these grounds are finer than the demo's pixels: noise, not something to match.
    """
    height, width = (side // 2 for side in grey.shape)
    small = grey[: 2 * height, : 2 * width].reshape(height, 2, width, 2).mean(axis=(1, 3)) / 255
    return np.clip((0.55 + 0.8 * (small - small.mean()))[..., None] * tint, 0, 1)


def cloth(kind: str, light: Array, dark: Array, rng: np.random.Generator) -> Array:
    """A woven pattern of two colours: stripes, checks, dots, plaid or patches."""
    y, x = np.mgrid[0:_SIZE, 0:_SIZE] / _SIZE
    patterns = {
        "stripes": np.sin(2 * np.pi * 5 * y) > 0,
        "checks": (np.sin(2 * np.pi * 4 * x) > 0) ^ (np.sin(2 * np.pi * 4 * y) > 0),
        "dots": ((x * 5) % 1 - 0.5) ** 2 + ((y * 5) % 1 - 0.5) ** 2 < 0.09,
        "plaid": (np.sin(2 * np.pi * 3 * x) > 0.5) | (np.sin(2 * np.pi * 4 * y) > 0.6),
        "patches": _smooth_noise(rng, 8) > 0.5,
    }
    mask = patterns[kind][..., None].astype(np.float64)
    woven = dark + (light - dark) * mask
    return np.clip(woven + 0.14 * (_smooth_noise(rng, 24)[..., None] - 0.5), 0, 1)


def skin(tone: Array, rng: np.random.Generator) -> Array:
    """Plain skin with faint blotches."""
    return np.clip(tone + 0.10 * (_smooth_noise(rng, 12)[..., None] - 0.5), 0, 1)


def head(tone: Array, hair: Array, rng: np.random.Generator) -> Array:
    """A head unrolled: the face looks out at u = 0.5; hair covers the top and the back."""
    image = skin(tone, rng)
    v, u = np.mgrid[0:_SIZE, 0:_SIZE] / _SIZE
    side = np.abs(u - 0.5)
    strands = 0.75 + 0.5 * _smooth_noise(rng, 32)
    is_hair = (v < 0.30 - 0.3 * side) | ((side > 0.21) & (v < 0.68))
    image = np.where(is_hair[..., None], np.clip(hair * strands[..., None], 0, 1), image)
    _paint(image, u, v, (0.435, 0.47), (0.030, 0.022), (0.97, 0.97, 0.97))
    _paint(image, u, v, (0.565, 0.47), (0.030, 0.022), (0.97, 0.97, 0.97))
    _paint(image, u, v, (0.437, 0.472), (0.012, 0.020), (0.10, 0.12, 0.20))
    _paint(image, u, v, (0.563, 0.472), (0.012, 0.020), (0.10, 0.12, 0.20))
    _paint(image, u, v, (0.435, 0.415), (0.040, 0.012), hair * 0.7)
    _paint(image, u, v, (0.565, 0.415), (0.040, 0.012), hair * 0.7)
    _paint(image, u, v, (0.500, 0.570), (0.018, 0.030), tone * 0.78)
    _paint(image, u, v, (0.500, 0.665), (0.048, 0.016), (0.70, 0.25, 0.25))
    return image


def _paint(image: Array, u: Array, v: Array, centre: tuple, radii: tuple, color: object) -> None:
    inside = ((u - centre[0]) / radii[0]) ** 2 + ((v - centre[1]) / radii[1]) ** 2 < 1
    image[inside] = color


def _smooth_noise(rng: np.random.Generator, cells: int) -> Array:
    """Repeating value noise in [0, 1], [_SIZE, _SIZE], with `cells` cells a side."""
    grid = rng.random((cells, cells))
    at = np.arange(_SIZE) * cells / _SIZE
    low = np.floor(at).astype(int)
    ease = (at - low) ** 2 * (3 - 2 * (at - low))
    high = (low + 1) % cells
    rows = grid[low] * (1 - ease[:, None]) + grid[high] * ease[:, None]
    return rows[:, low] * (1 - ease) + rows[:, high] * ease
