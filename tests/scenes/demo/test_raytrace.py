"""The ray tracer agrees with the cameras, reads textures truly and smooths edges."""

import numpy as np
import pytest

from stages.scenes.cameras import Camera, look_at
from stages.scenes.demo import raytrace
from stages.scenes.demo.ring import ring
from stages.scenes.demo.shapes.meshes import ROOM, Mesh, ellipsoid, quad


def world(meshes: list[Mesh], textures: dict, level: float = 1.0) -> raytrace.World:
    geometry = raytrace.join(meshes)
    light = np.full((len(geometry.vertices), 3), level)
    return raytrace.build_world(geometry, light, raytrace.atlas(textures))


def wall(texture: str = "grey", size: float = 6.0) -> Mesh:
    half = size / 2
    return quad([-half, half, -1], [size, 0, 0], [0, -size, 0], texture, step=1.0)


def camera(width: int = 48, height: int = 64, focal: float = 60.0) -> Camera:
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1.0]])
    return Camera("x", K, look_at([0, 0, 3], [0, 0, 0], [0, 1, 0]), width, height)


GREY = {"grey": np.full((8, 8, 3), 0.2), "white": np.ones((2, 2, 3))}


@pytest.mark.parametrize("number", [0, 3, 7])
def test_a_point_is_rendered_where_the_camera_projects_it(number):
    view = ring(192, 256)[number]
    place = np.array([0.31, 1.22, -0.17])
    ball = ellipsoid(place, [0.06] * 3, np.eye(3), "white", 0, (20, 30))
    _, person = raytrace.trace(world([ball], GREY), view, 1, 0)
    rows, columns = np.nonzero(person == 0)
    middle = np.array([columns.mean(), rows.mean()]) + 0.5
    expected = view.project(place[None])[0][0]
    assert np.linalg.norm(middle - expected) < 0.25
    assert len(rows) > 20


def test_the_person_map_tells_people_from_the_room():
    frame, textures = np.eye(3), GREY
    balls = [ellipsoid([x, 0, 0], [0.3] * 3, frame, "white", k) for k, x in ((0, -0.5), (1, 0.5))]
    _, person = raytrace.trace(world([wall(), *balls], textures), camera(), 1, 0)
    assert person[32, 24] == ROOM
    assert person[32, 14] == 0
    assert person[32, 34] == 1
    _, empty = raytrace.trace(world([wall()], textures), camera(), 1, 0)
    assert (empty == ROOM).all()


def test_a_lit_surface_has_the_textures_colour_through_the_tone_curve():
    image, _ = raytrace.trace(world([wall()], GREY, 1.0), camera(), 2, 0)
    brighter, _ = raytrace.trace(world([wall()], GREY, 2.0), camera(), 2, 0)
    assert np.ptp(image) < 1e-6
    assert image.mean() == pytest.approx(0.2, abs=0.01)
    assert brighter.mean() > image.mean() + 0.05


def test_texture_is_upright_and_not_mirrored():
    quarters = np.zeros((64, 64, 3))
    quarters[:32, 32:, 0] = 1.0  # red in the upper right
    quarters[32:, :32, 2] = 1.0  # blue in the lower left
    image, _ = raytrace.trace(world([wall("q")], {"q": quarters}), camera(), 1, 0)
    assert image[10, 40, 0] > 0.5 > image[10, 40, 2]
    assert image[54, 8, 2] > 0.5 > image[54, 8, 0]
    assert image[10, 8].max() < 0.1


def test_fine_textures_melt_into_their_mean_instead_of_aliasing():
    checks = np.indices((256, 256)).sum(axis=0) % 2 * np.ones((3, 1, 1))
    image, _ = raytrace.trace(world([wall("c")], {"c": checks.transpose(1, 2, 0)}), camera(), 1, 0)
    assert np.ptp(image) < 0.02
    # Half of the light, not half of the code value.
    half = raytrace.linear_from_srgb(image).mean()
    assert half == pytest.approx(0.5 * (1 + 0.5 / 16) / (1 + 0.35 * 0.5), abs=0.01)


def test_silhouettes_are_smoothed():
    ball = ellipsoid([0, 0, 0], [0.7] * 3, np.eye(3), "white", 0, (40, 60))
    image, person = raytrace.trace(world([wall(), ball], GREY), camera(), 3, 0)
    between = (image[..., 0] > 0.3) & (image[..., 0] < 0.85)
    assert between.sum() > 30
    inner = (person == 0)[1:-1, 1:-1]
    for row, column in ((0, 1), (2, 1), (1, 0), (1, 2)):
        inner = inner & (person == 0)[row : row + 62, column : column + 46]
    assert np.ptp(image[1:-1, 1:-1][inner]) < 1e-6


def test_equal_seeds_give_equal_images():
    ball = ellipsoid([0, 0, 0], [0.7] * 3, np.eye(3), "white", 0)
    scene = world([wall(), ball], GREY)
    first, second, other = (raytrace.trace(scene, camera(), 2, seed)[0] for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert (first != other).any()


def test_rays_that_meet_nothing_are_black_room():
    ball = ellipsoid([0, 0, 0], [0.3] * 3, np.eye(3), "white", 0)
    image, person = raytrace.trace(world([ball], GREY), camera(), 1, 0)
    assert image[0, 0].max() == 0
    assert person[0, 0] == ROOM


def test_blocked_stops_at_its_reach():
    geometry = raytrace.join([wall()])
    origins, ahead = np.array([[0.1, 0.2, 1.0]] * 2), np.array([[0, 0, -1.0]] * 2)
    assert geometry.blocked(origins, ahead, np.array([1.9, 2.1])).tolist() == [False, True]
    assert not geometry.blocked(origins, -ahead, 100.0).any()


def test_srgb_round_trip():
    values = np.linspace(0, 1, 300)
    np.testing.assert_allclose(
        raytrace.srgb_from_linear(raytrace.linear_from_srgb(values)), values, atol=1e-6
    )
