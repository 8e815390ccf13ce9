"""What one timestamp is trained on, what it writes, and the whole stage `train` in processes."""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from known_scene import SCENE, TIMES, calibrate, ring
from ruamel.yaml import YAML

from stages.run import layout
from stages.run.errors import UserError
from stages.run.files import folder_hash, read_json, write_json
from stages.scenes.colmap import read_model
from stages.scenes.images import write_mask
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat.gaussians import Gaussians
from stages.splat.training.timestamps import chosen_views, train_in, train_timestamp, train_view

ROOT = Path(__file__).parents[2]


def trained(scene, config, folder: Path, warm: Path | None = None):
    quick = config.model_copy(update={"max_steps": 20, "ply_steps": (), "eval_steps": (10,)})
    return train_timestamp(scene, layout.calibrated(SCENE), TIMES[0], quick, folder, warm)


def test_one_timestamp_writes_gaussians_ply_and_learnt_poses(scene, config, tmp_path: Path) -> None:
    fitted = trained(scene, config, tmp_path / "out")
    assert len(Gaussians.load(tmp_path / "out" / "gaussians.safetensors")) == len(fitted.gaussians)
    assert (tmp_path / "out" / "point_cloud.ply").is_file()
    learnt = read_model(tmp_path / "out" / "cameras" / "sparse" / "0").cameras
    # The target, 03, is no training camera.
    assert sorted(learnt) == ["00.png", "01.png", "02.png", "04.png", "05.png"]


def test_given_poses_are_held_and_estimated_ones_learnt(scene, config, tmp_path: Path) -> None:
    learning = config.model_copy(update={"pose_opt": True})
    for method, moves in (("given", False), ("perturbed", True)):
        marker = layout.calibrated(SCENE) / "calibration.json"
        marker.write_text(json.dumps(read_json(marker) | {"method": method}))
        before = read_calibration(layout.calibrated(SCENE)).sources
        after = trained(scene, learning, tmp_path / method).cameras
        change = [np.abs(c.cam_from_world - before[c.name].cam_from_world).max() for c in after]
        assert (max(change) > 1e-5) == moves, (method, change)


def test_match_string_chooses_cameras_by_token(scene, config) -> None:
    chosen = config.model_copy(update={"match_string": "04"})
    assert [view.name for view in chosen_views(scene, TIMES[0], chosen)] == ["04"]
    wrong = config.model_copy(update={"match_string": "iphone"})
    with pytest.raises(UserError, match="'iphone' matches no source camera") as caught:
        chosen_views(scene, TIMES[0], wrong)
    assert "00, 01, 02, 04, 05" in str(caught.value)


def test_every_nth_view_is_held_out_and_measured(scene, config, tmp_path: Path) -> None:
    held = config.model_copy(update={"test_every": 2})
    fitted = trained(scene, held, tmp_path / "out")
    assert [camera.name for camera in fitted.cameras] == ["01", "04"]
    assert {row["split"] for row in fitted.evaluations} == {"train", "test"}


def test_hold_out_that_leaves_nothing_is_refused(scene, config, tmp_path: Path) -> None:
    alone = config.model_copy(update={"test_every": 2, "match_string": "04"})
    with pytest.raises(UserError, match="2 leaves no view to train on"):
        trained(scene, alone, tmp_path / "out")


def test_camera_without_a_pose_is_named_and_left_out(
    scene, config, tmp_path: Path, truth, caplog
) -> None:
    roles = {f"{k:02d}": "target" if k == 3 else "source" for k in range(6) if k != 1}
    calibrate({camera.name: camera for camera in ring(6)}, roles, truth)
    fitted = trained(scene, config, tmp_path / "out")
    assert "01" not in [camera.name for camera in fitted.cameras]
    assert "because no pose is known: 01" in caplog.text


def test_warm_start_begins_with_the_neighbours_gaussians(scene, config, tmp_path: Path) -> None:
    first = trained(scene, config, tmp_path / "first")
    warm = tmp_path / "first" / "gaussians.safetensors"
    second = trained(scene, config, tmp_path / "second", warm)
    assert second.evaluations[0]["psnr"] > first.evaluations[0]["psnr"] + 0.5
    assert second.evaluations[-1]["step"] == 3  # 0.15 of 20
    assert len(second.gaussians) == len(first.gaussians)


@pytest.mark.parametrize(("neighbour_db", "again"), [(80.0, True), (12.0, False)])
def test_warm_start_that_lags_is_trained_again_without(
    scene, config, tmp_path: Path, caplog, neighbour_db: float, again: bool
) -> None:
    first = trained(scene, config, tmp_path / "first")
    evaluations = [row | {"psnr": neighbour_db} for row in first.evaluations]
    write_json(tmp_path / "first" / "fit.json", {"evaluations": evaluations})
    quick = config.model_copy(update={"max_steps": 20, "ply_steps": (), "eval_steps": (10,)})
    warm = tmp_path / "first" / "gaussians.safetensors"
    train_in(tmp_path / "second", scene, layout.calibrated(SCENE), TIMES[0], quick, warm)
    report = read_json(tmp_path / "second" / "fit.json")
    assert (report["evaluations"] == first.evaluations) == again
    assert ("trained again without it" in caplog.text) == again


def write_params(config, **values: int) -> None:
    train = json.loads(config.model_dump_json()) | {
        "max_steps": 20,
        "ply_steps": [],
        "eval_steps": [10],
        "backend": "cpu",
    }
    with open("params.yaml", "w") as out:
        workers = values.pop("workers", "auto")
        YAML().dump({"train": train | values, "runtime": {"train": {"workers": workers}}}, out)


def run_stage(config, workers: int = 1, file_bytes: int | None = None):
    """Stage `train` in its own process, in the working folder."""
    write_params(config, workers=workers)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))

    return subprocess.run(
        [sys.executable, "-m", "stages.train", "--scene", SCENE],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        preexec_fn=limit if file_bytes else None,
    )


@pytest.mark.slow
def test_two_workers_give_the_bytes_of_one(scene, config) -> None:
    digests = []
    for workers in (1, 2):
        result = run_stage(config, workers)
        assert result.returncode == 0, result.stderr
        digests.append(folder_hash(layout.splats(SCENE)))
        assert read_json(layout.train_metrics(SCENE))["train_psnr"] > 10
        assert layout.train_curves(SCENE).read_text().startswith("timestamp\tstep\tloss")
    assert digests[0] == digests[1]


@pytest.mark.slow
def test_edit_while_it_runs_reaches_no_timestamp_and_is_not_recorded(scene, config) -> None:
    write_params(config, workers=1)
    running = subprocess.Popen(
        [sys.executable, "-m", "stages.train", "--scene", SCENE],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "DVC_STAGE": f"train@{SCENE}"},
    )
    first = layout.splats(SCENE).with_name(f".{SCENE}.part") / TIMES[0]
    while not first.exists() and running.poll() is None:
        time.sleep(0.01)
    write_params(config, workers=1, max_steps=5)
    _, stderr = running.communicate()
    assert running.returncode == 2
    assert "edited while this ran: train.max_steps: 20 -> 5" in stderr
    reports = [read_json(layout.splats(SCENE) / time / "fit.json") for time in TIMES]
    assert [report["evaluations"][-1]["step"] for report in reports] == [20, 20]
    digest = folder_hash(layout.splats(SCENE))
    shutil.rmtree(layout.splats(SCENE))
    resumed = run_stage(config)
    assert "resumed at step 20" in resumed.stderr
    assert folder_hash(layout.splats(SCENE)) == digest


@pytest.mark.slow
def test_stage_trains_the_middle_first_and_the_others_from_it(scene, config) -> None:
    warm = {"warm_start": True, "warm_share": 0.5, "warm_tolerance_db": 100.0}
    result = run_stage(config.model_copy(update=warm))
    assert result.returncode == 0, result.stderr
    reports = [read_json(layout.splats(SCENE) / time / "fit.json") for time in TIMES]
    assert [report["evaluations"][-1]["step"] for report in reports] == [10, 20]
    assert read_json(layout.train_metrics(SCENE))["steps"] == 20
    assert result.stdout.index(f"{SCENE} {TIMES[1]}:") < result.stdout.index(f"{SCENE} {TIMES[0]}:")


@pytest.mark.slow
def test_full_disk_leaves_nothing_half_written(scene, config) -> None:
    result = run_stage(config, file_bytes=20_000)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    assert "a file grew beyond what the system allows" in result.stderr
    assert not layout.splats(SCENE).exists()
    assert not layout.train_metrics(SCENE).exists()
    assert run_stage(config).returncode == 0


def test_mask_that_counts_nothing_is_refused(scene, config, tmp_path: Path) -> None:
    view = scene.views("source", TIMES[0])[0]
    path = view.image_path.parent.parent / "masks" / view.image_path.name
    write_mask(path, np.zeros((view.camera.height, view.camera.width), bool))
    masked = config.model_copy(update={"masks": True})
    with pytest.raises(UserError, match="no pixel counts") as caught:
        trained(Scene.read(scene.folder), masked, tmp_path / "out")
    assert str(path) in str(caught.value)


def test_pixels_that_no_lens_recorded_are_not_trained_on(scene, config) -> None:
    view = scene.views("source", TIMES[0])[0]
    recorded = np.ones((view.camera.height, view.camera.width), bool)
    recorded[:10] = False
    write_mask(view.image_path.parent.parent / "seen" / view.image_path.name, recorded)
    calibration = read_calibration(layout.calibrated(SCENE))
    trained = train_view(view, calibration, config)
    assert np.array_equal(trained.mask.numpy(), recorded)
    other = train_view(scene.views("source", TIMES[0])[1], calibration, config)
    assert other.mask is None
