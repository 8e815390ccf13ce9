"""Cameras around coloured points, and the features of perfect images."""

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stages.scenes import colmap
from stages.scenes.cameras import Array, Camera, look_at
from stages.scenes.poses.sfm import PooledFeatures

SIZE = 400  # px
FRAMES = 2
POINTS = 120  # a timestamp


def ring(count: int = 5) -> dict[str, Camera]:
    """Cameras on an arc of 100 degrees that look at the origin from four units away."""
    K = np.array([[480.0, 0, SIZE / 2], [0, 480.0, SIZE / 2], [0, 0, 1]])
    cameras = {}
    for index, angle in enumerate(np.radians(np.linspace(-50, 50, count))):
        eye = [4 * np.sin(angle), -0.6 + 0.2 * index, -4 * np.cos(angle)]
        pose = look_at(eye, [0, 0, 0], [0, -1, 0])
        cameras[str(4 * index)] = Camera(str(4 * index), K, pose, SIZE, SIZE)
    return cameras


def cloud(frame: int) -> Array:
    """Points [POINTS, 3] of a timestamp, within a unit of the origin."""
    return np.random.default_rng(frame).uniform(-1, 1, (POINTS, 3))


def project(camera: Camera, points: Array) -> Array:
    """Pixels [N, 2]."""
    in_camera = points @ camera.cam_from_world[:3, :3].T + camera.cam_from_world[:3, 3]
    pixels = in_camera @ camera.K.T
    return pixels[:, :2] / pixels[:, 2:]


def pooled_features(
    cameras: dict[str, Camera], noise_px: float = 0.0, strays: int = 0
) -> PooledFeatures:
    """Features of every point in every camera, shuffled, and features of nothing among them.

    The colour of a feature is the number of its point; the third channel is 1 for nothing.
    """
    random = np.random.default_rng(7)
    of, frame, color = {}, {}, {}
    for name, camera in cameras.items():
        pixels = np.concatenate([project(camera, cloud(time)) for time in range(FRAMES)])
        pixels = pixels + noise_px * random.standard_normal(pixels.shape)
        times = np.repeat(np.arange(FRAMES), POINTS)
        number = np.arange(FRAMES * POINTS)
        shade = np.stack([number % 256, number // 256, 0 * number], axis=1).astype(np.uint8)
        if strays:
            pixels = np.concatenate([pixels, random.uniform(0, SIZE, (strays, 2))])
            times = np.concatenate([times, random.integers(FRAMES, size=strays)])
            shade = np.concatenate([shade, np.tile(np.uint8([0, 0, 1]), (strays, 1))])
        order = random.permutation(len(pixels))
        of[name] = colmap.Features(pixels[order])
        frame[name] = times[order]
        color[name] = shade[order]
    return PooledFeatures(of, frame, color)


def matched(features: PooledFeatures) -> dict[tuple[str, str], NDArray[np.uint32]]:
    """Rows [M, 2] of the features of equal points, for every pair of cameras."""
    rows = {name: np.flatnonzero(color[:, 2] == 0) for name, color in features.color.items()}
    number = {n: features.color[n][own].astype(int) @ [1, 256, 0] for n, own in rows.items()}
    matches = {}
    for a, b in combinations(features.of, 2):
        _, in_a, in_b = np.intersect1d(number[a], number[b], return_indices=True)
        matches[a, b] = np.stack([rows[a][in_a], rows[b][in_b]], axis=1).astype(np.uint32)
    return matches
