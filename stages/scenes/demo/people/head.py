"""Heads: a sculpted skull with a painted face, ears, and hair in several cuts.

The head's frame has its origin in the middle of the skull, x to its left, y up, z to its front.
"""

from dataclasses import dataclass

import numpy as np

from stages.scenes.cameras import Array
from stages.scenes.demo.shapes.meshes import Mesh, ellipsoid, sphere_grid, surface, tube

CUTS = ("short", "bob", "long", "bun", "ponytail", "curly", "cap")
_RADII = np.array([0.078, 0.116, 0.098])  # metres, of a person of 1.75 m


@dataclass(frozen=True)
class Look:
    """A hair cut and the names of the textures of one person's head."""

    cut: str
    person: int
    face: str
    skin: str
    hair: str
    trim: str  # of a cap


def head(origin: Array, frame: Array, look: Look) -> list[Mesh]:
    """All meshes of a head; `frame` [3, 3] carries the person's scale."""
    longitude, latitude = sphere_grid(26, 40)
    uv = np.stack([longitude / (2 * np.pi) + 0.5, 0.5 - latitude / np.pi], axis=-1)
    skull = _placed(_skull(longitude, latitude), origin, frame)
    meshes = [surface(skull, uv, look.face, look.person)]
    for sign in (1, -1):
        at = origin + frame @ [0.080 * sign, -0.012, -0.008]
        meshes.append(ellipsoid(at, [0.010, 0.030, 0.019], frame, look.skin, look.person, (6, 10)))
    return meshes + (_cap if look.cut == "cap" else _hair)(origin, frame, look)


def _skull(longitude: Array, latitude: Array) -> Array:
    """Points [..., 3] of the skull in its own frame: jaw, chin, nose, brow and eye sockets."""
    up, side = np.sin(latitude), np.abs(longitude)
    x = np.cos(latitude) * np.sin(longitude)
    z = np.cos(latitude) * np.cos(longitude)
    below = np.clip(-up - 0.1, 0, 1)
    x = x * (1 - 0.35 * below)
    z = np.where(z < 0, z * (1 - 0.45 * below), z * (1 + 0.10 * below))
    nose = np.exp(-((side / 0.13) ** 2) - (np.clip(up + 0.30, -1, 0) / 0.10) ** 2)
    nose *= np.clip((0.12 - up) / 0.42, 0, 1)
    socket = np.exp(-(((side - 0.36) / 0.17) ** 2) - ((up - 0.07) / 0.13) ** 2)
    brow = np.exp(-((side / 0.6) ** 2) - ((up - 0.26) / 0.09) ** 2)
    chin = np.exp(-((side / 0.35) ** 2) - ((up + 0.80) / 0.14) ** 2)
    lips = np.exp(-((side / 0.24) ** 2) - ((up + 0.53) / 0.06) ** 2)
    out = 0.026 * nose - 0.009 * socket + 0.005 * brow + 0.008 * chin + 0.005 * lips
    points = np.stack([x, up, z], axis=-1) * _RADII
    points[..., 2] += out
    return points


def _cap(origin: Array, frame: Array, look: Look) -> list[Mesh]:
    """A baseball cap, and the hair under it at the nape."""
    at = origin + frame @ [0, 0.050, 0.115]
    return [
        surface(*_crown(origin, frame, 1.10, (0.55, 0.20, -0.05)), look.trim, look.person),
        ellipsoid(at, [0.072, 0.009, 0.075], frame, look.trim, look.person, (6, 14)),
        surface(*_crown(origin, frame, 1.035, (0.5, 0.05, -0.42)), look.hair, look.person),
    ]


def _hair(origin: Array, frame: Array, look: Look) -> list[Mesh]:
    cut, hair, person = look.cut, look.hair, look.person
    volume = {"curly": 1.34, "bob": 1.13, "long": 1.11}.get(cut, 1.085)
    crown = _crown(origin, frame, volume, (0.62, 0.02, -0.45), bumpy=cut == "curly")
    meshes = [surface(*crown, hair, person)]
    if cut in ("bob", "long"):
        curtain = _curtain(origin, frame, 0.13 if cut == "bob" else 0.27)
        meshes.append(surface(*curtain, hair, person))
    if cut == "bun":
        at = origin + frame @ [0, 0.085, -0.105]
        meshes.append(ellipsoid(at, [0.042, 0.042, 0.042], frame, hair, person))
    if cut == "ponytail":
        tail = [(0, 0.055, -0.10), (0, 0.05, -0.145), (0, -0.03, -0.165), (0, -0.15, -0.15)]
        path = _placed(np.array(tail), origin, frame)
        meshes.append(tube(path, [0.02, 0.032, 0.034, 0.012], hair, person, back=frame[:, 0]))
    return meshes


def _crown(
    origin: Array, frame: Array, volume: float, rim: tuple[float, float, float], bumpy: bool = False
) -> tuple[Array, Array]:
    """Points and texture coordinates of a cover of the skull from the crown down to a rim.

    `rim` has its latitudes at the front, the side and the back, radians.
    """
    front, side, back = rim
    longitude, share = np.meshgrid(np.linspace(-np.pi, np.pi, 41), np.linspace(0, 1, 13))
    around = [0.0, 0.75, 1.05, 1.5, 1.8, 2.4, np.pi]
    edges = [front, front - 0.02, front - 0.3, side - 0.1, side, back, back]
    hairline = np.interp(np.abs(longitude), around, edges)
    latitude = np.pi / 2 - share * (np.pi / 2 - hairline)
    # The rim intersects the skull, so that there is no gap under it.
    thickness = 1 + (volume - 1) * np.clip(5 * (1 - share), 0, 1) - 0.02 * (share > 0.95)
    if bumpy:
        thickness += 0.05 * np.sin(9 * longitude) * np.sin(14 * latitude) * np.sin(np.pi * share)
    points = _skull(longitude, latitude) * thickness[..., None]
    uv = np.stack([longitude / (2 * np.pi) + 0.5, share], axis=-1)
    return _placed(points, origin, frame), uv


def _curtain(origin: Array, frame: Array, length: float) -> tuple[Array, Array]:
    """Hair that hangs from the temples and the back of the head, `length` metres."""
    longitude, share = np.meshgrid(np.linspace(-1.75, 1.75, 25), np.linspace(0, 1, 8))
    flare = 1.02 + 0.12 * np.sin(np.pi * share) - 0.1 * share**3
    points = np.stack(
        [
            -0.083 * flare * np.sin(longitude),
            0.03 - length * share,
            -0.103 * flare * np.cos(longitude),
        ],
        -1,
    )
    uv = np.stack([longitude / 4 + 0.5, 0.4 + 0.6 * share], axis=-1)
    return _placed(points, origin, frame), uv


def _placed(points: Array, origin: Array, frame: Array) -> Array:
    return points @ frame.T + origin
