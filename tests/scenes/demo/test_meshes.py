"""Surfaces are closed, face outwards and carry the texture the right way round."""

import numpy as np
import pytest

from stages.scenes.demo.shapes.meshes import Mesh, box, ellipsoid, loft, quad, tube


def _outward(mesh: Mesh, centre: np.ndarray) -> bool:
    return bool((np.einsum("vk,vk->v", mesh.normals, mesh.vertices - centre) > -1e-9).all())


def _volume(mesh: Mesh) -> float:
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    return abs(np.einsum("fk,fk->f", a, np.cross(b, c)).sum()) / 6


def test_ellipsoid_faces_outwards_and_has_its_volume():
    mesh = ellipsoid([1, 2, 3], [0.3, 0.5, 0.2], np.eye(3), "t", size=(40, 60))
    assert _outward(mesh, np.array([1, 2, 3]))
    assert _volume(mesh) == pytest.approx(4 / 3 * np.pi * 0.3 * 0.5 * 0.2, rel=0.01)


def test_ellipsoid_shows_the_middle_of_its_texture_in_front():
    mesh = ellipsoid([0, 0, 0], [1, 1, 1], np.eye(3), "t", size=(8, 16))
    front = np.argmax(mesh.vertices[:, 2])
    left = np.argmax(mesh.vertices[:, 0])
    np.testing.assert_allclose(mesh.uv[front], [0.5, 0.5], atol=1e-9)
    np.testing.assert_allclose(mesh.uv[left], [0.75, 0.5], atol=1e-9)


def test_tube_has_the_volume_of_a_capsule_and_shares_normals_at_its_seam():
    mesh = tube([[0, 1, 0], [0, 0.5, 0], [0, 0, 0]], [0.2, 0.2, 0.2], "t", columns=40)
    capsule = np.pi * 0.2**2 * 1.0 + 4 / 3 * np.pi * 0.2**3
    assert _volume(mesh) == pytest.approx(capsule, rel=0.06)
    assert _outward(mesh, np.array([0, 0.5, 0]))
    grid = mesh.normals.reshape(-1, 41, 3)
    np.testing.assert_allclose(grid[:, 0], grid[:, -1])


def test_loft_of_equal_squares_is_nearly_a_box():
    frames = [np.eye(3)] * 2
    mesh = loft([[0, 1, 0], [0, 0, 0]], [(0.5, 0.5)] * 2, frames, "t", squareness=30, columns=64)
    assert _volume(mesh) == pytest.approx(1.0, rel=0.05)


def test_quad_looks_at_the_viewer_and_reads_its_texture_from_the_upper_left():
    mesh = quad([-1, 1, 0], [2, 0, 0], [0, -2, 0], "t", step=0.5)
    np.testing.assert_allclose(mesh.normals, np.tile([0, 0, 1.0], (len(mesh.normals), 1)))
    upper_left = np.flatnonzero((mesh.vertices == [-1, 1, 0]).all(axis=1))
    np.testing.assert_array_equal(mesh.uv[upper_left], [[0, 0]])
    assert len(mesh.vertices) == 25


@pytest.mark.parametrize("yaw_deg", [0.0, 30.0])
def test_box_keeps_its_size_when_turned(yaw_deg):
    sides = box([-1, 0, -2], [1, 1, 2], "front", "side", yaw_deg)
    for side in sides:
        assert _outward(side, np.array([0, 0.5, 0]))
    areas = [np.linalg.norm(np.ptp(side.vertices, axis=0)) for side in sides[:2]]
    assert areas == pytest.approx([np.hypot(2, 1)] * 2)
    assert sides[4].normals[:, 1].min() == pytest.approx(1)
