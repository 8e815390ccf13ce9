import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.run.errors import UserError
from stages.samples.index import (
    SampleIndex,
    SampleRecord,
    chosen,
    for_split,
    metrics,
    plan,
    read_index,
    reference_times,
    thinned,
    write_index,
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
    ("strategy", "k", "time", "found"),
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
def test_reference_times(strategy: str, k: int, time: int, found: list[int]) -> None:
    reference = ReferenceConfig(strategy=strategy, offset_frames=k)
    assert reference_times(TIMES, TIMES[time], reference) == [TIMES[place] for place in found]


def test_nearest_camera_is_by_distance_of_centres() -> None:
    assert nearest_cameras(TARGETS["28"], SOURCES, 1) == ["16"]
    assert nearest_cameras(TARGETS["64"], SOURCES, 2) == ["40", "16"]
    assert nearest_cameras(TARGETS["64"], SOURCES, 0) == ["40", "16", "4"]


def test_of_equally_far_cameras_the_one_that_looks_the_same_way_comes_first() -> None:
    turned = rigid(rotation_from_vector([0, 0.3, 0]), np.zeros(3))
    there = SOURCES["16"].moved(turned @ SOURCES["16"].cam_from_world)
    near = SOURCES["16"].moved(SOURCES["16"].cam_from_world)
    assert nearest_cameras(SOURCES["16"], {"a": there, "b": near}, 2) == ["b", "a"]


def test_cameras_of_a_regular_rig_are_equally_far_whatever_is_rounded() -> None:
    target = SOURCES["16"]
    ahead, turn = np.eye(4), rigid(rotation_from_vector([0, 0.3, 0]), np.zeros(3))
    ahead[2, 3] = 0.5
    near = target.moved(ahead @ target.cam_from_world)
    ahead[2, 3] -= 1e-12
    turned = target.moved(turn @ ahead @ target.cam_from_world)
    assert nearest_cameras(target, {"a": turned, "b": near}, 2) == ["b", "a"]


def test_reference_has_the_targets_timestamp_by_default() -> None:
    samples = plan(TIMES, TARGETS, SOURCES, PairsConfig())
    assert [one.name for one in samples[:3]] == ["000001_28", "000001_64", "000004_28"]
    assert len(samples) == len(TIMES) * len(TARGETS)
    assert all(one.timestamp == one.ref_timestamp for one in samples)
    assert {(one.camera, one.ref_camera) for one in samples} == {("28", "16"), ("64", "40")}


def test_temporal_reference_never_has_the_targets_timestamp() -> None:
    samples = plan(TIMES, TARGETS, SOURCES, config(strategy="temporal", offset_frames=2))
    numbers = {(int(one.timestamp), int(one.ref_timestamp)) for one in samples}
    assert numbers == {(1, 7), (4, 10), (7, 1), (10, 4)}
    assert plan(TIMES[:2], TARGETS, SOURCES, config(strategy="temporal", offset_frames=2)) == []


def test_every_sample_has_a_name_of_its_own() -> None:
    everything = config(strategy="mixed", references=0, steps=(100, 200))
    samples = plan(TIMES, TARGETS, SOURCES, everything)
    # 4 same-time and 6 temporal pairs of timestamps, 2 targets, 3 references, 3 sets of Gaussians
    assert len({one.name for one in samples}) == len(samples) == 10 * 2 * 3 * 3
    assert {one.step for one in samples} == {None, 100, 200}


def test_skipped_timestamps_still_give_references() -> None:
    samples = plan(TIMES, TARGETS, SOURCES, config(strategy="temporal", every=2))
    assert {one.timestamp for one in samples} == {TIMES[0], TIMES[2]}
    assert {one.ref_timestamp for one in samples} == {TIMES[1], TIMES[3]}


def test_limit_takes_a_seeded_choice_in_order() -> None:
    samples = plan(TIMES, TARGETS, SOURCES, config())
    few = thinned(samples, 4, seed=0)
    assert len(few) == 4
    assert few == [one for one in samples if one in few]
    assert few == thinned(samples, 4, seed=0)
    assert len({tuple(one.name for one in thinned(samples, 4, seed)) for seed in range(6)}) > 1
    assert thinned(samples, 0, 0) == thinned(samples, 99, 0) == samples


def test_unknown_camera_has_the_nearest_name() -> None:
    assert chosen(("64", "28"), TARGETS, "pairs.cameras", "target") == ["28", "64"]
    with pytest.raises(UserError, match=r"(?s)'640'.*target cameras.*: 28, 64.*mean 64"):
        chosen(("640",), TARGETS, "pairs.cameras", "target")


def test_what_is_measured_on_is_neither_picked_nor_made_otherwise() -> None:
    asked = PairsConfig(
        poses="given", cameras=("28",), leave_out=("4",), steps=(100,), max_pairs=1,
        reference=ReferenceConfig(strategy="mixed"),
    )  # fmt: skip
    assert for_split(asked, "train") is asked
    assert for_split(asked, "test") == PairsConfig()


def record(**changed: Any) -> SampleRecord:
    files = {"image": "a" * 64, "target_image": "b" * 64, "ref_image": "c" * 64}
    values: dict[str, Any] = {
        "files": files,
        "step": None,
        "left_out": False,
        "poses": "imperfect",
        "psnr": 21.5,
    }
    values |= {"name": "000001_28", "camera": "28", "timestamp": "000001"}
    return SampleRecord(**{**values, "ref_camera": "16", "ref_timestamp": "000001", **changed})


INDEX = SampleIndex(
    "hi4d_pair00_dance", "pair00", "train",
    {"source": {"000001/16": "c" * 64}, "target": {"000001/28": "b" * 64}},
    (record(), record(name="000001_64", psnr=23.0)),
)  # fmt: skip


def test_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_index(tmp_path, INDEX)
    assert read_index(tmp_path) == INDEX
    assert read_index(tmp_path).digest == INDEX.digest


@pytest.mark.parametrize(
    "changed",
    [{"group": "pair15"}, {"split": "test"}, {"photographs": {"source": {}, "target": {}}},
     {"pairs": (record(psnr=21.6), INDEX.pairs[1])}, {"pairs": INDEX.pairs[::-1]}],
)  # fmt: skip
def test_digest_covers_everything(changed: dict[str, Any]) -> None:
    assert replace(INDEX, **changed).digest != INDEX.digest


def test_metrics_are_scalars() -> None:
    assert metrics(INDEX) == {
        "pairs": 2, "psnr": 22.25, "psnr_min": 21.5, "psnr_max": 23.0, "digest": INDEX.digest,
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["{", "{}", json.dumps({"pairs": 3}), json.dumps({"scene": 1, "group": 1, "split": 1,
     "photographs": {}, "pairs": []})],
)  # fmt: skip
def test_broken_index_is_no_crash(tmp_path: Path, text: str) -> None:
    (tmp_path / "pairs.json").write_text(text)
    with pytest.raises(UserError, match=r"pairs.json"):
        read_index(tmp_path)
