"""Textured triangle meshes: quads, boxes, ellipsoids and lofted limbs.

Texture coordinates (u, v) run over [0, 1]; v = 0 is the top row of the texture. Values beyond
repeat. Lengths are metres, world up is +Y.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stages.scenes.cameras import Array


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with one texture; `person` is 0 or 1, or -1 for the room."""

    vertices: Array  # [V, 3]
    faces: np.ndarray  # [F, 3] int
    uv: Array  # [V, 2]
    texture: str
    person: int = -1


def quad(corner: ArrayLike, across: ArrayLike, down: ArrayLike, texture: str, tile: float) -> Mesh:
    """A rectangle from its upper left corner; the texture repeats every `tile` metres, or once
    over the whole rectangle when `tile` is 0."""
    corner, across, down = (np.asarray(part, np.float64) for part in (corner, across, down))
    vertices = np.stack([corner, corner + across, corner + across + down, corner + down])
    u, v = (np.linalg.norm(across) / tile, np.linalg.norm(down) / tile) if tile else (1.0, 1.0)
    uv = np.array([[0, 0], [u, 0], [u, v], [0, v]])
    return Mesh(vertices, np.array([[0, 1, 2], [0, 2, 3]]), uv, texture)


def box(low: ArrayLike, high: ArrayLike, texture: str, tile: float) -> list[Mesh]:
    """Five faces of an axis-aligned box; the one underneath is never seen."""
    (x0, y0, z0), (x1, y1, z1) = np.asarray(low, float), np.asarray(high, float)
    w, h, d = x1 - x0, y1 - y0, z1 - z0
    return [
        quad([x0, y1, z1], [w, 0, 0], [0, -h, 0], texture, tile),
        quad([x1, y1, z0], [-w, 0, 0], [0, -h, 0], texture, tile),
        quad([x0, y1, z0], [0, 0, d], [0, -h, 0], texture, tile),
        quad([x1, y1, z1], [0, 0, -d], [0, -h, 0], texture, tile),
        quad([x0, y1, z0], [w, 0, 0], [0, 0, d], texture, tile),
    ]


def ellipsoid(
    centre: ArrayLike, radii: ArrayLike, rotation: Array, texture: str, person: int
) -> Mesh:
    """An ellipsoid in a body frame (x left, y up, z front); u = 0.5 looks to +z, v = 0 is up."""
    columns, rows = np.meshgrid(np.linspace(0, 1, 25), np.linspace(0, 1, 17))
    longitude, latitude = (columns - 0.5) * 2 * np.pi, (0.5 - rows) * np.pi
    unit = np.stack(
        [
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
            np.cos(latitude) * np.cos(longitude),
        ],
        axis=-1,
    )
    vertices = (unit * np.asarray(radii, float)) @ rotation.T + np.asarray(centre, float)
    return _grid(vertices, np.stack([columns, rows], axis=-1), texture, person)


def loft(
    centres: Sequence[ArrayLike],
    radii: Sequence[tuple[float, float]],
    rotations: Sequence[Array],
    texture: str,
    person: int,
    repeat: tuple[float, float] = (1.0, 1.0),
) -> Mesh:
    """A closed tube through elliptical sections, radii (x, z) in each section's own frame.

    Both ends are drawn to a point at the end sections' centres, u runs around from the back, v
    along the tube.
    """
    angles = np.linspace(-np.pi, np.pi, 19)
    ring = np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], axis=-1)
    sections = [(centres[0], (0.0, 0.0), rotations[0])]
    sections += list(zip(centres, radii, rotations, strict=True))
    sections += [(centres[-1], (0.0, 0.0), rotations[-1])]
    rows = [
        (ring * [rx, 1.0, rz]) @ rotation.T + np.asarray(centre, float)
        for centre, (rx, rz), rotation in sections
    ]
    u, v = np.meshgrid(np.linspace(0, repeat[0], 19), np.linspace(0, repeat[1], len(rows)))
    return _grid(np.stack(rows), np.stack([u, v], axis=-1), texture, person)


def capsule(
    start: ArrayLike,
    end: ArrayLike,
    radii: tuple[float, float],
    texture: str,
    person: int,
    repeat: tuple[float, float] = (1.0, 1.0),
) -> Mesh:
    """A limb from `start` to `end` with rounded ends and its own radius at each."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    axis = (end - start) / max(np.linalg.norm(end - start), 1e-9)
    side = np.cross(axis, [0.0, 0.0, 1.0] if abs(axis[2]) < 0.9 else [1.0, 0.0, 0.0])
    side /= np.linalg.norm(side)
    frame = np.stack([side, -axis, np.cross(side, -axis)], axis=1)
    turn = np.linspace(0, np.pi / 2, 4)
    caps_start = [(start - axis * radii[0] * np.cos(a), radii[0] * np.sin(a)) for a in turn[1:]]
    caps_end = [(end + axis * radii[1] * np.cos(a), radii[1] * np.sin(a)) for a in turn[:0:-1]]
    sections = caps_start + caps_end
    return loft(
        [centre for centre, _ in sections],
        [(radius, radius) for _, radius in sections],
        [frame] * len(sections),
        texture,
        person,
        repeat,
    )


def _grid(vertices: Array, uv: Array, texture: str, person: int) -> Mesh:
    """Triangles between the rows and columns of a grid of vertices [R, C, 3]."""
    rows, columns = vertices.shape[:2]
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    return Mesh(vertices.reshape(-1, 3), faces, uv.reshape(-1, 2), texture, person)
