"""Photographs of two textured walls at a corner, exact by construction, for SIFT to find."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import map_coordinates

from stages.scenes.cameras import Camera, look_at
from stages.scenes.demo.shapes.textures import load_texture

SIZE = (288, 216)  # px
FOCAL_PX = 260.0
# (corner, across, down, texture) of each wall, metres.
_WALLS = (
    ([-3.0, -1.5, 1.0], [3.2, 0, 1.4], [0, 3.0, 0], "astronaut"),
    ([0.2, -1.5, 2.4], [2.8, 0, -1.8], [0, 3.0, 0], "motorcycle"),
    ([-3.0, 1.1, -1.0], [6.0, 0, 0], [0, 0, 3.6], "coins"),
)


def cameras(count: int = 5) -> dict[str, Camera]:
    """Cameras side by side, by image name."""
    width, height = SIZE
    K = np.array([[FOCAL_PX, 0, width / 2], [0, FOCAL_PX, height / 2], [0, 0, 1]])
    found = {}
    for k in range(count):
        eye = [-0.9 + 1.8 * k / (count - 1), -0.35 + 0.2 * (k % 2), -3.2 + 0.25 * (k % 3)]
        name = f"{k:02d}.png"
        found[name] = Camera(name, K, look_at(eye, [0, 0, 1.4], [0, -1, 0]), width, height)
    return found


def write_photographs(folder: Path, placed: dict[str, Camera]) -> None:
    """Photographs of the corner, one a camera."""
    textures = [load_texture(name, (512, 512)) for *_, name in _WALLS]
    folder.mkdir(parents=True, exist_ok=True)
    for name, camera in placed.items():
        Image.fromarray(_seen(camera, textures)).save(folder / name)


def _seen(camera: Camera, textures: list[np.ndarray]) -> np.ndarray:
    rows, columns = np.mgrid[0 : camera.height, 0 : camera.width] + 0.5
    pixels = np.stack([columns, rows, np.ones_like(rows)], axis=-1)
    rays = pixels @ np.linalg.inv(camera.K).T @ camera.cam_from_world[:3, :3]
    image, nearest = np.zeros((*rows.shape, 3)), np.full(rows.shape, np.inf)
    for (corner, across, down, _), texture in zip(_WALLS, textures, strict=True):
        basis = np.stack([across, down, -np.zeros(3)], axis=1).astype(float)
        # corner + u across + v down = centre + t ray, for every ray.
        system = np.broadcast_to(basis, (*rows.shape, 3, 3)).copy()
        system[..., 2] = -rays
        u, v, t = np.moveaxis(
            np.linalg.solve(system, (camera.centre - corner)[:, None])[..., 0], -1, 0
        )
        hit = (u >= 0) & (u <= 1) & (v >= 0) & (v <= 1) & (t > 0) & (t < nearest)
        at = [np.clip(v, 0, 1) * 511, np.clip(u, 0, 1) * 511]
        colors = np.stack(
            [map_coordinates(plane, at, order=1) for plane in texture.transpose(2, 0, 1)], -1
        )
        image[hit], nearest[hit] = colors[hit], t[hit]
    return np.rint(255 * image).astype(np.uint8)
