"""Textured triangle meshes: quads, boxes, and surfaces through grids of points.

Texture coordinates (u, v) run over [0, 1]; v = 0 is the top row of the texture. Values beyond
repeat. Lengths are metres, world up is +Y.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from stages.scenes.cameras import Array

ROOM = -1


@dataclass(frozen=True, eq=False)
class Mesh:
    """Triangles with one texture; `person` is 0 or 1, or ROOM."""

    vertices: Array  # [V, 3]
    normals: Array  # [V, 3], unit
    uv: Array  # [V, 2]
    faces: np.ndarray  # [F, 3] int
    texture: str
    person: int = ROOM
    glow: float = 0.0  # radiance of a lamp's own surface; 0 is lit by the lamps


def surface(points: Array, uv: Array, texture: str, person: int = ROOM, glow: float = 0.0) -> Mesh:
    """The mesh over a grid of points [R, C, 3] with texture coordinates [R, C, 2].

    From outside, columns run to the right and rows down; normals point outwards. Where the last
    column equals the first, or a row is one point, normals are shared, so that seams and poles are
    smooth.
    """
    rows, columns = points.shape[:2]
    vertices = points.reshape(-1, 3)
    index = np.arange(rows * columns).reshape(rows, columns)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    corners = vertices[faces]
    flat = np.cross(corners[:, 2] - corners[:, 0], corners[:, 1] - corners[:, 0])
    summed = np.stack(
        [np.bincount(faces.ravel(), np.repeat(flat[:, k], 3), len(vertices)) for k in range(3)], -1
    ).reshape(points.shape)
    if np.allclose(points[:, 0], points[:, -1]):
        summed[:, 0] = summed[:, -1] = summed[:, 0] + summed[:, -1]
    for row in (0, -1):
        if np.allclose(points[row], points[row, 0]):
            summed[row] = summed[row].sum(axis=0)
    normals = summed / np.maximum(np.linalg.norm(summed, axis=-1, keepdims=True), 1e-12)
    return Mesh(vertices, normals.reshape(-1, 3), uv.reshape(-1, 2), faces, texture, person, glow)


def quad(
    corner: ArrayLike,
    across: ArrayLike,
    down: ArrayLike,
    texture: str,
    *,
    step: float = 0.12,
    part: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0),
    glow: float = 0.0,
) -> Mesh:
    """A rectangle with a visible upper left corner, textured by `part` (u0, v0, u1, v1).

    It is divided into squares of about `step` metres, because light is stored at vertices.
    """
    corner, across, down = (np.asarray(edge, np.float64) for edge in (corner, across, down))
    columns, rows = (max(2, round(np.linalg.norm(edge) / step) + 1) for edge in (across, down))
    s, t = np.meshgrid(np.linspace(0, 1, columns), np.linspace(0, 1, rows))
    points = corner + s[..., None] * across + t[..., None] * down
    u0, v0, u1, v1 = part
    uv = np.stack([u0 + s * (u1 - u0), v0 + t * (v1 - v0)], axis=-1)
    return surface(points, uv, texture, glow=glow)


def box(low: ArrayLike, high: ArrayLike, front: str, side: str, yaw_deg: float = 0.0) -> list[Mesh]:
    """A box without its lower face; its faces to +z and -z have texture `front`.

    `yaw_deg` rotates it about its vertical axis.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    centre, (w, h, d) = (low + high) / 2, high - low
    angle = np.radians(yaw_deg)
    right = np.array([np.cos(angle), 0, -np.sin(angle)])
    back = np.array([np.sin(angle), 0, np.cos(angle)])
    up = np.array([0.0, 1.0, 0.0])
    faces = []
    for across, out, width, depth, texture in (
        (right, back, w, d, front),
        (-right, -back, w, d, front),
        (back, -right, d, w, side),
        (-back, right, d, w, side),
    ):
        corner = centre - across * width / 2 + out * depth / 2 + up * h / 2
        faces.append(quad(corner, across * width, -up * h, texture))
    corner = centre - right * w / 2 - back * d / 2 + up * h / 2
    return [*faces, quad(corner, right * w, back * d, side)]


def ellipsoid(
    centre: ArrayLike,
    radii: ArrayLike,
    frame: Array,
    texture: str,
    person: int = ROOM,
    size: tuple[int, int] = (9, 14),
) -> Mesh:
    """An ellipsoid in a frame (x left, y up, z front); u = 0.5 looks to +z, v = 0 is up."""
    longitude, latitude = sphere_grid(*size)
    unit = np.stack(
        [
            np.cos(latitude) * np.sin(longitude),
            np.sin(latitude),
            np.cos(latitude) * np.cos(longitude),
        ],
        axis=-1,
    )
    points = (unit * np.asarray(radii, float)) @ frame.T + np.asarray(centre, float)
    uv = np.stack([longitude / (2 * np.pi) + 0.5, 0.5 - latitude / np.pi], axis=-1)
    return surface(points, uv, texture, person)


def sphere_grid(rows: int, columns: int) -> tuple[Array, Array]:
    """Longitudes from -pi to pi and latitudes from pi / 2 down, [rows + 1, columns + 1] each."""
    return np.meshgrid(
        np.linspace(-np.pi, np.pi, columns + 1), np.linspace(np.pi / 2, -np.pi / 2, rows + 1)
    )


def loft(
    centres: Sequence[ArrayLike],
    radii: Sequence[tuple[float, float]],
    frames: Sequence[Array],
    texture: str,
    person: int = ROOM,
    *,
    squareness: float = 2.0,
    columns: int = 18,
) -> Mesh:
    """A closed tube through sections with radii (x, z) in the x-z plane of their own frames.

    Sections are superellipses: squareness 2 is an ellipse, more is boxier. Both ends close in a
    point. u runs once around from the back, v once along by length.
    """
    angles = np.linspace(-np.pi, np.pi, columns + 1)
    ring = np.stack([np.sin(angles), np.zeros_like(angles), np.cos(angles)], axis=-1)
    ring = np.sign(ring) * np.abs(ring) ** (2 / squareness)
    middle = np.array([centres[0], *centres, centres[-1]], np.float64)
    widths = np.array([(0.0, 0.0), *radii, (0.0, 0.0)])
    end_frames = np.stack([frames[0], *frames, frames[-1]])
    scaled = ring * np.stack([widths[:, 0], np.ones(len(widths)), widths[:, 1]], -1)[:, None]
    points = np.einsum("rij,rcj->rci", end_frames, scaled) + middle[:, None]
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(middle, axis=0), axis=1))])
    u, v = np.meshgrid(np.linspace(0, 1, columns + 1), lengths / max(lengths[-1], 1e-9))
    return surface(points, np.stack([u, v], axis=-1), texture, person)


def tube(
    points: ArrayLike,
    radii: Sequence[float],
    texture: str,
    person: int = ROOM,
    *,
    back: ArrayLike = (0.0, 0.0, -1.0),
    columns: int = 14,
) -> Mesh:
    """A round tube along a path [N, 3] with a rounded cap at each end.

    Sections follow the path without twist; the seam starts on the side of `back`.
    """
    path, radii = _capped(np.asarray(points, np.float64), np.asarray(radii, np.float64))
    tangents = np.gradient(path, axis=0)
    tangents /= np.linalg.norm(tangents, axis=1, keepdims=True)
    front = -np.asarray(back, np.float64)
    frames = []
    for tangent in tangents:
        front = front - tangent * (front @ tangent)
        front /= np.linalg.norm(front)
        frames.append(np.stack([np.cross(-tangent, front), -tangent, front], axis=1))
    return loft(path, [(r, r) for r in radii], frames, texture, person, columns=columns)


def _capped(path: Array, radii: Array) -> tuple[Array, Array]:
    """The path with two more sections at each end, on a quarter circle."""
    angles = np.radians([20.0, 55.0])
    first, last = path[0] - path[1], path[-1] - path[-2]
    first, last = first / np.linalg.norm(first), last / np.linalg.norm(last)
    head = path[0] + first * (radii[0] * np.cos(angles))[:, None]
    tail = path[-1] + last * (radii[-1] * np.cos(angles[::-1]))[:, None]
    sines = np.sin(angles)
    return (
        np.concatenate([head, path, tail]),
        np.concatenate([radii[0] * sines, radii, radii[-1] * sines[::-1]]),
    )
