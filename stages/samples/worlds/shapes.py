"""Worlds of shapes and lights, and the layouts that shapes are put into.

Nothing here is of a scene of a study: layouts, proportions and textures are random, and no number,
file or seed of the embedded scenes is read. The floor is y = 0, and cameras look at the origin's
surroundings from 2 to 4 units away.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.samples.worlds.building import (
    BOX,
    CYLINDER,
    ELLIPSOID,
    Builder,
    Vector,
    any_kind,
    any_rotation,
    facing,
    yaw,
)
from stages.samples.worlds.things import fence, furniture, middle, panel, rock, small_object, tree

LIGHTS = 2


@dataclass(frozen=True, eq=False)
class Worlds:
    """Shapes [W, P, ...] and lights [W, ...] of W worlds; the first shape is hollow."""

    centre: Tensor  # [W, P, 3]
    rotation: Tensor  # [W, P, 3, 3]; world from shape
    half_size: Tensor  # [W, P, 3]
    quadric: Tensor  # [W, P, 3]
    texture: Tensor  # [W, P, 2] indices
    frequency: Tensor  # [W, P, 2] repetitions per unit
    color: Tensor  # [W, P, 3]
    mix: Tensor  # [W, P, 3]: share of the texture, contrast of the grain, gloss
    glow: Tensor  # [W, P]
    light: Tensor  # [W, LIGHTS, 3] positions
    light_color: Tensor  # [W, LIGHTS, 3]
    light_size: Tensor  # [W]
    ambient: Tensor  # [W, 2, 3] from above and from below

    def to(self, device: torch.device) -> "Worlds":
        """The same worlds on a device."""
        return Worlds(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


def build(
    seed: tuple[int, ...], textures: int, shapes: int
) -> tuple[list[Vector], dict[str, Vector]]:
    """One world: its shapes as rows by field, padded to `shapes`, and its lights."""
    rng = np.random.default_rng(seed)
    builder = Builder(rng, textures)
    layout = rng.choice(len(_LAYOUTS), p=_SHARES)
    top = _LAYOUTS[layout](builder)
    rows = (
        builder.shapes[:1]
        + [builder.shapes[i] for i in 1 + rng.permutation(len(builder.shapes) - 1)][: shapes - 1]
    )
    while len(rows) < shapes:
        below = (
            np.array([0, -1e4, 0]),
            *rows[0][1:2],
            np.full(3, 0.004),
            np.array(BOX),
            *rows[0][4:],
        )
        rows.append(below)
    return [np.stack(column) for column in zip(*rows, strict=True)], _lights(builder, top)


def worlds(seeds: list[tuple[int, ...]], textures: int, shapes: int) -> Worlds:
    """Worlds of these seeds, on the CPU, whose textures are of an atlas of so many."""
    built = [build(seed, textures, shapes) for seed in seeds]
    centre, rotation, half, quadric, texture, frequency, color, mix, glow = (
        torch.tensor(np.stack(column), dtype=torch.float32)
        for column in zip(*(columns for columns, _ in built), strict=True)
    )
    lights = {
        key: torch.tensor(np.stack([one[key] for _, one in built]), dtype=torch.float32)
        for key in built[0][1]
    }
    return Worlds(
        centre,
        rotation.unflatten(-1, (3, 3)),
        half,
        quadric,
        texture.long(),
        frequency,
        color,
        mix,
        glow[..., 0],
        **lights,
    )


def _lights(builder: Builder, top: float) -> dict[str, Vector]:
    """Two lights, of which one may be dark, and light from above and below."""
    rng = builder.rng
    positions, colors = [], []
    for index in range(LIGHTS):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 0.75) * min(top, 3.5)
        height = rng.uniform(0.6, 0.95) * top
        positions.append([reach * np.cos(angle), height, reach * np.sin(angle)])
        tint = 1 + 0.25 * rng.uniform(-1, 1, 3)
        colors.append(rng.uniform(0.4, 1.3) * tint * (index == 0 or rng.random() < 0.6))
    above = rng.uniform(0.15, 0.5) * (1 + 0.15 * rng.uniform(-1, 1, 3))
    return {
        "light": np.array(positions),
        "light_color": np.array(colors),
        "light_size": np.array(rng.uniform(0.02, 0.5)),
        "ambient": np.stack([above, above * rng.uniform(0.3, 0.9)]),
    }


def _room(builder: Builder) -> float:
    """A furnished room; the height of its ceiling."""
    rng = builder.rng
    height = builder.uniform(2.2, 3.6)
    sides = rng.uniform(3.6, 5.0, 2)
    builder.add(
        [0, height / 2, 0], [sides[0], height / 2, sides[1]], material=builder.material((0.12, 0.8))
    )
    if rng.random() < 0.9:  # the floor has a material of its own
        builder.add(
            [0, 0.005, 0], [sides[0], 0.006, sides[1]], material=builder.material((0.2, 1.0))
        )
    for _ in range(rng.integers(6, 22)):
        panel(builder, sides, height)
    for _ in range(rng.integers(0, 3)):
        builder.add(
            [*rng.uniform(-1, 1, 1), 0.015, *rng.uniform(-1, 1, 1)],
            [*rng.uniform(0.5, 1.6, 1), 0.008, *rng.uniform(0.5, 1.6, 1)],
            rng.choice([BOX, CYLINDER]),
            yaw(rng),
        )
    for _ in range(rng.integers(4, 11)):  # along the walls
        side, place = rng.integers(4), rng.uniform(-0.85, 0.85)
        along = [np.array([place * sides[0], 0, sign * sides[1] * 0.86]) for sign in (1, -1)]
        along += [np.array([sign * sides[0] * 0.86, 0, place * sides[1]]) for sign in (1, -1)]
        furniture(builder, along[side])
    middle(builder)
    return height


def _stage(builder: Builder) -> float:
    """Outdoors: ground, sky, buildings, trees, fences and rocks around the middle."""
    rng = builder.rng
    far = builder.uniform(9, 22)
    sky = (
        builder.material()[0],
        np.array([0.03, 0.08]),
        rng.uniform(0.5, 1.0, 3),
        np.array([builder.uniform(0, 0.7), 0.1, 0]),
    )
    builder.add(
        [0, 0, 0], [far, far, far], rng.choice([ELLIPSOID, BOX, CYLINDER]), material=sky, glow=0.7
    )
    builder.add([0, -0.5, 0], [far, 0.5, far], material=builder.material((0.15, 1.0)))
    for _ in range(rng.integers(4, 12)):  # buildings and walls
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(3.6, 0.8 * far)
        half = rng.uniform([0.5, 0.5, 0.3], [3.0, 4.0, 1.2])
        builder.add(
            [reach * np.cos(angle), half[1], reach * np.sin(angle)],
            half,
            BOX,
            facing(angle),
            builder.material((0.12, 0.8)),
        )
    for _ in range(rng.integers(2, 8)):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(2.2, 8)
        thing = (tree, rock, fence)[rng.integers(3)]
        thing(builder, np.array([reach * np.cos(angle), 0, reach * np.sin(angle)]))
    middle(builder)
    return builder.uniform(6, 9)


def _table_top(builder: Builder) -> float:
    """Objects close together on a table or on the ground, in a plain or a busy surrounding."""
    rng = builder.rng
    far = rng.uniform(3.6, 6.0)
    builder.add(
        [0, far / 2, 0],
        [far, far / 2 + 0.6, far],
        rng.choice([BOX, CYLINDER, ELLIPSOID]),
        material=builder.material((0.1, 1.0)),
    )
    builder.add(
        [0, 0.2, 0],
        [rng.uniform(1.0, 2.5), 0.05, rng.uniform(1.0, 2.5)],
        rng.choice([BOX, CYLINDER]),
        yaw(rng),
        builder.material((0.2, 1.2)),
    )
    for _ in range(rng.integers(6, 26)):
        half = rng.uniform(0.06, 0.45, 3) * rng.choice([0.5, 1.0])
        spot = rng.uniform(-1.3, 1.3, 2)
        small_object(builder, np.array([spot[0], 0.25 + half[1], spot[1]]), half)
    for _ in range(rng.integers(3, 10)):
        panel(builder, np.array([far, far]), far)
    return far


def _heap(builder: Builder) -> float:
    """Shapes of all sizes in all poses, some in mid-air."""
    rng = builder.rng
    far = rng.uniform(3.8, 8.0)
    builder.add(
        [0, 1.0, 0],
        [far, far * 0.7, far],
        rng.choice([BOX, CYLINDER, ELLIPSOID]),
        material=builder.material((0.1, 1.0)),
    )
    if rng.random() < 0.7:
        builder.add([0, -0.05, 0], [far, 0.06, far], material=builder.material((0.15, 1.2)))
    for _ in range(rng.integers(15, 70)):
        size = np.exp(rng.uniform(np.log(0.04), np.log(0.9)))
        half = size * np.exp(rng.uniform(-1.2, 0.6, 3))
        spot = np.array([*rng.normal(0, 1.4, 1), abs(rng.normal(0.8, 0.7)), *rng.normal(0, 1.4, 1)])
        builder.add(spot, half, any_kind(rng), any_rotation(rng))
    return 3.0


_LAYOUTS = (_room, _stage, _table_top, _heap)
_SHARES = (0.56, 0.18, 0.13, 0.13)
