"""Stage `calibrate` on a generated demo scene, from its entry."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from stages.run import layout
from stages.run.files import folder_hash, read_json, read_tsv
from stages.run.settings.params import Params
from stages.scenes.config import CalibrateConfig
from stages.scenes.images import write_png
from stages.scenes.poses import scene_calibration, sfm
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.poses.colmap_features import detect_and_match
from stages.scenes.scene import Scene

ROOT = Path(__file__).resolve().parents[1]
SCENE = "hi4d_pair15_fight"
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("calibrate")]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a prepared demo scene of 192x256 px and its params."""
    folder = tmp_path_factory.mktemp("calibrate")
    yaml = YAML()
    params = yaml.load(ROOT / "params.yaml")
    params["demo"]["width_px"], params["demo"]["height_px"] = 192, 256
    yaml.dump(params, folder / "params.yaml")
    for stage in ("demo", "prepare"):
        assert run(folder, stage).returncode == 0
    return folder


@pytest.fixture
def folder(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the current folder."""
    shutil.copytree(prepared / "data" / "scenes", tmp_path / "data" / "scenes")
    shutil.copy(prepared / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(
    folder: Path, stage: str, cores: set[int] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a stage, on these cores if they are given."""
    command = [sys.executable, "-m", f"stages.{stage}", "--scene", SCENE]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    limit = (lambda: os.sched_setaffinity(0, cores)) if cores else None
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, preexec_fn=limit
    )


def calibrate(**values: object) -> dict:
    """Run the stage with other values; its metrics."""
    set_params(**values)
    done = run(Path.cwd(), "calibrate")
    assert done.returncode == 0, done.stderr
    return read_json(layout.calibrate_metrics(SCENE))


def set_params(**values: object) -> None:
    yaml, path = YAML(), Path("params.yaml")
    params = yaml.load(path)
    params["calibrate"].update(values)
    yaml.dump(params, path)


def test_neighbouring_cameras_see_the_same_features(folder: Path) -> None:
    scene = Scene.read(layout.scene(SCENE))
    config = Params.read().section("calibrate", CalibrateConfig)
    views = scene.views("source", scene.timestamps[0])
    images = {view.name: [view.pixels] for view in views}
    features, matches = detect_and_match(images, config)
    verified = sfm.verify(scene.cameras("source"), features, matches, config)
    cameras = scene.cameras("source")
    counts = {pair: len(rows) for pair, rows in verified.items()}
    best = {name: max(n for pair, n in counts.items() if name in pair) for name in cameras}
    assert min(best.values()) >= 20, best
    assert np.median(list(best.values())) >= 40, best


def test_given_poses_are_the_true_ones(folder: Path) -> None:
    metrics = calibrate(method="given")
    scene = Scene.read(layout.scene(SCENE))
    found = read_calibration(layout.calibrated(SCENE))
    for role in ("source", "target"):
        for name, camera in scene.cameras(role).items():
            pose = getattr(found, f"{role}s")[name].cam_from_world
            np.testing.assert_allclose(pose, camera.cam_from_world, atol=1e-6)
    assert metrics["registered"] == metrics["total"] == 6
    assert metrics["rotation_error_deg"] < 1e-4
    assert metrics["points"] > 50
    assert metrics["note"] == ""
    assert metrics["track_error_px"] < 1.0
    pairs = read_tsv(layout.calibrated(SCENE) / "pairs.tsv")
    assert len(pairs) == 15
    verified = [int(row["verified"]) for row in pairs]
    assert 40 <= metrics["fewest_verified"] <= max(verified)
    for row in pairs:
        assert int(row["near"]) <= int(row["verified"]) <= int(row["matches"])
    assert sum(int(row["near"]) for row in pairs) > 0.9 * sum(verified)


def test_bundle_adjustment_brings_noisy_poses_closer(folder: Path) -> None:
    refined = calibrate(method="perturbed")
    assert refined["refined"] is True
    assert refined["reprojection_error_px"] < 2.0
    assert 0 < refined["rotation_error_deg"] < 1.596 * 0.5
    assert refined["track_error_px"] < 0.5 * refined["track_error_before_px"]
    assert 0 < refined["focal_share"] < 0.9
    assert refined["registered"] == 6


@pytest.mark.skipif(
    sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs two cores"
)
@pytest.mark.parametrize("method", ["perturbed", "sfm"])
def test_the_number_of_cores_changes_no_byte(folder: Path, method: str) -> None:
    set_params(method=method, matcher="cpu", max_rotation_error_deg=180.0, max_centre_error=10.0)
    every = sorted(os.sched_getaffinity(0))
    written = []
    for cores in (every[:1], every):
        done = run(folder, "calibrate", set(cores))
        assert done.returncode == 0, done.stderr
        root = layout.calibrated(SCENE)
        files = [path for path in root.rglob("*") if path.is_file()]
        written.append({str(path.relative_to(root)): path.read_bytes() for path in files})
    one, all_of_them = written
    assert one.keys() == all_of_them.keys()
    assert [name for name in one if one[name] != all_of_them[name]] == []


def test_points_have_the_colours_of_the_images(folder: Path) -> None:
    calibrate(method="given")
    scene, found = Scene.read(layout.scene(SCENE)), read_calibration(layout.calibrated(SCENE))
    timestamp = scene.timestamps[1]
    points, colors = found.points(timestamp)
    differences = []
    for view in scene.views("source", timestamp):
        pixels, depth = view.camera.project(points)
        inside = (depth > 0) & (pixels > 0).all(axis=1) & (pixels < [192, 256]).all(axis=1)
        columns, rows = pixels[inside].astype(int).T
        shown = np.rint(255 * view.pixels()[rows, columns])
        differences.append(np.abs(shown - colors[inside]).mean(axis=1))
    # In some cameras a point is hidden by another.
    assert np.median(np.concatenate(differences)) < 25


def test_a_result_farther_from_the_truth_than_its_start_is_not_taken(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scene = Scene.read(layout.scene(SCENE))
    config = Params.read().section("calibrate", CalibrateConfig)
    start = sfm.perturb(scene.cameras("source"), config)
    far = sfm.perturb(start, config.model_copy(update={"seed": 5, "rotation_noise_deg": 3.0}))
    monkeypatch.setattr(sfm, "refine", lambda *_: sfm.Estimate(far, True))
    metrics = scene_calibration.calibrate(scene, config, tmp_path / "out")
    assert metrics["refined"] is False
    assert "farther from the true poses, which neither the priors nor" in metrics["note"]
    assert "max_centre_error allow sfm" in metrics["note"]  # the start is 1.4 % off
    written = read_calibration(tmp_path / "out").sources
    for name, camera in start.items():
        np.testing.assert_allclose(written[name].cam_from_world, camera.cam_from_world)


def test_structure_from_motion_far_from_the_truth_is_refused(folder: Path) -> None:
    set_params(method="sfm", max_rotation_error_deg=1e-6)
    done = run(folder, "calibrate")
    assert done.returncode == 2
    assert "degrees and" in done.stderr
    assert "calibrate.max_rotation_error_deg" in done.stderr
    assert not layout.calibrated(SCENE).exists()
    accepted = calibrate(method="sfm", max_rotation_error_deg=1.5, max_centre_error=0.05)
    assert accepted["registered"] >= 5


@pytest.mark.parametrize("damage", ["truncated", "resized"])
def test_damaged_photograph_is_named(folder: Path, damage: str) -> None:
    path = Scene.read(layout.scene(SCENE)).views("source")[0].image_path
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:2000])
    else:
        write_png(path, np.zeros((64, 48, 3), np.float32))
    done = run(folder, "calibrate")
    assert done.returncode == 2
    assert path.name in done.stderr
    assert "Traceback" not in done.stderr


def test_two_runs_give_the_same_bytes_and_another_seed_others(folder: Path) -> None:
    digests = []
    for seed in (0, 0, 1):
        calibrate(method="perturbed", seed=seed)
        digests.append(folder_hash(layout.calibrated(SCENE)))
    assert digests[0] == digests[1] != digests[2]


def test_no_photograph_of_a_target_is_looked_at(folder: Path) -> None:
    calibrate(method="perturbed")
    before = folder_hash(layout.calibrated(SCENE))
    noise = np.random.default_rng(0).random((256, 192, 3)).astype(np.float32)
    views = Scene.read(layout.scene(SCENE))
    for view in views.views("target"):
        write_png(view.image_path, noise)
    calibrate(method="perturbed")
    assert folder_hash(layout.calibrated(SCENE)) == before
    for view in views.views("source"):
        write_png(view.image_path, view.pixels()[:, ::-1].copy())
    calibrate(method="perturbed")
    assert folder_hash(layout.calibrated(SCENE)) != before


def test_black_photographs_stop_structure_from_motion_and_leave_nothing(folder: Path) -> None:
    for view in Scene.read(layout.scene(SCENE)).views("source"):
        write_png(view.image_path, np.zeros((256, 192, 3), np.float32))
    set_params(method="sfm")
    done = run(folder, "calibrate")
    assert done.returncode == 2
    assert "0 of 6 cameras registered" in done.stderr
    assert "Traceback" not in done.stderr
    assert not layout.calibrated(SCENE).exists()
    assert not layout.calibrate_metrics(SCENE).exists()
