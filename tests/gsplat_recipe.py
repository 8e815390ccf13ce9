"""The normalisation of gsplat's example trainer, independent of ours."""

import numpy as np
from scipy.spatial.transform import Rotation

from stages.scenes.cameras import Camera, rigid


def recipe(cameras: list[Camera], points: np.ndarray) -> np.ndarray:
    """norm_from_world [4, 4] as gsplat's example trainer defines it, from SciPy's parts.

    Mean up to -y by the smallest turn; median over cameras of the axis point nearest to the origin
    to the origin; median distance to 1; then the points' median and principal axes; then, if the
    median of z lies above its mean, half a turn about x.
    """
    worlds = [np.linalg.inv(camera.cam_from_world) for camera in cameras]
    up = np.mean([-world[:3, 1] for world in worlds], axis=0)
    up /= np.linalg.norm(up)
    axis = np.cross(up, [0, -1, 0])
    angle = np.arctan2(np.linalg.norm(axis), -up[1])
    level = Rotation.from_rotvec(angle * axis / np.linalg.norm(axis)).as_matrix()
    eyes = [level @ world[:3, 3] for world in worlds]
    nearest = []
    for eye, world in zip(eyes, worlds, strict=True):
        forward = level @ world[:3, 2]
        along = np.linalg.lstsq(forward[:, None], -eye, rcond=None)[0]
        nearest.append(eye + along * forward)
    focus = np.median(nearest, axis=0)
    scale = 1 / np.median([np.linalg.norm(eye - focus) for eye in eyes])
    by_cameras = rigid(scale * level, -scale * focus)
    placed = points @ by_cameras[:3, :3].T + by_cameras[:3, 3]
    middle = np.median(placed, axis=0)
    axes = np.linalg.svd(placed - placed.mean(0))[2]
    axes[0] *= np.linalg.det(axes)
    by_points = rigid(axes, -axes @ middle)
    heights = (placed - middle) @ axes[2]
    over = np.diag([1.0, -1, -1, 1]) if np.median(heights) > heights.mean() else np.eye(4)
    return over @ by_points @ by_cameras
