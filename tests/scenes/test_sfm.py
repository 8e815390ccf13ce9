"""Poses and points from features that are known exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pose_scene import FRAMES, POINTS, SIZE, cloud, pooled_features, project, ring

from stages.run.errors import UserError
from stages.scenes import colmap
from stages.scenes.cameras import Camera, rotation_angle_deg
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.poses import sfm

CONFIG = CalibrateConfig(method="perturbed", refine_focal=False, ratio_test=0.85)


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


def test_matches_join_the_same_point_of_the_same_time() -> None:
    cameras = ring(2)
    features = pooled_features(cameras, strays=40)
    ((pair, rows),) = sfm.match(features, CONFIG).items()
    assert pair == ("0", "4")
    assert len(rows) >= 0.9 * FRAMES * POINTS
    a, b = (features.of[name].keypoints[rows[:, side]] for side, name in enumerate(pair))
    assert (features.frame["0"][rows[:, 0]] == features.frame["4"][rows[:, 1]]).all()
    assert np.mean(sfm.sampson_px(cameras["0"], cameras["4"], a, b) < 0.01) > 0.98


def test_only_equal_timestamps_are_matched() -> None:
    features = pooled_features(ring(2))
    late = replace(features, frame={"0": features.frame["0"], "4": features.frame["4"] + FRAMES})
    assert len(sfm.match(late, CONFIG)["0", "4"]) == 0


def test_matches_are_mutual_nearest_neighbours() -> None:
    """Two features have the same nearest neighbour, which is matched with the nearer of them."""
    looks = {"a": [[0.96, 0.0, 0.28], [1.0, 0.0, 0.0]], "b": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]}
    assert sfm.match(_looking(looks), CONFIG)["a", "b"].tolist() == [[1, 0]]


@pytest.mark.parametrize(("second", "joined"), [(0.55, 1), (0.7, 2)])
def test_matches_are_clearly_liker_than_the_second(second: float, joined: int) -> None:
    """By Lowe's ratio of 0.85, a feature at 0.5 rad from one and at `second` from another."""
    looks = {
        "a": [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]],
        "b": [_at(0.5), _at(-second), [0.0, 0.0, 1.0]],
    }
    found = sfm.match(_looking(looks), CONFIG)["a", "b"].tolist()
    assert found == [[0, 0], [1, 2]][2 - joined :]


def test_a_track_with_two_features_of_a_camera_is_left_out() -> None:
    cameras = ring(3)
    a, b, c = cameras
    pixels = {
        name: np.repeat(project(one, np.zeros((1, 3))), 2, 0) for name, one in cameras.items()
    }
    of = {
        name: colmap.Features(both, np.zeros((2, 3), np.float32)) for name, both in pixels.items()
    }
    shown = sfm.PooledFeatures(of, {}, {})
    joined = {(a, b): [[0, 0]], (b, c): [[0, 0]]}
    for more, count in (({}, 1), ({(a, c): [[0, 0]]}, 1), ({(a, c): [[1, 0]]}, 0)):
        matches = {pair: np.array(one, np.uint32) for pair, one in (joined | more).items()}
        tracks, points = sfm.triangulate(cameras, shown, matches, CONFIG, 1.0)
        assert len(tracks) == len(points) == count


def test_the_largest_model_is_kept_and_demands_sink_until_it_is_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cameras, asked = ring(5), []
    sizes = iter((4, 3, None))

    def mapped(*_: object, min_matches: int, max_error_px: float, **__: object) -> object:
        asked.append((min_matches, max_error_px / CONFIG.max_reprojection_error_px))
        size = next(sizes)
        if size is None:
            return None
        return colmap.AdjustedModel(
            dict(list(cameras.items())[:size]), np.zeros((0, 3)), 0.1 * size
        )

    monkeypatch.setattr(colmap, "map_incrementally", mapped)
    config = CONFIG.model_copy(update={"min_registered": 0.8})
    features = pooled_features(cameras)
    found = sfm.reconstruct(cameras, features, {}, config, tmp_path)
    assert list(found.cameras) == list(cameras)[:4]
    assert found.reprojection_error_px == pytest.approx(0.4)
    assert asked == [(30, 1.0), (15, 1.0), (10, 1.5)]
    asked.clear()
    sizes = iter((5,))
    assert len(sfm.reconstruct(cameras, features, {}, config, tmp_path).cameras) == 5
    assert len(asked) == 1


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


def test_bundle_adjustment_takes_the_noise_out() -> None:
    cameras = ring()
    features = pooled_features(cameras, noise_px=0.2, strays=60)
    config = CONFIG.model_copy(update={"focal_noise": 0.0})
    noisy = sfm.perturb(cameras, config)
    estimate = sfm.refine(noisy, features, sfm.match(features, config), config)
    assert estimate.refined
    before, after = errors(noisy, cameras), errors(estimate.cameras, cameras)
    assert before[0] > 0.3
    assert after[0] < 0.1 < before[0]
    assert after[1] < 0.01
    assert estimate.reprojection_error_px is not None
    assert estimate.reprojection_error_px < 0.5


def test_focal_lengths_are_refined_when_asked() -> None:
    cameras = ring()
    features = pooled_features(cameras)
    off = {
        name: replace(one, K=one.K * np.array([[1.02], [1.02], [1.0]]))
        for name, one in cameras.items()
    }
    off = {name: replace(one, K=one.K.copy()) for name, one in off.items()}
    for one in off.values():
        one.K[:2, 2] = SIZE / 2
    for refine in (False, True):
        config = CONFIG.model_copy(
            update={
                "refine_focal": refine,
                "max_epipolar_error_px": 12.0,
                "max_reprojection_error_px": 8.0,
            }
        )
        estimate = sfm.refine(off, features, sfm.match(features, config), config)
        focal = np.mean([one.K[0, 0] for one in estimate.cameras.values()])
        assert focal == pytest.approx(480.0 if refine else 489.6, rel=2e-3 if refine else 1e-9)


def test_too_few_points_leave_the_poses_and_say_so() -> None:
    cameras = ring(3)
    features = pooled_features(cameras)
    few = {pair: rows[:5] for pair, rows in sfm.match(features, CONFIG).items()}
    estimate = sfm.refine(cameras, features, few, CONFIG)
    assert not estimate.refined
    assert "poses not refined" in estimate.note
    assert estimate.reprojection_error_px is None
    assert all(estimate.cameras[name] is cameras[name] for name in cameras)


def test_points_are_triangulated_of_each_time_with_their_colours() -> None:
    cameras = ring()
    features = pooled_features(cameras, strays=40)
    kept = sfm.near_epipolar(cameras, features, sfm.match(features, CONFIG), 1.0)
    tracks, points = sfm.triangulate(cameras, features, kept, CONFIG, 1.0)
    for frame in range(FRAMES):
        xyz, colors = sfm.points_of_frame(frame, tracks, points, features)
        assert len(xyz) > 0.8 * POINTS
        distance = np.linalg.norm(xyz[:, None] - cloud(frame)[None], axis=-1)
        near = distance.argmin(axis=1)
        right = distance.min(axis=1) < 1e-3
        assert right.mean() > 0.97
        assert (colors[right, 0] == (frame * POINTS + near[right]) % 200).all()


def test_tracks_that_disagree_are_left_out() -> None:
    cameras = ring(3)
    features = pooled_features(cameras)
    matches = {pair: rows.copy() for pair, rows in sfm.match(features, CONFIG).items()}
    rolled = {pair: np.stack([m[:, 0], np.roll(m[:, 1], 1)], axis=1) for pair, m in matches.items()}
    tracks, points = sfm.triangulate(cameras, features, rolled, CONFIG, 1.0)
    assert len(points) == len(tracks) < 0.1 * FRAMES * POINTS


def test_structure_from_motion_needs_no_poses(tmp_path: Path) -> None:
    cameras = ring()
    features = pooled_features(cameras, noise_px=0.1)
    blind = {name: one.moved(np.eye(4)) for name, one in cameras.items()}
    matches = sfm.match(features, CONFIG)
    estimate = sfm.reconstruct(blind, features, matches, CONFIG, tmp_path)
    assert estimate.cameras.keys() == cameras.keys()
    angle_deg, shift = errors(estimate.cameras, cameras)
    assert angle_deg < 0.1
    assert shift < 0.02


def test_too_few_cameras_stop_with_the_weakest_pairs(tmp_path: Path) -> None:
    cameras = ring(4)
    features = pooled_features(cameras)
    matches = sfm.match(features, CONFIG)
    broken = {pair: rows if "12" not in pair else rows[:3] for pair, rows in matches.items()}
    config = CONFIG.model_copy(update={"min_registered": 1.0})
    with pytest.raises(
        UserError, match=r"3 of 4 cameras registered; weakest: \d+-12 with"
    ) as caught:
        sfm.reconstruct(cameras, features, broken, config, tmp_path)
    assert "at least 100% registered" in str(caught.value)
    fewer = CONFIG.model_copy(update={"min_registered": 0.75})
    estimate = sfm.reconstruct(cameras, features, broken, fewer, tmp_path)
    assert sorted(estimate.cameras) == ["0", "4", "8"]


def test_nothing_matched_registers_nothing(tmp_path: Path) -> None:
    cameras = ring(3)
    features = pooled_features(cameras)
    none = {pair: rows[:0] for pair, rows in sfm.match(features, CONFIG).items()}
    with pytest.raises(UserError, match="0 of 3 cameras registered"):
        sfm.reconstruct(cameras, features, none, CONFIG, tmp_path)


def _at(angle: float) -> list[float]:
    """A descriptor so far from the first axis, rad, in the plane of the first two."""
    return [np.cos(angle), np.sin(angle), 0.0]


def _looking(looks: dict[str, list[list[float]]]) -> sfm.PooledFeatures:
    """Features with these descriptors by camera, all of one timestamp."""
    of = {
        name: colmap.Features(np.zeros((len(rows), 2)), np.array(rows, np.float32))
        for name, rows in looks.items()
    }
    times = {name: np.zeros(len(rows), np.int64) for name, rows in looks.items()}
    return sfm.PooledFeatures(of, times, {})
