"""Light at the vertices: two lamps in the ceiling with soft shadows, and the room's own glow.

The same fixed rays leave every vertex, so neighbours differ smoothly and no noise arises.
Radiance is relative: 1 shows a white surface as white.
"""

from dataclasses import dataclass

import numpy as np

from stages.scenes.cameras import Array
from stages.scenes.demo.raytrace import Geometry
from stages.scenes.demo.shapes.meshes import ROOM


@dataclass(frozen=True)
class Lamp:
    """A horizontal rectangle that shines downwards."""

    centre: tuple[float, float, float]
    size: tuple[float, float]  # along x and z, metres
    color: tuple[float, float, float]  # radiance x area


LAMPS = (
    Lamp((1.15, 2.74, 0.95), (1.3, 0.7), (6.9, 6.4, 5.6)),
    Lamp((-1.5, 2.74, -0.7), (0.7, 1.3), (2.8, 3.0, 3.4)),
)
_GRID = 5  # rays to a lamp are this number squared
_SKY, _GROUND = np.array([0.46, 0.47, 0.50]), np.array([0.30, 0.27, 0.23])
_NEAR = 0.7  # metres; what lies further away keeps no ambient light off
# Rays start this far out, past the neighbouring limbs that a joint's vertices lie in.
_LIFT_ROOM, _LIFT_PERSON = 0.012, 0.028


def light(geometry: Geometry) -> Array:
    """Light [V, 3] that each vertex scatters, before its texture's colour."""
    normals = geometry.normals.astype(np.float64)
    lift = np.where(geometry.person == ROOM, _LIFT_ROOM, _LIFT_PERSON)[:, None]
    starts = geometry.vertices + lift * normals
    upwards = 0.5 + 0.5 * normals[:, 1:2]
    total = (_GROUND + (_SKY - _GROUND) * upwards) * _openness(geometry, starts, normals)[:, None]
    for lamp in LAMPS:
        total += _from_lamp(geometry, starts, normals, lamp)[:, None] * np.array(lamp.color)
    glows = geometry.glow > 0
    total[glows] = geometry.glow[glows, None]
    return total


def _from_lamp(geometry: Geometry, starts: Array, normals: Array, lamp: Lamp) -> Array:
    """Mean over the lamp's points of cosine at both ends over squared distance, [V]."""
    steps = (np.arange(_GRID) + 0.5) / _GRID - 0.5
    total = np.zeros(len(starts))
    for k in range(_GRID**2):
        # A sheared grid: no two of its points share a row or column of shadow.
        a, b = steps[k % _GRID], steps[k // _GRID]
        aside = (a + b / _GRID) * lamp.size[0], (b - a / _GRID) * lamp.size[1]
        point = np.array([lamp.centre[0] + aside[0], lamp.centre[1], lamp.centre[2] + aside[1]])
        towards = point - starts
        distance = np.linalg.norm(towards, axis=1)
        towards /= distance[:, None]
        facing = np.einsum("vk,vk->v", towards, normals)
        sees = np.flatnonzero((facing > 0) & (towards[:, 1] > 0))
        clear = ~geometry.blocked(starts[sees], towards[sees], distance[sees] - 0.05)
        seen = sees[clear]
        total[seen] += facing[seen] * towards[seen, 1] / distance[seen] ** 2
    return total / _GRID**2


def _openness(geometry: Geometry, starts: Array, normals: Array) -> Array:
    """Share [V] of the cosine-weighted half space that is free of near things."""
    aside = np.where(np.abs(normals[:, :1]) > 0.7, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(normals, aside)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(normals, first)
    free = np.zeros(len(starts))
    count = 20
    for k in range(count):
        sine = np.sqrt((k + 0.5) / count)
        # Vogel's spiral spreads the rays evenly.
        turn = k * np.pi * (3 - np.sqrt(5))
        across = sine * (np.cos(turn) * first + np.sin(turn) * second)
        free += ~geometry.blocked(starts, across + np.sqrt(1 - sine**2) * normals, _NEAR)
    return free / count
