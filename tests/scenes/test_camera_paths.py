"""Camera paths look at the focus, stay among the cameras, and need only one camera."""

import numpy as np
import pytest

from stages.scenes.cameras import Camera, look_at, rotation_from_vector
from stages.scenes.frames import Sim3
from stages.scenes.poses.camera_paths import focus_and_up, orbit, upright_rotation

K = np.array([[100.0, 0, 32], [0, 100, 32], [0, 0, 1]])
MIDDLE = np.array([1.0, -0.5, 2.0])


def cameras_around(angles: list[float], height: float = 0.7, radius: float = 3.0) -> list[Camera]:
    """Cameras around MIDDLE; -y is up."""
    cameras = []
    for number, angle in enumerate(angles):
        eye = MIDDLE + np.array([radius * np.sin(angle), -height, radius * np.cos(angle)])
        cameras.append(Camera(str(number), K, look_at(eye, MIDDLE, [0, -1, 0]), 64, 64))
    return cameras


RING = cameras_around([0.1, 1.1, 2.2, 3.0, 4.2, 5.3])


def angles_of(path: list[Camera]) -> np.ndarray:
    offsets = np.stack([camera.centre for camera in path]) - MIDDLE
    return np.unwrap(np.arctan2(offsets[:, 0], offsets[:, 2]))


def test_focus_is_where_the_optical_axes_meet() -> None:
    focus, up = focus_and_up(RING)
    assert np.allclose(focus, MIDDLE, atol=5e-3)
    assert up @ [0, -1, 0] > 0.99


def test_parallel_cameras_look_ahead() -> None:
    row = [Camera(str(x), K, look_at([x, 0, 0], [x, 0, 5], [0, -1, 0]), 64, 64) for x in (0, 1)]
    focus, _ = focus_and_up(row)
    assert focus[2] > 0.5
    assert abs(focus[0] - 0.5) < 0.1


def test_ring_gives_a_full_circle_at_the_cameras_distance() -> None:
    path = orbit(RING, 36)
    steps = np.abs(np.diff(angles_of([*path, path[0]])))
    assert np.isclose(steps.sum(), 2 * np.pi, atol=1e-6)
    assert steps.max() < 0.3, "no jump, not even where the path closes"
    centres = np.stack([camera.centre for camera in path])
    assert np.allclose(np.hypot(*(centres - MIDDLE)[:, [0, 2]].T), 3.0, atol=0.1)
    assert np.allclose(centres[:, 1], MIDDLE[1] - 0.7, atol=0.1)
    pixels = [camera.project(MIDDLE[None])[0][0] for camera in path]
    assert np.allclose(pixels, [32, 32], atol=1)


@pytest.mark.parametrize("angles", [[-0.5, 0.7], [2.9, 3.5, 3.2], [0.0, 1.0, 2.0]])
def test_arc_is_not_left(angles: list[float]) -> None:
    path = orbit(cameras_around(angles), 24)
    on_path = angles_of(path)
    on_path += 2 * np.pi * np.round((np.mean(angles) - on_path.mean()) / (2 * np.pi))
    assert on_path.min() >= min(angles) - 0.02
    assert on_path.max() <= max(angles) + 0.02
    assert on_path.max() - on_path.min() > 0.9 * (max(angles) - min(angles))
    ends = np.linalg.norm(path[0].centre - path[-1].centre)
    steps = np.linalg.norm(np.diff([camera.centre for camera in path], axis=0), axis=1)
    assert ends <= steps.max() + 1e-9, "the path closes"


def test_one_camera_sways() -> None:
    path = orbit(RING[:1], 8)
    spread = np.ptp([camera.centre for camera in path], axis=0)
    assert 0.05 < np.linalg.norm(spread) < 2
    assert all(np.isfinite(camera.cam_from_world).all() for camera in path)


@pytest.mark.parametrize("vector", [[0, 0, 0], [0.3, 1.2, -2.0], [np.pi, 0, 0]])
def test_upright_rotation_takes_up_to_minus_y(vector: list[float]) -> None:
    moved = Sim3(1.0, rotation_from_vector(vector), np.zeros(3))
    cameras = [moved.apply_camera(camera) for camera in RING]
    rotation = upright_rotation(cameras)
    assert np.allclose(rotation @ rotation.T, np.eye(3))
    assert np.isclose(np.linalg.det(rotation), 1)
    assert np.allclose(rotation @ focus_and_up(cameras)[1], [0, -1, 0], atol=1e-6)
