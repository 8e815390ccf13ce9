"""The progressive update: novel cameras, training views, resuming, and fixed quantities."""

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scene import opaque_surface, ring

from stages.quality.metrics.psnr import psnr
from stages.run.artefacts import PROGRESS
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.process.stopping import Preemption
from stages.run.trainings import Training
from stages.scenes.cameras import Camera, look_at
from stages.splat.config import DistillConfig
from stages.splat.gaussians import TENSORS, Gaussians
from stages.splat.render import render
from stages.splat.viewing.watched_training import WatchedTraining
from stages.splat.views.distill import (
    TrainedTimestamp,
    choose_view,
    distil,
    distill_recipe,
    fixed_views,
    interpolated_cameras,
)

CONFIG = DistillConfig(
    rounds=3, steps=12, novel_share=0.6, novel_weight=1.0, where="all", post=False
)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))


@pytest.fixture
def trained(truth: Gaussians) -> TrainedTimestamp:
    """Gaussians of wrong colours, and true images of two cameras on the left."""
    sources = {camera.name: camera for camera in ring(6)[:2]}
    images = {name: render(truth, camera, "cpu").rgb.numpy() for name, camera in sources.items()}
    wrong = replace(truth, sh0=truth.sh0 + 0.8 * torch.sin(9 * truth.means)[:, None])
    return TrainedTimestamp("scene 000021", wrong, sources, images)


@pytest.fixture
def targets() -> list:
    return ring(6)[4:]


def oracle(truth: Gaussians, cameras: list) -> list:
    """A perfect fixer: renders of the true Gaussians at the cameras."""
    return [render(truth, camera, "cpu").rgb.numpy() for camera in cameras]


def unchanged(renders, references):
    return list(renders)


def run(trained, targets, fix, config, train, *parts: str) -> Gaussians:
    checkpoint = Checkpoint("distill", "scene", *parts)
    with Preemption() as preemption:
        return distil(trained, targets, fix, config, train, "cpu", checkpoint, preemption)


def error_at(gaussians: Gaussians, truth: Gaussians, camera) -> float:
    a, b = (render(one, camera, "cpu").rgb.permute(2, 0, 1)[None] for one in (gaussians, truth))
    return float(psnr(a, b))


def test_source_views_are_masked_to_their_valid_pixels(trained) -> None:
    first, second = trained.images
    valid = np.zeros(trained.images[second].shape[:2], bool)
    valid[3, 5] = True
    whole, masked = replace(trained, valid={second: valid}).source_views()
    for view, name in ((whole, first), (masked, second)):
        assert view.camera is trained.sources[name]
        assert np.array_equal(view.image.numpy(), trained.images[name])
    assert whole.mask is None
    assert np.array_equal(masked.mask.numpy(), valid)


def test_cameras_start_at_the_nearest_source_and_reach_the_target(trained, targets) -> None:
    start = trained.sources["01"].centre
    for share in (0.25, 0.5, 1.0):
        for camera, target in zip(
            interpolated_cameras(trained, targets, share), targets, strict=True
        ):
            assert camera.name == target.name
            assert np.allclose(camera.centre, (1 - share) * start + share * target.centre)


def test_good_novel_views_improve_the_gaussians(trained, targets, truth, config) -> None:
    calls = []

    def fix(renders, references):
        share = (len(calls) + 1) / CONFIG.rounds
        calls.append(references)
        return oracle(truth, interpolated_cameras(trained, targets, share))

    learnt = run(trained, targets, fix, CONFIG.model_copy(update={"sh_lr_scale": 1.0}), config)
    for target in targets:
        before = error_at(trained.gaussians, truth, target)
        assert error_at(learnt, truth, target) > before + 1
    assert len(calls) == CONFIG.rounds
    # The reference of each novel view is the image of its nearest source camera.
    assert all(ref is trained.images["01"] for refs in calls for (ref,) in refs)


def test_every_round_renders_at_its_share_of_the_way(trained, targets, config) -> None:
    """With rates of 0, the renders of a round show where its cameras were."""
    rounds, zero = [], {"means": 0.0, "sh": 0.0, "shape": 0.0}
    rates = {f"{name}_lr_scale": rate for name, rate in zero.items()}

    def fix(renders, references):
        rounds.append(renders)
        return list(renders)

    run(trained, targets, fix, CONFIG.model_copy(update={"rounds": 2, "steps": 1} | rates), config)
    for renders, share in zip(rounds, (0.5, 1.0), strict=True):
        for image, camera in zip(
            renders, interpolated_cameras(trained, targets, share), strict=True
        ):
            expected = render(trained.gaussians, camera, "cpu").rgb.numpy()
            assert np.allclose(image, expected, atol=1e-4)


def test_number_of_gaussians_and_poses_are_held(trained, targets, config) -> None:
    learnt = run(trained, targets, unchanged, CONFIG, config)
    assert len(learnt) == len(trained.gaussians)
    assert not distill_recipe(config.model_copy(update={"pose_opt": True}), CONFIG).pose_opt


def test_pixels_that_no_gaussian_covers_do_not_count(trained, targets) -> None:
    config = CONFIG.model_copy(update={"novel_weight": 0.3})
    views = fixed_views(trained.gaussians, trained, targets, unchanged, config, "cpu")
    for view, target in zip(views, targets, strict=True):
        alpha = render(trained.gaussians, target, "cpu").alpha
        assert torch.equal(view.mask, alpha > 0.5)
        assert 0 < int(view.mask.sum()) < view.mask.numel()
        assert view.weight == 0.3


SIZE = 32


def facing(x: float) -> Camera:
    """A camera at (x, 0, 0) that looks along +z; a point at depth z is z / 32 wide in a pixel."""
    K = np.array([[SIZE, 0, SIZE / 2], [0, SIZE, SIZE / 2], [0, 0, 1.0]])
    eye = np.array([x, 0.0, 0.0])
    return Camera("c", K, look_at(eye, eye + np.eye(3)[2], [0, -1, 0]), SIZE, SIZE)


def wall_with_a_board() -> Gaussians:
    """An opaque wall at z = 4, and in front of it a board at z = 2 over x in [-0.2, 0.2]."""
    steps = np.arange(-4, 4, 0.05)
    wall = np.stack([*np.meshgrid(steps, steps), np.full((160, 160), 4.0)], -1).reshape(-1, 3)
    steps = np.arange(-0.2, 0.21, 0.025)
    board = np.stack([*np.meshgrid(steps, np.arange(-2, 2, 0.025))], -1).reshape(-1, 2)
    board = np.concatenate([board, np.full((len(board), 1), 2.0)], 1)
    return opaque_surface(np.concatenate([wall, board]))


def test_where_selects_the_pixels_that_sources_see_or_do_not() -> None:
    """The source at x = 0 sees no wall behind the board; the novel camera at x = 1 sees it."""
    gaussians, blank = wall_with_a_board(), np.zeros((SIZE, SIZE, 3), np.float32)
    timestamp = TrainedTimestamp("scene", gaussians, {"0": facing(0.0)}, {"0": blank})
    views = {
        where: fixed_views(
            gaussians,
            timestamp,
            [facing(1.0)],
            unchanged,
            CONFIG.model_copy(update={"where": where}),
            "cpu",
        )[0]
        for where in ("uncovered", "covered", "all")
    }
    masks = {where: view.mask for where, view in views.items()}
    row = masks["uncovered"][SIZE // 2]
    # The board hides the wall over x in [-0.4, 0.4]: columns 16 + 32 (x - 1) / 4, 4.8 to 11.2. The
    # board is there itself from column -3 to 3. The wall right of x = 2 is outside the source.
    assert row[6:10].all()
    assert not row[13:23].any()
    assert row[25:].all()
    assert torch.equal(masks["covered"], masks["all"] & ~masks["uncovered"])
    assert masks["all"].all()
    # One pixel weighs the same: the loss is a mean over those that count.
    for view in views.values():
        assert view.weight == pytest.approx(CONFIG.novel_weight * view.mask.float().mean().item())


def test_novel_views_without_a_pixel_that_counts_change_nothing(trained, targets, config) -> None:
    """A source camera at each target sees every pixel of it."""
    seen = {f"at_{camera.name}": camera for camera in targets}
    images = {name: render(trained.gaussians, c, "cpu").rgb.numpy() for name, c in seen.items()}
    timestamp = replace(
        trained, sources=trained.sources | seen, images=dict(trained.images) | images
    )
    wanted = CONFIG.model_copy(update={"where": "uncovered"})
    (view, *_) = fixed_views(trained.gaussians, timestamp, targets, unchanged, wanted, "cpu")
    assert not view.mask[render(trained.gaussians, targets[0], "cpu").alpha >= 0.9].any()
    learnt = run(timestamp, targets, unchanged, wanted, config)
    assert all(torch.isfinite(getattr(learnt, name)).all() for name in TENSORS)


def test_novel_views_are_chosen_at_their_share() -> None:
    steps = [choose_view(step, 5, 2, CONFIG) for step in range(4000)]
    share = np.mean([index >= 5 for index in steps])
    assert share == pytest.approx(CONFIG.novel_share, abs=0.03)
    assert set(steps) == set(range(7))


@pytest.mark.parametrize("keep", ["last", "all"])
def test_stopped_distillation_resumes_to_the_same_gaussians(trained, targets, config, keep) -> None:
    wanted = CONFIG.model_copy(update={"keep": keep})
    whole = run(trained, targets, unchanged, wanted, config, "whole")
    rounds = []

    def breaks(renders, references):
        rounds.append(len(renders))
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return list(renders)

    with pytest.raises(KeyboardInterrupt):
        run(trained, targets, breaks, wanted, config, "stopped")
    folder = Checkpoint("distill", "scene", "stopped").folder
    watched = Training.read(folder / PROGRESS)
    assert watched.words() == "step 24 of 36, stopped; the same command goes on with it"
    assert len(WatchedTraining(watched).cloud().centers) == len(whole)
    resumed = run(trained, targets, unchanged, wanted, config, "stopped")
    assert all(torch.equal(getattr(whole, name), getattr(resumed, name)) for name in TENSORS)


def test_states_that_take_long_are_not_saved_after_every_round(
    trained, targets, config, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], Checkpoint.save
    monkeypatch.setattr(Checkpoint, "affordable", lambda _: len(saved) != 1)

    def counted(checkpoint: Checkpoint, state: dict, **rest: object) -> None:
        saved.append(state["round"])
        save(checkpoint, state, **rest)

    monkeypatch.setattr(Checkpoint, "save", counted)
    run(trained, targets, unchanged, CONFIG.model_copy(update={"rounds": 4, "steps": 2}), config)
    assert saved == [1, 4]


def test_signal_while_a_state_is_written_ends_the_run_with_it(
    trained, targets, config, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, save = [], Checkpoint.save

    def signalled(checkpoint: Checkpoint, state: dict, **rest: object) -> None:
        saved.append(state["round"])
        save(checkpoint, state, **rest)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoint, "save", signalled)
    with pytest.raises(SystemExit) as ended:
        run(trained, targets, unchanged, CONFIG, config)
    assert (ended.value.code, saved) == (os.EX_TEMPFAIL, [1])


def test_fixer_that_gives_nan_stops_the_run(trained, targets, config) -> None:
    def broken(renders, references):
        return [np.full_like(image, np.nan) for image in renders]

    with pytest.raises(UserError, match=r"not finite|loss is nan"):
        run(trained, targets, broken, CONFIG, config)
