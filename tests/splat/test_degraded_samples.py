"""Stage `pairs` on a trained scene, with each way of degrading renders."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from known_scene import SCENE, TIMES

from stages.pairs import main
from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import file_hash, whole_folder
from stages.samples.faults import index_faults
from stages.samples.index import SampleIndex, SampleRecord, read_index
from stages.samples.rendering import render_pairs
from stages.scenes.config import PairsConfig
from stages.scenes.images import read_image, write_png
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.training.timestamps import train_timestamp

TIME = TIMES[0]
ALL = {"leave_out": ["00", ["01", "02"]], "degradation": {"sparse": 2, "cycle": 0.2}}
SOURCES = ["00", "01", "02", "04", "05"]


@pytest.fixture
def trained(scene: Scene, config: TrainConfig) -> Scene:
    """The scene with Gaussians of stage `train`, also as they were after 20 steps."""
    config = config.model_copy(update={"save_steps": (20,)})
    with whole_folder(layout.splats(SCENE) / TIME) as folder:
        train_timestamp(scene, layout.calibrated(SCENE), TIME, config, folder)
    return scene


def make(
    monkeypatch: pytest.MonkeyPatch,
    config: TrainConfig,
    split: str = "train",
    policy: str = "nearest",
    **pairs: Any,
) -> SampleIndex:
    """Run the stage on every second timestamp, which is the first one."""
    params = {
        "pairs": {"backend": "cpu", "every": 2, **pairs},
        "difix": {"reference_from": policy},
        "train": json.loads(config.model_copy(update={"save_steps": (20,)}).recipe()),
    }
    Path("params.yaml").write_text(json.dumps(params))
    monkeypatch.setattr(sys, "argv", ["pairs", "--scene", SCENE, "--split", split])
    main()
    return read_index(layout.pairs(SCENE))


def by_name(index: SampleIndex) -> dict[str, SampleRecord]:
    return {record.name.removeprefix(f"{TIME}_"): record for record in index.pairs}


def plain_psnr(scene: Scene, camera: str) -> float:
    """Of the plain Gaussians at a source camera, which they were trained on, dB."""
    gaussians = Gaussians.load(layout.splats(SCENE) / TIME / "gaussians.safetensors")
    (view,) = [one for one in scene.views("source", TIME) if one.name == camera]
    calibrated = read_calibration(layout.calibrated(SCENE)).sources[camera]
    error = np.square(render(gaussians, calibrated, "cpu").rgb.numpy() - view.pixels()).mean()
    return float(-10 * np.log10(error))


def whiten(scene: Scene, *cameras: str) -> None:
    for view in scene.views("source"):
        if view.name in cameras:
            write_png(view.image_path, np.ones((48, 48, 3), np.float32))


def test_each_way_degrades_the_render_of_a_view(
    trained: Scene,
    config: TrainConfig,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = by_name(make(monkeypatch, config, steps=[20], warped=2, **ALL))
    assert {name: one.degradation for name, one in records.items() if one.step is None} == {
        "03": "",
        "00": "cross",
        "01": "cross",
        "02": "cross",
        **{f"{name}_sparse": "sparse" for name in ("01", "04")},
        **{f"{name}_cycle": "cycle" for name in SOURCES},
    }
    for name, one in records.items():
        if one.step is not None:
            assert name == f"{name.removesuffix('_step20')}_step20"
            assert one.psnr < records[name.removesuffix("_step20")].psnr - 1
        elif one.degradation:
            assert one.psnr < plain_psnr(trained, one.camera) - 0.5, name
        assert one.camera not in {one.ref_camera, *one.warped}
        assert one.left_out is (one.degradation in ("cross", "sparse"))
    assert {one.degradation: one.trained_on for one in records.values() if one.camera == "01"} == {
        "cross": ("00", "04", "05"),
        "sparse": ("00", "02", "05"),
        "cycle": (),
    }
    assert records["00"].trained_on == ("01", "02", "04", "05")
    images = {view.name: file_hash(view.image_path) for view in trained.views(None, TIME)}
    for one in records.values():
        assert one.files["target_image"] == images[one.camera]
        assert one.files["ref_image"] == images[one.ref_camera]
        assert one.ref_camera in (one.trained_on or SOURCES)
    index = read_index(layout.pairs(SCENE))
    assert list(index_faults(index, layout.pairs(SCENE))) == []
    assert ": of these 6 cross " in capsys.readouterr().out
    assert not (Path("work") / "train" / f"{SCENE}.pairs").exists()


def test_gaussians_see_nothing_of_their_targets(
    trained: Scene, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """White photographs of cameras change the renders of Gaussians that are trained on these."""

    def images() -> dict[str, str]:
        made = by_name(make(monkeypatch, config, **ALL))
        return {name: one.files["image"] for name, one in made.items()}

    before = images()
    whiten(trained, "01", "02")
    after = images()
    changed = {name for name in before if before[name] != after[name]}
    # 00 was trained on both, and 01 and 04 of sparse views on 02.
    assert changed == {"00", "01_sparse", "04_sparse"}
    whiten(trained, *SOURCES)
    last = images()
    assert {name for name in before if last[name] == before[name]} == {
        "03",
        *(f"{name}_cycle" for name in SOURCES),
    }


def test_a_cycle_is_trained_on_renders_from_cameras_that_were_moved(
    trained: Scene, config: TrainConfig
) -> None:
    pairs = PairsConfig(every=2, degradation={"cycle": 0.5})
    folders = layout.calibrated(SCENE), layout.splats(SCENE), Path("pairs")
    render_pairs(trained, *folders, pairs, config, "train", "cpu")
    folder = Path("work") / "pairs" / SCENE / "cycle"
    calibrated = read_calibration(layout.calibrated(SCENE)).sources
    moved = read_calibration(folder / "calibrated" / TIME).sources
    assert [*moved] == SOURCES
    gaussians = Gaussians.load(layout.splats(SCENE) / TIME / "gaussians.safetensors")
    for name, camera in moved.items():
        assert 1 < np.linalg.norm(camera.centre - calibrated[name].centre) < 3
        pixels = read_image(folder / "renders" / "frames" / TIME / "images" / f"{name}.png")
        np.testing.assert_allclose(pixels, render(gaussians, camera, "cpu").rgb, atol=0.003)


@pytest.mark.parametrize(
    ("policy", "poses"),
    [("previous", "imperfect"), ("source:01", "imperfect"), ("nearest", "given")],
)
def test_references_of_degraded_samples_are_trained_cameras(
    trained: Scene, config: TrainConfig, monkeypatch: pytest.MonkeyPatch, policy: str, poses: str
) -> None:
    index = make(monkeypatch, config, policy=policy, poses=poses, warped=2, **ALL)
    assert {one.poses for one in index.pairs} == {poses}
    assert list(index_faults(index, layout.pairs(SCENE))) == []
    images = {view.name: file_hash(view.image_path) for view in trained.views(None, TIME)}
    for one in index.pairs:
        assert one.ref_camera != one.camera
        assert len({one.camera, *one.warped}) == 3
        is_image = one.files["ref_image"] == images[one.ref_camera]
        assert is_image is (one.ref_camera in (one.trained_on or SOURCES)), one.name


def test_the_test_split_is_not_degraded(
    trained: Scene, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [*by_name(make(monkeypatch, config, "test", **ALL))] == ["03"]
    assert not (Path("work") / "pairs").exists()


def test_without_degradation_the_index_has_no_word_of_it(
    trained: Scene, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(monkeypatch, config)
    (record,) = json.loads((layout.pairs(SCENE) / "pairs.json").read_text())["pairs"]
    assert not {"degradation", "trained_on"} & set(record)


def test_an_index_with_a_leak_is_refused(
    trained: Scene, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make(monkeypatch, config, degradation={"cycle": 0.2})
    record = by_name(index)["04_cycle"]
    own = record.files | {"ref_image": record.files["target_image"]}
    for changed, message in (
        ({"trained_on": ("02", "04")}, "its Gaussians were trained on camera 04"),
        ({"trained_on": ("02", "03")}, "its Gaussians were trained on camera 03"),
        ({"degradation": ""}, "target_image is not camera 04's image"),
        ({"files": own}, "ref_image is the sample's own target_image"),
    ):
        leaking = replace(index, pairs=(replace(record, **changed),))
        (error,) = index_faults(leaking, layout.pairs(SCENE))
        assert message in str(error)


def test_cameras_that_cannot_be_left_out_are_named(
    trained: Scene, config: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for pairs, message in (
        ({"leave_out": ["0"]}, r"(?s)pairs.leave_out.0: '0'.*source cameras of .*: 00, 01, 02"),
        ({"leave_out": ["03"]}, r"(?s)pairs.leave_out.0: '03'.*source cameras"),
        ({"leave_out": [SOURCES]}, r"are all source cameras.*\n.*at least one"),
        ({"degradation": {"sparse": 5}}, r"(?s)5 leaves one of 5 source.*at most 4"),
        ({"degradation": {"sparse": 1}}, r"(?s)pairs.degradation.sparse: got 1.*at least 2"),
        ({"leave_out": ["01", ["01", "02"]]}, r"(?s)pairs.leave_out.*each camera once"),
    ):
        with pytest.raises(UserError, match=message):
            make(monkeypatch, config, **pairs)


def test_trainings_are_counted() -> None:
    assert PairsConfig().trainings == 0
    both = {"sparse": 2, "cycle": 0.1}
    config = PairsConfig(leave_out=("1", ("2", "3")), degradation=both, poses="given")
    assert config.leave_out == (("1",), ("2", "3"))
    assert config.trainings == 5
