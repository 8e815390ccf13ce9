"""Ray tracing of textured meshes with Embree: the only module that imports embreex.

Surfaces are Lambertian with light stored at vertices (`light.py`), so that colours are the same in
every camera. Light is linear; images are sRGB.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from stages.scenes.cameras import Array, Camera
from stages.scenes.demo.shapes.meshes import ROOM, Mesh

Floats = NDArray[np.float32]
_CREASE = 0.8  # cosine between normals of neighbouring pixels; below, they get more rays
_LEVELS = 8  # mipmaps, the full texture included
_STEP = 0.04  # relative difference in distance; above, they get more rays too


@dataclass(frozen=True, eq=False)
class Geometry:
    """Joined meshes in Embree."""

    scene: EmbreeScene
    vertices: Floats  # [V, 3]
    normals: Floats  # [V, 3]
    faces: NDArray[np.int32]  # [F, 3]
    person: NDArray[np.int8]  # [V]
    glow: Floats  # [V]
    meshes: tuple[Mesh, ...]

    def blocked(self, origins: Array, directions: Array, reach: Array | float) -> NDArray[np.bool_]:
        """Whether a surface lies within `reach` metres along each ray [N, 3]."""
        far = np.empty(len(origins), np.float32)
        far[:] = reach
        face = self.scene.run(
            np.ascontiguousarray(origins, np.float32),
            np.ascontiguousarray(directions, np.float32),
            dists=far,
            query="OCCLUDED",
        )
        return face >= 0


@dataclass(frozen=True, eq=False)
class Atlas:
    """All textures and their halved copies (mipmaps) in one array of linear colours."""

    names: tuple[str, ...]
    texels: Floats  # [T, 3]
    start: NDArray[np.int64]  # [textures, levels]
    width: NDArray[np.int64]  # [textures, levels]
    height: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class World:
    """A lit and textured scene."""

    geometry: Geometry
    shading: Floats  # [V, 5]: u, v, light
    atlas: Atlas
    texture: NDArray[np.int64]  # [F]
    density: Floats  # [F] texels of the finest level per metre


def join(meshes: Sequence[Mesh]) -> Geometry:
    """Put meshes into one Embree scene."""
    starts = np.cumsum([0] + [len(mesh.vertices) for mesh in meshes])
    vertices = np.concatenate([mesh.vertices for mesh in meshes]).astype(np.float32)
    faces = np.concatenate([m.faces + start for m, start in zip(meshes, starts, strict=False)])
    scene = EmbreeScene(robust=True)
    TriangleMesh(scene, vertices, np.ascontiguousarray(faces, np.int32))
    counts = [len(mesh.vertices) for mesh in meshes]
    return Geometry(
        scene,
        vertices,
        np.concatenate([mesh.normals for mesh in meshes]).astype(np.float32),
        faces.astype(np.int32),
        np.repeat(np.array([mesh.person for mesh in meshes], np.int8), counts),
        np.repeat(np.array([mesh.glow for mesh in meshes], np.float32), counts),
        tuple(meshes),
    )


def build_world(geometry: Geometry, light: Array, atlas: Atlas) -> World:
    """Geometry with light [V, 3] at its vertices and the textures of its meshes."""
    numbers = np.array([atlas.names.index(mesh.texture) for mesh in geometry.meshes])
    texture = np.repeat(numbers, [len(mesh.faces) for mesh in geometry.meshes])
    uv = np.concatenate([mesh.uv for mesh in geometry.meshes])
    size = np.stack([atlas.width[texture, 0], atlas.height[texture, 0]], axis=-1)
    at, on = geometry.vertices[geometry.faces], uv[geometry.faces] * size[:, None]
    area = np.linalg.norm(np.cross(at[:, 1] - at[:, 0], at[:, 2] - at[:, 0]), axis=1)
    (a, b), (c, d) = (on[:, 1] - on[:, 0]).T, (on[:, 2] - on[:, 0]).T
    density = np.sqrt(np.abs(a * d - b * c) / np.maximum(area, 1e-12))
    shading = np.concatenate([uv, light], axis=1).astype(np.float32)
    return World(geometry, shading, atlas, texture, density.astype(np.float32))


def trace(
    world: World,
    camera: Camera,
    samples: int,
    seed: int,
    undistort: Callable[[Array], Array] = lambda pixels: pixels,
) -> tuple[Array, NDArray[np.int8]]:
    """Image [H, W, 3] in sRGB and person map [H, W] (ROOM, 0 or 1) of one camera.

    One ray goes through each pixel's centre; the map is of these. Where neighbours differ in
    person, normal or distance, `samples` squared jittered rays are averaged in. Textures need no
    further rays, as they are filtered to the size of a pixel.

    Args:
        world: the scene.
        camera: a pinhole camera.
        samples: per side of the grid of jittered rays.
        seed: of the jitter.
        undistort: pixels [N, 2] of a lens with distortion to those of `camera`.
    """
    size = (camera.height, camera.width)
    rows, columns = np.divmod(np.arange(camera.height * camera.width), camera.width)
    pixels = np.stack([columns, rows], axis=-1) + 0.5
    color, face, distance, normal = _shoot(world, camera, undistort(pixels))
    person = np.where(face < 0, ROOM, world.geometry.person[world.geometry.faces[face, 0]])
    person = person.astype(np.int8).reshape(size)
    edges = np.flatnonzero(_edges(person, distance.reshape(size), normal.reshape(*size, 3)))
    rng = np.random.default_rng(seed)
    cells = np.stack(np.meshgrid(range(samples), range(samples)), axis=-1).reshape(-1, 1, 2)
    jittered = (cells + rng.random((samples**2, len(edges), 2))) / samples
    finer = (pixels[edges] - 0.5 + jittered).reshape(-1, 2)
    more = _shoot(world, camera, undistort(finer))[0].reshape(samples**2, len(edges), 3)
    color[edges] = (color[edges] + more.sum(axis=0)) / (samples**2 + 1)
    return srgb_from_linear(_developed(color)).reshape(*size, 3), person


def hits(world: World, camera: Camera, pixels: Array) -> tuple[Array, Array]:
    """Surface points [N, 3] behind pixels [N, 2], and their colours [N, 3] in sRGB."""
    color, face, distance, _ = _shoot(world, camera, pixels)
    directions, _ = _directions(camera, pixels)
    is_hit = face >= 0
    points = camera.centre + distance[is_hit, None].astype(np.float64) * directions[is_hit]
    return points, srgb_from_linear(_developed(color[is_hit]))


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


_LINEAR = linear_from_srgb(np.arange(256) / 255).astype(np.float32)


def _developed(radiance: Array) -> Array:
    """Extended Reinhard curve: mid-tones keep their contrast, values from 4 are white."""
    return radiance * (1 + radiance / 16) / (1 + 0.35 * radiance)


def _shoot(
    world: World, camera: Camera, pixels: Array
) -> tuple[Floats, NDArray[np.int64], Floats, Floats]:
    """Linear colour [N, 3], face [N], distance [N] and unit normal [N, 3] behind pixels [N, 2].

    Rays without a hit have face -1 and are black.
    """
    directions, spread = _directions(camera, pixels)
    origins = np.empty_like(directions)
    origins[:] = camera.centre
    hit = world.geometry.scene.run(origins, directions, output=True)
    face, u, v = hit["primID"], hit["u"], hit["v"]
    distance, normal = np.minimum(hit["tfar"], 100.0), hit["Ng"]
    length = np.sqrt(np.einsum("nk,nk->n", normal, normal))
    normal = normal / np.maximum(length, np.float32(1e-20))[:, None]
    a, b, c = (world.shading[corner] for corner in world.geometry.faces[face].T)
    shading = a + u[:, None] * (b - a) + v[:, None] * (c - a)
    slant = np.maximum(np.abs(np.einsum("nk,nk->n", normal, directions)), np.float32(0.1))
    footprint = world.density[face] * distance * spread / np.sqrt(slant)
    color = _lookup(world, face, shading[:, :2], footprint) * shading[:, 2:]
    color[face < 0] = 0
    return color, face, distance, normal


def _directions(camera: Camera, pixels: Array) -> tuple[Floats, np.float32]:
    """Unit directions [N, 3] in the world through pixels [N, 2], and the angle of a pixel."""
    world_from_pixels = np.linalg.inv(camera.K).T @ camera.cam_from_world[:3, :3]
    directions = (pixels @ world_from_pixels[:2] + world_from_pixels[2]).astype(np.float32)
    directions /= np.sqrt(np.einsum("nk,nk->n", directions, directions))[:, None]
    return directions, np.float32(1 / camera.K[0, 0])


def _lookup(world: World, face: NDArray[np.int64], uv: Floats, footprint: Floats) -> Floats:
    """Bilinear, repeating texture colours [N, 3] at the mipmap level that matches a pixel."""
    atlas, texture = world.atlas, world.texture[face]
    level = np.clip(np.rint(np.log2(np.maximum(footprint, 1.0))).astype(np.int64), 0, _LEVELS - 1)
    row = texture * _LEVELS + level
    width, height, start = (part.ravel()[row] for part in (atlas.width, atlas.height, atlas.start))
    x, y = (uv[:, 0] * width.astype(np.float32) - 0.5, uv[:, 1] * height.astype(np.float32) - 0.5)
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    fx, fy = ((x - left.astype(np.float32))[:, None], (y - top.astype(np.float32))[:, None])
    x0, x1 = left % width, (left + 1) % width
    y0, y1 = start + (top % height) * width, start + ((top + 1) % height) * width
    t = atlas.texels
    upper = t[y0 + x0] + fx * (t[y0 + x1] - t[y0 + x0])
    lower = t[y1 + x0] + fx * (t[y1 + x1] - t[y1 + x0])
    return upper + fy * (lower - upper)


def atlas(textures: Mapping[str, Array]) -> Atlas:
    """Pack textures, sRGB [h, w, 3] by name, with all mipmaps."""
    names, pieces = sorted(textures), []
    sizes = np.empty((len(names), _LEVELS, 2), np.int64)
    for number, name in enumerate(names):
        image = _LINEAR[np.rint(textures[name] * 255).astype(np.uint8)]
        for level in range(_LEVELS):
            sizes[number, level] = image.shape[:2]
            pieces.append(image.reshape(-1, 3))
            image = _halved(image)
    counts = sizes.prod(axis=-1).ravel()
    start = (np.cumsum(counts) - counts).reshape(len(names), _LEVELS)
    texels = np.concatenate(pieces)
    return Atlas(tuple(names), texels, start, sizes[..., 1], sizes[..., 0])


def _halved(image: Array) -> Array:
    """The mean of 2x2 blocks; a side of one pixel stays."""
    if len(image) > 1:
        image = (image[0:-1:2] + image[1::2]) / 2
    if image.shape[1] > 1:
        image = (image[:, 0:-1:2] + image[:, 1::2]) / 2
    return image


def _edges(person: NDArray[np.int8], distance: Floats, normal: Floats) -> NDArray[np.bool_]:
    """Pixels [H, W] that differ from their right or lower neighbour, and that neighbour."""
    marked = np.zeros(person.shape, bool)
    for one, other in ((np.s_[:, :-1], np.s_[:, 1:]), (np.s_[:-1], np.s_[1:])):
        differs = person[one] != person[other]
        differs |= np.abs(distance[one] - distance[other]) > _STEP * distance[one]
        differs |= np.einsum("rck,rck->rc", normal[one], normal[other]) < _CREASE
        marked[one] |= differs
        marked[other] |= differs
    return marked
