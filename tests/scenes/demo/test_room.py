"""The room is closed, dressed and does not stand in the cameras' way."""

from itertools import pairwise

import numpy as np
import pytest

from stages.scenes.cameras import rotation_angle_deg
from stages.scenes.demo import raytrace
from stages.scenes.demo.ring import NAMES, ring
from stages.scenes.demo.room import room
from stages.scenes.demo.shapes import surfaces
from stages.scenes.demo.shapes.paint import PATTERNS, cloth
from stages.scenes.demo.shapes.textures import IMAGES, SURFACES, load_texture


@pytest.fixture(scope="module")
def furnished():
    return room(15, 0)


def test_every_mesh_has_a_texture(furnished):
    meshes, textures = furnished
    assert {mesh.texture for mesh in meshes} <= set(textures)
    for image in textures.values():
        assert image.ndim == 3
        assert 0 <= image.min() <= image.max() <= 1


def test_no_ray_leaves_the_room(furnished):
    geometry = raytrace.join(furnished[0])
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(20000, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = np.tile([0.0, 1.2, 0.3], (len(directions), 1))
    assert geometry.blocked(origins, directions, 20.0).all()


def test_cameras_see_the_middle_of_the_room_freely(furnished):
    geometry = raytrace.join(furnished[0])
    for camera in ring(96, 128):
        towards = np.array([0.0, 1.0, 0.0]) - camera.centre
        distance = np.linalg.norm(towards)
        assert not geometry.blocked(camera.centre[None], towards[None] / distance, distance).any()


def test_ring_has_hi4ds_names_and_even_steps():
    cameras = ring(384, 512)
    assert tuple(camera.name for camera in cameras) == NAMES
    plan = [np.degrees(np.arctan2(camera.centre[0], camera.centre[2])) for camera in cameras]
    np.testing.assert_allclose(np.diff(plan), 15.0)
    assert np.ptp([camera.centre[1] for camera in cameras]) > 0.5
    for a, b in pairwise(cameras):
        turned = rotation_angle_deg(a.cam_from_world[:3, :3], b.cam_from_world[:3, :3])
        assert 15 < turned < 35


def test_ring_scales_with_the_image_size():
    small, large = ring(96, 128)[2], ring(384, 512)[2]
    np.testing.assert_allclose(small.resized(384, 512).K, large.K)


@pytest.mark.slow
def test_pairs_get_different_rooms(furnished):
    textures = room(16, 0)[1]
    assert not np.array_equal(textures["rug"], furnished[1]["rug"])
    assert textures["floor"].mean() != pytest.approx(furnished[1]["floor"].mean(), abs=1e-3)


@pytest.mark.parametrize("name", [*IMAGES, *SURFACES])
def test_images_come_with_scikit_image(name):
    image = load_texture(name, (40, 30))
    assert image.shape == (30, 40, 3)
    assert image.std() > 0.02


@pytest.mark.parametrize("kind", PATTERNS)
def test_each_cloth_shows_its_second_colour(kind):
    colors = np.array([[0.1, 0.1, 0.1], [0.9, 0.1, 0.1], [0.1, 0.1, 0.9]])
    image = cloth(kind, colors, (0.95, 0.6), np.random.default_rng(1))
    red = (image[..., 0] > 0.5) & (image[..., 2] < 0.3)
    assert 0.02 < red.mean() < 0.98


def test_no_two_bricks_or_tiles_repeat():
    wall = surfaces.brickwork((6.5, 2.8), np.random.default_rng(0))
    floor = surfaces.tiles(6.4, np.random.default_rng(0))
    assert np.abs(wall[:180, :300] - wall[:180, 320:620]).mean() > 0.03
    assert np.abs(floor[:336] - floor[384 : 384 + 336]).mean() > 0.03
