"""Painted textures of people (cloth, skin, faces), from noise and soft shapes.

Images are sRGB float arrays [h, w, 3] in [0, 1]. Sizes of cloth are in metres, so that patterns
have the same scale on any garment.
"""

from collections.abc import Callable

import numpy as np

from stages.scenes.cameras import Array

Rng = np.random.Generator
SIDE = 256  # of cloth and head textures


def noise(rng: Rng, shape: tuple[int, int], cells: tuple[int, int], octaves: int = 1) -> Array:
    """Smooth periodic noise [h, w] in [0, 1] with mean 0.5; each octave is twice as fine."""
    total, weight = np.zeros(shape, np.float32), np.float32(0)
    for octave in range(octaves):
        share = np.float32(0.5**octave)
        counts = [min(n << octave, side) for n, side in zip(cells, shape, strict=True)]
        grid = rng.random(counts, np.float32)
        total += share * _interpolated(_interpolated(grid, shape[0]).T, shape[1]).T
        weight += share
    return total / weight


def _interpolated(grid: Array, size: int) -> Array:
    """Rows of a periodic grid, smoothly interpolated to `size` rows."""
    cells = len(grid)
    at = np.arange(size) * cells / size
    low = np.floor(at).astype(int)
    ease = ((at - low) ** 2 * (3 - 2 * (at - low)))[:, None].astype(np.float32)
    return grid[low] * (1 - ease) + grid[(low + 1) % cells] * ease


def pixel_grid(height: int, width: int, size: tuple[float, float] = (1.0, 1.0)) -> tuple:
    """x and y [h, w] of pixel centres over a surface of `size` (width, height)."""
    x, y = (
        (np.arange(width) + 0.5) / width * size[0],
        (np.arange(height) + 0.5) / height * size[1],
    )
    return np.meshgrid(x, y)


def blend(image: Array, share: Array, color: Array | tuple) -> None:
    """Blend a colour [3] or image into `image` with weights `share` [h, w], in place."""
    share = np.clip(share, 0, 1)[..., None]
    image += share * (np.asarray(color) - image)


def disc(x: Array, y: Array, centre: tuple, radii: tuple, soft: float = 0.15) -> Array:
    """Coverage [h, w] of an ellipse with a soft rim."""
    distance = np.hypot((x - centre[0]) / radii[0], (y - centre[1]) / radii[1])
    return np.clip((1 - distance) / soft + 0.5, 0, 1)


def cloth(kind: str, colors: Array, size: tuple[float, float], rng: Rng) -> Array:
    """A woven or printed pattern of colours [3, 3] on cloth of `size` (around, along), metres."""
    x, y = pixel_grid(SIDE, SIDE, size)
    image = np.empty((SIDE, SIDE, 3))
    image[:] = colors[0]
    _PATTERNS[kind](image, x, y, colors, rng)
    folds = noise(rng, (SIDE, SIDE), (4, 7), 3) - 0.5
    weave = noise(rng, (SIDE, SIDE), (96, 96)) - 0.5
    return np.clip(image * (1 + 0.30 * folds + 0.10 * weave)[..., None], 0.02, 1)


def denim(color: Array, size: tuple[float, float], rng: Rng) -> Array:
    """Denim: bleached at the thigh, with side seams."""
    x, y = pixel_grid(SIDE, SIDE, size)
    bleach = disc(x, y, (size[0] / 2, 0.3 * size[1]), (0.3 * size[0], 0.35 * size[1]), 0.9)
    mottle = noise(rng, (SIDE, SIDE), (24, 12), 3) - 0.5
    image = color * (0.85 + 0.35 * bleach + 0.5 * mottle)[..., None]
    for seam in (0.25, 0.75):
        blend(image, 0.7 * (np.abs(x / size[0] - seam) < 0.012), color * 0.4)
    return np.clip(image, 0.02, 1)


def skin(tone: Array, rng: Rng) -> Array:
    """Skin with faint blotches."""
    blotches = noise(rng, (SIDE // 2, SIDE // 2), (7, 7), 3) - 0.5
    return np.clip(tone * (1 + 0.22 * blotches[..., None] * [0.7, 1.0, 1.1]), 0, 1)


def face(tone: Array, hair: Array, eye: Array, beard: bool, glasses: bool, rng: Rng) -> Array:
    """An unrolled head: the face is at x = 0.5; y runs from the crown to the throat."""
    image = np.repeat(np.repeat(skin(tone, rng), 2, axis=0), 2, axis=1)
    x, y = pixel_grid(SIDE, SIDE)
    across = np.abs(x - 0.5)
    red = np.array([0.80, 0.36, 0.32])
    blend(image, 0.25 * disc(across, y, (0.085, 0.60), (0.05, 0.06), 0.9), red)
    if beard:
        jaw = disc(x, y, (0.5, 0.74), (0.15, 0.16), 0.25) * (y > 0.60 - 0.6 * (across - 0.03))
        blend(image, 0.8 * jaw * (0.5 + noise(rng, x.shape, (64, 64))), hair * 0.8)
    blend(image, 0.35 * disc(across, y, (0.058, 0.475), (0.036, 0.035), 0.8), tone * 0.45)
    blend(image, disc(across, y, (0.058, 0.482), (0.027, 0.020)), (0.96, 0.96, 0.95))
    blend(image, disc(across, y, (0.057, 0.482), (0.0125, 0.018)), eye)
    blend(image, disc(across, y, (0.057, 0.482), (0.006, 0.009)), (0.03, 0.03, 0.04))
    lid = disc(across, y, (0.058, 0.476), (0.032, 0.022)) - disc(
        across, y, (0.058, 0.486), (0.034, 0.023)
    )
    blend(image, lid, tone * 0.2)
    brow = disc(across, y + 0.25 * (across - 0.05) ** 2 / 0.05, (0.060, 0.425), (0.036, 0.011))
    blend(image, 0.9 * brow, hair * 0.6)
    blend(image, 0.45 * disc(across, y, (0.013, 0.598), (0.009, 0.007), 0.6), tone * 0.3)
    blend(image, 0.9 * disc(x, y, (0.5, 0.672), (0.042, 0.018), 0.4), tone * [0.85, 0.52, 0.52])
    blend(image, 0.9 * disc(x, y, (0.5, 0.670), (0.040, 0.004), 0.8), tone * 0.3)
    if glasses:
        rim = disc(across, y, (0.060, 0.484), (0.046, 0.040)) - disc(
            across, y, (0.060, 0.484), (0.038, 0.032)
        )
        bridge = (across < 0.016) & (np.abs(y - 0.474) < 0.005)
        temple = (across > 0.104) & (across < 0.26) & (np.abs(y - 0.474) < 0.006)
        blend(image, np.maximum(rim, bridge | temple), (0.06, 0.05, 0.05))
    return np.clip(image, 0, 1)


def strands(color: Array, rng: Rng) -> Array:
    """Hair: fine light and dark streaks from the crown (top row) downwards."""
    shape = (SIDE // 2, SIDE // 2)
    streaks = noise(rng, shape, (5, 64), 2) - 0.5
    patches = noise(rng, shape, (5, 8)) - 0.5
    return np.clip(color * (1 + 1.1 * streaks + 0.4 * patches)[..., None] + 0.02, 0, 1)


def _breton(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    blend(image, (y / 0.055) % 1 < 0.42, colors[1])


def _rugby(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    blend(image, (y / 0.19) % 1 < 0.5, colors[1])
    blend(image, np.abs((y / 0.19) % 0.5 - 0.25) < 0.03, colors[2])


def _plaid(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    for axis in (x, y):
        blend(image, 0.55 * ((axis / 0.11) % 1 < 0.45), colors[1])
        blend(image, 0.7 * (np.abs((axis / 0.11) % 1 - 0.72) < 0.05), colors[2])


def _dots(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    row = np.floor(y / 0.045)
    distance = np.hypot((x / 0.052 + 0.5 * (row % 2)) % 1 - 0.5, (y / 0.045) % 1 - 0.5)
    blend(image, (0.32 - distance) * 12, colors[1])


def _flowers(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    for index in range(70):
        at, size = rng.random(2) * [x.max(), y.max()], rng.uniform(0.014, 0.034)
        dx, dy = x - at[0], y - at[1]
        distance, petals = (np.hypot(dx, dy), np.cos(5 * np.arctan2(dy, dx) + rng.uniform(0, 6)))
        tint = colors[1 + index % 2]
        blend(image, (size * (0.75 + 0.35 * petals) - distance) * 200, tint)
        blend(image, (0.3 * size - distance) * 200, (0.98, 0.90, 0.45))


def _mosaic(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    a, b = np.floor(x / 0.085).astype(int), np.floor(y / 0.085).astype(int)
    lower = ((x / 0.085) % 1 > (y / 0.085) % 1).astype(int)
    tints = np.concatenate([colors, colors * 0.55 + 0.4])
    table = rng.integers(len(tints), size=(a.max() + 1, b.max() + 1, 2))
    image[:] = tints[table[a, b, lower]]


def _camouflage(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    for tint in (colors[1], colors[2], colors[0] * 0.4):
        blend(image, (noise(rng, x.shape, (7, 10), 2) - 0.56) * 40, tint)


def _number(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    """A sports shirt: yoke and two-digit number, front and back."""
    blend(image, y < 0.10, colors[1])
    blend(image, np.abs(y - 0.115) < 0.008, colors[2])
    segments = ["1110111", "0010010", "1011101", "1011011", "0111010", "1101011", "1101111"]
    for middle in (0.5 * x.max(), 0.02):
        for place in (-0.055, 0.055):
            lit = segments[rng.integers(len(segments))]
            _digit(
                image,
                (x - middle - place + 0.5 * x.max()) % x.max() - 0.5 * x.max(),
                y - 0.25,
                lit,
                colors[2],
            )


def _digit(image: Array, x: Array, y: Array, lit: str, color: Array) -> None:
    """Seven bars: top, left and right above, middle, left and right below, bottom."""
    bars = [
        (0, -0.07, 1),
        (-0.032, -0.035, 0),
        (0.032, -0.035, 0),
        (0, 0, 1),
        (-0.032, 0.035, 0),
        (0.032, 0.035, 0),
        (0, 0.07, 1),
    ]
    for on, (at_x, at_y, flat) in zip(lit, bars, strict=True):
        long, short = (x - at_x, y - at_y) if flat else (y - at_y, x - at_x)
        if on == "1":
            blend(image, (np.abs(long) < 0.043) & (np.abs(short) < 0.011), color)


def _plain(image: Array, x: Array, y: Array, colors: Array, rng: Rng) -> None:
    # Not up to the edge: textures repeat, so the opposite edge would be tinted.
    blend(image, np.abs(y / y.max() - 0.93) < 0.03, colors[1])


_PATTERNS: dict[str, Callable[[Array, Array, Array, Array, Rng], None]] = {
    "breton": _breton,
    "rugby": _rugby,
    "plaid": _plaid,
    "dots": _dots,
    "flowers": _flowers,
    "mosaic": _mosaic,
    "camouflage": _camouflage,
    "number": _number,
    "plain": _plain,
}
PATTERNS = tuple(_PATTERNS)
