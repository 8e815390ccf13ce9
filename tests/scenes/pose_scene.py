"""Cameras around coloured points, and the features of perfect images."""

import numpy as np

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
    """Features of every point in every camera, shuffled, and features of nothing among them."""
    random = np.random.default_rng(7)
    shape = (FRAMES * POINTS, 128)
    looks = np.random.default_rng(8).random(shape).astype(np.float32) ** 4
    of, frame, color = {}, {}, {}
    for name, camera in cameras.items():
        pixels = np.concatenate([project(camera, cloud(time)) for time in range(FRAMES)])
        pixels = pixels + noise_px * random.standard_normal(pixels.shape)
        times = np.repeat(np.arange(FRAMES), POINTS)
        look, shade = looks, (np.arange(FRAMES * POINTS) % 200).astype(np.uint8)
        if strays:
            pixels = np.concatenate([pixels, random.uniform(0, SIZE, (strays, 2))])
            look = np.concatenate([look, random.random((strays, 128)).astype(np.float32) ** 4])
            times = np.concatenate([times, random.integers(FRAMES, size=strays)])
            shade = np.concatenate([shade, np.zeros(strays, np.uint8)])
        order = random.permutation(len(pixels))
        look = look[order] / np.linalg.norm(look[order], axis=1, keepdims=True)
        of[name] = colmap.Features(pixels[order], look)
        frame[name] = times[order]
        color[name] = np.repeat(shade[order, None], 3, axis=1)
    return PooledFeatures(of, frame, color)
