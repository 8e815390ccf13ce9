"""Light at the vertices: two lamps in the ceiling with soft shadows, and ambient light.

The same fixed rays start at every vertex, so light varies smoothly and has no noise. Radiance is
relative: at 1 a white surface is white.
"""

from dataclasses import dataclass

import numpy as np

from stages.scenes.cameras import Array
from stages.scenes.demo.raytrace import Geometry
from stages.scenes.demo.shapes.meshes import ROOM


@dataclass(frozen=True)
class Lamp:
    """A horizontal rectangle that emits downwards."""

    centre: tuple[float, float, float]
    size: tuple[float, float]  # along x and z, metres
    color: tuple[float, float, float]  # radiance x area


LAMPS = (
    Lamp((1.15, 2.74, 0.95), (1.3, 0.7), (6.9, 6.4, 5.6)),
    Lamp((-1.5, 2.74, -0.7), (0.7, 1.3), (2.8, 3.0, 3.4)),
)
_GRID = 5  # squared: rays to a lamp
_SKY, _GROUND = np.array([0.46, 0.47, 0.50]), np.array([0.30, 0.27, 0.23])
_NEAR = 0.7  # metres; only nearer surfaces block ambient light
# Offset of ray origins along the normal, out of the limbs that overlap at a joint, metres.
_LIFT_ROOM, _LIFT_PERSON = 0.012, 0.028


def light(geometry: Geometry) -> Array:
    """Light [V, 3] on each vertex, before the colour of its texture."""
    normals = geometry.normals.astype(np.float64)
    lift = np.where(geometry.person == ROOM, _LIFT_ROOM, _LIFT_PERSON)[:, None]
    starts = geometry.vertices + lift * normals
    upwards = 0.5 + 0.5 * normals[:, 1:2]
    total = (_GROUND + (_SKY - _GROUND) * upwards) * _openness(geometry, starts, normals)[:, None]
    for lamp in LAMPS:
        total += _from_lamp(geometry, starts, normals, lamp)[:, None] * np.array(lamp.color)
    emits = geometry.glow > 0
    total[emits] = geometry.glow[emits, None]
    return total


def _from_lamp(geometry: Geometry, starts: Array, normals: Array, lamp: Lamp) -> Array:
    """Mean over the lamp's points of the cosines at both ends over the squared distance, [V]."""
    steps = (np.arange(_GRID) + 0.5) / _GRID - 0.5
    total = np.zeros(len(starts))
    for k in range(_GRID**2):
        # A sheared grid: no two points share a row or a column, so shadows have no steps.
        a, b = steps[k % _GRID], steps[k // _GRID]
        offset = (a + b / _GRID) * lamp.size[0], (b - a / _GRID) * lamp.size[1]
        point = np.array([lamp.centre[0] + offset[0], lamp.centre[1], lamp.centre[2] + offset[1]])
        towards = point - starts
        distance = np.linalg.norm(towards, axis=1)
        towards /= distance[:, None]
        facing = np.einsum("vk,vk->v", towards, normals)
        rows = np.flatnonzero((facing > 0) & (towards[:, 1] > 0))
        clear = ~geometry.blocked(starts[rows], towards[rows], distance[rows] - 0.05)
        lit = rows[clear]
        total[lit] += facing[lit] * towards[lit, 1] / distance[lit] ** 2
    return total / _GRID**2


def _openness(geometry: Geometry, starts: Array, normals: Array) -> Array:
    """Share [V] of the cosine-weighted half space without near surfaces."""
    helper = np.where(np.abs(normals[:, :1]) > 0.7, [[0.0, 0.0, 1.0]], [[1.0, 0.0, 0.0]])
    first = np.cross(normals, helper)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(normals, first)
    free = np.zeros(len(starts))
    count = 20
    for k in range(count):
        sine = np.sqrt((k + 0.5) / count)
        # Vogel's spiral spreads the rays evenly.
        angle = k * np.pi * (3 - np.sqrt(5))
        tangential = sine * (np.cos(angle) * first + np.sin(angle) * second)
        free += ~geometry.blocked(starts, tangential + np.sqrt(1 - sine**2) * normals, _NEAR)
    return free / count
