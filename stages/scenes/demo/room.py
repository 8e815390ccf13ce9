"""The room: a closed, furnished box of one layout, with other textures for each pair.

The floor is y = 0. Cameras (`ring.py`) are on the side of +z and look past the people at the walls
of -z, -x and +x, so posters and furniture are there.
"""

import numpy as np

from stages.scenes.cameras import Array, rotation_from_vector
from stages.scenes.demo.light import LAMPS
from stages.scenes.demo.people.skeleton import UP
from stages.scenes.demo.shapes import surfaces
from stages.scenes.demo.shapes.meshes import Mesh, box, ellipsoid, loft, quad, tube
from stages.scenes.demo.shapes.textures import IMAGES, load_texture

_HALF, _HEIGHT = 3.25, 2.8  # metres
_POSTERS = (
    # (upper left corner, along the wall, down)
    ((-2.95, 2.45), (1.25, 1.05)),
    ((-1.45, 2.25), (0.95, 1.15)),
    ((-0.25, 2.50), (1.35, 1.00)),
    ((1.35, 2.30), (1.10, 1.20)),
)
_SIDE_POSTERS = (
    ((-2.2, 2.45), (1.25, 1.10)),
    ((-0.75, 2.30), (1.10, 1.25)),
    ((0.6, 2.4), (1.2, 1.0)),
)


def room(pair: int, seed: int) -> tuple[list[Mesh], dict[str, Array]]:
    """Meshes of the room and their textures, for one pair of people."""
    rng = np.random.default_rng([seed, pair, 7])
    names = [str(name) for name in rng.permutation(list(IMAGES))]
    meshes = [*_shell(), *_posters(names), *_shelves(), *_sofa(), *_boxes(names[10:])]
    meshes += [*_plant(), *_lamp()]
    return meshes, _textures(pair, names, rng)


def _textures(pair: int, names: list[str], rng: np.random.Generator) -> dict[str, Array]:
    wide = (2 * _HALF, _HEIGHT)
    brick = surfaces.brickwork(wide, rng)
    walls = [brick, surfaces.plaster(wide, rng), surfaces.plaster(wide, rng)]
    wall_textures = {f"wall{k}": walls[(k + pair) % 3] for k in range(3)}
    return (
        wall_textures
        | {name: surfaces.poster(name, rng) for name in names[:10]}
        | {
            "floor": (surfaces.tiles if pair % 2 else surfaces.planks)(2 * _HALF, rng),
            "ceiling": surfaces.ceiling(rng),
            "rug": surfaces.rug(rng),
            "books0": surfaces.bookshelf((1.1, 1.9), rng),
            "books1": surfaces.bookshelf((1.1, 1.9), rng),
            "wood": surfaces.wood(rng),
            "dark": surfaces.wood(rng, 0.5),
            "sofa": surfaces.upholstery(rng),
            "cushion": surfaces.upholstery(rng),
            "leaves": surfaces.foliage(rng),
            "lamp": np.ones((2, 2, 3)),
        }
        | {name: load_texture(name, (128, 128)) for name in names[10:]}
    )


def _shell() -> list[Mesh]:
    # Walls extend slightly past the corners, so that no ray passes between them.
    s, h, over = _HALF, _HEIGHT, 0.01
    long = 2 * s + 2 * over
    floor = quad([-s - over, 0, -s - over], [long, 0, 0], [0, 0, long], "floor", step=0.055)
    high, low = h + over, -h - 2 * over
    lamps = [
        quad([x - w / 2, h - 0.04, z + d / 2], [w, 0, 0], [0, 0, -d], "lamp", glow=1.6)
        for (x, _, z), (w, d) in ((lamp.centre, lamp.size) for lamp in LAMPS)
    ]
    return [
        floor,
        quad([-s - over, h, s + over], [long, 0, 0], [0, 0, -long], "ceiling", step=0.25),
        quad([-s - over, high, -s], [long, 0, 0], [0, low, 0], "wall0"),
        quad([-s, high, s + over], [0, 0, -long], [0, low, 0], "wall1"),
        quad([s, high, -s - over], [0, 0, long], [0, low, 0], "wall2"),
        quad([s + over, high, s], [-long, 0, 0], [0, low, 0], "wall1", step=0.3),
        *lamps,
        quad([-1.25, 0.006, -0.95], [2.5, 0, 0], [0, 0, 1.9], "rug", step=0.035),
    ]


def _posters(names: list[str]) -> list[Mesh]:
    s, posters = _HALF - 0.02, []
    for k, ((left, top), (w, h)) in enumerate(_POSTERS):
        posters.append(quad([left, top, -s], [w, 0, 0], [0, -h, 0], names[k], step=0.15))
    for k, ((left, top), (w, h)) in enumerate(_SIDE_POSTERS):
        # From inside, the wall at -x extends towards -z on the right; that at +x towards +z.
        posters.append(quad([-s, top, -left], [0, 0, -w], [0, -h, 0], names[4 + k], step=0.15))
        posters.append(quad([s, top, left], [0, 0, w], [0, -h, 0], names[7 + k], step=0.15))
    return posters


def _shelves() -> list[Mesh]:
    return [
        *box([-3.2, 0, -3.2], [-2.1, 1.3, -2.9], "books0", "wood"),
        *box([2.1, 0, -3.1], [3.2, 0.95, -2.75], "books1", "dark"),
    ]


def _sofa() -> list[Mesh]:
    parts = [
        *box([-1.5, 0.10, -3.0], [0.5, 0.42, -2.2], "sofa", "sofa"),
        *box([-1.5, 0.42, -3.2], [0.5, 0.85, -2.95], "sofa", "sofa"),
        *box([-1.7, 0.05, -3.1], [-1.5, 0.62, -2.2], "sofa", "sofa"),
        *box([0.5, 0.05, -3.1], [0.7, 0.62, -2.2], "sofa", "sofa"),
    ]
    for x, roll in ((-1.1, 0.3), (0.15, -0.4)):
        frame = rotation_from_vector([0, 0, roll])
        parts.append(ellipsoid([x, 0.60, -2.80], [0.24, 0.21, 0.10], frame, "cushion"))
    return parts


def _boxes(names: list[str]) -> list[Mesh]:
    return [
        *box([-3.1, 0, -1.5], [-2.4, 0.55, -0.8], names[0], names[0], 12),
        *box([-2.95, 0.55, -1.35], [-2.5, 0.90, -0.9], names[1], names[1], -20),
        *box([2.45, 0, -1.3], [3.1, 0.50, -0.6], names[2], names[2], -15),
        *box([1.1, 0, -2.9], [1.75, 0.62, -2.3], names[3], names[3], 25),
        *box([2.55, 0.0, -2.3], [3.05, 0.75, -1.75], "wood", "dark", 8),
    ]


def _plant() -> list[Mesh]:
    """A pot with a bush of leaves."""
    level, at = np.eye(3), np.array([-2.6, 0.0, -2.3])
    pot = loft([at + 0.42 * UP, at], [(0.19, 0.19), (0.13, 0.13)], [level] * 2, "wood")
    leaves = []
    for k in range(34):
        angle, rise = 2.4 * k, 0.35 + 0.016 * k
        out = np.array([np.sin(angle) * np.cos(rise), np.sin(rise), np.cos(angle) * np.cos(rise)])
        side = np.cross(out, UP)
        side /= np.linalg.norm(side)
        frame = np.stack([side, out, np.cross(side, out)], axis=1)
        middle = at + (0.45 + 0.012 * k) * UP + 0.26 * out
        leaves.append(ellipsoid(middle, [0.055, 0.22, 0.012], frame, "leaves", size=(6, 8)))
    return [pot, *leaves]


def _lamp() -> list[Mesh]:
    """A table lamp on the lower bookshelf."""
    foot, level = np.array([2.75, 0.95, -2.92]), np.eye(3)
    stem = tube([foot, foot + 0.5 * UP], [0.02, 0.02], "dark")
    rims = [foot + 0.75 * UP, foot + 0.45 * UP]
    return [stem, loft(rims, [(0.10, 0.10), (0.19, 0.19)], [level] * 2, "cushion")]
