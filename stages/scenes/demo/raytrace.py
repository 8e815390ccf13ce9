"""Ray tracing of textured meshes with Embree: the only module that imports embreex.

Light is linear; images leave in sRGB. A sky-like ambient term plus one soft lamp with shadows.
"""

from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene

from stages.scenes.cameras import Array, Camera
from stages.scenes.demo.meshes import Mesh

_LAMP = np.array([1.1, 2.55, 1.4])  # metres
_LAMP_RADIUS = 0.2
_LAMP_POWER, _AMBIENT = 5.2, 0.42


@dataclass(frozen=True, eq=False)
class World:
    """Meshes joined for tracing."""

    scene: EmbreeScene
    corners: Array  # [F, 3, 3]
    uv: Array  # [F, 3, 2]
    normals: Array  # [F, 3, 3], at corners
    texture: np.ndarray  # [F] index into `textures`
    person: np.ndarray  # [F]
    textures: list[Array]  # [h, w, 3] linear


def build(meshes: list[Mesh], textures: dict[str, Array]) -> World:
    """Join meshes; textures are sRGB [h, w, 3] in [0, 1] by name."""
    names = sorted(textures)
    corners = np.concatenate([mesh.vertices[mesh.faces] for mesh in meshes])
    scene = EmbreeScene()
    TriangleMesh(scene, np.ascontiguousarray(corners, np.float32))
    return World(
        scene,
        corners,
        np.concatenate([mesh.uv[mesh.faces] for mesh in meshes]),
        np.concatenate([_smooth_normals(mesh) for mesh in meshes]),
        np.concatenate([np.full(len(m.faces), names.index(m.texture)) for m in meshes]),
        np.concatenate([np.full(len(m.faces), m.person) for m in meshes]),
        [linear_from_srgb(textures[name]) for name in names],
    )


def trace(world: World, camera: Camera, samples: int, seed: int) -> tuple[Array, np.ndarray]:
    """Image [H, W, 3] in sRGB and person map [H, W] (-1 room, 0, 1) of one camera.

    `samples` squared jittered rays a pixel; the person map looks through pixel centres.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((camera.height * camera.width, 3))
    for row in range(samples):
        for column in range(samples):
            jitter = rng.random((camera.height, camera.width, 2))
            offsets = (np.array([column, row]) + jitter) / samples
            total += _radiance(world, *_rays(camera, offsets), rng)
    image = srgb_from_linear(total / samples**2).reshape(camera.height, camera.width, 3)
    face, _, _ = _hit(world, *_rays(camera, np.full((camera.height, camera.width, 2), 0.5)))
    people = np.where(face >= 0, world.person[face], -1)
    return image, people.reshape(camera.height, camera.width)


def linear_from_srgb(values: Array) -> Array:
    """IEC 61966-2-1 decoding.

    >>> float(linear_from_srgb(np.array(1.0)))
    1.0
    """
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def srgb_from_linear(values: Array) -> Array:
    """IEC 61966-2-1 encoding, clipped to [0, 1]."""
    values = np.clip(values, 0, 1)
    return np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


def _rays(camera: Camera, offsets: Array) -> tuple[Array, Array]:
    """Origins and unit directions [N, 3] through pixel corners plus `offsets` [H, W, 2]."""
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width]
    pixels = np.stack([columns, rows], axis=-1) + offsets
    ones = np.ones((*pixels.shape[:2], 1))
    in_camera = np.concatenate([pixels, ones], axis=-1) @ np.linalg.inv(camera.K).T
    directions = (in_camera @ camera.cam_from_world[:3, :3]).reshape(-1, 3)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.broadcast_to(camera.centre, directions.shape), directions


def _hit(world: World, origins: Array, directions: Array) -> tuple[np.ndarray, Array, Array]:
    """Face index [N] (-1 for none), barycentric weights [N, 3] and distance [N]."""
    found = world.scene.run(
        np.ascontiguousarray(origins, np.float32),
        np.ascontiguousarray(directions, np.float32),
        output=True,
    )
    u, v = found["u"].astype(np.float64), found["v"].astype(np.float64)
    return found["primID"], np.stack([1 - u - v, u, v], axis=-1), found["tfar"].astype(np.float64)


def _radiance(world: World, origins: Array, directions: Array, rng: np.random.Generator) -> Array:
    face, weights, distance = _hit(world, origins, directions)
    # The room is closed, so a miss is a crack between triangles: its neighbour face 0 serves.
    face = np.maximum(face, 0)
    point = origins + np.minimum(distance, 100.0)[:, None] * directions
    normal = np.einsum("nk,nkc->nc", weights, world.normals[face])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    normal *= -np.sign((normal * directions).sum(1, keepdims=True))
    color = _texture(world, face, np.einsum("nk,nkc->nc", weights, world.uv[face]))
    ambient = _AMBIENT * (0.8 + 0.2 * normal[:, 1:2])
    return color * (ambient + _lamp(world, point, normal, rng)[:, None])


def _lamp(world: World, point: Array, normal: Array, rng: np.random.Generator) -> Array:
    """Light of the lamp at each point [N], through one jittered shadow ray."""
    centre = _LAMP - point
    distance = np.linalg.norm(centre, axis=1)
    # Only the shadow is sampled over the lamp: jittered brightness would be grain, not light.
    facing = np.maximum((centre * normal).sum(1) / distance, 0)
    towards = centre + _LAMP_RADIUS * rng.uniform(-1, 1, point.shape)
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    start = np.ascontiguousarray(point + 2e-3 * normal, np.float32)
    reached = world.scene.run(start, np.ascontiguousarray(towards, np.float32), query="DISTANCE")
    lit = reached >= distance - 2 * _LAMP_RADIUS
    return _LAMP_POWER * facing * lit / (2.0 + distance**2)


def _texture(world: World, face: np.ndarray, uv: Array) -> Array:
    """Bilinear, repeating texture lookup, [N, 3] linear."""
    color = np.empty((len(face), 3))
    index = world.texture[face]
    for number, image in enumerate(world.textures):
        chosen = np.flatnonzero(index == number)
        if len(chosen):
            color[chosen] = _bilinear(image, uv[chosen])
    return color


def _bilinear(image: Array, uv: Array) -> Array:
    height, width = image.shape[:2]
    x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    left, right = x0 % width, (x0 + 1) % width
    up, down = y0 % height, (y0 + 1) % height
    top = image[up, left] * (1 - fx) + image[up, right] * fx
    return top * (1 - fy) + (image[down, left] * (1 - fx) + image[down, right] * fx) * fy


def _smooth_normals(mesh: Mesh) -> Array:
    """Corner normals [F, 3, 3]: the area-weighted mean of the faces at each vertex."""
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    flat = np.cross(b - a, c - a)
    summed = np.zeros_like(mesh.vertices)
    for k in range(3):
        np.add.at(summed, mesh.faces[:, k], flat)
    length = np.linalg.norm(summed, axis=1, keepdims=True)
    return (summed / np.maximum(length, 1e-12))[mesh.faces]
