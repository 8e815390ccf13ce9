"""Paths around the point that cameras look at, and through views that were kept, for films."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stages.scenes.cameras import Array, Camera, between, look_at, rigid, rotation_from_vector
from stages.scenes.frames import recentring

# A gap in the ring of cameras that is wider than this is not crossed: no camera looks from there.
_WIDEST_GAP = np.radians(150)
# How far a path swings to each side of one camera, or of cameras at equal angles.
_SWAY = np.radians(8)


def focus_and_up(cameras: Sequence[Camera]) -> tuple[Array, Array]:
    """The point [3] nearest to all optical axes, and the cameras' mean upward direction [3]."""
    near_from_world = recentring([camera.centre for camera in cameras])
    if near_from_world is not None:
        focus, up = _focus_and_up([near_from_world.apply_camera(camera) for camera in cameras])
        return near_from_world.inverse().apply(focus), up
    return _focus_and_up(cameras)


def _focus_and_up(cameras: Sequence[Camera]) -> tuple[Array, Array]:
    centres = np.stack([camera.centre for camera in cameras])
    forwards = np.stack([camera.cam_from_world[2, :3] for camera in cameras])
    up = -np.stack([camera.cam_from_world[1, :3] for camera in cameras]).mean(axis=0)
    up /= max(np.linalg.norm(up), 1e-12)
    # Least squares over the distances from the optical axes. The small term holds parallel axes,
    # which meet nowhere, at a point in front of the cameras.
    across = np.eye(3) - forwards[:, :, None] * forwards[:, None, :]
    ahead = (centres + forwards).mean(axis=0)
    matrix = across.sum(axis=0) + 1e-3 * np.eye(3)
    right_side = (across @ centres[:, :, None])[..., 0].sum(axis=0) + 1e-3 * ahead
    return np.linalg.solve(matrix, right_side), up


def orbit(cameras: Sequence[Camera], count: int) -> list[Camera]:
    """`count` cameras on a closed path through `cameras`, all looking at the same point.

    A full circle where the cameras are all around, else to and fro over the arc that they cover;
    one camera sways. Height and distance follow the cameras. The intrinsics are the first one's.
    """
    focus, up = focus_and_up(cameras)
    east, north = _horizontal(up)
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
            np.append(angles, angles[0] + 2 * np.pi),
            np.append(heights, heights[0]),
            np.append(radii, radii[0]),
        )
        path = angles[0] + 2 * np.pi * np.arange(count) / count
    else:
        middle, reach = (angles[0] + angles[-1]) / 2, (angles[-1] - angles[0]) / 2
        path = middle - max(reach, _SWAY) * np.cos(2 * np.pi * np.arange(count) / count)
    on_path = []
    for angle in path:
        level = np.interp(angle, angles, radii) * (np.cos(angle) * east + np.sin(angle) * north)
        eye = focus + level + np.interp(angle, angles, heights) * up
        on_path.append(cameras[0].moved(look_at(eye, focus, up)))
    return on_path


def through_keys(keys: Sequence[Camera], count: int) -> list[tuple[Camera, float]]:
    """`count` cameras on a smooth path through `keys`, and where between the keys each one is.

    Centres follow a Catmull-Rom spline, rotations the shortest arc between two keys; intrinsics are
    linear. Places run from 0 to the number of keys less 1. One key stands still.
    """
    centres = np.stack([key.centre for key in keys])
    # Beyond its ends a spline goes straight on.
    padded = np.concatenate(
        [[2 * centres[0] - centres[:2][-1]], centres, [2 * centres[-1] - centres[-2:][0]]]
    )
    on_path = []
    for place in np.linspace(0, len(keys) - 1, count):
        start = min(int(place), max(len(keys) - 2, 0))
        end, share = min(start + 1, len(keys) - 1), float(place - start)
        before, here, there, after = padded[start : start + 4] if end > start else padded[[0] * 4]
        a, b = (there - before) / 2, (after - here) / 2
        s2, s3 = share**2, share**3
        eye = here + share * a + s2 * (3 * (there - here) - 2 * a - b)
        eye += s3 * (2 * (here - there) + a + b)
        turned = between(keys[start], keys[end], share)
        rotation = turned.cam_from_world[:3, :3]
        K = (1 - share) * keys[start].K + share * keys[end].K
        camera = replace(turned, K=K).moved(rigid(rotation, -rotation @ eye))
        on_path.append((camera, float(place)))
    return on_path


def _horizontal(up: Array) -> tuple[Array, Array]:
    """Two directions at right angles to `up` and to each other."""
    other = np.array([1.0, 0.0, 0.0]) if abs(up[0]) < 0.9 else np.array([0.0, 1.0, 0.0])
    east = np.cross(up, other)
    east /= np.linalg.norm(east)
    return east, np.cross(up, east)


def upright_rotation(cameras: Sequence[Camera]) -> Array:
    """The smallest rotation [3, 3] that takes the cameras' mean upward direction to -y.

    Viewers of PLY files expect -y to be up.
    """
    _, up = focus_and_up(cameras)
    target = np.array([0.0, -1.0, 0.0])
    axis = np.cross(up, target)
    sine, cosine = float(np.linalg.norm(axis)), float(up @ target)
    if sine < 1e-9:
        return np.eye(3) if cosine > 0 else np.diag([1.0, -1.0, -1.0])
    return rotation_from_vector(axis / sine * np.arctan2(sine, cosine))
