"""The trainer's own arithmetic: drift of all poses, lost Gaussians, order of views, schedules."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from known_scene import known_gaussians, ring

from stages.run.errors import UserError
from stages.scenes.cameras import rigid, rotation_from_vector
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.scene import camera_to_dict
from stages.splat.render import render
from stages.splat.training.trainer import Trainer
from stages.splat.training.watched import watched

DRIFT = rigid(rotation_from_vector([0.01, -0.03, 0.02]), np.array([0.05, -0.02, 0.04]))


@pytest.fixture
def trainer(config, views, points) -> Trainer:
    config = config.model_copy(update={"pose_opt": True})
    return Trainer(views, *points, config, "cpu", known_gaussians())


def drift(trainer: Trainer) -> None:
    """Move the Gaussians and every camera alike: no image shows a difference."""
    R, t = (torch.tensor(part, dtype=torch.float32) for part in (DRIFT[:3, :3], DRIFT[:3, 3]))
    with torch.no_grad():
        trainer.state.params["means"].copy_(trainer.state.params["means"] @ R.T + t)
        trainer.state.params["quats"].copy_(_rotated(trainer.state.params["quats"], DRIFT[:3, :3]))
        for k, camera in enumerate(trainer.views.cameras):
            # World from camera times the correction is the drift times world from camera.
            pose = camera.cam_from_world
            local = torch.tensor(pose @ DRIFT @ np.linalg.inv(pose), dtype=torch.float32)
            six = torch.cat([local[:3, 0] - torch.eye(3)[0], local[:3, 1] - torch.eye(3)[1]])
            trainer.state.corrections[k] = torch.cat([local[:3, 3], six])


def _rotated(quats: torch.Tensor, rotation: np.ndarray) -> torch.Tensor:
    from scipy.spatial.transform import Rotation

    both = Rotation.from_matrix(rotation) * Rotation.from_quat(quats.numpy()[:, [1, 2, 3, 0]])
    return torch.tensor(both.as_quat()[:, [3, 0, 1, 2]], dtype=torch.float32)


def test_motion_that_all_poses_share_is_taken_back(trainer, views) -> None:
    drift(trainer)
    for learnt, view in zip(trainer.learnt_cameras(), views, strict=True):
        assert np.allclose(learnt.cam_from_world, view.camera.cam_from_world, atol=1e-5)
    held_out = ring(4)[1]
    expected = render(known_gaussians(), held_out, "cpu").rgb
    difference = render(trainer.gaussians(1), held_out, "cpu").rgb - expected
    assert float(difference.abs().max()) < 2e-3


def test_motion_of_one_camera_among_others_stays(trainer, views) -> None:
    with torch.no_grad():
        trainer.state.corrections[2, 0] = 0.1
    moved = [
        np.linalg.norm(learnt.centre - view.camera.centre)
        for learnt, view in zip(trainer.learnt_cameras(), views, strict=True)
    ]
    assert int(np.argmax(moved)) == 2
    assert moved[2] > 0.05


def test_what_watchers_get_is_of_one_fit(trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    drift(trainer)
    fits = []

    def fit(*cameras):
        fits.append(fit_sim3_from_cameras(*cameras))
        return fits[-1]

    monkeypatch.setattr("stages.splat.training.trainer.fit_sim3_from_cameras", fit)
    seen = watched(trainer, "drifted", 5, 80)
    assert len(fits) == 1
    assert seen["world_from_norm"] == trainer.gaussians(5).world_from_norm.to_dict()
    names = [camera.name for camera in trainer.views.cameras]
    assert list(seen["cameras"]) == names
    expected = [camera_to_dict(camera) for camera in trainer.learnt_cameras()]
    assert list(seen["cameras"].values()) == expected


def test_single_camera_keeps_its_pose(config, views, points) -> None:
    config = config.model_copy(update={"pose_opt": True})
    trainer = Trainer(views[:1], *points, config, "cpu")
    for step in range(5):
        trainer.step(step)
    learnt = trainer.learnt_cameras()[0].cam_from_world
    assert np.allclose(learnt, views[0].camera.cam_from_world, atol=1e-6)


@pytest.mark.parametrize("apart", [0.0, 1e-15, 1e-4])
def test_cameras_at_one_place_keep_the_size_of_their_scene(config, views, points, apart) -> None:
    """A panorama's cameras learn places that are further apart than they were."""
    config = config.model_copy(update={"pose_opt": True})
    rotated = []
    for k, view in enumerate(views):
        rotation = (
            rotation_from_vector([0.0, 0.1 * k, 0.0]) @ views[0].camera.cam_from_world[:3, :3]
        )
        centre = views[0].camera.centre + apart * np.array([k, k % 2, -k])
        rotated.append(replace(view, camera=view.camera.moved(rigid(rotation, -rotation @ centre))))
    trainer = Trainer(rotated, *points, config, "cpu")
    before = trainer.world_from_norm.scale
    with torch.no_grad():
        trainer.state.corrections[:, :3] = 0.01 * torch.randn(
            len(views), 3, generator=torch.Generator().manual_seed(1)
        )
    assert trainer.gaussians(1).world_from_norm.scale == pytest.approx(before)
    for learnt, view in zip(trainer.learnt_cameras(), rotated, strict=True):
        shift = np.linalg.norm(learnt.centre - view.camera.centre)
        assert shift < 0.1 * before


def test_few_lost_gaussians_are_left_out_and_many_end_the_training(trainer) -> None:
    with torch.no_grad():
        trainer.state.params["means"][7, 1] = float("nan")
    trainer.check_finite(0.1, 5)
    saved = trainer.gaussians(5)
    assert len(saved) == 149
    assert torch.isfinite(saved.means).all()
    with torch.no_grad():
        trainer.state.params["opacities"][:] = float("nan")
    with pytest.raises(UserError, match="100% of the Gaussians are not finite at step 5"):
        trainer.check_finite(0.1, 5)


def test_strategy_that_removes_all_gaussians_ends_the_training(config, views, points) -> None:
    strategy = config.strategy.model_copy(update={"prune_opa": 1.0})
    trainer = Trainer(views, *points, config.model_copy(update={"strategy": strategy}), "cpu")
    for step in range(20):
        trainer.step(step)
    with pytest.raises(UserError, match=r"(?s)removed all Gaussians at step 21.*prune_opa"):
        trainer.step(20)


def test_scene_scale_is_gsplats(config, views, points) -> None:
    """A tenth more than the cameras' farthest from their middle, where their median is 1 away."""
    config = config.model_copy(update={"global_scale": 2.0})
    trainer = Trainer(views, *points, config, "cpu")
    centres = np.stack([camera.centre for camera in trainer.views.cameras])
    farthest = np.linalg.norm(centres - centres.mean(0), axis=1).max()
    assert trainer.scene_scale == pytest.approx(1.1 * 2.0 * farthest)


def test_every_view_comes_once_an_epoch_in_changing_order(trainer) -> None:
    epochs = [[trainer.view_of(5 * epoch + k) for k in range(5)] for epoch in range(6)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_rates_of_means_and_poses_decay_to_a_hundredth(trainer) -> None:
    first = trainer.config.means_lr * trainer.scene_scale
    for step, share in ((0, 1.0), (40, 0.1), (80, 0.01)):
        trainer.step(step)
        means = trainer.state.optimizers["means"].param_groups[0]["lr"]
        assert means == pytest.approx(share * first)
        poses = trainer.state.pose_optimizer.param_groups[0]["lr"]
        assert poses == pytest.approx(share * trainer.config.pose_opt_lr)
        assert trainer.state.optimizers["scales"].param_groups[0]["lr"] == trainer.config.scales_lr


def test_a_step_moves_means_and_poses_at_the_rate_of_that_step(config, views, points) -> None:
    """Adam's first step is as long as the rate wherever there is a gradient."""
    trainer = Trainer(views, *points, config.model_copy(update={"pose_opt": True}), "cpu")
    moving = {"means": trainer.state.params["means"], "poses": trainer.state.corrections}
    before = {name: one.detach().clone() for name, one in moving.items()}
    trainer.step(80)
    moved = {name: float((one.detach() - before[name]).abs().max()) for name, one in moving.items()}
    first = trainer.config.means_lr * trainer.scene_scale
    assert moved["means"] == pytest.approx(0.01 * first, rel=1e-2)
    assert moved["poses"] == pytest.approx(0.01 * trainer.config.pose_opt_lr, rel=1e-2)


@pytest.mark.parametrize(("key", "name"), [("scale_reg", "scales"), ("opacity_reg", "opacities")])
def test_regularisers_add_their_mean_to_the_loss(config, views, points, key, name) -> None:
    losses = []
    for weight in (0.0, 0.5):
        changed = config.model_copy(update={"scale_reg": 0.0, key: weight})
        trainer = Trainer(views, *points, changed, "cpu")
        before = trainer.state.params[name].detach().clone()
        losses.append(float(trainer.step(0)[0]))
    activate = torch.exp if name == "scales" else torch.sigmoid
    assert losses[1] - losses[0] == pytest.approx(0.5 * float(activate(before).mean()), rel=1e-4)


def test_degree_of_harmonics_rises_with_the_steps(config, views, points) -> None:
    config = config.model_copy(update={"sh_degree": 2, "sh_degree_interval": 3})
    trainer = Trainer(views, *points, config, "cpu")
    active = []
    for step in range(8):
        trainer.step(step)
        rest = trainer.state.params["shN"].detach().abs().amax(dim=(0, 2))
        active.append((bool(rest[:3].any()), bool(rest[3:].any())))
    assert active[2] == (False, False)
    assert active[3] == active[5] == (True, False)
    assert active[6] == (True, True)


def test_degree_of_earlier_gaussians_acts_from_the_start(config, views, points) -> None:
    config = config.model_copy(update={"sh_degree": 2, "sh_degree_interval": 3})
    trainer = Trainer(views, *points, config, "cpu", known_gaussians(degree=1))
    assert [trainer.schedule.sh_degree(step) for step in (0, 2, 3, 9)] == [1, 1, 2, 2]


def test_weight_scales_the_loss_of_its_view(config, views, points) -> None:
    views = [replace(views[0], weight=weight) for weight in (1.0, 0.25)]
    config = config.model_copy(update={"scale_reg": 0.0})
    trainer = Trainer(views, *points, config, "cpu", known_gaussians())
    whole, _ = trainer.step(0, 0)
    trainer = Trainer(views, *points, config, "cpu", known_gaussians())
    quarter, index = trainer.step(0, 1)
    assert index == 1
    assert float(quarter) == pytest.approx(0.25 * float(whole))


def test_new_views_take_the_place_of_the_old(config, views, points) -> None:
    trainer = Trainer(views, *points, config, "cpu", known_gaussians())
    trainer.set_views(views[3:])
    assert sorted(trainer.view_of(step) for step in range(2)) == [0, 1]
    learnt = [camera.name for camera in trainer.learnt_cameras()]
    assert learnt == [view.camera.name for view in views[3:]]
