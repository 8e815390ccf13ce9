"""Things in procedural worlds: furniture, plants, rocks, limbed creatures; all of random size."""

import numpy as np

from stages.samples.worlds.building import (
    BOX,
    CYLINDER,
    ELLIPSOID,
    ROUNDED,
    Builder,
    Vector,
    any_kind,
    any_rotation,
    frame_of,
    point,
    tilted,
    unit,
    yaw,
)


def middle(builder: Builder) -> None:
    """What the cameras look at."""
    rng = builder.rng
    for _ in range(rng.integers(2, 6)):
        spot = np.array([rng.uniform(-1.0, 1.0), 0, rng.uniform(-1.0, 1.0)])
        choice = rng.random()
        if choice < 0.45:
            _creature(builder, spot)
        elif choice < 0.8:
            furniture(builder, spot)
        else:
            for _ in range(rng.integers(2, 7)):
                half = rng.uniform(0.06, 0.35, 3)
                small_object(
                    builder,
                    spot + np.array([*rng.normal(0, 0.4, 1), half[1], *rng.normal(0, 0.4, 1)]),
                    half,
                )


def panel(builder: Builder, sides: Vector, height: float) -> None:
    """A thin board on a wall: a print, a window, a door, a screen."""
    rng = builder.rng
    half = rng.uniform(0.2, 0.9, 2)
    axis, sign = rng.integers(2), rng.choice([-1, 1])
    place = rng.uniform(-0.85, 0.85) * sides[1 - axis]
    level = rng.uniform(half[1], max(height - half[1], half[1] + 0.1))
    centre, size = np.zeros(3), np.zeros(3)
    centre[2 * axis], centre[2 - 2 * axis], centre[1] = sign * (sides[axis] - 0.02), place, level
    size[2 * axis], size[2 - 2 * axis], size[1] = rng.uniform(0.005, 0.05), half[0], half[1]
    glow = rng.uniform(0.2, 0.6) if rng.random() < 0.1 else 0.0
    one_print = 0.5 / half.max()
    builder.add(
        centre, size, material=builder.material((0.4 * one_print, 1.6 * one_print)), glow=glow
    )


def furniture(builder: Builder, spot: Vector) -> None:
    (_table, _shelf, _seat, _chest, _plant, _lamp)[builder.rng.integers(6)](builder, spot)


def _table(builder: Builder, spot: Vector) -> None:
    rng, turn = builder.rng, yaw(builder.rng)
    half = rng.uniform([0.3, 0.02, 0.25], [0.9, 0.05, 0.6])
    height, wood, foot = rng.uniform(0.35, 0.95), builder.some_material(), rng.uniform(0.015, 0.05)
    builder.add(
        spot + point(0, height, 0), half, rng.choice([BOX, CYLINDER], p=[0.7, 0.3]), turn, wood
    )
    for x in (-0.85, 0.85):
        for z in (-0.85, 0.85):
            corner = turn @ np.array([x * half[0], 0, z * half[2]])
            builder.add(
                spot + corner + point(0, height / 2, 0),
                [foot, height / 2, foot],
                rng.choice([BOX, CYLINDER]),
                turn,
                wood,
            )
    for _ in range(rng.integers(0, 4)):
        size = rng.uniform(0.04, 0.2, 3)
        at = turn @ np.array(
            [rng.uniform(-0.7, 0.7) * half[0], 0, rng.uniform(-0.7, 0.7) * half[2]]
        )
        small_object(builder, spot + at + [0, height + half[1] + size[1], 0], size)


def _shelf(builder: Builder, spot: Vector) -> None:
    rng, turn = builder.rng, yaw(builder.rng, quarter=0.7)
    half = rng.uniform([0.3, 0.4, 0.12], [0.8, 1.0, 0.25])
    wood = builder.some_material()
    builder.add(
        spot + [0, half[1], 0] + turn @ np.array([0, 0, -0.6 * half[2]]),
        [half[0], half[1], 0.4 * half[2]],
        BOX,
        turn,
        wood,
    )
    for level in range(rng.integers(1, 4)):
        y = half[1] * (0.3 + 0.5 * level)
        builder.add(spot + point(0, y, 0), [half[0], 0.015, half[2]], BOX, turn, wood)
        x = -half[0]
        while x < half[0] and rng.random() < 0.85:
            thick, tall = rng.uniform(0.015, 0.06), rng.uniform(0.08, 0.16)
            builder.add(
                spot + point(0, y + tall, 0) + turn @ np.array([x + thick, 0, 0.1 * half[2]]),
                [thick, tall, 0.7 * half[2]],
                BOX,
                turn,
            )
            x += 2 * thick + 0.01


def _seat(builder: Builder, spot: Vector) -> None:
    rng, turn = builder.rng, yaw(builder.rng)
    cloth, width = builder.material((0.5, 2.5)), rng.uniform(0.25, 1.0)
    kind = (*rng.uniform(0.0, 0.65, 1).repeat(3),)
    builder.add(spot + point(0, 0.25, 0), [width, rng.uniform(0.1, 0.22), 0.35], kind, turn, cloth)
    builder.add(
        spot + point(0, 0.55, 0) + turn @ np.array([0, 0, -0.3]),
        [width, 0.35, 0.1],
        kind,
        turn,
        cloth,
    )
    for side in (-1, 1):
        if rng.random() < 0.6:
            builder.add(
                spot + point(0, 0.35, 0) + turn @ np.array([side * width, 0, 0]),
                [0.09, 0.3, 0.35],
                kind,
                turn,
                cloth,
            )
    for _ in range(rng.integers(0, 3)):
        at = turn @ np.array([rng.uniform(-0.7, 0.7) * width, 0, -0.1])
        builder.add(
            spot + at + point(0, 0.55, 0), rng.uniform(0.08, 0.25, 3), ROUNDED, any_rotation(rng)
        )


def _chest(builder: Builder, spot: Vector) -> None:
    rng, y = builder.rng, 0.0
    for _ in range(rng.integers(1, 4)):
        half = rng.uniform(0.1, 0.38, 3)
        builder.add(spot + point(0, y + half[1], 0), half, BOX, yaw(rng))
        y += 2 * half[1]


def _plant(builder: Builder, spot: Vector) -> None:
    rng = builder.rng
    pot, green = rng.uniform(0.1, 0.3), builder.material((0.8, 3.0))
    builder.add(spot + point(0, pot, 0), [0.8 * pot, pot, 0.8 * pot], CYLINDER)
    for _ in range(rng.integers(8, 26)):
        out = rng.normal(0, 1, 3)
        out[1] = abs(out[1]) + 0.3
        out /= np.linalg.norm(out)
        length = rng.uniform(0.12, 0.4)
        middle = spot + [0, 2 * pot, 0] + out * length * rng.uniform(0.8, 1.6)
        builder.add(
            middle, [rng.uniform(0.02, 0.08), length, 0.008], ELLIPSOID, frame_of(out), green
        )


def _lamp(builder: Builder, spot: Vector) -> None:
    rng, height = builder.rng, builder.uniform(0.5, 1.7)
    builder.add(spot + point(0, height / 2, 0), [0.015, height / 2, 0.015], CYLINDER)
    size = rng.uniform(0.08, 0.25)
    builder.add(
        spot + point(0, height, 0),
        [size, size * rng.uniform(0.6, 1.2), size],
        rng.choice([CYLINDER, ELLIPSOID]),
        glow=rng.uniform(0, 0.9),
    )


def tree(builder: Builder, spot: Vector) -> None:
    rng, height = builder.rng, builder.uniform(1.0, 3.0)
    builder.add(
        spot + point(0, height / 2, 0), [0.03 * height, height / 2, 0.03 * height], CYLINDER
    )
    green = builder.material((0.6, 2.5))
    for _ in range(rng.integers(3, 12)):
        at = spot + point(0, height, 0) + rng.normal(0, 0.25 * height, 3)
        builder.add(at, rng.uniform(0.08, 0.35, 3) * height, ELLIPSOID, any_rotation(rng), green)


def rock(builder: Builder, spot: Vector) -> None:
    rng, stone = builder.rng, builder.material((0.4, 2.0))
    for _ in range(rng.integers(1, 4)):
        half = rng.uniform(0.1, 0.7, 3)
        builder.add(
            spot + rng.normal(0, 0.3, 3) * [1, 0, 1],
            half,
            rng.choice([ROUNDED, ELLIPSOID]),
            any_rotation(rng),
            stone,
        )


def fence(builder: Builder, spot: Vector) -> None:
    rng, turn, wood = builder.rng, yaw(builder.rng), builder.some_material()
    step, height = rng.uniform(0.15, 0.5), rng.uniform(0.5, 1.4)
    count = int(rng.integers(4, 10))
    for k in range(count):
        at = turn @ np.array([(k - count / 2) * step, 0, 0])
        builder.add(spot + at + point(0, height / 2, 0), [0.03, height / 2, 0.02], BOX, turn, wood)
    for level in (0.3, 0.8):
        builder.add(
            spot + point(0, level * height, 0), [count * step / 2, 0.03, 0.012], BOX, turn, wood
        )


def _creature(builder: Builder, spot: Vector) -> None:
    """A limbed thing in a random pose: chains of rods from a trunk, and a round top."""
    rng = builder.rng
    skins = [builder.material((0.8, 3.5)) for _ in range(3)]
    height, thick = rng.uniform(0.5, 1.2), rng.uniform(0.08, 0.25)
    hip = spot + point(0, rng.uniform(0.3, 0.95), 0)
    top = hip + height * 0.6 * tilted(rng, 0.5)
    builder.add(
        (hip + top) / 2,
        [thick, np.linalg.norm(top - hip) * 0.6, thick * rng.uniform(0.6, 1)],
        rng.choice([ELLIPSOID, ROUNDED]),
        frame_of(unit(top - hip)),
        skins[0],
    )
    size = rng.uniform(0.08, 0.18)
    builder.add(
        top + point(0, 1.3 * size, 0),
        size * rng.uniform(0.8, 1.3, 3),
        ELLIPSOID,
        any_rotation(rng),
        skins[1],
    )
    for _ in range(rng.integers(2, 7)):
        is_low = rng.random() < 0.5
        start = (hip if is_low else top) + rng.normal(0, 0.5 * thick, 3)
        down = -1.0 if is_low else rng.uniform(-1, 1)
        radius, skin = thick * rng.uniform(0.25, 0.6), skins[rng.integers(3)]
        for _ in range(rng.integers(2, 4)):
            way = unit(rng.normal(0, 0.6, 3) + point(0, down, 0))
            end = start + way * rng.uniform(0.15, 0.45)
            end[1] = max(end[1], radius)
            builder.limb(start, end, radius, skin)
            start, radius = end, 0.85 * radius
    if rng.random() < 0.3:
        builder.add(start, rng.uniform(0.04, 0.2, 3), any_kind(rng), any_rotation(rng))


def small_object(builder: Builder, centre: Vector, half: Vector) -> None:
    rng = builder.rng
    builder.add(
        centre,
        half,
        any_kind(rng),
        yaw(rng) if rng.random() < 0.7 else any_rotation(rng),
        builder.material((0.8, 4.0)),
    )
