"""COLMAP's mapping of a capture, on features that are exact but for noise."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pycolmap

from stages.scenes.cameras import look_at
from stages.scenes.captures import colmap_mapping
from stages.scenes.captures.config import CaptureCalibrateConfig

_FIRST, _SECOND = 22, 8  # cameras of two arcs
_COMMON = (600, 150)  # points that all cameras of an arc observe
_OWN = 30  # points that one camera of the first arc and all of the second observe


def poses() -> list[np.ndarray]:
    """cam_from_world of both arcs around the origin."""
    angles = np.radians([*(4.0 * np.arange(_FIRST)), *(12.0 * np.arange(_SECOND) + 1)])
    heights = [0.4] * _FIRST + [0.9] * _SECOND
    return [
        look_at([4 * np.sin(a), -h + 0.3 * (k % 2), -4 * np.cos(a)], [0, 0, 0], [0, -1, 0])
        for k, (a, h) in enumerate(zip(angles, heights, strict=True))
    ]


def observers() -> list[list[int]]:
    """The cameras that observe each point."""
    first, second = list(range(_FIRST)), list(range(_FIRST, _FIRST + _SECOND))
    own = [[camera, *second] for camera in first for _ in range(_OWN)]
    return [first] * _COMMON[0] + [second] * _COMMON[1] + own


def write_database(path: Path) -> None:
    """Features and verified matches of both arcs."""
    rng = np.random.default_rng(0)
    lens = pycolmap.Camera(
        camera_id=1, model="SIMPLE_RADIAL", width=640, height=480, params=[600.0, 320, 240, 0]
    )
    of_point, cameras = observers(), poses()
    points = rng.uniform(-1, 1, (len(of_point), 3))
    seen = [[p for p, of in enumerate(of_point) if camera in of] for camera in range(len(cameras))]
    with pycolmap.Database.open(path) as database:
        database.write_camera(lens, use_camera_id=True)
        for number, (pose, rows) in enumerate(zip(cameras, seen, strict=True)):
            pixels = lens.img_from_cam(points[rows] @ pose[:3, :3].T + pose[:3, 3])
            pixels += rng.normal(0, 0.3, pixels.shape)
            image = database.write_image(pycolmap.Image(name=f"{number:02d}.png", camera_id=1))
            database.write_keypoints(image, pixels.astype(np.float32))
        for a, b in combinations(range(len(cameras)), 2):
            _, in_a, in_b = np.intersect1d(seen[a], seen[b], return_indices=True)
            database.write_matches(a + 1, b + 1, np.stack([in_a, in_b], axis=1).astype(np.uint32))
    pycolmap.geometric_verification(path)


def test_model_grows_into_the_images_of_another(tmp_path: Path) -> None:
    """The first arc alone has no point that the second observes; the second has of each camera."""
    write_database(tmp_path / "database.db")
    total = _FIRST + _SECOND
    models = colmap_mapping._map(
        tmp_path / "database.db", tmp_path, total, CaptureCalibrateConfig()
    )
    assert models[0].num_reg_images() == total
    assert len(models) == 2, "one model from the start tests nothing"
