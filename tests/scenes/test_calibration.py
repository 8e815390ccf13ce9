"""Calibrations on disk, and target cameras carried into the estimated frame."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pose_scene import cloud, matched, pooled_features, ring

from stages.run.errors import UserError
from stages.scenes.cameras import Camera, rigid, rotation_from_vector
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import Sim3
from stages.scenes.poses import scene_calibration, sfm
from stages.scenes.poses.calibration import read_calibration, transfer_targets, write_calibration
from stages.scenes.poses.scene_calibration import calibrate
from stages.scenes.view import View

EST_FROM_TRUE = Sim3(2.5, rotation_from_vector([0.3, -0.8, 0.2]), np.array([4.0, -1.0, 2.0]))
CAMERAS = ring(6)
SOURCES = {name: CAMERAS[name] for name in ("0", "4", "12", "20")}
TARGETS = {name: CAMERAS[name] for name in ("8", "16")}


def test_targets_go_where_the_sources_went() -> None:
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    calibration, errors = transfer_targets("sfm", estimated, SOURCES, TARGETS)
    for name, camera in TARGETS.items():
        wanted = EST_FROM_TRUE.apply_camera(camera)
        np.testing.assert_allclose(
            calibration.targets[name].cam_from_world, wanted.cam_from_world, atol=1e-8
        )
        np.testing.assert_allclose(calibration.targets[name].K, camera.K)
    assert calibration.est_from_true.scale == pytest.approx(2.5)
    assert max(errors.values()) < 1e-5


def test_errors_are_those_of_the_true_frame() -> None:
    rotation = rigid(rotation_from_vector([0, np.radians(2.0), 0]), np.zeros(3))
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    estimated["4"] = estimated["4"].moved(rotation @ estimated["4"].cam_from_world)
    longer = estimated["12"].K * np.array([[1.04], [1.04], [1.0]])
    estimated["12"] = replace(estimated["12"], K=longer)
    _, errors = transfer_targets("sfm", estimated, SOURCES, TARGETS)
    # The similarity takes a quarter of the turn: 1.5 degrees are left of one camera, 0.5 of three.
    assert errors["rotation_error_deg"] == pytest.approx((1.5 + 3 * 0.5) / 4, rel=1e-3)
    assert errors["focal_error_percent"] == pytest.approx(4.0 / 4, rel=1e-6)
    assert errors["centre_error_m"] < 0.1


def test_cameras_that_were_not_registered_are_left_out() -> None:
    estimated = {name: EST_FROM_TRUE.apply_camera(SOURCES[name]) for name in ("0", "12", "20")}
    calibration, _ = transfer_targets("sfm", estimated, SOURCES, TARGETS)
    assert list(calibration.sources) == ["0", "12", "20"]
    assert list(calibration.targets) == ["8", "16"]


def test_calibration_there_and_back(tmp_path: Path) -> None:
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    written, _ = transfer_targets("perturbed", estimated, SOURCES, TARGETS)
    colors = np.arange(360, dtype=np.uint32).astype(np.uint8).reshape(-1, 3)
    points = {"000021": (cloud(0), colors), "000033": (cloud(1), colors[::-1])}
    write_calibration(tmp_path, written, points)
    read = read_calibration(tmp_path)
    assert read.method == "perturbed"
    np.testing.assert_allclose(read.est_from_true.matrix, written.est_from_true.matrix)
    for group in ("sources", "targets"):
        for name, camera in getattr(written, group).items():
            again = getattr(read, group)[name]
            np.testing.assert_allclose(again.cam_from_world, camera.cam_from_world)
    for timestamp, (xyz, rgb) in points.items():
        again_xyz, again_rgb = read.points(timestamp)
        np.testing.assert_allclose(again_xyz, xyz)
        np.testing.assert_array_equal(again_rgb, rgb)


def test_covariance_of_poses_there_and_back_and_in_another_frame(tmp_path: Path) -> None:
    written, _ = transfer_targets("perturbed", SOURCES, SOURCES, TARGETS)
    write_calibration(tmp_path, written, {})
    assert read_calibration(tmp_path).pose_covariance == {}
    root = np.random.default_rng(0).normal(size=(6, 6))
    known = replace(written, pose_covariance=dict.fromkeys(SOURCES, root @ root.T))
    write_calibration(tmp_path, known, {})
    read = read_calibration(tmp_path)
    assert list(read.pose_covariance) == list(SOURCES)
    np.testing.assert_allclose(read.pose_covariance["4"], root @ root.T)
    moved = read.moved(EST_FROM_TRUE).pose_covariance["4"]
    np.testing.assert_allclose(moved[:3, :3], (root @ root.T)[:3, :3])
    np.testing.assert_allclose(moved[3:, :3], 2.5 * (root @ root.T)[3:, :3])
    np.testing.assert_allclose(moved[3:, 3:], 2.5**2 * (root @ root.T)[3:, 3:])


@pytest.mark.parametrize(
    "damage", [np.eye(5), np.full((6, 6), np.nan), np.tri(6), np.eye(6) - 2 * np.eye(6, k=0)]
)
def test_damaged_covariance_is_refused(tmp_path: Path, damage: np.ndarray) -> None:
    written, _ = transfer_targets("perturbed", SOURCES, SOURCES, TARGETS)
    damaged = replace(written, pose_covariance=dict.fromkeys(SOURCES, damage))
    write_calibration(tmp_path, damaged, {})
    with pytest.raises(UserError, match=r"calibration\.json"):
        read_calibration(tmp_path)


def test_missing_calibration_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"calibration\.json: no such file"):
        read_calibration(tmp_path)


class Placed:
    """The parts of a prepared scene that calibration reads, without images."""

    def __init__(self, frame: Sim3):
        self.name = "far"
        self.timestamps = ["000000", "000001"]
        self.groups = {
            role: {name: frame.apply_camera(one) for name, one in group.items()}
            for role, group in (("source", SOURCES), ("target", TARGETS))
        }

    def cameras(self, role: str) -> dict[str, Camera]:
        return self.groups[role]

    def views(self, role: str) -> list[View]:
        return []


def known(
    monkeypatch: pytest.MonkeyPatch, features: sfm.PooledFeatures, matches: dict | None = None
) -> None:
    """Calibrations of a `Placed` scene take these features."""
    found = features, matches or matched(features)
    monkeypatch.setattr(scene_calibration, "_features", lambda *_: found)


def test_given_pose_that_images_contradict_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera moved along the line to its neighbour: epipolar lines of that pair stay."""
    known(monkeypatch, pooled_features(SOURCES, noise_px=0.1))
    scene = Placed(Sim3.identity())
    assert calibrate(scene, CalibrateConfig(method="given"), tmp_path / "right")["note"] == ""
    moved = SOURCES["12"]
    rotation = moved.cam_from_world[:3, :3]
    centre = moved.centre + 0.1 * (SOURCES["20"].centre - moved.centre)
    placed = replace(moved, cam_from_world=rigid(rotation, -rotation @ centre))
    scene.groups["source"] = SOURCES | {"12": placed}
    note = calibrate(scene, CalibrateConfig(method="given"), tmp_path / "moved")["note"]
    assert "px from the pose of camera 12 (limit calibrate.max_epipolar_error_px: 4 px)" in note


def test_matches_by_chance_contradict_no_given_pose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some thirty of camera 12 with each other one are wrong, and verified with a geometry."""
    features = pooled_features(SOURCES, noise_px=0.1)
    matches = matched(features)
    random = np.random.default_rng(0)
    for pair, rows in matches.items():
        if "12" in pair:
            wrong = random.permutation(rows[:, 0])[:38]
            matches[pair] = np.stack([wrong, random.permutation(rows[:, 1])[:38]], axis=1)
    known(monkeypatch, features, matches)
    monkeypatch.setattr(sfm, "verify", lambda *_: matches)
    metrics = calibrate(Placed(Sim3.identity()), CalibrateConfig(method="given"), tmp_path / "out")
    assert "px from the pose" not in metrics["note"]


def test_raw_data_with_one_pose_for_two_cameras_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known(monkeypatch, pooled_features(SOURCES, noise_px=0.1))
    scene = Placed(Sim3.identity())
    same = replace(SOURCES["4"], name="12")
    scene.groups["source"] = SOURCES | {"12": same}
    note = calibrate(scene, CalibrateConfig(method="given"), tmp_path / "out")["note"]
    assert "cameras 4 and 12 have one pose in the raw data" in note


def test_cameras_that_no_match_tests_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = pooled_features(SOURCES, noise_px=0.1)
    matches = matched(features)
    few = {pair: rows[:20] if "12" in pair else rows for pair, rows in matches.items()}
    known(monkeypatch, features, few)
    scene = Placed(Sim3.identity())
    metrics = calibrate(scene, CalibrateConfig(method="given"), tmp_path / "out")
    assert metrics["fewest_verified"] == 20
    assert metrics["note"] == (
        "fewer than 40 verified matches with any other camera, so that nothing tests their "
        "poses: 12"
    )


@pytest.mark.parametrize("method", ["perturbed", "given", "sfm"])
@pytest.mark.parametrize(("unit", "offset"), [(1.0, 5.2e6), (1e-7, 0.0), (1e4, 1e7)])
def test_a_scene_in_map_coordinates_is_calibrated_as_one_at_the_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: float, offset: float, method: str
) -> None:
    features = pooled_features(SOURCES, noise_px=0.1)
    found = features, matched(features)
    monkeypatch.setattr(scene_calibration, "_features", lambda *_: found)
    config = CalibrateConfig(method=method, refine_focal=False)
    results = []
    for name, frame in (
        ("near", Sim3.identity()),
        ("far", Sim3(unit, np.eye(3), offset * np.array([0.1, 1, 0.3]))),
    ):
        metrics = calibrate(Placed(frame), config, tmp_path / name)
        results.append((metrics, read_calibration(tmp_path / name), frame))
    (near, _, _), (far, calibration, frame) = results
    assert far["points"] == pytest.approx(near["points"], rel=0.05)
    assert far["rotation_error_deg"] == pytest.approx(near["rotation_error_deg"], abs=0.02)
    if unit >= 1:  # smaller ones are rounded away
        assert far["centre_error_m"] / unit == pytest.approx(near["centre_error_m"], abs=2e-3)
    assert set(calibration.pose_covariance) == (set() if method == "given" else set(SOURCES))
    for of in calibration.pose_covariance.values():
        deviation = np.sqrt(np.diag(of))  # 0.5 degrees before
        assert np.degrees(deviation[:3]).max() < 0.1
        assert deviation[3:].max() / calibration.est_from_true.scale < 0.02 * unit
    # Points and cameras of the estimated frame are those of the world by its similarity.
    xyz, _ = calibration.points("000000")
    truth = frame.apply(cloud(0))
    back = calibration.est_from_true.inverse().apply(xyz)
    gaps = np.linalg.norm(back[:, None] - truth[None], axis=-1).min(axis=1)
    assert np.median(gaps) < 0.02 * unit
