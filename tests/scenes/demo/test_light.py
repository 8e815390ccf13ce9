"""Light falls off as geometry says, and things cast shadows."""

import numpy as np

from stages.scenes.demo import raytrace
from stages.scenes.demo.light import LAMPS, light
from stages.scenes.demo.shapes.meshes import ellipsoid, quad


def floor(texture: str = "f"):
    return quad([-2, 0, -2], [4, 0, 0], [0, 0, 4], texture, step=0.25)


def at(geometry: raytrace.Geometry, values: np.ndarray, place: tuple) -> np.ndarray:
    return values[np.argmin(np.linalg.norm(geometry.vertices - place, axis=1))]


def test_open_floor_gets_the_lamps_inverse_square_and_both_cosines():
    geometry = raytrace.join([floor()])
    values = light(geometry)
    near, far = (1.25, 0, 1.0), (-2.0, 0, -2.0)
    expected = []
    for place in (near, far):
        total = np.zeros(3)
        for lamp in LAMPS:
            towards = np.array(lamp.centre) - place
            distance = np.linalg.norm(towards)
            total += (towards[1] / distance) ** 2 / distance**2 * np.array(lamp.color)
        expected.append(total)
    # Both have the same ambient part, which the difference removes; lamps have an extent.
    difference = at(geometry, values, near) - at(geometry, values, far)
    np.testing.assert_allclose(difference, expected[0] - expected[1], rtol=0.06)


def test_a_ball_shades_the_floor_under_it_and_not_far_away():
    open_floor, covered = (
        raytrace.join(meshes)
        for meshes in ([floor()], [floor(), ellipsoid([0, 0.5, 0], [0.4] * 3, np.eye(3), "f")])
    )
    before, after = light(open_floor), light(covered)
    under, away = (0, 0, 0), (2.0, 0, -2.0)
    assert (at(covered, after, under) < 0.55 * at(open_floor, before, under)).all()
    np.testing.assert_allclose(at(covered, after, away), at(open_floor, before, away), rtol=0.02)


def test_sides_turned_away_from_the_lamps_are_darker():
    ball = raytrace.join([ellipsoid([0, 1, 0], [0.3] * 3, np.eye(3), "f")])
    values = light(ball).mean(axis=1)
    upper, lower = (values[sign * ball.normals[:, 1] > 0.7].mean() for sign in (1, -1))
    assert upper > 2 * lower > 0


def test_a_glowing_surface_keeps_its_own_light():
    lamp = quad([0, 2, 0], [1, 0, 0], [0, 0, -1], "f", glow=1.5)
    np.testing.assert_array_equal(light(raytrace.join([lamp])), 1.5)


def test_light_is_repeatable():
    geometry = raytrace.join([floor(), ellipsoid([0, 0.5, 0], [0.4] * 3, np.eye(3), "f")])
    np.testing.assert_array_equal(light(geometry), light(geometry))
