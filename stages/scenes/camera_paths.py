"""Paths around what cameras look at, for films and viewers."""

from collections.abc import Sequence

import numpy as np

from stages.scenes.cameras import Array, Camera, look_at, rotation_from_vector
from stages.scenes.frames import recentring

# A gap in the ring of cameras that is wider than this is not crossed: nothing was seen from there.
_WIDEST_GAP = np.radians(150)
# How far to each side one camera, or a row of equal ones, is moved.
_SWAY = np.radians(8)


def focus_and_up(cameras: Sequence[Camera]) -> tuple[Array, Array]:
    """The point [3] that cameras look at most nearly, and their mean upward direction [3]."""
    near_from_world = recentring([camera.centre for camera in cameras])
    if near_from_world is not None:
        focus, up = _looked_at([near_from_world.apply_camera(camera) for camera in cameras])
        return near_from_world.inverse().apply(focus), up
    return _looked_at(cameras)


def _looked_at(cameras: Sequence[Camera]) -> tuple[Array, Array]:
    centres = np.stack([camera.centre for camera in cameras])
    forwards = np.stack([camera.cam_from_world[2, :3] for camera in cameras])
    up = -np.stack([camera.cam_from_world[1, :3] for camera in cameras]).mean(axis=0)
    up /= max(np.linalg.norm(up), 1e-12)
    # Least squares over the distances from the optical axes. The small term keeps parallel axes,
    # which meet nowhere, at a point in front of the cameras.
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    ahead = (centres + forwards).mean(axis=0)
    matrix = across.sum(axis=0) + 1e-3 * np.eye(3)
    moment = (across @ centres[:, :, None])[..., 0].sum(axis=0) + 1e-3 * ahead
    return np.linalg.solve(matrix, moment), up


def orbit(cameras: Sequence[Camera], count: int) -> list[Camera]:
    """`count` cameras on a closed path by way of the given ones, all looking at the same point.

    A whole turn where the cameras stand all around, else to and fro over the arc that they cover;
    one camera sways. Height and distance follow the cameras. The lens is the first one's.
    """
    focus, up = focus_and_up(cameras)
    east, north = _level(up)
    offsets = np.stack([camera.centre for camera in cameras]) - focus
    angles = np.arctan2(offsets @ north, offsets @ east)
    order = np.argsort(angles)
    angles, offsets = angles[order], offsets[order]
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    # The path starts behind the widest gap, so that the angles rise from there on.
    start = (int(np.argmax(gaps)) + 1) % len(cameras)
    angles, offsets = np.roll(angles, -start), np.roll(offsets, -start, axis=0)
    angles = angles + 2 * np.pi * (angles < angles[0])
    heights, radii = offsets @ up, np.hypot(offsets @ east, offsets @ north)
    if gaps.max() <= _WIDEST_GAP:
        angles, heights, radii = (
            np.append(angles, angles[0] + 2 * np.pi), np.append(heights, heights[0]),
            np.append(radii, radii[0]),
        )  # fmt: skip
        along = angles[0] + 2 * np.pi * np.arange(count) / count
    else:
        middle, reach = (angles[0] + angles[-1]) / 2, (angles[-1] - angles[0]) / 2
        along = middle - max(reach, _SWAY) * np.cos(2 * np.pi * np.arange(count) / count)
    found = []
    for angle in along:
        level = np.interp(angle, angles, radii) * (np.cos(angle) * east + np.sin(angle) * north)
        eye = focus + level + np.interp(angle, angles, heights) * up
        found.append(cameras[0].moved(look_at(eye, focus, up)))
    return found


def _level(up: Array) -> tuple[Array, Array]:
    """Two directions at right angles to `up` and to each other."""
    other = np.array([1.0, 0.0, 0.0]) if abs(up[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    east = np.cross(up, other)
    east /= np.linalg.norm(east)
    return east, np.cross(up, east)


def upright(cameras: Sequence[Camera]) -> Array:
    """Rotation [3, 3] after which the cameras' mean upward direction is -y, as PLY viewers expect.

    The smallest such turn.
    """
    _, up = focus_and_up(cameras)
    wanted = np.array([0.0, -1.0, 0.0])
    axis = np.cross(up, wanted)
    sine, cosine = float(np.linalg.norm(axis)), float(up @ wanted)
    if sine < 1e-9:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    return rotation_from_vector(axis / sine * np.arctan2(sine, cosine))
