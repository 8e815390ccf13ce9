from typing import Any

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.samples.planning import (
    config_for_split,
    plan_samples,
    reference_times,
    select_cameras,
    subsample,
)
from stages.scenes.cameras import Camera, look_at, nearest_cameras, rigid, rotation_from_vector
from stages.scenes.config import PairsConfig, ReferenceConfig

TIMES = ("000001", "000004", "000007", "000010")


def camera(name: str, angle: float) -> Camera:
    eye = [3 * np.sin(angle), 0, -3 * np.cos(angle)]
    return Camera(name, np.eye(3), look_at(eye, [0, 0, 0], [0, -1, 0]), 8, 8)


SOURCES = {name: camera(name, angle) for name, angle in (("4", 0.0), ("16", 1.0), ("40", 2.1))}
TARGETS = {name: camera(name, angle) for name, angle in (("28", 1.3), ("64", 2.0))}


def config(**changed: Any) -> PairsConfig:
    reference = {key: changed.pop(key) for key in ("strategy", "offset_frames") if key in changed}
    reference |= {"cameras": changed.pop("references", 1)}
    return PairsConfig(reference=ReferenceConfig(**reference), **changed)


@pytest.mark.parametrize(
    ("strategy", "k", "time", "expected"),
    [
        ("same_time", 1, 0, [0]),
        ("same_time", 3, 2, [2]),
        ("temporal", 1, 0, [1]),
        ("temporal", 1, 2, [1, 3]),
        ("temporal", 2, 1, [3]),
        ("temporal", 3, 1, []),
        ("mixed", 1, 1, [1, 0, 2]),
        ("mixed", 2, 3, [3, 1]),
    ],
)
def test_reference_times(strategy: str, k: int, time: int, expected: list[int]) -> None:
    reference = ReferenceConfig(strategy=strategy, offset_frames=k)
    assert reference_times(TIMES, TIMES[time], reference) == [TIMES[index] for index in expected]


def test_nearest_camera_is_by_distance_of_centres() -> None:
    assert nearest_cameras(TARGETS["28"], SOURCES, 1) == ["16"]
    assert nearest_cameras(TARGETS["64"], SOURCES, 2) == ["40", "16"]
    assert nearest_cameras(TARGETS["64"], SOURCES, 0) == ["40", "16", "4"]


def test_of_equally_near_cameras_the_one_with_the_closer_rotation_comes_first() -> None:
    rotation = rigid(rotation_from_vector([0, 0.3, 0]), np.zeros(3))
    rotated = SOURCES["16"].moved(rotation @ SOURCES["16"].cam_from_world)
    same = SOURCES["16"].moved(SOURCES["16"].cam_from_world)
    assert nearest_cameras(SOURCES["16"], {"a": rotated, "b": same}, 2) == ["b", "a"]


def test_cameras_of_a_regular_rig_are_equally_near_despite_rounding() -> None:
    target = SOURCES["16"]
    ahead, rotation = np.eye(4), rigid(rotation_from_vector([0, 0.3, 0]), np.zeros(3))
    ahead[2, 3] = 0.5
    near = target.moved(ahead @ target.cam_from_world)
    ahead[2, 3] -= 1e-12
    rotated = target.moved(rotation @ ahead @ target.cam_from_world)
    assert nearest_cameras(target, {"a": rotated, "b": near}, 2) == ["b", "a"]


def test_reference_has_the_targets_timestamp_by_default() -> None:
    samples = plan_samples(TIMES, TARGETS, SOURCES, PairsConfig())
    assert [one.name for one in samples[:3]] == ["000001_28", "000001_64", "000004_28"]
    assert len(samples) == len(TIMES) * len(TARGETS)
    assert all(one.timestamp == one.ref_timestamp for one in samples)
    assert {(one.camera, one.ref_camera) for one in samples} == {("28", "16"), ("64", "40")}


def test_temporal_reference_never_has_the_targets_timestamp() -> None:
    samples = plan_samples(TIMES, TARGETS, SOURCES, config(strategy="temporal", offset_frames=2))
    numbers = {(int(one.timestamp), int(one.ref_timestamp)) for one in samples}
    assert numbers == {(1, 7), (4, 10), (7, 1), (10, 4)}
    assert (
        plan_samples(TIMES[:2], TARGETS, SOURCES, config(strategy="temporal", offset_frames=2))
        == []
    )


def test_names_of_samples_are_unique() -> None:
    everything = config(strategy="mixed", references=0, steps=(100, 200))
    samples = plan_samples(TIMES, TARGETS, SOURCES, everything)
    # 4 same-time and 6 temporal pairs of timestamps, 2 targets, 3 references, 3 sets of Gaussians
    assert len({one.name for one in samples}) == len(samples) == 10 * 2 * 3 * 3
    assert {one.step for one in samples} == {None, 100, 200}


def test_names_of_ways_differ_and_no_camera_is_its_own_reference() -> None:
    ways = ("", "sparse", "cycle")
    samples = [one for way in ways for one in plan_samples(TIMES, SOURCES, SOURCES, config(), way)]
    assert len({one.name for one in samples}) == len(samples) == len(TIMES) * 3 * 3
    assert {(one.camera, one.ref_camera) for one in samples} == {
        ("4", "16"),
        ("16", "4"),
        ("40", "16"),
    }


def test_skipped_timestamps_still_give_references() -> None:
    samples = plan_samples(TIMES, TARGETS, SOURCES, config(strategy="temporal", every=2))
    assert {one.timestamp for one in samples} == {TIMES[0], TIMES[2]}
    assert {one.ref_timestamp for one in samples} == {TIMES[1], TIMES[3]}


def test_limit_takes_a_seeded_subset_in_order() -> None:
    samples = plan_samples(TIMES, TARGETS, SOURCES, config())
    few = subsample(samples, 4, seed=0)
    assert len(few) == 4
    assert few == [one for one in samples if one in few]
    assert few == subsample(samples, 4, seed=0)
    assert len({tuple(one.name for one in subsample(samples, 4, seed)) for seed in range(6)}) > 1
    assert subsample(samples, 0, 0) == subsample(samples, 99, 0) == samples


def test_unknown_camera_gets_a_suggestion() -> None:
    assert select_cameras(("64", "28"), TARGETS, "pairs.cameras", "target") == ["28", "64"]
    with pytest.raises(UserError, match=r"(?s)'640'.*target cameras.*: 28, 64.*mean 64"):
        select_cameras(("640",), TARGETS, "pairs.cameras", "target")


def test_test_split_ignores_the_recipe_of_the_training_samples() -> None:
    recipe = PairsConfig(
        poses="given",
        cameras=("28",),
        leave_out=("4",),
        degradation={"sparse": 2, "cycle": 0.5},
        steps=(100,),
        max_pairs=1,
        reference=ReferenceConfig(strategy="mixed"),
    )
    assert config_for_split(recipe, "train") is recipe
    assert config_for_split(recipe, "test") == PairsConfig()
