"""Pinhole cameras and rotations: round trips, closed forms and SciPy as a second implementation."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from stages.scenes.cameras import (
    Camera,
    between,
    look_at,
    quat_from_rotation,
    rigid,
    rotation_angle_deg,
    rotation_from_quat,
    rotation_from_vector,
)

K = np.array([[200.0, 0, 48], [0, 210, 64], [0, 0, 1]])


def random_camera(seed: int) -> Camera:
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    return Camera("a", K, rigid(rotation, rng.normal(size=3)), 96, 128)


@pytest.mark.parametrize("seed", range(20))
def test_quaternion_is_that_of_scipy_and_comes_back(seed: int) -> None:
    expected = Rotation.random(random_state=seed)
    quat = quat_from_rotation(expected.as_matrix())
    assert quat[0] >= 0
    x, y, z, w = expected.as_quat()
    np.testing.assert_allclose(quat, np.array([w, x, y, z]) * np.sign(w), atol=1e-12)
    np.testing.assert_allclose(rotation_from_quat(quat), expected.as_matrix(), atol=1e-12)


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, -0.8, 0]])
def test_half_turns_keep_their_quaternion(axis: list[float]) -> None:
    """Half turns have trace -1, where a square root of 1 + trace breaks down."""
    rotation = 2 * np.outer(axis, axis) - np.eye(3)
    np.testing.assert_allclose(
        rotation_from_quat(quat_from_rotation(rotation)), rotation, atol=1e-12
    )


def test_quaternion_of_any_length_is_a_rotation() -> None:
    np.testing.assert_allclose(
        rotation_from_quat([3, 0, 0, 3]),
        Rotation.from_euler("z", 90, degrees=True).as_matrix(),
        atol=1e-12,
    )


@pytest.mark.parametrize("vector", [[0, 0, 0], [1e-9, 0, 0], [0.3, -1.2, 0.5], [np.pi, 0, 0]])
def test_rotation_vector_is_that_of_scipy(vector: list[float]) -> None:
    expected = Rotation.from_rotvec(vector).as_matrix()
    np.testing.assert_allclose(rotation_from_vector(vector), expected, atol=1e-12)


@pytest.mark.parametrize("angle", [0, 1e-6, 1e-3, 45, 179.999, 180])
def test_angle_between_rotations_is_exact_at_both_ends(angle: float) -> None:
    """The arc cosine of a trace loses everything below about 1e-6 degrees."""
    base = Rotation.random(random_state=3)
    rotated = base * Rotation.from_rotvec(np.radians(angle) * np.array([0.6, 0, 0.8]))
    angle_deg = rotation_angle_deg(base.as_matrix(), rotated.as_matrix())
    assert angle_deg == pytest.approx(angle, abs=1e-10, rel=1e-9)


def test_look_at_sees_its_target_in_the_middle_and_up_upwards() -> None:
    eye, target, up = np.array([2.0, 1.0, -3.0]), np.array([0.0, 0.5, 0.2]), np.array([0, 1, 0])
    camera = Camera("a", K, look_at(eye, target, up), 96, 128)
    np.testing.assert_allclose(camera.centre, eye, atol=1e-12)
    assert np.linalg.det(camera.cam_from_world[:3, :3]) == pytest.approx(1)
    pixels, depths = camera.project(np.stack([target, target + 0.1 * up]))
    np.testing.assert_allclose(pixels[0], K[:2, 2], atol=1e-9)
    assert depths[0] == pytest.approx(np.linalg.norm(target - eye))
    assert pixels[1, 1] < pixels[0, 1], "y of an image grows downwards"
    assert pixels[1, 0] == pytest.approx(pixels[0, 0])


@pytest.mark.parametrize("seed", range(5))
def test_centre_and_inverse_undo_the_pose(seed: int) -> None:
    camera = random_camera(seed)
    np.testing.assert_allclose(camera.cam_from_world @ [*camera.centre, 1], [0, 0, 0, 1], atol=1e-9)
    np.testing.assert_allclose(camera.world_from_cam @ camera.cam_from_world, np.eye(4), atol=1e-12)


def test_projection_divides_by_depth() -> None:
    camera = Camera("a", K, np.eye(4), 96, 128)
    pixels, depths = camera.project(np.array([[0.5, -0.25, 2.0]]))
    np.testing.assert_allclose(pixels, [[200 * 0.25 + 48, 210 * -0.125 + 64]])
    np.testing.assert_allclose(depths, [2.0])


@pytest.mark.parametrize("size", [(48, 64), (192, 256), (31, 100)])
def test_resizing_keeps_corners_on_corners(size: tuple[int, int]) -> None:
    """With pixel centres at +0.5 the corners of the image, not of pixel centres, coincide."""
    camera = random_camera(1)
    in_camera = np.linalg.inv(K) @ np.array([[0, 96, 0, 96], [0, 0, 128, 128], [1, 1, 1, 1.0]])
    world = (camera.world_from_cam @ np.vstack([in_camera, np.ones(4)]))[:3].T
    pixels, _ = camera.resized(*size).project(world)
    width, height = size
    np.testing.assert_allclose(
        pixels, [[0, 0], [width, 0], [0, height], [width, height]], atol=1e-9
    )


def test_resizing_back_gives_the_camera_back() -> None:
    camera = random_camera(2)
    back = camera.resized(33, 57).resized(camera.width, camera.height)
    np.testing.assert_allclose(back.K, camera.K)
    assert (back.width, back.height) == (camera.width, camera.height)


def test_moving_changes_the_pose_alone() -> None:
    camera, pose = random_camera(4), rigid(np.eye(3), [1, 2, 3])
    moved = camera.moved(pose)
    np.testing.assert_array_equal(moved.cam_from_world, pose)
    np.testing.assert_array_equal(moved.K, camera.K)
    assert (moved.name, moved.width, moved.height) == ("a", 96, 128)


def test_between_goes_straight_from_start_to_end() -> None:
    K = np.diag([40.0, 40.0, 1.0])
    start = Camera("a", K, look_at([0, 0, -4], [0, 0, 0], [0, -1, 0]), 8, 6)
    end = Camera("b", 2 * K, look_at([3, 1, -2], [0, 0.5, 0], [0, -1, 0]), 16, 12)
    for share, other in ((0.0, start), (1.0, end)):
        reached = between(start, end, share)
        assert np.allclose(reached.cam_from_world, other.cam_from_world)
        assert (reached.name, reached.width, reached.height) == ("b", 16, 12)
        assert np.array_equal(reached.K, end.K)
    middle = between(start, end, 0.25)
    assert np.allclose(middle.centre, 0.75 * start.centre + 0.25 * end.centre)
    whole = rotation_angle_deg(start.cam_from_world[:3, :3], end.cam_from_world[:3, :3])
    done = rotation_angle_deg(start.cam_from_world[:3, :3], middle.cam_from_world[:3, :3])
    left = rotation_angle_deg(middle.cam_from_world[:3, :3], end.cam_from_world[:3, :3])
    assert np.allclose([done, left], [0.25 * whole, 0.75 * whole])
