"""COLMAP's verification and triangulation of cameras with pooled features."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from pose_scene import cloud, project, ring

from stages.scenes.poses import colmap_pooled
from stages.scenes.poses.colmap_pooled import Thresholds, Tracks

COUNT = 30  # points; COLMAP ignores pairs with fewer than 15 matches
LIMITS = Thresholds(max_error_px=1.0, min_angle_deg=1.5, seed=0)


def chained(names: list[str]) -> dict[tuple[str, str], np.ndarray]:
    """Equal rows of each camera and the next."""
    index = np.arange(COUNT, dtype=np.uint32)
    return {pair: np.stack([index, index], axis=1) for pair in pairwise(names)}


def test_points_are_triangulated_where_they_are() -> None:
    cameras, points = ring(4), cloud(0)[:COUNT]
    pixels = {name: project(camera, points) for name, camera in cameras.items()}
    matches = chained(list(cameras))
    tracks = colmap_pooled.triangulate(cameras, pixels, matches, LIMITS)
    assert len(tracks.points) == COUNT
    apart = np.linalg.norm(tracks.points[:, None] - points[None], axis=-1)
    assert apart.min(axis=1).max() < 1e-4
    assert tracks.camera.tolist() == [0, 1, 2, 3] * COUNT
    pixels["0"] = pixels["0"] + 30
    tracks = colmap_pooled.triangulate(cameras, pixels, matches, LIMITS)
    assert len(tracks.points) == COUNT
    assert 0 not in tracks.camera
    wide = Thresholds(max_error_px=1.0, min_angle_deg=120.0, seed=0)
    assert len(colmap_pooled.triangulate(cameras, pixels, matches, wide).points) == 0


def test_keypoints_without_a_ray_have_no_verified_match() -> None:
    """Nor do they hide the matches of the others."""
    cameras, points = ring(2), cloud(0)
    pixels = {name: project(camera, points) for name, camera in cameras.items()}
    pixels["0"][:100] = np.nan
    index = np.arange(len(points), dtype=np.uint32)
    matches = {("0", "4"): np.stack([index, index], axis=1)}
    (found,) = colmap_pooled.verify(cameras, pixels, matches, LIMITS).values()
    assert found[:, 0].tolist() == list(range(100, len(points)))


def test_rays_of_inaccurate_poses_may_miss() -> None:
    cameras = ring(2)
    pixels = {name: project(camera, cloud(0)) for name, camera in cameras.items()}
    pixels["4"] = pixels["4"] + [0, 12.0]
    index = np.arange(len(cloud(0)), dtype=np.uint32)
    matches = {("0", "4"): np.stack([index, index], axis=1)}
    assert len(colmap_pooled.triangulate(cameras, pixels, matches, LIMITS).points) == 0
    some = colmap_pooled.triangulate(cameras, pixels, matches, LIMITS, pose_error_deg=3.0)
    assert len(some.points) > 0.9 * len(index)


def test_a_point_has_one_feature_in_each_camera() -> None:
    """Camera 0 shows every point twice; one feature is matched with camera 4, one with 8."""
    cameras, points = ring(3), cloud(0)[:COUNT]
    pixels = {name: project(camera, points) for name, camera in cameras.items()}
    pixels["0"] = np.concatenate([pixels["0"], pixels["0"]])
    index = np.arange(COUNT, dtype=np.uint32)
    matches = chained(list(cameras)) | {("0", "8"): np.stack([index + COUNT, index], axis=1)}
    tracks = colmap_pooled.triangulate(cameras, pixels, matches, LIMITS)
    assert len(tracks.points) >= COUNT
    pairs = list(zip(tracks.point.tolist(), tracks.camera.tolist(), strict=True))
    assert len(pairs) == len(set(pairs))


def test_wrong_matches_are_rejected() -> None:
    cameras = ring(2)
    pixels = {name: project(camera, cloud(0)) for name, camera in cameras.items()}
    pixels["4"][:20] = pixels["4"][:20][::-1] + 25
    index = np.arange(len(cloud(0)), dtype=np.uint32)
    matches = {("0", "4"): np.stack([index, index], axis=1)}
    right = colmap_pooled.verify(cameras, pixels, matches, LIMITS)["0", "4"][:, 0]
    assert np.isin(index[20:], right).mean() > 0.95
    assert np.isin(index[:20], right).mean() < 0.2


@pytest.mark.parametrize("most", [3, 10])
def test_thinned_tracks_keep_their_observations(most: int) -> None:
    points = np.arange(15.0).reshape(5, 3)
    point = np.repeat(np.arange(5), 2)
    tracks = Tracks(points, point, np.tile([0, 1], 5), 10 * point)
    thin = tracks.thinned(most)
    assert len(thin.points) == min(most, 5)
    np.testing.assert_array_equal(thin.points[thin.point, 0] / 3 * 10, thin.feature)
    assert thin.camera.tolist() == [0, 1] * len(thin.points)


def timestamps(count: int) -> tuple[dict, dict, dict, dict]:
    """Cameras, noisy pixels, matches of equal timestamps and the timestamp of each feature."""
    cameras, rng = ring(3), np.random.default_rng(0)
    points = np.concatenate([cloud(seed)[:COUNT] for seed in range(count)])
    pixels = {
        name: project(camera, points) + 0.2 * rng.standard_normal((len(points), 2))
        for name, camera in cameras.items()
    }
    index = np.arange(len(points), dtype=np.uint32)
    matches = {pair: np.stack([index, index], axis=1) for pair in pairwise(cameras)}
    frames = dict.fromkeys(cameras, np.repeat(np.arange(count), COUNT))
    return cameras, pixels, matches, frames


def test_points_of_timestamps_are_those_of_all_together() -> None:
    cameras, pixels, matches, frames = timestamps(4)
    apart = colmap_pooled.triangulate(cameras, pixels, matches, LIMITS, frames=frames)
    together = colmap_pooled.triangulate(cameras, pixels, matches, LIMITS)
    assert len(apart.points) == len(together.points) == 4 * COUNT
    of_point = {
        camera: dict(
            zip(
                apart.feature[apart.camera == camera].tolist(),
                apart.points[apart.point[apart.camera == camera]].tolist(),
                strict=True,
            )
        )
        for camera in range(3)
    }
    for point, camera, feature in zip(
        together.point, together.camera.tolist(), together.feature.tolist(), strict=True
    ):
        np.testing.assert_allclose(of_point[camera][feature], together.points[point], atol=1e-5)
    first = apart.feature[np.unique(apart.point, return_index=True)[1]]
    assert (np.diff(frames["0"][first]) >= 0).all()


def test_pairs_count_by_their_matches_at_all_timestamps() -> None:
    """Five timestamps of four matches are as good as one with twenty."""
    cameras, pixels, matches, frames = timestamps(5)
    few = {pair: rows[np.arange(len(rows)) % COUNT < 4] for pair, rows in matches.items()}
    tracks = colmap_pooled.triangulate(cameras, pixels, few, LIMITS, frames=frames)
    assert len(tracks.points) == 20
    fewer = {pair: rows[:14] for pair, rows in few.items()}
    assert not len(colmap_pooled.triangulate(cameras, pixels, fewer, LIMITS, frames=frames).points)


def test_results_do_not_depend_on_the_number_of_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    cameras, pixels, matches, frames = timestamps(4)
    found = []
    for cores in (1, 4):
        monkeypatch.setattr(colmap_pooled, "available_cores", lambda cores=cores: cores)
        limits = replace(LIMITS, threads=cores)
        verified = colmap_pooled.verify(cameras, pixels, matches, limits)
        tracks = colmap_pooled.triangulate(cameras, pixels, verified, limits, frames=frames)
        found.append([*verified.values(), *vars(tracks).values()])
    for one, four in zip(*found, strict=True):
        assert one.tobytes() == four.tobytes()
