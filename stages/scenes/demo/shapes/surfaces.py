"""Painted surfaces of the room: floors, walls, rugs, bookshelves, wood and posters.

Each element (plank, brick, book) has its own colour, as SIFT mismatches repeated patterns. Sizes
are in metres.
"""

import numpy as np

from stages.scenes.cameras import Array
from stages.scenes.demo.shapes.paint import Rng, blend, noise, pixel_grid
from stages.scenes.demo.shapes.textures import grain, load_texture

_WOODS = np.array([[0.60, 0.42, 0.26], [0.48, 0.31, 0.19], [0.70, 0.53, 0.35]])
_WALLS = np.array([[0.72, 0.66, 0.52], [0.50, 0.62, 0.66], [0.66, 0.52, 0.46], [0.56, 0.63, 0.50]])


_DYES = np.array(
    [
        [
            [0.56, 0.16, 0.14],
            [0.14, 0.20, 0.38],
            [0.80, 0.72, 0.57],
            [0.74, 0.52, 0.24],
            [0.20, 0.36, 0.33],
            [0.27, 0.17, 0.14],
        ],
        [
            [0.20, 0.42, 0.46],
            [0.16, 0.21, 0.30],
            [0.82, 0.80, 0.70],
            [0.76, 0.46, 0.32],
            [0.52, 0.60, 0.48],
            [0.38, 0.26, 0.30],
        ],
        [
            [0.66, 0.40, 0.20],
            [0.34, 0.13, 0.16],
            [0.84, 0.77, 0.64],
            [0.42, 0.46, 0.26],
            [0.24, 0.34, 0.44],
            [0.20, 0.17, 0.16],
        ],
    ]
)
_GLAZES = np.array([[0.78, 0.70, 0.58], [0.62, 0.44, 0.33], [0.46, 0.52, 0.53], [0.70, 0.64, 0.58]])


def planks(size: float, rng: Rng) -> Array:
    """A floor of boards along y, with their own tones, grain and knots."""
    side, board = 768, 0.16
    x, y = pixel_grid(side, side, (size, size))
    column = np.floor(x / board).astype(int)
    starts = rng.uniform(0, 1.4, column.max() + 1)[column]
    row = np.floor((y + starts) / 1.4).astype(int)
    tone = rng.normal(0, 0.17, (column.max() + 1, row.max() + 1))[column, row]
    streaks = noise(rng, (side, side), (24, 360), 2) - 0.5
    clouds = noise(rng, (side, side), (20, 48), 2) - 0.5
    base = _WOODS[rng.integers(len(_WOODS))]
    image = base * (1 + tone + 0.50 * streaks + 0.55 * clouds)[..., None]
    for knot in rng.random((130, 3)) * [size, size, 1]:
        near = np.s_[_window(knot[1], size, side), _window(knot[0], size, side)]
        blend(image[near], _disc(x[near], y[near], knot[:2], 0.02 + 0.05 * knot[2]), base * 0.35)
    gap = ((x / board) % 1 < 0.045) | (((y + starts) / 1.4) % 1 < 0.006)
    blend(image, 0.7 * gap, base * 0.25)
    return np.clip(image, 0.02, 1)


def tiles(size: float, rng: Rng) -> Array:
    """A floor of patterned tiles, no two alike."""
    side, tile = 768, 0.40
    x, y = pixel_grid(side, side, (size, size))
    a, b = np.floor(x / tile).astype(int), np.floor(y / tile).astype(int)
    count = (b.max() + 1, a.max() + 1)
    glazes = _GLAZES[rng.integers(len(_GLAZES), size=count)]
    image = (glazes * rng.normal(1, 0.14, (*count, 1)))[b, a]
    inks = np.clip(rng.uniform(0.15, 0.75, (*count, 3)), 0, 1)[b, a]
    u, v = (x / tile) % 1 - 0.5, (y / tile) % 1 - 0.5
    kind = rng.integers(4, size=count)[b, a]
    distance = np.hypot(u, v)
    motifs = [
        np.abs(distance - 0.28) < 0.06,
        np.abs(u) + np.abs(v) < 0.30,
        np.abs(u - v) < 0.10,
        np.hypot(np.abs(u) - 0.5, np.abs(v) - 0.5) < 0.3,
    ]
    blend(image, 0.75 * np.choose(kind, motifs), inks)
    image *= (1 + 0.06 * grain("gravel", (side, side)))[..., None]
    blend(image, np.maximum(np.abs(u), np.abs(v)) > 0.485, (0.35, 0.33, 0.30))
    return np.clip(image, 0.02, 1)


def brickwork(size: tuple[float, float], rng: Rng) -> Array:
    """A brick wall, with bricks between red and whitewashed."""
    width, height = 768, 384
    x, y = pixel_grid(height, width, size)
    row = np.floor(y / 0.105).astype(int)
    along = x / 0.30 + 0.5 * (row % 2)
    column = np.floor(along).astype(int)
    count = (row.max() + 1, column.max() + 1)
    red, pale = np.array([0.58, 0.30, 0.22]), np.array([0.72, 0.60, 0.50])
    bricks = red + rng.random((*count, 1)) ** 2 * (pale - red)
    image = (bricks * rng.normal(1, 0.17, (*count, 1)))[row, column]
    image *= (1 + 0.10 * grain("brick", (width, height)))[..., None]
    image *= (0.75 + 0.5 * noise(rng, (height, width), (4, 8), 3))[..., None]
    mortar = ((y / 0.105) % 1 < 0.13) | (along % 1 < 0.05)
    blend(image, mortar, (0.62, 0.59, 0.54))
    return np.clip(image, 0.02, 1)


def plaster(size: tuple[float, float], rng: Rng) -> Array:
    """A painted wall with a darker wainscot, stains and splashes of paint."""
    width, height = 768, 384
    x, y = pixel_grid(height, width, size)
    base = _WALLS[rng.integers(len(_WALLS))]
    image = base * (0.72 + 0.56 * noise(rng, (height, width), (5, 10), 5))[..., None]
    image *= (1 + 0.05 * grain("gravel", (width, height)))[..., None]
    for splash in rng.random((240, 6)):
        at, radius = splash[:2] * size, 0.012 + 0.05 * splash[2] ** 3
        near = np.s_[_window(at[1], size[1], height), _window(at[0], size[0], width)]
        blend(image[near], 0.8 * _disc(x[near], y[near], at, radius), 0.15 + 0.8 * splash[3:])
    low = y > size[1] - 0.85
    blend(image, 0.55 * low, base * [0.45, 0.40, 0.42])
    blend(image, np.abs(y - (size[1] - 0.85)) < 0.03, (0.88, 0.85, 0.80))
    blend(image, y > size[1] - 0.12, (0.80, 0.77, 0.72))
    return np.clip(image, 0.02, 1)


def ceiling(rng: Rng) -> Array:
    """White panels, some yellowed, with a fleck."""
    x, y = pixel_grid(256, 256, (10, 10))
    tone = rng.normal(0.92, 0.03, (10, 10))[y.astype(int), x.astype(int)]
    tone *= 0.96 + 0.08 * noise(rng, (256, 256), (64, 64))
    image = tone[..., None] * [1.0, 0.99, 0.95]
    blend(image, (x % 1 < 0.06) | (y % 1 < 0.06), (0.62, 0.62, 0.60))
    return np.clip(image, 0.02, 1)


def rug(rng: Rng) -> Array:
    """A woven rug: a border, and cells that each have their own colours and motif."""
    columns, rows, side = 10, 8, 512
    x, y = pixel_grid(side, side, (columns, rows))
    a, b = x.astype(int), y.astype(int)
    dyes = _DYES[rng.integers(len(_DYES))]
    ground = rng.integers(len(dyes), size=(rows, columns))
    motif = (ground + rng.integers(1, len(dyes), size=(rows, columns))) % len(dyes)
    u, v = x - a - 0.5, y - b - 0.5
    shapes = [
        np.abs(u) + np.abs(v) < 0.42,
        np.hypot(u, v) < 0.36,
        (u > v) & (u > -v),
        np.abs(np.abs(u) + np.abs(v) - 0.36) < 0.1,
        (np.abs(u) < 0.14) | (np.abs(v) < 0.14),
        np.abs(np.abs(u) - np.abs(v)) < 0.1,
    ]
    image = dyes[ground[b, a]]
    kind = rng.integers(len(shapes), size=(rows, columns))[b, a]
    blend(image, np.choose(kind, shapes).astype(float), dyes[motif[b, a]])
    edge = np.minimum(np.minimum(x, columns - x), np.minimum(y, rows - y))
    blend(image, edge < 0.30, dyes[1])
    blend(image, np.abs(edge - 0.36) < 0.05, dyes[2])
    pile = noise(rng, (side, side), (200, 200)) - 0.5
    return np.clip(image * (1 + 0.35 * pile)[..., None], 0.02, 1)


def bookshelf(size: tuple[float, float], rng: Rng) -> Array:
    """The front of a filled bookshelf."""
    width, height, shelves = 256, 384, 5
    x, y = pixel_grid(height, width, size)
    image = np.empty((height, width, 3))
    image[:] = (0.16, 0.11, 0.07)
    pitch = size[1] / shelves
    for shelf in range(shelves):
        edges = np.cumsum(rng.uniform(0.022, 0.07, 60))
        book = np.searchsorted(edges, x)
        tall = rng.uniform(0.60, 0.88, 61)[book]
        above = (shelf + 1 - y / pitch) / 0.97  # 0 at this shelf's board, 1 at the next
        colors = rng.uniform(0.08, 0.85, (61, 3)) * rng.uniform(0.5, 1.1, (61, 1))
        inside = (above > 0.06) & (above < tall)
        blend(image, inside, np.clip(colors, 0, 1)[book])
        band = np.abs(above - rng.uniform(0.2, 0.5, 61)[book]) < rng.uniform(0.02, 0.10, 61)[book]
        blend(image, inside & band, np.clip(colors[::-1] + 0.2, 0, 1)[book])
        blend(image, (above > 0) & (above < 0.06), (0.52, 0.37, 0.22))
    frame = (x < 0.04) | (x > size[0] - 0.04) | (y < 0.04) | (y > size[1] - 0.04)
    blend(image, frame, (0.50, 0.35, 0.21))
    return np.clip(image, 0.02, 1)


def wood(rng: Rng, tone: float = 1.0) -> Array:
    """A wooden board."""
    streaks = noise(rng, (128, 128), (40, 4), 3) - 0.5
    image = _WOODS[rng.integers(len(_WOODS))] * tone * (1 + 0.9 * streaks)[..., None]
    return np.clip(image, 0.02, 1)


def upholstery(rng: Rng) -> Array:
    """Furniture cloth with leaves of several colours."""
    x, y = pixel_grid(256, 256)
    base, image = rng.uniform(0.15, 0.55, 3), np.empty((256, 256, 3))
    image[:] = base
    for leaf in rng.random((90, 5)):
        angle = np.pi * leaf[2]
        near = np.s_[_window(leaf[1], 1.0, 256), _window(leaf[0], 1.0, 256)]
        dx, dy = x[near] - leaf[0], y[near] - leaf[1]
        along, across = (
            dx * np.cos(angle) + dy * np.sin(angle),
            dy * np.cos(angle) - dx * np.sin(angle),
        )
        shape = (1 - np.hypot(along / 0.07, across / 0.022)) * 4
        blend(image[near], shape, base + 0.65 * leaf[2:] - 0.1)
    return np.clip(image * (0.9 + 0.2 * noise(rng, (256, 256), (128, 128)))[..., None], 0.02, 1)


def poster(name: str, rng: Rng) -> Array:
    """An image in a frame with a mount."""
    image = load_texture(name)
    edge = np.minimum(*(np.minimum(part, 1 - part) for part in pixel_grid(256, 256)))
    blend(image, edge < 0.055, (0.92, 0.90, 0.86))
    blend(image, edge < 0.030, rng.uniform(0.05, 0.45, 3))
    return np.clip(image, 0.02, 1)


def foliage(rng: Rng) -> Array:
    """Leaves: the image of grass, tinted green."""
    tint = 0.36 + 0.12 * grain("grass", (64, 64))[..., None]
    return np.clip(tint * [0.65, 1.15, 0.40], 0.02, 1)


def _disc(x: Array, y: Array, centre: Array, radius: float) -> Array:
    return np.clip((1 - np.hypot(x - centre[0], y - centre[1]) / radius) * 4, 0, 1)


def _window(at: float, size: float, pixels: int, reach: float = 0.08) -> slice:
    """Pixels within `reach` metres of a position along one side."""
    low, high = ((at + sign * reach) / size * pixels for sign in (-1, 1))
    return slice(max(int(low), 0), max(int(high) + 1, 1))
