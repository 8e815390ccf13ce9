"""Building blocks of procedural worlds: a shape, its material, and rotations.

A shape is a box cut by a quadric that is centred in it, which gives boxes, cylinders, ellipsoids
and rounded things in between. World units are about a metre, and y points up.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Coefficients of x^2, y^2 and z^2 in the box's own units; inside is where the sum is below 1.
BOX = (0.0, 0.0, 0.0)
ELLIPSOID = (1.0, 1.0, 1.0)
CYLINDER = (1.0, 0.0, 1.0)  # upright
ROUNDED = (0.62, 0.62, 0.62)
_THINNEST = 0.004


@dataclass
class Builder:
    """One world while it is built."""

    rng: np.random.Generator
    textures: int
    shapes: list[tuple[Vector, ...]] = field(default_factory=list)
    palette: list[tuple[Vector, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.palette = [self.material() for _ in range(self.rng.integers(4, 9))]

    def uniform(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def material(self, frequency: tuple[float, float] = (0.3, 3.0)) -> tuple[Vector, ...]:
        """Textures, their frequencies, colour, and mix."""
        rng = self.rng
        color = rng.random(3)
        color = color.mean() + rng.random() * (color - color.mean())
        coarse = np.exp(rng.uniform(*np.log(frequency)))
        return (
            rng.integers(self.textures, size=2).astype(float),
            np.array([coarse, coarse * rng.uniform(1.5, 5)]),
            0.05 + 0.9 * color,
            np.array(
                [
                    rng.choice([0.0, 0.5, 0.9, 1.0], p=[0.1, 0.2, 0.3, 0.4]),
                    0.7 * rng.random() ** 2,
                    rng.random() ** 2 * (rng.random() < 0.25),
                ]
            ),
        )

    def some_material(self) -> tuple[Vector, ...]:
        """One of the palette, or a new one."""
        if self.rng.random() < 0.3:
            return self.material()
        return self.palette[self.rng.integers(len(self.palette))]

    def add(
        self,
        centre: Vector | list[float],
        half: Vector | list[float],
        kind: tuple[float, float, float] = BOX,
        rotation: Vector | None = None,
        material: tuple[Vector, ...] | None = None,
        glow: float = 0.0,
    ) -> None:
        rotation = np.eye(3) if rotation is None else rotation
        material = self.some_material() if material is None else material
        half = np.maximum(np.asarray(half, float), _THINNEST)
        self.shapes.append(
            (
                np.asarray(centre, float),
                rotation.ravel(),
                half,
                np.array(kind),
                *material,
                np.array([glow]),
            )
        )

    def limb(self, start: Vector, end: Vector, radius: float, material: tuple[Vector, ...]) -> None:
        """A rounded rod between two points."""
        axis = end - start
        length = np.linalg.norm(axis)
        frame = frame_of(axis / max(length, 1e-9))
        kind = ELLIPSOID if self.rng.random() < 0.5 else CYLINDER
        stretch = 1.25 if kind == ELLIPSOID else 1.0
        half = [radius, stretch * length / 2, radius]
        self.add((start + end) / 2, half, kind, frame, material)


def any_kind(rng: np.random.Generator) -> tuple[float, ...]:
    choice = rng.random()
    if choice < 0.35:
        return BOX
    if choice < 0.8:
        return (ELLIPSOID, CYLINDER)[rng.integers(2)]
    return tuple(rng.uniform(0.4, 1.0, 3))


def unit(vector: Vector) -> Vector:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def tilted(rng: np.random.Generator, amount: float) -> Vector:
    return unit(np.array([*rng.normal(0, amount, 1), 1.0, *rng.normal(0, amount, 1)]))


def frame_of(axis: Vector) -> Vector:
    """A rotation whose y axis is a unit vector."""
    helper = np.array([1.0, 0, 0]) if abs(axis[0]) < 0.9 else np.array([0, 0, 1.0])
    x = unit(np.cross(helper, axis))
    return np.stack([x, axis, np.cross(x, axis)], axis=1)


def yaw(rng: np.random.Generator, quarter: float = 0.4) -> Vector:
    """A rotation about y: by any angle, or with this probability by a multiple of 90 degrees."""
    angle = rng.uniform(0, 2 * np.pi)
    if rng.random() < quarter:
        angle = np.round(angle / (np.pi / 2)) * (np.pi / 2)
    return facing(angle)


def facing(angle: float) -> Vector:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def any_rotation(rng: np.random.Generator) -> Vector:
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q if np.linalg.det(q) > 0 else q[:, [1, 0, 2]]


def point(x: float, y: float, z: float) -> Vector:
    """A point or an offset."""
    return np.array([x, y, z], dtype=np.float64)
