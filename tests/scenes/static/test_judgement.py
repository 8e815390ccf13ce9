"""Which poses of a static scene its images support, with matches that are known exactly."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from stages.scenes import colmap
from stages.scenes.cameras import Camera, look_at, rigid, rotation_from_vector
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import Sim3
from stages.scenes.poses.colmap_pooled import Matches
from stages.scenes.poses.colmap_rigs import Slot
from stages.scenes.poses.sfm import PooledFeatures
from stages.scenes.static.judgement import departed, loose_rigs, unsupported

CONFIG = CalibrateConfig(max_epipolar_error_px=2.0)
POINTS = 80


def row(count: int = 5) -> dict[str, Camera]:
    """Cameras beside each other that look at one place, named a, b, c and so on."""
    K = np.array([[480.0, 0, 200], [0, 480.0, 200], [0, 0, 1]])
    cameras = {}
    for index, name in enumerate("abcdefgh"[:count]):
        eye = [index - 2.0, 0.3 * index, -4.0]
        cameras[name] = Camera(name, K, look_at(eye, [0, 0, 0], [0, -1, 0]), 400, 400)
    return cameras


def matched(cameras: dict[str, Camera]) -> tuple[PooledFeatures, Matches]:
    """Features of the same points in every image, and all their matches."""
    points = np.random.default_rng(0).uniform(-1, 1, (POINTS, 3))
    rows = np.repeat(np.arange(POINTS, dtype=np.uint32)[:, None], 2, axis=1)
    of = {n: colmap.Features(camera.project(points)[0]) for n, camera in cameras.items()}
    frame = {name: np.zeros(POINTS, np.int64) for name in cameras}
    return PooledFeatures(of, frame, {}), dict.fromkeys(combinations(cameras, 2), rows)


def rotated(camera: Camera, degrees: float) -> Camera:
    rotation = rotation_from_vector(np.radians(degrees) * np.array([1.0, 0, 0]))
    return camera.moved(rigid(rotation, [0, 0, 0]) @ camera.cam_from_world)


def test_right_poses_are_supported_and_a_wrong_one_is_named() -> None:
    cameras = row()
    features, verified = matched(cameras)
    assert unsupported(cameras, features, verified, CONFIG) == {}
    wrong = cameras | {"c": rotated(cameras["c"], 5)}
    reasons = unsupported(wrong, features, verified, CONFIG)
    assert list(reasons) == ["c"], "the others are right, although their pairs with it are not"
    assert "of its verified matches contradict its pose" in reasons["c"]


@pytest.mark.parametrize(("count", "is_enough"), [(29, False), (30, True)])
def test_an_image_with_few_matches_is_named(count: int, is_enough: bool) -> None:
    cameras = row()
    features, verified = matched(cameras)
    few = {pair: rows[:count] if "e" in pair else rows for pair, rows in verified.items()}
    reasons = unsupported(cameras, features, few, CONFIG)
    expected = {"e": "29 matched features in agreement with its pose"}
    assert reasons == ({} if is_enough else expected)
    assert unsupported(cameras, features, few, CONFIG, min_features=0) == {}


def test_neighbourhood_is_that_of_the_initial_poses_in_any_world() -> None:
    cameras = row()
    elsewhere = Sim3(3.0, rotation_from_vector(np.array([0.4, 1.0, -0.3])), np.array([5.0, 0, 2]))
    moved = {name: elsewhere.apply_camera(rotated(cameras[name], 2)) for name in cameras}
    assert departed(cameras, moved) == {}
    moved["b"] = elsewhere.apply_camera(rotated(cameras["b"], 40))
    reasons = departed(cameras, moved)
    assert list(reasons) == ["b"]
    assert reasons["b"].startswith("adjustment moved it by ")


@pytest.mark.parametrize("degrees", [1.0, 6.0])
def test_rigs_whose_frames_differ_are_named(degrees: float) -> None:
    right_from_left = rigid(np.eye(3), [-0.1, 0, 0])
    cameras, slots = {}, {}
    for frame, left in row(3).items():
        mounted = left.moved(right_from_left @ left.cam_from_world)
        cameras |= {f"{frame}l": left, f"{frame}r": mounted}
        slots |= {f"{frame}l": Slot("left", "stereo", frame)}
        slots |= {f"{frame}r": Slot("right", "stereo", frame)}
    assert loose_rigs(slots, cameras) == {}
    cameras["cr"] = replace(rotated(cameras["cr"], degrees), name="cr")
    reasons = loose_rigs(slots, cameras)
    if degrees < 2:
        assert reasons == {}
    else:
        assert list(reasons) == ["stereo"]
        assert "disagree about the pose of right by 6.0 degrees" in reasons["stereo"]
