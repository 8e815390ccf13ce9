"""Rates of pose corrections by what is known of the poses, and corrections in deviations."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scene import SCENE, TIMES

from stages.run import layout
from stages.run.files import read_json
from stages.scenes.cameras import rigid, rotation_angle_deg, rotation_from_vector
from stages.scenes.poses.calibration import read_calibration
from stages.splat import poses
from stages.splat.config import TrainConfig
from stages.splat.training import timestamps
from stages.splat.training.pose_rates import PoseRates, bases
from stages.splat.training.timestamps import train_timestamp
from stages.splat.training.trainer import Trainer

AUTO = {"pose_opt": True, "pose_opt_lr": "auto", "pose_opt_reg": "auto"}
SIGMA_DEG = 1.0
COVARIANCE = np.diag([np.radians(SIGMA_DEG)] * 3 + [0.02] * 3) ** 2


def of_deviations(views) -> list:
    return [replace(view, pose_covariance=COVARIANCE) for view in views]


def test_poses_of_unknown_accuracy_take_the_rate_of_the_recipe(views) -> None:
    rates = PoseRates.of(TrainConfig(**AUTO, max_steps=500), views)
    assert (rates.lr, rates.reg) == (1e-5, 1e-6)
    assert str(rates) == (
        "poses are learnt in radians and units of the normalised frame: "
        "pose_opt_lr 1e-05 (auto), pose_opt_reg 1e-06 (auto)"
    )


def test_numbers_stay_as_they_were_set(views) -> None:
    config = TrainConfig(pose_opt_lr=5e-4, pose_opt_reg=0.0)
    assert PoseRates.of(config, views).applied() == config
    assert str(PoseRates.of(config, views)).endswith("pose_opt_lr 0.0005, pose_opt_reg 0")
    held = PoseRates.of(config.model_copy(update={"pose_opt": False}), views)
    assert str(held) == "poses are held"


def test_reach_in_deviations_does_not_depend_on_the_number_of_steps(views) -> None:
    """The sum of the decaying rates is the same."""
    sums = []
    for steps in (200, 2000):
        rates = PoseRates.of(TrainConfig(**AUTO, max_steps=steps), of_deviations(views))
        assert "standard deviations" in rates.unit
        sums.append(sum(rates.lr * 0.01 ** (step / steps) for step in range(steps)))
    assert sums[0] == pytest.approx(sums[1], rel=0.02)


def test_one_deviation_moves_a_camera_as_its_covariance_says() -> None:
    rng = np.random.default_rng(0)
    factor = 1e-3 * rng.standard_normal((6, 6))
    covariance, scale = factor @ factor.T, 0.5
    rotation, centre = rotation_from_vector(rng.standard_normal(3)), rng.standard_normal(3)
    cam_from_world = torch.tensor(rigid(rotation, -rotation @ centre))
    basis = bases([covariance], scale)[0].double()
    moved = []
    for axis in range(6):
        after = poses.corrected(cam_from_world, basis[:, axis]).numpy()
        turn = after[:3, :3] @ rotation.T
        vector = [turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]]
        shift = rotation @ (-after[:3, :3].T @ after[:3, 3] - centre)
        moved.append(np.concatenate([np.array(vector) / 2, shift / scale]))
    spread = sum(np.outer(one, one) for one in moved)
    assert np.allclose(spread, covariance, rtol=0.02, atol=0.02 * np.abs(covariance).max())
    assert not basis[:, 6:].any()


def disturbed(views, angle_deg: float, covariances) -> list:
    """One view looks aside; each has a covariance."""
    pose = views[2].camera.cam_from_world
    aside = rigid(rotation_from_vector(np.radians([0.0, angle_deg, 0.0])), [0.0, 0.0, 0.0]) @ pose
    views = [*views[:2], replace(views[2], camera=views[2].camera.moved(aside)), *views[3:]]
    return [
        replace(view, pose_covariance=covariance)
        for view, covariance in zip(views, covariances, strict=True)
    ]


def error_deg(cameras, views) -> float:
    """Mean angle between the third camera and the others, against the true one."""

    def to_others(group) -> list:
        rotations = [camera.cam_from_world[:3, :3] for camera in group]
        return [rotations[2] @ rotations[k].T for k in (0, 1, 3, 4)]

    pairs = zip(to_others(cameras), to_others([view.camera for view in views]), strict=True)
    return float(np.mean([rotation_angle_deg(*pair) for pair in pairs]))


@pytest.mark.parametrize(("sigma_deg", "least", "most"), [(1.0, 0.0, 0.75), (0.01, 1.4, 1.6)])
def test_a_camera_is_corrected_as_far_as_it_is_uncertain(
    config, views, points, sigma_deg: float, least: float, most: float
) -> None:
    """It looks aside by 1.5 degrees, and the others are certain."""
    fixed = config.strategy.model_copy(update={"refine_stop_iter": 0})
    changes = {"max_steps": 300, "means_lr": 1e-3, "eval_steps": (), "strategy": fixed}
    config = config.model_copy(update=AUTO | changes)
    certain = COVARIANCE * 1e-4
    own = COVARIANCE * (sigma_deg / SIGMA_DEG) ** 2
    trainer = Trainer(
        disturbed(views, 1.5, [certain, certain, own, certain, certain]), *points, config, "cpu"
    )
    for step in range(300):
        trainer.step(step)
    assert least <= error_deg(trainer.learnt_cameras(), views) <= most


def test_stage_train_reads_how_certain_poses_are(
    scene, config, views, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    """The values in force are logged, and tie the resume state; a number is in units as before."""
    caplog.set_level(logging.INFO)
    marker = layout.calibrated(SCENE) / "calibration.json"
    info = read_json(marker) | {"method": "perturbed"}
    sources = read_calibration(layout.calibrated(SCENE)).sources
    info["pose_covariance"] = {name: COVARIANCE.tolist() for name in sources}
    marker.write_text(json.dumps(info))
    keys = []

    class Noted(timestamps.Checkpoint):
        def __init__(self, *key: str) -> None:
            keys.append(key)
            super().__init__(*key)

    monkeypatch.setattr(timestamps, "Checkpoint", Noted)
    quick = config.model_copy(update=AUTO | {"max_steps": 20, "ply_steps": (), "eval_steps": (10,)})
    calibrated = layout.calibrated(SCENE)
    train_timestamp(scene, calibrated, TIMES[0], quick, tmp_path / "auto")
    assert "poses are learnt in standard deviations of the calibration" in caplog.text
    lr = PoseRates.of(quick, of_deviations(views)).lr  # of as many views
    assert f"pose_opt_lr {lr:g} (auto)" in caplog.text
    number = quick.model_copy(update={"pose_opt_lr": lr})
    train_timestamp(scene, calibrated, TIMES[0], number, tmp_path / "number")
    assert "radians and units of the normalised frame" in caplog.text
    assert keys[0] != keys[1]
