"""The benchmark of calibration runs on synthetic features, a prepared scene and a capture."""

import sys
from pathlib import Path

import numpy as np
import pytest
import walls

from benchmarks import calibrate, calibrate_parts
from benchmarks.calibrate_cases import CASES, Case, features_and_matches, true_cameras
from stages.run.files import read_json
from stages.scenes.images import read_image, write_png
from stages.scenes.sources.hi4d import open_sequence


def rows(folder: Path, monkeypatch: pytest.MonkeyPatch, *words: str) -> list[dict]:
    path = folder / "rows.json"
    monkeypatch.setattr(sys, "argv", ["benchmark", "--out", str(path), *words])
    calibrate.main()
    return read_json(path)["rows"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_noisy_poses_end_nearer_to_the_truth_in_every_case(case: Case) -> None:
    """By a factor of 2.5 at least, and of five where neighbours are 30 degrees apart."""
    start, found, *rest = calibrate.of_case(case, 0)
    assert (start["method"], found["method"]) == ("start", "perturbed")
    # Cameras 10 degrees apart do not.
    assert found["note"].startswith("the images do not determine the focal") == (case == CASES[3])
    assert "not refined" not in found["note"]
    for key in ("rotation_deg", "centre_percent"):
        factor = 5 if case == CASES[1] else 2.5
        assert found[key] * factor < start[key], key
    by_method = {row["method"]: row for row in rest}
    if "rotation_deg" in by_method["sfm"]:
        assert by_method["sfm"]["rotation_deg"] < 0.5
        assert by_method["sfm"]["centre_percent"] < 1
    else:
        assert by_method["sfm"]["note"].startswith("refused:")
        assert by_method["COLMAP"]["registered"] < 0.75 * case.cameras


def test_wrong_matches_are_as_many_as_the_case_says() -> None:
    case = Case(4, 30, 2, points=200, noise_px=0.0, outliers=0.3)
    cameras = true_cameras(case)
    features, matches = features_and_matches(case, cameras)
    a, b = (features.of[name].keypoints for name in ("00", "01"))
    pairs = matches["00", "01"]
    times = [features.frame[name][pairs[:, side]] for side, name in enumerate(("00", "01"))]
    np.testing.assert_array_equal(*times)
    distance = calibrate.sfm.sampson_px(
        cameras["00"], cameras["01"], a[pairs[:, 0]], b[pairs[:, 1]]
    )
    assert 0.2 < np.mean(distance > 0.5) < 0.4  # 200 matches, of which some by chance lie near


@pytest.mark.slow
def test_sequences_and_captures_are_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    placed = walls.cameras()
    walls.write_photographs(tmp_path / "capture", placed)
    raw = tmp_path / "raw"
    for name in placed:
        image = read_image(tmp_path / "capture" / name)
        write_png(raw / "images" / str(int(Path(name).stem) + 1) / "000001.png", image)
    (raw / "cameras").mkdir()
    np.savez(
        raw / "cameras" / "rgb_cameras.npz",
        ids=np.arange(1, len(placed) + 1),
        intrinsics=np.stack([camera.K for camera in placed.values()]),
        extrinsics=np.stack([camera.cam_from_world[:3] for camera in placed.values()]),
        dist_coeffs=np.zeros((len(placed), 5)),
    )
    assert open_sequence(raw, ["1"]).cameras
    words = ["--cases", "0", "--raw", str(raw), "--captures", str(tmp_path / "capture")]
    found = {(row["method"], row["name"]): row for row in rows(tmp_path, monkeypatch, *words)}
    of_raw = {method: row for (method, name), row in found.items() if name.startswith("raw")}
    assert set(of_raw) == {"given", "start", "perturbed", "sfm"}
    assert of_raw["given"]["rotation_deg"] < 1e-4
    assert of_raw["perturbed"]["rotation_deg"] < of_raw["start"]["rotation_deg"] / 2
    captured = found["sfm", "capture"]
    assert captured["registered"] == captured["total"] == 5
    assert captured["rotation_deg"] < 0.5
    assert "perturbed" in capsys.readouterr().out


def test_seconds_count_for_the_innermost_part(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 1.0, 4.0, 9.0])  # outer begins, inner begins, inner ends, outer ends
    monkeypatch.setattr(calibrate_parts.time, "perf_counter", lambda: next(clock))
    parts = calibrate_parts.Parts()
    inner = parts.timed("features", lambda: None)
    parts.timed("poses", inner)()
    assert parts.seconds == {"poses": 6.0, "features": 3.0}
    assert calibrate_parts.text(parts.seconds, 12.0) == (
        "poses 6.0 s (50%), features 3.0 s (25%), other 3.0 s (25%); "
        "4.00 times the features' own time"
    )


@pytest.mark.slow
def test_traced_images_are_measured_by_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--cases", "0", "--make", "scene", "phone", "--scale", "0.25", "--images", "6"]
    words += ["--timestamps", "7", "--methods", "perturbed", "--matcher", "cpu"]
    found = rows(tmp_path, monkeypatch, *words)
    scene = next(row for row in found if row["method"] == "perturbed")
    assert scene["name"].startswith("scene, 6 cameras, 7 timestamps")
    assert set(scene["parts"]) == {
        *("features", "matching", "verification", "poses", "points", "writing")
    }
    assert all(seconds > 0 for seconds in scene["parts"].values())
    assert 0.5 * scene["seconds"] < sum(scene["parts"].values()) <= scene["seconds"]
    phone = {row["method"]: row for row in found if row["name"] == "phone"}
    assert set(phone) == {"COLMAP", "sfm"}
    for row in phone.values():
        assert (row["registered"], row["total"]) == (6, 6)
        assert row["rotation_deg"] < 1
        assert {"features", "matching", "poses"} <= set(row["parts"])
    assert "times the features' own time" in capsys.readouterr().out
