"""Poses and points from features that are known exactly."""

import re
from dataclasses import replace

import numpy as np
import pytest
from pose_scene import FRAMES, POINTS, cloud, matched, pooled_features, project, ring

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, mean_distance, rigid, rotation_angle_deg
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.poses import colmap_pooled, sfm
from stages.scenes.poses.prior_adjustment import PriorAdjustment

CONFIG = CalibrateConfig(method="perturbed", refine_focal=False, ratio_test=0.85)
NOISY = CONFIG.model_copy(update={"refine_focal": True})


def errors(estimate: dict[str, Camera], true: dict[str, Camera]) -> tuple[float, float]:
    """Worst rotation error, degrees, and centre error, after the best similarity."""
    names = list(estimate)
    move, _ = fit_sim3_from_cameras([estimate[n] for n in names], [true[n] for n in names])
    back = {name: move.apply_camera(estimate[name]) for name in names}
    turns = [
        rotation_angle_deg(back[n].cam_from_world[:3, :3], true[n].cam_from_world[:3, :3])
        for n in names
    ]
    return max(turns), max(float(np.linalg.norm(back[n].centre - true[n].centre)) for n in names)


def test_sampson_distance_is_that_to_the_epipolar_line() -> None:
    cameras = ring(2)
    a, b = (project(camera, cloud(0)) for camera in cameras.values())
    exact = sfm.sampson_px(*cameras.values(), a, b)
    assert exact.max() < 1e-6
    moved = sfm.sampson_px(*cameras.values(), a, b + np.array([0.0, 1.0]))
    assert 0.3 < np.median(moved) < 1.0


def test_noise_is_a_function_of_the_seed_and_as_large_as_stated() -> None:
    cameras = {f"{i}": replace(one, name=f"{i}") for i in range(60) for one in ring(5).values()}
    many = {str(i): list(ring(5).values())[i % 5] for i in range(400)}
    first, again = (sfm.perturb(many, CONFIG) for _ in range(2))
    other = sfm.perturb(many, CONFIG.model_copy(update={"seed": 1}))
    assert len(cameras) == 60
    for name in many:
        assert np.array_equal(first[name].cam_from_world, again[name].cam_from_world)
    assert not np.array_equal(first["0"].cam_from_world, other["0"].cam_from_world)
    turns = [
        rotation_angle_deg(first[n].cam_from_world[:3, :3], many[n].cam_from_world[:3, :3])
        for n in many
    ]
    # Three angles of 0.5 degrees each: the mean length of such a vector is 1.596 times that.
    assert np.mean(turns) == pytest.approx(1.596 * 0.5, rel=0.1)
    shifts = np.concatenate([first[n].centre - many[n].centre for n in many])
    centres = np.stack([one.centre for one in many.values()])
    apart = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    unit = apart.sum() / (len(many) * (len(many) - 1))
    assert np.std(shifts) == pytest.approx(0.01 * unit, rel=0.1)
    focal = [first[n].K[0, 0] / many[n].K[0, 0] - 1 for n in many]
    assert np.std(focal) == pytest.approx(0.01, rel=0.15)


@pytest.mark.parametrize("refine_focal", [False, True])
def test_bundle_adjustment_takes_the_noise_out(refine_focal: bool) -> None:
    cameras = ring()
    features = pooled_features(cameras, noise_px=0.2, strays=60)
    noise = {"refine_focal": refine_focal, "focal_noise": 0.01 if refine_focal else 0.0}
    config = CONFIG.model_copy(update=noise)
    noisy = sfm.perturb(cameras, config)
    estimate = sfm.refine(noisy, features, matched(features), config)
    assert estimate.refined
    assert estimate.note == ""
    assert estimate.agreement is not None
    assert estimate.agreement > 0.97
    before, after = errors(noisy, cameras), errors(estimate.cameras, cameras)
    assert before[0] > 0.3
    assert after[0] < 0.1 < before[0]
    assert after[1] < 0.01
    focal = [abs(estimate.cameras[n].K[0, 0] / cameras[n].K[0, 0] - 1) for n in cameras]
    assert max(focal) < (4e-3 if refine_focal else 1e-8)


def test_focal_lengths_stay_unless_they_are_refined() -> None:
    cameras = ring()
    features = pooled_features(cameras)
    noisy = sfm.perturb(cameras, CONFIG)
    estimate = sfm.refine(noisy, features, matched(features), CONFIG)
    for name in cameras:
        np.testing.assert_allclose(estimate.cameras[name].K, noisy[name].K, rtol=1e-5)


def test_wrong_matches_do_not_spoil_poses() -> None:
    """A third of the matches join other points; some of the pairs are wrong throughout."""
    cameras = ring()
    features = pooled_features(cameras, noise_px=0.5)
    matches, random = matched(features), np.random.default_rng(3)
    for number, rows in enumerate(matches.values()):
        share = 1.0 if number == 4 else 0.33
        wrong = np.flatnonzero(random.random(len(rows)) < share)
        rows[wrong, 1] = np.roll(rows[wrong, 1], 1)
    noisy = sfm.perturb(cameras, NOISY)
    estimate = sfm.refine(noisy, features, matches, NOISY)
    before, after = errors(noisy, cameras), errors(estimate.cameras, cameras)
    assert estimate.refined
    assert after[0] < 0.4 * before[0]
    assert after[1] < 0.4 * before[1]


def test_cameras_that_leave_their_neighbourhood_stay() -> None:
    """Poses noisier than the configuration says move by many of its standard deviations."""
    cameras = ring()
    features = pooled_features(cameras)
    far = sfm.perturb(cameras, NOISY.model_copy(update={"rotation_noise_deg": 2.0}))
    config = NOISY.model_copy(update={"rotation_noise_deg": 0.15})
    estimate = sfm.refine(far, features, matched(features), config)
    assert not estimate.refined
    assert "poses not refined" in estimate.note
    assert all(estimate.cameras[name] is far[name] for name in cameras)
    deviation = np.sqrt(np.diag(estimate.pose_covariance["8"]))
    assert deviation[:3] == pytest.approx(np.radians(0.15))
    distance = mean_distance(list(far.values()))
    assert deviation[3:] == pytest.approx(config.translation_noise * distance)


def test_a_camera_without_points_keeps_its_pose_and_is_named() -> None:
    cameras = ring()
    features = pooled_features(cameras)
    matches = {pair: rows[:0] if "8" in pair else rows for pair, rows in matched(features).items()}
    noisy = sfm.perturb(cameras, NOISY)
    estimate = sfm.refine(noisy, features, matches, NOISY)
    assert estimate.refined
    assert estimate.note == "not refined, with fewer than 15 points: 8"
    kept = estimate.cameras["8"].cam_from_world
    np.testing.assert_allclose(kept, noisy["8"].cam_from_world, atol=1e-9)


def test_cameras_that_all_move_by_more_than_their_noise_stay() -> None:
    """Each by some three standard deviations, none by five."""
    cameras = ring()
    features = pooled_features(cameras)
    far = sfm.perturb(cameras, NOISY.model_copy(update={"rotation_noise_deg": 0.5}))
    config = NOISY.model_copy(update={"rotation_noise_deg": 0.22, "translation_noise": 0.005})
    estimate = sfm.refine(far, features, matched(features), config)
    assert not estimate.refined
    assert "the cameras moved by" in estimate.note
    assert "on average: poses not refined" in estimate.note


@pytest.mark.parametrize(("start_deg", "result_deg"), [(0.01, 0.2), (3.0, 1.5)])
def test_poses_that_held_out_matches_contradict_are_not_taken(
    monkeypatch: pytest.MonkeyPatch, start_deg: float, result_deg: float
) -> None:
    """Near ones that are worse than their start, and better ones that are still far."""
    cameras = ring()
    features = pooled_features(cameras, noise_px=0.1)

    def rotated(seed: int, angle_deg: float) -> dict[str, Camera]:
        values = {"seed": seed, "rotation_noise_deg": angle_deg, "translation_noise": 0.0}
        return sfm.perturb(cameras, CONFIG.model_copy(update=values | {"focal_noise": 0.0}))

    adjust, rounds = sfm.adjust_to_priors, []

    def misled(*args: object) -> PriorAdjustment:
        rounds.append(adjust(*args))
        result = rotated(9, result_deg)
        return replace(rounds[-1], cameras=result) if len(rounds) == 3 else rounds[-1]

    monkeypatch.setattr(sfm, "adjust_to_priors", misled)
    start = rotated(0, start_deg)
    config = NOISY.model_copy(update={"rotation_noise_deg": 3.0})
    estimate = sfm.refine(start, features, matched(features), config)
    assert len(rounds) == 3
    assert not estimate.refined
    assert estimate.cameras == start
    after, before = map(float, re.findall(r"are (\S+) px .*, (\S+) px from", estimate.note)[0])
    assert (after < 4) == (before < after) == (start_deg < 1), "px"


@pytest.mark.parametrize("method", ["rotation_noise_deg", "translation_noise", "focal_noise"])
def test_what_has_no_noise_does_not_move(method: str) -> None:
    cameras = ring()
    features = pooled_features(cameras, noise_px=0.5)
    names = ("rotation_noise_deg", "translation_noise", "focal_noise")
    config = NOISY.model_copy(update=dict.fromkeys(names, 0.0))
    nothing = sfm.refine(cameras, features, matched(features), config)
    assert all(nothing.cameras[name] is cameras[name] for name in cameras)
    assert nothing.note == ""
    config = NOISY.model_copy(update={method: 0.0})
    noisy = sfm.perturb(cameras, config)
    estimate = sfm.refine(noisy, features, matched(features), config)
    assert estimate.refined
    for name, camera in noisy.items():
        found = estimate.cameras[name]
        same = {
            "rotation_noise_deg": np.array_equal(
                found.cam_from_world[:3, :3], camera.cam_from_world[:3, :3]
            ),
            "translation_noise": np.allclose(found.centre, camera.centre, atol=1e-12),
            "focal_noise": np.array_equal(found.K, camera.K),
        }
        assert same == {key: key == method for key in same}


def test_focal_lengths_that_only_the_priors_determine_are_told() -> None:
    """Cameras that face a wall in one direction; on a ring the images determine them."""
    K = np.array([[480.0, 0, 200], [0, 480.0, 200], [0, 0, 1]])
    facing = {
        str(k): Camera(str(k), K, rigid(np.eye(3), [-0.5 * k, 0.2 * (k % 2), 4.0]), 400, 400)
        for k in range(-2, 3)
    }
    for cameras, is_told in ((facing, True), (ring(), False)):
        features = pooled_features(cameras, noise_px=0.5)
        noisy = sfm.perturb(cameras, NOISY)
        estimate = sfm.refine(noisy, features, matched(features), NOISY)
        assert estimate.refined
        assert ("do not determine the focal lengths" in estimate.note) == is_told
        assert (estimate.focal_share > 0.99) == is_told


def test_too_few_points_leave_the_poses_and_say_so() -> None:
    cameras = ring(3)
    features = pooled_features(cameras)
    few = {pair: rows[:5] for pair, rows in matched(features).items()}
    estimate = sfm.refine(cameras, features, few, CONFIG)
    assert not estimate.refined
    assert "poses not refined" in estimate.note
    assert all(estimate.cameras[name] is cameras[name] for name in cameras)


def test_points_are_triangulated_of_each_time() -> None:
    cameras = ring()
    features = pooled_features(cameras, strays=40)
    kept = sfm.near_epipolar(cameras, features, matched(features), 1.0)
    keypoints = {name: of.keypoints for name, of in features.of.items()}
    tracks = colmap_pooled.triangulate(
        cameras, keypoints, kept, replace(sfm.thresholds(CONFIG), max_error_px=1.0)
    )
    times = np.zeros(len(tracks.points), int)
    for number, name in enumerate(cameras):
        own = tracks.camera == number
        times[tracks.point[own]] = features.frame[name][tracks.feature[own]]
    for frame in range(FRAMES):
        xyz = tracks.points[times == frame]
        assert len(xyz) > 0.8 * POINTS
        distance = np.linalg.norm(xyz[:, None] - cloud(frame)[None], axis=-1)
        assert (distance.min(axis=1) < 1e-3).mean() > 0.97


def test_tracks_that_disagree_are_left_out() -> None:
    cameras = ring(3)
    features = pooled_features(cameras)
    matches = {pair: rows.copy() for pair, rows in matched(features).items()}
    # By another step in each pair: two wrong matches must not make a right one.
    rolled = {
        pair: np.stack([rows[:, 0], np.roll(rows[:, 1], step)], axis=1)
        for step, (pair, rows) in enumerate(matches.items(), start=1)
    }
    keypoints = {name: of.keypoints for name, of in features.of.items()}
    strict = replace(sfm.thresholds(CONFIG), max_error_px=1.0)
    tracks = colmap_pooled.triangulate(cameras, keypoints, rolled, strict)
    # By chance some lie within a pixel or two of their epipolar line in an image of 400.
    assert len(tracks.points) < 0.05 * sum(map(len, rolled.values()))


def test_structure_from_motion_needs_no_poses() -> None:
    cameras = ring()
    features = pooled_features(cameras, noise_px=0.1)
    blind = {name: one.moved(np.eye(4)) for name, one in cameras.items()}
    matches = matched(features)
    estimate = sfm.reconstruct(blind, features, matches, CONFIG)
    assert estimate.cameras.keys() == cameras.keys()
    angle_deg, shift = errors(estimate.cameras, cameras)
    assert angle_deg < 0.1
    assert shift < 0.02
    # Errors are those of the worst camera: a few of its standard deviations.
    deviation = np.max([np.sqrt(np.diag(of)) for of in estimate.pose_covariance.values()], axis=0)
    assert 0.2 < angle_deg / np.degrees(np.linalg.norm(deviation[:3])) < 3
    assert 0.2 < shift / np.linalg.norm(deviation[3:]) < 3


def test_too_few_cameras_stop_with_the_weakest_pairs() -> None:
    cameras = ring(4)
    features = pooled_features(cameras)
    matches = matched(features)
    broken = {pair: rows if "12" not in pair else rows[:3] for pair, rows in matches.items()}
    config = CONFIG.model_copy(update={"min_registered": 1.0})
    with pytest.raises(
        UserError, match=r"3 of 4 cameras registered; weakest: \d+-12 with"
    ) as caught:
        sfm.reconstruct(cameras, features, broken, config)
    assert "at least 100% registered" in str(caught.value)
    fewer = CONFIG.model_copy(update={"min_registered": 0.75})
    estimate = sfm.reconstruct(cameras, features, broken, fewer)
    assert sorted(estimate.cameras) == ["0", "4", "8"]


def test_nothing_matched_registers_nothing() -> None:
    cameras = ring(3)
    features = pooled_features(cameras)
    none = {pair: rows[:0] for pair, rows in matched(features).items()}
    with pytest.raises(UserError, match="0 of 3 cameras registered"):
        sfm.reconstruct(cameras, features, none, CONFIG)


def test_model_that_verified_matches_contradict_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cameras = ring()
    features = pooled_features(cameras)
    matches = matched(features)
    names = list(cameras)
    swapped = {name: cameras[other] for name, other in zip(names, names[::-1], strict=True)}
    monkeypatch.setattr(colmap_pooled, "map_incrementally", lambda *_: swapped)
    with pytest.raises(UserError, match="% of the verified matches contradict the cameras"):
        sfm.reconstruct(cameras, features, matches, CONFIG)


def test_pairs_with_few_matches_do_not_count_in_the_agreement() -> None:
    cameras = ring(3)
    features = pooled_features(cameras)
    matches = matched(features)
    assert sfm.agreement(cameras, features, matches, CONFIG) > 0.95
    few = {pair: rows[:20] for pair, rows in matches.items()}
    assert sfm.agreement(cameras, features, few, CONFIG) is None
