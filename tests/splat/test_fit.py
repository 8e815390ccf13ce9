"""Training end to end on a small known scene: quality, resume, faults."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from stopped_training import stop

from stages.quality.metrics.psnr import psnr
from stages.quality.metrics.ssim import ssim
from stages.run import checkpoint
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.scenes.cameras import Camera, rotation_angle_deg, rotation_from_vector
from stages.splat import export, gaussians
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.gpu.lock import gpu_lock
from stages.splat.render import render
from stages.splat.training.evaluation import evaluate
from stages.splat.training.fit import fit
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    torch.set_num_threads(1)


def trained(config: TrainConfig, views: list, points: tuple, **options: object):
    trainer = Trainer(views, *points, config, "cpu")
    return fit(trainer, "test", Checkpoint("train", "test", "key"), **options)


def equal(a: Gaussians, b: Gaussians) -> bool:
    names = ("means", "quats", "log_scales", "opacity_logits", "sh0", "shN")
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in names)


def test_training_reaches_the_images(config, views, points) -> None:
    config = config.model_copy(update={"max_steps": 200})
    fitted = trained(config, views[:4], points, test_views=views[4:])
    final = {row["split"]: row["psnr"] for row in fitted.evaluations if row["step"] == 200}
    assert final["train"] > 27
    assert final["test"] > 20
    losses = [row["loss"] for row in fitted.curve]
    assert losses[-1] < 0.5 * losses[0]


def test_evaluations_come_at_eval_steps_and_at_the_end(config, views, points) -> None:
    fitted = trained(config, views, points)
    assert [row["step"] for row in fitted.evaluations] == [40, 80]


def test_test_views_are_measured_at_given_poses_and_aligned_when_poses_are_learnt(
    config, views, points
) -> None:
    config = config.model_copy(update={"pose_opt": True})
    tilted = views[2].camera.moved(
        _rotated(views[2].camera.cam_from_world, np.radians([0.0, 1.0, 0.0]))
    )
    test = [TrainView(tilted, views[2].image)]
    fitted = trained(config, views, points, test_views=test)
    last = {row["split"]: row["psnr"] for row in fitted.evaluations if row["step"] == 80}
    assert set(last) == {"train", "test", "test_aligned"}
    assert last["test_aligned"] > last["test"] + 1


@pytest.mark.parametrize("halve_every", [0, 15])
def test_stopped_training_resumes_to_the_same_gaussians(
    config, views, points, monkeypatch: pytest.MonkeyPatch, halve_every: int
) -> None:
    strategy = config.strategy.model_copy(update={"halve_every": halve_every})
    config = config.model_copy(update={"pose_opt": True, "strategy": strategy})
    whole = trained(config, views, points)
    Checkpoint("train", "test", "key").path.unlink()
    stop(lambda: trained(config, views, points), monkeypatch)
    assert Checkpoint("train", "test", "key").load()["step"] == 40
    resumed = trained(config, views, points)
    assert equal(whole.gaussians, resumed.gaussians)
    assert whole.curve == resumed.curve
    assert np.array_equal(whole.cameras[0].cam_from_world, resumed.cameras[0].cam_from_world)


def test_other_threads_have_the_lock_while_files_are_written(
    config, views, points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"save_steps": (40,)})
    written: list[str] = []

    def take_lock() -> None:
        with gpu_lock():
            pass

    with ThreadPoolExecutor(1) as other:
        for module in (checkpoint, export, gaussians):
            whole_file = module.whole_file

            @contextmanager
            def watched(target: Path, whole_file=whole_file):
                other.submit(take_lock).result(timeout=10)
                written.append(target.name)
                with whole_file(target) as scratch:
                    yield scratch

            monkeypatch.setattr(module, "whole_file", watched)
        with gpu_lock():
            trained(config, views, points, folder=tmp_path).write(tmp_path, ply=True)
    states, results = written.count("state.pt"), {name for name in written if name != "state.pt"}
    assert states == 80 // config.runtime.checkpoint_every
    assert results == {
        "point_cloud_40.ply",
        "gaussians_40.safetensors",
        "gaussians.safetensors",
        "point_cloud.ply",
    }


def test_checkpoints_that_are_slow_to_write_are_written_less_often(
    config, views, points, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(Checkpoint, "affordable", lambda _: len(saved) != 1)
    save = Checkpoint.save

    def noted(self: Checkpoint, state: dict, *rest: object) -> None:
        saved.append(state["step"])
        save(self, state, *rest)

    monkeypatch.setattr(Checkpoint, "save", noted)
    trained(config, views, points)
    assert saved == [config.runtime.checkpoint_every, 80]


def test_another_seed_gives_other_gaussians(config, views, points) -> None:
    first = trained(config, views, points).gaussians
    Checkpoint("train", "test", "key").path.unlink()
    second = trained(config.model_copy(update={"seed": 1}), views, points).gaussians
    assert len(first) != len(second) or not equal(first, second)


def test_a_signal_saves_the_state_and_ends_with_a_code_of_its_own(
    config, views, points, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def signalled(self: Trainer, number: int):
        if number == 33:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, number)

    monkeypatch.setattr(Trainer, "step", signalled)
    with pytest.raises(SystemExit) as ended:
        trained(config, views, points)
    assert ended.value.code == 75
    assert Checkpoint("train", "test", "key").load()["step"] == 34


def test_nan_stops_and_keeps_the_last_good_checkpoint(
    config, views, points, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def poisoned(self: Trainer, number: int):
        loss, index = step(self, number)
        return (loss * float("nan") if number >= 50 else loss), index

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(UserError, match="loss is nan at step"):
        trained(config, views, points)
    assert Checkpoint("train", "test", "key").load()["step"] == 40


def test_growth_stops_at_the_limit(config, views, points) -> None:
    eager = config.strategy.model_copy(update={"grow_grad2d": 1e-7})
    config = config.model_copy(update={"strategy": eager, "max_gaussians": 220})
    fitted = trained(config, views, points)
    assert max(row["gaussians"] for row in fitted.curve) == 220


@pytest.mark.parametrize("count", [1, 2])
def test_few_cameras_and_no_points_are_enough(config, views, count: int) -> None:
    config = config.model_copy(update={"init_num_pts": 200, "max_steps": 15})
    nothing = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
    fitted = trained(config, views[:count], nothing)
    assert len(fitted.gaussians) > 100
    assert np.isfinite([row["loss"] for row in fitted.curve]).all()


def test_views_of_unequal_sizes_train_together(config, views, points) -> None:
    half = views[0].camera.resized(24, 24)
    small = torch.nn.functional.avg_pool2d(views[0].image.permute(2, 0, 1), 2).permute(1, 2, 0)
    fitted = trained(config, [*views[1:], TrainView(half, small)], points)
    assert fitted.evaluations[-1]["psnr"] > 18


def test_learnt_poses_halve_the_error_of_a_disturbed_camera(config, views, points) -> None:
    fixed = config.strategy.model_copy(update={"refine_stop_iter": 0})
    config = config.model_copy(
        update={
            "pose_opt": True,
            "pose_opt_lr": 1e-3,
            "max_steps": 600,
            "means_lr": 1e-3,
            "eval_steps": (),
            "strategy": fixed,
        }
    )
    disturbed = _rotated(views[2].camera.cam_from_world, np.radians([0.0, 1.5, 0.0]))
    train_views = [
        *views[:2],
        TrainView(views[2].camera.moved(disturbed), views[2].image),
        *views[3:],
    ]
    learnt = trained(config, train_views, points).cameras
    true = [view.camera for view in views]
    errors = [
        rotation_angle_deg(_between(learnt[2], learnt[k]), _between(true[2], true[k]))
        for k in (0, 1, 3, 4)
    ]
    assert np.mean(errors) < 0.75


def test_intermediate_ply_is_written(config, views, points, tmp_path: Path) -> None:
    trained(config, views, points, folder=tmp_path)
    assert (tmp_path / "point_cloud_40.ply").stat().st_size > 1000


@pytest.mark.parametrize("can_link", [True, False])
def test_files_of_the_last_step_are_written_once(
    config, views, points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_link: bool
) -> None:
    steps = {"max_steps": 40, "save_steps": (20, 40), "ply_steps": (40,)}
    names = {"gaussians": ".safetensors", "point_cloud": ".ply"}
    written: list[str] = []
    save = gaussians.save_file
    monkeypatch.setattr(
        gaussians, "save_file", lambda *args, **more: (written.append("x"), save(*args, **more))
    )

    def refuse(*_: object) -> None:
        raise OSError("no links")

    if not can_link:
        monkeypatch.setattr("os.link", refuse)
    fitted = trained(config.model_copy(update=steps), views, points, folder=tmp_path)
    fitted.write(tmp_path, ply=True)
    assert len(written) == 2, "at step 20 and at step 40"
    for name, suffix in names.items():
        final, twin = tmp_path / f"{name}{suffix}", tmp_path / f"{name}_40{suffix}"
        assert final.samefile(twin) is can_link
        assert final.read_bytes() == twin.read_bytes()
    final = tmp_path / "gaussians.safetensors"
    linked = final.read_bytes()
    fitted.gaussians.save(final)
    assert final.read_bytes() == linked, "as a write of its own has them"
    assert (tmp_path / "gaussians_40.safetensors").read_bytes() == linked
    export.write_ply(tmp_path / "again.ply", fitted.gaussians)
    again = (tmp_path / "again.ply").read_bytes()
    assert again == (tmp_path / "point_cloud.ply").read_bytes()
    assert equal(Gaussians.load(final), fitted.gaussians)
    assert not equal(Gaussians.load(tmp_path / "gaussians_20.safetensors"), fitted.gaussians)


def _rotated(pose: np.ndarray, angles: np.ndarray) -> np.ndarray:
    rotated = pose.copy()
    rotated[:3] = rotation_from_vector(angles) @ pose[:3]
    return rotated


def _between(a: Camera, b: Camera) -> np.ndarray:
    return a.cam_from_world[:3, :3] @ b.cam_from_world[:3, :3].T


def test_views_too_small_to_be_measured_are_refused_before_training(config, views, points) -> None:
    camera = views[0].camera.resized(5, 40)
    small = TrainView(camera, torch.zeros(40, 5, 3))
    for options in ({"views": [*views[:2], small]}, {"views": views, "test_views": [small]}):
        with pytest.raises(UserError, match=r"5x40 px to train on or to measure"):
            trained(config, options.pop("views"), points, **options)
    assert not list(Path(checkpoint.work_root()).rglob("state.pt"))


def test_masks_may_be_empty_in_some_views_but_not_in_all(config, views, points) -> None:
    shape = views[0].image.shape[:2]
    empty = [replace(view, mask=torch.zeros(shape, dtype=torch.bool)) for view in views]
    with pytest.raises(UserError, match="no pixel counts"):
        trained(config, empty, points)
    config = config.model_copy(update={"max_steps": 8, "eval_steps": ()})
    (row,) = trained(config, [*empty[:2], *views[2:]], points).evaluations
    assert np.isfinite(row["psnr"])


def test_masked_scores_are_those_of_the_pixels_that_count(config, views, points) -> None:
    mask = torch.zeros(views[0].image.shape[:2], dtype=torch.bool)
    mask[:, :36] = True
    trainer = Trainer(views[:2], *points, config, "cpu")
    _, row = evaluate(trainer, [replace(view, mask=mask) for view in views[3:]], 0)
    expected = []
    for view in views[3:]:
        rendered = render(trainer.gaussians(0), view.camera, "cpu").rgb
        parts = [one[:, :36].permute(2, 0, 1)[None] for one in (rendered, view.image)]
        expected.append([float(psnr(*parts)), float(ssim(*parts))])
    decibels, similarity = np.mean(expected, axis=0)
    assert row["psnr"] == pytest.approx(decibels, abs=1e-3)
    # Windows at the edge of the mask reach pixels beyond it.
    assert row["ssim"] == pytest.approx(similarity, abs=0.05)


def test_training_survives_a_failure_of_its_evaluation(
    config, views, points, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config.model_copy(update={"max_steps": 8, "eval_steps": ()})
    whole = trained(config, views, points)
    shutil.rmtree(checkpoint.work_root())

    def failing(*_: object) -> None:
        raise RuntimeError("no measure")

    with monkeypatch.context() as patch:
        patch.setattr("stages.splat.training.evaluation._measure", failing)
        with pytest.raises(RuntimeError, match="no measure"):
            trained(config, views, points)
    monkeypatch.setattr(Trainer, "step", failing)
    again = trained(config, views, points)
    assert equal(again.gaussians, whole.gaussians)
    assert again.evaluations == whole.evaluations
