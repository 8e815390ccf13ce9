"""Calibrations on disk, and target cameras carried into the estimated frame."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pose_scene import cloud, ring

from stages.run.errors import UserError
from stages.scenes.calibration import carry_targets, read_calibration, write_calibration
from stages.scenes.cameras import rigid, rotation_from_vector
from stages.scenes.frames import Sim3

EST_FROM_TRUE = Sim3(2.5, rotation_from_vector([0.3, -0.8, 0.2]), np.array([4.0, -1.0, 2.0]))
CAMERAS = ring(6)
SOURCES = {name: CAMERAS[name] for name in ("0", "4", "12", "20")}
TARGETS = {name: CAMERAS[name] for name in ("8", "16")}


def test_targets_go_where_the_sources_went() -> None:
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    found, errors = carry_targets("sfm", estimated, SOURCES, TARGETS)
    for name, camera in TARGETS.items():
        wanted = EST_FROM_TRUE.apply_camera(camera)
        np.testing.assert_allclose(
            found.targets[name].cam_from_world, wanted.cam_from_world, atol=1e-8
        )
        np.testing.assert_allclose(found.targets[name].K, camera.K)
    assert found.est_from_true.scale == pytest.approx(2.5)
    assert max(errors.values()) < 1e-5


def test_errors_are_those_of_the_true_frame() -> None:
    turned = rigid(rotation_from_vector([0, np.radians(2.0), 0]), np.zeros(3))
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    estimated["4"] = estimated["4"].moved(turned @ estimated["4"].cam_from_world)
    longer = estimated["12"].K * np.array([[1.04], [1.04], [1.0]])
    estimated["12"] = replace(estimated["12"], K=longer)
    _, errors = carry_targets("sfm", estimated, SOURCES, TARGETS)
    # The similarity takes a quarter of the turn: 1.5 degrees are left of one camera, 0.5 of three.
    assert errors["rotation_error_deg"] == pytest.approx((1.5 + 3 * 0.5) / 4, rel=1e-3)
    assert errors["focal_error_percent"] == pytest.approx(4.0 / 4, rel=1e-6)
    assert errors["centre_error_m"] < 0.1


def test_cameras_that_were_not_registered_are_left_out() -> None:
    estimated = {name: EST_FROM_TRUE.apply_camera(SOURCES[name]) for name in ("0", "12", "20")}
    found, _ = carry_targets("sfm", estimated, SOURCES, TARGETS)
    assert list(found.sources) == ["0", "12", "20"]
    assert list(found.targets) == ["8", "16"]


def test_calibration_there_and_back(tmp_path: Path) -> None:
    estimated = {name: EST_FROM_TRUE.apply_camera(one) for name, one in SOURCES.items()}
    made, _ = carry_targets("perturbed", estimated, SOURCES, TARGETS)
    colors = np.arange(360, dtype=np.uint32).astype(np.uint8).reshape(-1, 3)
    points = {"000021": (cloud(0), colors), "000033": (cloud(1), colors[::-1])}
    write_calibration(tmp_path, made, points)
    found = read_calibration(tmp_path)
    assert found.method == "perturbed"
    np.testing.assert_allclose(found.est_from_true.matrix, made.est_from_true.matrix)
    for group in ("sources", "targets"):
        for name, camera in getattr(made, group).items():
            again = getattr(found, group)[name]
            np.testing.assert_allclose(again.cam_from_world, camera.cam_from_world)
    for timestamp, (xyz, rgb) in points.items():
        again_xyz, again_rgb = found.points(timestamp)
        np.testing.assert_allclose(again_xyz, xyz)
        np.testing.assert_array_equal(again_rgb, rgb)


def test_missing_calibration_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"calibration\.json: no such file"):
        read_calibration(tmp_path)
