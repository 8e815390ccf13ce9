"""Similarities and the normalised frame: exact recovery, optimality, invariances."""

import json

import numpy as np
import pytest
from gsplat_recipe import recipe
from scipy.spatial.transform import Rotation

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, look_at, rigid, rotation_from_vector
from stages.scenes.frames import (
    Sim3,
    fit_sim3,
    fit_sim3_from_cameras,
    gsplat_normalisations,
    normalisation,
    recentring,
)

K = np.array([[200.0, 0, 48], [0, 200, 64], [0, 0, 1]])


def random_sim3(seed: int) -> Sim3:
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(random_state=seed).as_matrix()
    return Sim3(float(np.exp(rng.normal())), rotation, 5 * rng.normal(size=3))


def camera_at(eye: np.ndarray, target: np.ndarray, up: tuple[float, ...] = (0, 1, 0)) -> Camera:
    return Camera("a", K, look_at(eye, target, up), 96, 128)


def ring(count: int = 8, radius: float = 3.0, seed: int = 0) -> list[Camera]:
    rng = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(count) / count
    eyes = np.stack([radius * np.cos(angles), np.full(count, 1.5), radius * np.sin(angles)], axis=1)
    return [camera_at(eye, 0.1 * rng.normal(size=3)) for eye in eyes]


def moved(sim3: Sim3, cameras: list[Camera]) -> list[Camera]:
    return [sim3.apply_camera(camera) for camera in cameras]


def assert_same(found: Sim3, expected: Sim3) -> None:
    np.testing.assert_allclose(found.matrix, expected.matrix, atol=1e-9)
    np.testing.assert_allclose(found.scale, expected.scale)


@pytest.mark.parametrize("seed", range(5))
def test_matrix_inverse_and_composition_agree(seed: int) -> None:
    c_from_b, b_from_a = random_sim3(seed), random_sim3(seed + 100)
    c_from_a = c_from_b.compose(b_from_a)
    points = np.random.default_rng(seed).normal(size=(2, 5, 3))
    np.testing.assert_allclose(c_from_a.apply(points), c_from_b.apply(b_from_a.apply(points)))
    np.testing.assert_allclose(c_from_a.matrix, c_from_b.matrix @ b_from_a.matrix, atol=1e-12)
    np.testing.assert_allclose(b_from_a.inverse().apply(b_from_a.apply(points)), points, atol=1e-12)
    assert_same(b_from_a.compose(b_from_a.inverse()), Sim3.identity())


def test_json_gives_the_similarity_back() -> None:
    sim3 = random_sim3(1)
    assert_same(Sim3.from_dict(json.loads(json.dumps(sim3.to_dict()))), sim3)


@pytest.mark.parametrize("seed", range(5))
def test_a_moved_camera_sees_moved_points_at_the_same_pixels(seed: int) -> None:
    sim3, camera = random_sim3(seed), ring()[seed]
    points = np.random.default_rng(seed).normal(size=(20, 3))
    pixels, depths = camera.project(points)
    carried = sim3.apply_camera(camera)
    pixels_b, depths_b = carried.project(sim3.apply(points))
    np.testing.assert_allclose(pixels_b, pixels, rtol=1e-6)
    np.testing.assert_allclose(depths_b, sim3.scale * depths)
    rotation = carried.cam_from_world[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("flat", [False, True])
def test_points_give_their_similarity_exactly(seed: int, flat: bool) -> None:
    """Points in a plane fit a reflection as well; a rotation must come out."""
    points = np.random.default_rng(seed).normal(size=(3 if flat else 12, 3))
    sim3 = random_sim3(seed)
    assert_same(fit_sim3(points, sim3.apply(points)), sim3)


def test_mirrored_points_still_give_a_rotation() -> None:
    points = np.random.default_rng(0).normal(size=(10, 3))
    fitted = fit_sim3(points, points * [1, 1, -1])
    assert np.linalg.det(fitted.rotation) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(3))
def test_no_near_similarity_fits_noisy_points_better(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points_a = rng.normal(size=(9, 3))
    points_b = random_sim3(seed).apply(points_a) + 0.1 * rng.normal(size=(9, 3))
    fitted = fit_sim3(points_a, points_b)
    best = np.square(fitted.apply(points_a) - points_b).sum()
    for _ in range(200):
        near = Sim3(
            fitted.scale * (1 + 1e-3 * rng.normal()),
            rotation_from_vector(1e-3 * rng.normal(size=3)) @ fitted.rotation,
            fitted.translation + 1e-3 * rng.normal(size=3),
        )
        assert np.square(near.apply(points_a) - points_b).sum() >= best


def test_points_on_a_line_need_a_known_rotation() -> None:
    sim3, line = random_sim3(2), np.outer([0.0, 1, 3, 4], [1.0, 2, -1])
    with pytest.raises(UserError, match="4 points on one line"):
        fit_sim3(line, sim3.apply(line))
    assert_same(fit_sim3(line, sim3.apply(line), sim3.rotation), sim3)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_cameras_give_their_similarity_exactly(count: int) -> None:
    cameras, sim3 = ring(count), random_sim3(count)
    fitted, residuals = fit_sim3_from_cameras(cameras, moved(sim3, cameras))
    assert_same(fitted, sim3)
    assert residuals["centre_rmse"] < 1e-9
    assert residuals["rotation_mean_deg"] < 1e-9


def test_a_straight_row_of_cameras_is_enough() -> None:
    row = [camera_at(np.array([x, 0.0, -2.0]), np.array([x, 0.1, 0.0])) for x in (0.0, 0.1, 0.5)]
    sim3 = random_sim3(5)
    assert_same(fit_sim3_from_cameras(row, moved(sim3, row))[0], sim3)


def test_one_camera_keeps_the_scale_and_lands_in_place() -> None:
    camera, pose = ring()[0], rigid(Rotation.random(random_state=1).as_matrix(), [1.0, 2, 3])
    fitted, _ = fit_sim3_from_cameras([camera], [camera.moved(pose)])
    assert fitted.scale == 1
    np.testing.assert_allclose(fitted.apply_camera(camera).cam_from_world, pose, atol=1e-12)


def test_rotation_residual_is_the_angle_of_cameras_turned_in_place() -> None:
    cameras = ring(6)
    turned = []
    for index, camera in enumerate(cameras):
        # Half of them to each side about the world's up axis: the mean turn is none.
        turn = rotation_from_vector([0, np.radians(5) * (-1) ** index, 0])
        rotation = camera.cam_from_world[:3, :3] @ turn
        turned.append(camera.moved(rigid(rotation, -rotation @ camera.centre)))
    fitted, residuals = fit_sim3_from_cameras(cameras, turned)
    assert_same(fitted, Sim3.identity())
    assert residuals["rotation_mean_deg"] == pytest.approx(5)
    assert residuals["centre_rmse"] == pytest.approx(0, abs=1e-9)


def test_relative_residual_knows_no_unit() -> None:
    rng = np.random.default_rng(0)
    cameras = ring()
    shaken = [
        camera.moved(camera.cam_from_world + rigid(np.zeros((3, 3)), 0.05 * rng.normal(size=3)))
        for camera in cameras
    ]
    for camera in shaken:
        camera.cam_from_world[3, 3] = 1
    _, small = fit_sim3_from_cameras(cameras, shaken)
    scaled = Sim3(10.0, np.eye(3), np.zeros(3))
    _, large = fit_sim3_from_cameras(cameras, moved(scaled, shaken))
    assert large["centre_rmse"] == pytest.approx(10 * small["centre_rmse"])
    assert large["centre_rmse_relative"] == pytest.approx(small["centre_rmse_relative"])
    spread = np.sqrt(3.0**2)  # the ring's radius: every centre is that far from their mean
    assert small["centre_rmse_relative"] == pytest.approx(small["centre_rmse"] / spread, rel=0.05)


def lopsided(seed: int, tail: float) -> np.ndarray:
    """A flat cloud, [500, 3], thin along y, with a tail towards +y or -y."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(500, 3)) * [2.0, 0.1, 1.0]
    points[:60, 1] += tail * rng.uniform(0.2, 1.0, size=60)
    return points


@pytest.mark.parametrize("tail", [-1.0, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_normalisation_is_the_recipe_of_gsplats_trainer(seed: int, tail: float) -> None:
    """Equal up to the signs of the two wide principal axes, which eigenvectors leave open."""
    sim3 = random_sim3(seed)
    cameras, points = moved(sim3, ring(9)), sim3.apply(lopsided(seed, tail))
    norm_from_world, scene_scale = normalisation(cameras, points)
    difference = norm_from_world.matrix @ np.linalg.inv(recipe(cameras, points))
    sign = np.sign(difference[0, 0])
    np.testing.assert_allclose(difference, np.diag([sign, sign, 1, 1]), atol=1e-8)
    eyes = norm_from_world.apply(np.stack([camera.centre for camera in cameras]))
    assert scene_scale == pytest.approx(max(np.linalg.norm(eye - eyes.mean(0)) for eye in eyes))


@pytest.mark.parametrize("tail", [-1.0, 1.0])
@pytest.mark.parametrize("away", [0.0, 1e3])
def test_gsplats_own_normalisation_holds_in_any_world(tail: float, away: float) -> None:
    """Also far from the origin, where ours is another; with and without the flip."""
    frame = Sim3(2.0, random_sim3(1).rotation, away * np.array([0.6, 0.0, 0.8]))
    cameras, points = moved(frame, ring(9)), frame.apply(lopsided(1, tail))
    expected = recipe(cameras, points)
    flipped, plain, *about_z = gsplat_normalisations(cameras, points)
    both = [np.diag([s, s, 1.0, 1.0]) @ flipped.matrix for s in (1, -1)]
    atol = 1e-4 * (1 + away)  # the trainer's points are in single precision
    assert min(np.abs(matrix - expected).max() for matrix in both) < atol
    np.testing.assert_allclose(both[1], about_z[0].matrix)
    between = plain.matrix @ np.linalg.inv(flipped.matrix)
    heights = plain.apply(points)[:, 2]
    upside_down = np.median(heights) > heights.mean()
    np.testing.assert_allclose(
        between, np.diag([1.0, -1, -1, 1]) if upside_down else np.eye(4), atol=1e-6
    )
    ours, _ = normalisation(cameras, points)
    is_equal = any(np.allclose(matrix, ours.matrix, atol=1e-3) for matrix in both)
    assert is_equal is (away == 0)


@pytest.mark.parametrize("tail", [-1.0, 1.0])
def test_normalised_points_lie_flat_centred_and_right_side_up(tail: float) -> None:
    """Principal axes x, y, z in this order, and the long tail upwards whichever way it was."""
    points = lopsided(0, tail)
    norm_from_world, _ = normalisation(ring(), points)
    placed = norm_from_world.apply(points)
    covariance = np.cov(placed.T)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-9)
    assert np.all(np.diff(np.diag(covariance)) < 0)
    assert placed[:60, 2].mean() > placed[60:, 2].mean()


def test_unit_of_the_world_does_not_change_the_normalised_scene() -> None:
    """Millimetres or metres: the same Gaussians are trained."""
    points = lopsided(4, 1.0)
    in_mm = Sim3(1000.0, np.eye(3), np.zeros(3))
    metres, scale_m = normalisation(ring(), points)
    millimetres, scale_mm = normalisation(moved(in_mm, ring()), in_mm.apply(points))
    np.testing.assert_allclose(
        millimetres.apply(in_mm.apply(points)), metres.apply(points), atol=1e-9
    )
    assert scale_mm == pytest.approx(scale_m)


def test_normalising_a_normalised_scene_changes_next_to_nothing_but_axis_signs() -> None:
    """Cameras that look at the points' median: the focus is the centre, so the recipe is at rest.

    Only nearly: a median by coordinates moves when the axes turn.
    """
    points = lopsided(7, 1.0)
    points -= np.median(points, axis=0)
    cameras = [camera_at(camera.centre, np.zeros(3)) for camera in ring()]
    once, _ = normalisation(cameras, points)
    again, _ = normalisation(moved(once, cameras), once.apply(points))
    assert again.scale == pytest.approx(1, rel=0.01)
    np.testing.assert_allclose(again.translation, 0, atol=0.01)
    np.testing.assert_allclose(np.abs(again.rotation), np.eye(3), atol=1e-6)
    assert again.rotation[2, 2] == pytest.approx(1)


def test_without_points_the_cameras_up_becomes_minus_y() -> None:
    tilt = Sim3(
        1.0, Rotation.from_euler("xyz", [40, 20, 70], degrees=True).as_matrix(), np.zeros(3)
    )
    cameras = moved(tilt, ring())
    norm_from_world, _ = normalisation(cameras, np.zeros((0, 3)))
    up = -np.mean([camera.cam_from_world[1, :3] for camera in moved(norm_from_world, cameras)], 0)
    np.testing.assert_allclose(up / np.linalg.norm(up), [0, -1, 0], atol=1e-9)


def test_cameras_upside_down_are_flipped_by_a_rotation() -> None:
    """Up opposite to the wanted one, where the smallest rotation is not unique."""
    norm_from_world, scene_scale = normalisation(ring(4), np.zeros((0, 3)))
    assert np.linalg.det(norm_from_world.rotation) == pytest.approx(1)
    assert np.isfinite(norm_from_world.matrix).all()
    assert scene_scale > 0


def row(turned: float) -> list[Camera]:
    """Six cameras in a straight line, each turned a little against the next."""
    places = [np.array([0.3 * k, 0.0, -3.0]) for k in range(6)]
    return [camera_at(place, place * [1 - turned, 1, 0]) for place in places]


def wall() -> list[Camera]:
    """Nine cameras on a plane that look at right angles to it."""
    places = [np.array([x, y, -2.0]) for x in (-0.2, 0, 0.2) for y in (-0.1, 0, 0.1)]
    return [camera_at(place, np.add(place, [0, 0, 1.0])) for place in places]


SETS = {
    "ring": ring(9),
    "row": row(1.0),
    "parallel row": row(0.0),
    "wall": wall(),
    "two": ring(9)[:2],
    "one": ring(9)[:1],
    "one place": [
        camera_at(np.zeros(3), np.array(at))
        for at in ([0, 0.1, 1.0], [0.2, 0, 1.0], [-0.2, 0, 1.0])
    ],
}


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("offset", [3e3, 5.2e6, 1e7])
@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e4])
@pytest.mark.parametrize("count", [500, 0])
def test_a_world_far_from_its_origin_is_normalised_as_one_that_is_nearer(
    kind: str, offset: float, unit: float, count: int
) -> None:
    """Coordinates of a map, in any unit: `offset` units of the scene away, along no axis."""
    points = lopsided(3, 1.0)[:count]
    results = []
    for away in (100.0, offset):
        frame = Sim3(unit, np.eye(3), unit * away * np.array([0.8, -0.6, 0.1]))
        norm_from_world, scale = normalisation(moved(frame, SETS[kind]), frame.apply(points))
        results.append((norm_from_world.compose(frame), scale))
    (near, near_scale), (far, far_scale) = results
    np.testing.assert_allclose(far.scale, near.scale, rtol=1e-6)
    np.testing.assert_allclose(far.matrix, near.matrix, atol=1e-6 * offset / 1e3)
    assert far_scale == pytest.approx(near_scale, rel=1e-5)


@pytest.mark.parametrize("kind", SETS)
@pytest.mark.parametrize("offset", [0.0, 5.2e6])
@pytest.mark.parametrize("unit", [1e-7, 1.0, 1e4])
def test_cameras_and_points_of_any_world_have_a_size_that_training_knows(
    kind: str, offset: float, unit: float
) -> None:
    frame = Sim3(unit, np.eye(3), unit * offset * np.array([0.8, -0.6, 0.1]))
    points = frame.apply(lopsided(3, 1.0))
    norm_from_world, _ = normalisation(moved(frame, SETS[kind]), points)
    sizes = np.linalg.norm(norm_from_world.apply(points), axis=1)
    assert 0.1 < np.median(sizes) < 30
    eyes = [camera.centre for camera in moved(norm_from_world, moved(frame, SETS[kind]))]
    assert np.linalg.norm(eyes, axis=1).max() < 30


def test_the_origin_of_the_scene_itself_stays_the_recipes() -> None:
    """Ring of radius 3: an origin 20 units away is still taken, as gsplat's trainer does."""
    points, frame = lopsided(1, 1.0), Sim3(1.0, np.eye(3), np.array([20.0, 0, 0]))
    found, _ = normalisation(moved(frame, ring(9)), frame.apply(points))
    expected = recipe(moved(frame, ring(9)), frame.apply(points))
    np.testing.assert_allclose(found.scale, np.cbrt(np.linalg.det(expected[:3, :3])))


@pytest.mark.parametrize("outliers", [3, 200])
def test_points_far_away_do_not_take_the_cameras_along(outliers: int) -> None:
    """A few wrong points, or a skyline as most of what there is."""
    points = lopsided(1, 1.0)
    points[:outliers] += [0, 0, 1e7]
    if outliers == 200:
        points[200:450] += [0, 0, 1e7]
    norm_from_world, scale = normalisation(ring(9), points)
    eyes = norm_from_world.apply(np.stack([camera.centre for camera in ring(9)]))
    assert np.linalg.norm(eyes, axis=1).max() < 10
    assert 0.5 < scale < 2


@pytest.mark.parametrize("unit", [1e-7, 1e4])
def test_a_similarity_is_fitted_in_any_unit(unit: float) -> None:
    small = Sim3(unit, np.eye(3), np.zeros(3))
    here, there = moved(small, ring()), ring()
    fitted, residuals = fit_sim3_from_cameras(here, there)
    assert fitted.scale == pytest.approx(1 / unit)
    assert residuals["centre_rmse_relative"] < 1e-9


def test_only_a_world_that_floats_cannot_hold_is_left() -> None:
    centres = [camera.centre for camera in ring()]
    assert recentring(centres) is None
    assert recentring([one + 200 for one in centres]) is None
    for unit, offset in ((1.0, 5.2e6), (1e-7, 0.0), (1e4, 0.0), (1e4, 1e7)):
        far = [unit * one + offset for one in centres]
        frame = recentring(far)
        assert frame is not None
        placed = np.stack([frame.apply(one) for one in far])
        assert np.linalg.norm(placed, axis=1).max() < 3
    assert recentring([np.zeros(3)]) is None
    assert np.allclose(recentring([np.full(3, 1e7)]).apply(np.full(3, 1e7)), 0)
