"""Tracks of verified matches as a test of poses."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from pose_scene import POINTS, cloud, project, ring

from stages.scenes.cameras import Camera, rigid, rotation_from_vector
from stages.scenes.poses.colmap_pooled import Pair
from stages.scenes.poses.evidence import (
    VerifiedTracks,
    hold_out,
    in_one_place,
    track_errors,
    verified_tracks,
)

CAMERAS = ring()


def seen(noise_px: float = 0.0) -> tuple[dict[str, np.ndarray], dict[Pair, np.ndarray]]:
    """Every point in every camera, and right matches of neighbours."""
    rng = np.random.default_rng(0)
    keypoints = {
        name: project(camera, cloud(0)) + noise_px * rng.standard_normal((POINTS, 2))
        for name, camera in CAMERAS.items()
    }
    names, rows = list(CAMERAS), np.repeat(np.arange(POINTS, dtype=np.uint32), 2).reshape(-1, 2)
    return keypoints, {pair: rows.copy() for pair in itertools.pairwise(names)}


def shifted(camera: Camera, shift: np.ndarray) -> Camera:
    rotation = camera.cam_from_world[:3, :3]
    return replace(camera, cam_from_world=rigid(rotation, -rotation @ (camera.centre + shift)))


def members(tracks: VerifiedTracks) -> list[list[tuple[int, int]]]:
    """Each track's (camera, feature)."""
    found: list[list[tuple[int, int]]] = [[] for _ in range(tracks.count)]
    of = tracks.observed
    for point, camera, feature in zip(of.point, of.camera, tracks.feature, strict=True):
        found[point].append((int(camera), int(feature)))
    return sorted(map(sorted, found))


def test_matches_join_to_tracks_over_all_cameras() -> None:
    tracks = verified_tracks(*seen())
    assert members(tracks) == [[(k, row) for k in range(5)] for row in range(POINTS)]


def test_tracks_with_two_features_of_one_camera_are_left_out() -> None:
    keypoints, matches = seen()
    extra = np.array([[3, 8]], np.uint32)  # joins the points 3 and 8
    matches["0", "4"] = np.concatenate([matches["0", "4"], extra])
    tracks = members(verified_tracks(keypoints, matches))
    kept = [row for row in range(POINTS) if row not in (3, 8)]
    assert tracks == [[(k, row) for k in range(5)] for row in kept]


def test_nothing_verified_is_no_track() -> None:
    keypoints, matches = seen()
    held, rest = hold_out(keypoints, {pair: rows[:0] for pair, rows in matches.items()})
    assert held.count == 0
    assert all(len(rows) == 0 for rows in rest.values())
    assert track_errors(CAMERAS, held, 4.0) is None


def test_held_out_tracks_have_no_match_among_the_others() -> None:
    keypoints, matches = seen()
    held, rest = hold_out(keypoints, matches)
    assert held.count == POINTS // 10
    taken = {row for track in members(held) for _, row in track}
    assert len(taken) == POINTS // 10
    for rows in rest.values():
        assert set(rows[:, 0].tolist()) == set(range(POINTS)) - taken


def test_errors_are_those_of_the_pixels() -> None:
    exact = track_errors(CAMERAS, verified_tracks(*seen()), 4.0)
    assert exact is not None
    assert exact.median_px < 1e-3
    noisy = track_errors(CAMERAS, verified_tracks(*seen(1.0)), 4.0)
    assert noisy is not None
    # Ten coordinates of which a point takes three; a track's mean square is over five cameras.
    assert noisy.median_px == pytest.approx(np.sqrt(2 * 7 / 10), rel=0.1)


@pytest.mark.parametrize(("lost", "worse"), [(0, False), (40, False), (80, True), (POINTS, True)])
def test_tracks_with_a_pixel_without_a_place_are_infinitely_wrong(lost: int, worse: bool) -> None:
    """The others are measured as they were."""
    keypoints, matches = seen()
    keypoints["8"][:lost] = np.nan
    found = track_errors(CAMERAS, verified_tracks(keypoints, matches), 4.0)
    assert found is not None
    assert found.median_px == np.inf if worse else found.median_px < 1e-3


def test_a_shift_along_the_baseline_shows_in_three_views_alone() -> None:
    keypoints, matches = seen()
    two = {name: CAMERAS[name] for name in ("0", "4")}
    along = two["4"].centre - two["0"].centre
    moved = two | {"4": shifted(two["4"], 0.2 * along)}
    of_two = verified_tracks({n: keypoints[n] for n in two}, {("0", "4"): matches["0", "4"]})
    blind = track_errors(moved, of_two, 4.0)
    assert blind is not None
    assert blind.median_px < 1e-3
    assert blind.by_camera == {}
    found = track_errors(CAMERAS | {"4": moved["4"]}, verified_tracks(keypoints, matches), 4.0)
    assert found is not None
    assert max(found.by_camera, key=lambda name: found.by_camera[name]) == "4"
    assert found.by_camera["4"] > 10
    assert max(of for name, of in found.by_camera.items() if name != "4") < 5


def test_cameras_with_one_pose_are_named() -> None:
    assert in_one_place(CAMERAS) == []
    close = shifted(CAMERAS["4"], np.array([1e-4, 0, 0]))
    assert in_one_place(CAMERAS | {"8": close}) == [("4", "8")]
    turned = close.moved(rigid(rotation_from_vector([0, 0.01, 0]), np.zeros(3)))
    aside = replace(close, cam_from_world=turned.cam_from_world @ close.cam_from_world)
    assert in_one_place(CAMERAS | {"8": aside}) == []
