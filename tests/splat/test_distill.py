"""The progressive update: where novel cameras go, what trains, what resumes, what never enters."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_scene import ring

from stages.quality.metrics.psnr import psnr
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.process.stopping import Preemption
from stages.splat.config import DistillConfig
from stages.splat.gaussians import TENSORS, Gaussians
from stages.splat.render import render
from stages.splat.views.distill import (
    Moment,
    distil,
    drawn,
    fixed_views,
    interpolated_cameras,
    recipe,
)

CONFIG = DistillConfig(rounds=3, steps=12, novel_share=0.6, novel_weight=1.0, post=False)


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path / "work"))


@pytest.fixture
def moment(truth: Gaussians) -> Moment:
    """Gaussians of the wrong colours, and right photographs of two cameras on the left."""
    sources = {camera.name: camera for camera in ring(6)[:2]}
    photographs = {
        name: render(truth, camera, "cpu").rgb.numpy() for name, camera in sources.items()
    }
    wrong = replace(truth, sh0=truth.sh0 + 0.8 * torch.sin(9 * truth.means)[:, None])
    return Moment("scene 000021", wrong, sources, photographs)


@pytest.fixture
def targets() -> list:
    return ring(6)[4:]


def oracle(truth: Gaussians, cameras: list) -> list:
    """A fixer that knows the scene: pictures of the true Gaussians, in the order asked for."""
    return [render(truth, camera, "cpu").rgb.numpy() for camera in cameras]


def unchanged(pictures, references):
    return list(pictures)


def run(moment, targets, fix, config, train, *parts: str) -> Gaussians:
    checkpoint = Checkpoint("distill", "scene", *parts)
    with Preemption() as preemption:
        return distil(moment, targets, fix, config, train, "cpu", checkpoint, preemption)


def error_at(gaussians: Gaussians, truth: Gaussians, camera) -> float:
    a, b = (render(one, camera, "cpu").rgb.permute(2, 0, 1)[None] for one in (gaussians, truth))
    return float(psnr(a, b))


def test_cameras_set_out_from_the_nearest_source_and_arrive(moment, targets) -> None:
    start = moment.sources["01"].centre
    for share in (0.25, 0.5, 1.0):
        for camera, target in zip(
            interpolated_cameras(moment, targets, share), targets, strict=True
        ):
            assert camera.name == target.name
            assert np.allclose(camera.centre, (1 - share) * start + share * target.centre)


def test_good_pictures_of_novel_views_mend_the_gaussians(moment, targets, truth, config) -> None:
    asked = []

    def fix(pictures, references):
        share = (len(asked) + 1) / CONFIG.rounds
        asked.append(references)
        return oracle(truth, interpolated_cameras(moment, targets, share))

    learnt = run(moment, targets, fix, CONFIG.model_copy(update={"sh_lr_scale": 1.0}), config)
    for target in targets:
        before = error_at(moment.gaussians, truth, target)
        assert error_at(learnt, truth, target) > before + 1
    assert len(asked) == CONFIG.rounds
    # Each novel view is fixed beside the photograph of its nearest source camera.
    assert all(ref is moment.photographs["01"] for refs in asked for ref in refs)


def test_every_round_shows_its_share_of_the_way(moment, targets, config) -> None:
    """Nothing is learnt, so that what a round shows tells where its cameras stood."""
    shown, still = [], {"means": 0.0, "sh": 0.0, "shape": 0.0}
    rates = {f"{name}_lr_scale": rate for name, rate in still.items()}

    def fix(pictures, references):
        shown.append(pictures)
        return list(pictures)

    run(moment, targets, fix, CONFIG.model_copy(update={"rounds": 2, "steps": 1} | rates), config)
    for pictures, share in zip(shown, (0.5, 1.0), strict=True):
        for picture, camera in zip(
            pictures, interpolated_cameras(moment, targets, share), strict=True
        ):
            expected = render(moment.gaussians, camera, "cpu").rgb.numpy()
            assert np.allclose(picture, expected, atol=1e-4)


def test_number_of_gaussians_and_poses_are_held(moment, targets, config) -> None:
    learnt = run(moment, targets, unchanged, CONFIG, config)
    assert len(learnt) == len(moment.gaussians)
    assert not recipe(config.model_copy(update={"pose_opt": True}), CONFIG).pose_opt


def test_what_no_gaussian_covers_does_not_count(moment, targets) -> None:
    config = CONFIG.model_copy(update={"novel_weight": 0.3})
    views = fixed_views(moment.gaussians, moment, targets, unchanged, config, "cpu")
    for view, target in zip(views, targets, strict=True):
        alpha = render(moment.gaussians, target, "cpu").alpha
        assert torch.equal(view.mask, alpha > 0.5)
        assert 0 < int(view.mask.sum()) < view.mask.numel()
        assert view.weight == 0.3


def test_novel_views_are_drawn_at_their_share() -> None:
    steps = [drawn(step, 5, 2, CONFIG) for step in range(4000)]
    share = np.mean([index >= 5 for index in steps])
    assert share == pytest.approx(CONFIG.novel_share, abs=0.03)
    assert set(steps) == set(range(7))


@pytest.mark.parametrize("keep", ["last", "all"])
def test_stopped_distillation_resumes_to_the_same_gaussians(moment, targets, config, keep) -> None:
    wanted = CONFIG.model_copy(update={"keep": keep})
    whole = run(moment, targets, unchanged, wanted, config, "whole")
    rounds = []

    def breaks(pictures, references):
        rounds.append(len(pictures))
        if len(rounds) == 3:
            raise KeyboardInterrupt
        return list(pictures)

    with pytest.raises(KeyboardInterrupt):
        run(moment, targets, breaks, wanted, config, "stopped")
    resumed = run(moment, targets, unchanged, wanted, config, "stopped")
    assert all(torch.equal(getattr(whole, name), getattr(resumed, name)) for name in TENSORS)


def test_fixer_that_gives_nan_stops_the_run(moment, targets, config) -> None:
    def spoilt(pictures, references):
        return [np.full_like(picture, np.nan) for picture in pictures]

    with pytest.raises(UserError, match=r"not finite|loss is nan"):
        run(moment, targets, spoilt, CONFIG, config)
