"""Colour per camera in training: what it gains, resuming, warm starts, distillation."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scene import SCENE, TIMES, known_gaussians, ring
from stopped_training import stop

from stages.quality.metrics.psnr import psnr
from stages.run import layout
from stages.run.artefacts import GAUSSIANS, POINT_CLOUD
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.process.stopping import Preemption
from stages.splat import color
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import COLOR, TENSORS, Gaussians
from stages.splat.render import render
from stages.splat.training.fit import fit
from stages.splat.training.timestamps import train_timestamp
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView
from stages.splat.views.distill import TrainedTimestamp, distil

GAINS = (0.5, 1.4, 0.8, 1.4, 0.9)  # of red
DARK = 0.7  # of all red, so that no tint is clipped


@pytest.fixture(autouse=True)
def _own_scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))
    torch.set_num_threads(1)


@pytest.fixture
def learning(config: TrainConfig) -> TrainConfig:
    return config.model_copy(
        update={"color_opt": True, "color_opt_lr": 0.02, "color_opt_reg": 0.0, "pose_opt": True}
    )


def red_maps() -> torch.Tensor:
    maps = color.identity(len(GAINS), "cpu")
    maps[:, 0, 0] = torch.tensor(GAINS)
    return maps


def tinted(views: list[TrainView]) -> list[TrainView]:
    pairs = zip(views, red_maps(), strict=True)
    dark = torch.tensor([DARK, 1.0, 1.0])
    return [replace(view, image=color.applied(view.image * dark, own)) for view, own in pairs]


def trained(config: TrainConfig, views: list[TrainView], points: tuple) -> Gaussians:
    trainer = Trainer(views, *points, config, "cpu")
    return fit(trainer, "test", Checkpoint("train", "test", "key")).gaussians


def red_gains(gaussians: Gaussians) -> np.ndarray:
    return np.array(gaussians.colors["maps"])[:, 0, 0]


def equal(a: Gaussians, b: Gaussians) -> bool:
    return a.colors == b.colors and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in TENSORS
    )


def test_tints_are_learnt_and_a_view_between_two_has_their_mean(
    learning, views, points, truth
) -> None:
    long = learning.model_copy(update={"max_steps": 200, "pose_opt": False})
    gaussians = trained(long, tinted(views), points)
    gains = red_gains(gaussians)
    assert gains.mean() == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(gains, GAINS)[0, 1] > 0.98
    between = ring(9)[3]  # half way between the second and the third
    plain = trained(long.model_copy(update={"color_opt": False}), tinted(views), points)
    expected = render(truth, between, "cpu").rgb * torch.tensor([DARK * (1.4 + 0.8) / 2, 1.0, 1.0])
    errors = [
        float(psnr(*(x.permute(2, 0, 1)[None] for x in (render(g, between, "cpu").rgb, expected))))
        for g in (gaussians, plain)
    ]
    assert errors[0] > errors[1] + 0.5


def test_without_colours_the_steps_and_the_files_are_those_of_before(
    config, views, points, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("colours are mapped")

    for name in ("identity", "balanced", "applied", "map_at", "table"):
        monkeypatch.setattr(color, name, unexpected)
    texts = []
    for rates in ({}, {"color_opt_lr": 0.7, "color_opt_reg": 9.0}):
        trainer = Trainer(views, *points, config.model_copy(update=rates), "cpu")
        fit(trainer, "test", Checkpoint("train", "test", *map(str, rates))).write(
            tmp_path, ply=True
        )
        texts.append([(tmp_path / name).read_bytes() for name in (GAUSSIANS, POINT_CLOUD)])
        assert not [key for key in trainer.state_dict() if "color" in key]
    assert texts[0] == texts[1]
    assert COLOR not in Gaussians.load(tmp_path / GAUSSIANS).metadata


def test_a_stopped_training_resumes_to_the_same_colours(
    learning, views, points, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = trained(learning, tinted(views), points)
    Checkpoint("train", "test", "key").path.unlink()
    stop(lambda: trained(learning, tinted(views), points), monkeypatch)
    assert Checkpoint("train", "test", "key").load()["step"] == 40
    assert equal(trained(learning, tinted(views), points), whole)
    assert np.ptp(red_gains(whole)) > 0.1


def test_colours_of_learnt_poses_lie_at_the_learnt_cameras(learning, views, points) -> None:
    fast = learning.model_copy(update={"pose_opt_lr": 1e-2})
    trainer = Trainer(tinted(views), *points, fast, "cpu")
    for number in range(20):
        trainer.step(number)
    colors, cameras = trainer.gaussians(20).colors, trainer.learnt_cameras()
    given = [view.camera.centre for view in views]
    assert np.allclose(colors["centres"], [camera.centre for camera in cameras])
    assert not np.allclose(colors["centres"], given, atol=1e-3)
    for camera, own in zip(cameras, colors["maps"], strict=True):
        assert np.allclose(color.map_at(colors, camera), own)


def test_a_warm_start_begins_with_the_neighbours_colours(
    learning, scene, views, points, tmp_path: Path
) -> None:
    cameras = [camera for k, camera in enumerate(ring(6)) if k != 3]  # the scene's sources
    warm = tmp_path / "warm.safetensors"
    replace(known_gaussians(), metadata={COLOR: color.table(cameras, red_maps())}).save(warm)
    kept = learning.model_copy(
        update={"color_opt_lr": 1e-7, "max_steps": 20, "ply_steps": (), "save_ply": False}
    )
    arguments = scene, layout.calibrated(SCENE), TIMES[0]
    for config in (kept, kept.model_copy(update={"color_opt": False})):
        folder = tmp_path / f"{config.color_opt}"
        train_timestamp(*arguments, config, folder, warm)
        found = Gaussians.load(folder / GAUSSIANS)
        assert red_gains(found) == pytest.approx(GAINS, abs=1e-4)
    free = learning.model_copy(update={"max_steps": 400, "ply_steps": (), "save_ply": False})
    train_timestamp(*arguments, free, tmp_path / "free", warm)  # of images without tints
    apart = np.ptp(red_gains(Gaussians.load(tmp_path / "free" / GAUSSIANS)))
    assert apart < 0.85 * np.ptp(GAINS)


def test_a_warm_start_knows_cameras_that_stood_at_one_place_by_name(
    learning, views, points
) -> None:
    """Brackets whose learnt poses have moved a little: places would lend others' maps."""
    views = [
        replace(view, camera=replace(view.camera, name=f"{nth}")) for nth, view in enumerate(views)
    ]
    cameras = [view.camera for view in views]
    shifted = [replace(one, cam_from_world=cameras[0].cam_from_world) for one in cameras]
    warm = replace(known_gaussians(), metadata={COLOR: color.table(shifted, red_maps())})
    trainer = Trainer(views, *points, learning, "cpu", warm)
    assert trainer.state.color_maps()[:, 0, 0].tolist() == pytest.approx(GAINS, abs=1e-5)


def test_distillation_keeps_colours_and_takes_images_in_their_cameras_own(config, truth) -> None:
    cameras, targets = ring(5), ring(6)[3:5]
    gaussians = replace(truth, metadata={COLOR: color.table(cameras, red_maps())})
    images = {one.name: render(gaussians, one, "cpu").rgb.numpy() for one in cameras}
    sources = {one.name: one for one in cameras}
    recipe = DistillConfig(rounds=2, steps=12, where="all", post=False, sh_lr_scale=1.0)
    moved = {}
    for name, start in (("mapped", gaussians), ("plain", truth)):
        trained = TrainedTimestamp("scene 000021", start, sources, images)
        with Preemption() as stop:
            learnt = distil(
                trained,
                targets,
                lambda renders, references: list(renders),
                recipe,
                config.model_copy(update={"color_opt": True}),
                "cpu",
                Checkpoint("distill", "scene", name),
                stop,
            )
        assert learnt.colors == start.colors
        moved[name] = float((learnt.sh0 - start.sh0).abs().mean())
    assert moved["mapped"] < 0.3 * moved["plain"]


def test_one_training_view_is_refused(learning, views, points) -> None:
    with pytest.raises(UserError, match=r"train\.color_opt.*1 view to train on") as caught:
        Trainer(views[:1], *points, learning, "cpu")
    assert "fix: set train.color_opt: false" in str(caught.value)
    assert Trainer(views[:1], *points, learning.model_copy(update={"color_opt": False}), "cpu")
