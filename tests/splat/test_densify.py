"""gsplat's strategy on the CPU rasteriser, and the opacity reset that its release leaves out."""

from itertools import pairwise

import pytest
import torch

from stages.run.errors import UserError
from stages.splat.config import TrainConfig
from stages.splat.raster import DefaultStrategy, MCMCStrategy
from stages.splat.training import densify
from stages.splat.training.trainer import Trainer


def opacities_at_each_step(config: TrainConfig, views, points, steps: int) -> list[float]:
    trainer = Trainer(views, *points, config, "cpu")
    highest = []
    for step in range(steps):
        trainer.step(step)
        highest.append(torch.sigmoid(trainer.params["opacities"]).max().item())
    return highest


def test_opacity_is_reset_at_multiples_of_reset_every_and_not_at_step_0(
    config, views, points
) -> None:
    strategy = config.strategy.model_copy(
        update={"reset_every": 20, "refine_start_iter": 1000, "prune_opa": 0.01}
    )
    highest = opacities_at_each_step(
        config.model_copy(update={"strategy": strategy}), views, points, 45
    )
    assert highest[0] > 0.05
    assert highest[19] > 0.05
    assert highest[20] == pytest.approx(0.02, abs=1e-4)
    assert highest[39] > 0.05
    assert highest[40] == pytest.approx(0.02, abs=1e-4)


def test_unchanged_gsplat_strategy_densifies_and_prunes_on_the_cpu_rasteriser(
    config, views, points
) -> None:
    trainer = Trainer(views, *points, config, "cpu")
    trainer.strategy = DefaultStrategy(
        refine_start_iter=5, refine_every=10, refine_stop_iter=100, grow_grad2d=0.0002,
        prune_opa=0.05,
    )  # fmt: skip
    trainer.strategy_state = trainer.strategy.initialize_state(trainer.scene_scale)
    counts = []
    for step in range(60):
        trainer.step(step)
        counts.append(len(trainer.params["means"]))
    changes = [b - a for a, b in pairwise(counts)]
    assert max(changes) > 0
    assert [k for k, change in enumerate(changes, 1) if change] == [
        k for k in (10, 20, 30, 40, 50) if changes[k - 1]
    ]


def test_mcmc_is_refused_on_the_cpu(config) -> None:
    mcmc = config.model_copy(
        update={"strategy": config.strategy.model_copy(update={"kind": "mcmc"})}
    )
    with pytest.raises(UserError, match="mcmc on the CPU"):
        densify.build(mcmc, "cpu")


def test_step_numbers_are_scaled(config) -> None:
    strategy = densify.build(config.model_copy(update={"steps_scaler": 2.0}), "cpu")
    assert (strategy.refine_start_iter, strategy.refine_every, strategy.refine_stop_iter) == (
        20, 20, 120,
    )  # fmt: skip


def test_gaussians_change_at_the_steps_that_are_foretold(config, views, points) -> None:
    strategy = config.strategy.model_copy(
        update={"reset_every": 25, "pause_refine_after_reset": 8, "refine_stop_iter": 45}
    )
    trainer = Trainer(views, *points, config.model_copy(update={"strategy": strategy}), "cpu")
    changed = []
    for step in range(60):
        before = trainer.params["opacities"]
        trainer.step(step)
        if trainer.params["opacities"] is not before:
            changed.append(step)
    # Refined every ten steps after the tenth, unless a reset was less than eight before.
    assert changed == [20, 25, 40]
    assert [step for step in range(60) if densify.acts_at(trainer.strategy, step)] == changed


def test_mcmc_acts_when_it_relocates() -> None:
    strategy = MCMCStrategy(refine_start_iter=10, refine_every=10, refine_stop_iter=40)
    assert [step for step in range(60) if densify.acts_at(strategy, step)] == [20, 30]
