"""gsplat's strategy on the CPU rasteriser, and the opacity reset that its release leaves out."""

from itertools import pairwise
from typing import Any

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
        highest.append(torch.sigmoid(trainer.state.params["opacities"]).max().item())
    return highest


def moments_of(trainer: Trainer) -> list[dict[str, Any]]:
    return [state for one in trainer.state.optimizers.values() for state in one.state.values()]


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


def test_opacities_are_halved_at_multiples_of_halve_every_until_refinement_ends(
    config, views, points
) -> None:
    changes = {"halve_every": 10, "refine_start_iter": 1000, "refine_stop_iter": 35}
    strategy = config.strategy.model_copy(update=changes)
    trainer = Trainer(views, *points, config.model_copy(update={"strategy": strategy}), "cpu")
    halved = []
    for step in range(50):
        before = torch.sigmoid(trainer.state.params["opacities"].detach()).mean()
        trainer.step(step)
        after = torch.sigmoid(trainer.state.params["opacities"].detach()).mean()
        if float(after / before) == pytest.approx(0.5, abs=0.1):
            halved.append(step)
            for moments in moments_of(trainer):  # of all parameters
                assert not moments["exp_avg"].any()
                assert not moments["exp_avg_sq"].any()
    assert halved == [10, 20, 30]
    (of_means,) = trainer.state.optimizers["means"].state.values()
    assert of_means["exp_avg_sq"].any()


def test_moments_are_forgotten_where_a_reset_takes_the_place_of_a_halving(
    config, views, points
) -> None:
    changes = {"halve_every": 10, "reset_every": 10, "refine_start_iter": 1000}
    strategy = config.strategy.model_copy(update=changes | {"refine_stop_iter": 35})
    trainer = Trainer(views, *points, config.model_copy(update={"strategy": strategy}), "cpu")
    for step in range(11):
        trainer.step(step)
    for moments in moments_of(trainer):
        assert not moments["exp_avg_sq"].any()


@pytest.mark.parametrize(("halve_every", "longer"), [(10, 10**0.5), (0, 1), (35, 1)])
def test_first_steps_are_as_long_as_after_a_halving(
    config, views, points, halve_every: int, longer: float
) -> None:
    """Without a correction of bias, by 0.1 / 0.001 ** 0.5; with it where nothing is halved."""
    changes = {"halve_every": halve_every, "refine_start_iter": 1000, "refine_stop_iter": 35}
    strategy = config.strategy.model_copy(update=changes)
    trainer = Trainer(views, *points, config.model_copy(update={"strategy": strategy}), "cpu")
    before = trainer.state.params["scales"].detach().clone()
    trainer.step(0)
    moved = (trainer.state.params["scales"].detach() - before).abs().max()
    assert float(moved) == pytest.approx(longer * config.scales_lr, rel=1e-3)


@pytest.mark.parametrize(("prune_opa", "reset_every"), [(0.01, 1000), (0.01, 20), (0.2, 20)])
def test_halved_opacities_are_not_pruned_for_that(
    config, views, points, prune_opa: float, reset_every: int
) -> None:
    """Also where a halving and a reset fall together."""
    changes = {"halve_every": 10, "refine_start_iter": 1, "refine_every": 5}
    changes |= {"prune_opa": prune_opa, "reset_every": reset_every, "grow_grad2d": 1e9}
    changes |= dict.fromkeys(("prune_scale3d", "prune_scale2d"), 1e9)
    strategy = config.strategy.model_copy(update=changes | {"refine_stop_iter": 200})
    still = {f"{name}_lr": 1e-12 for name in ("means", "scales", "quats", "sh0", "opacities")}
    trainer = Trainer(
        views,
        *points,
        config.model_copy(update=still | {"strategy": strategy, "init_opa": 0.5}),
        "cpu",
    )
    before = len(trainer.state.params["means"])
    for step in range(100):
        trainer.step(step)
    assert len(trainer.state.params["means"]) == before
    opacities = torch.sigmoid(trainer.state.params["opacities"].detach())
    assert float(opacities.min()) > prune_opa


def test_halving_ends_at_an_opacity_of_1_in_128(config, views, points) -> None:
    changes = {"halve_every": 1, "refine_start_iter": 1000}
    strategy = config.strategy.model_copy(update=changes)
    low = config.model_copy(update={"strategy": strategy, "opacities_lr": 1e-9})
    trainer = Trainer(views, *points, low, "cpu")
    for step in range(9):
        trainer.step(step)
    opacities = torch.sigmoid(trainer.state.params["opacities"].detach())
    assert opacities.tolist() == pytest.approx([1 / 128] * len(opacities), rel=1e-4)


def test_unchanged_gsplat_strategy_densifies_and_prunes_on_the_cpu_rasteriser(
    config, views, points
) -> None:
    trainer = Trainer(views, *points, config, "cpu")
    trainer.state.strategy = DefaultStrategy(
        refine_start_iter=5,
        refine_every=10,
        refine_stop_iter=100,
        grow_grad2d=0.0002,
        prune_opa=0.05,
    )
    trainer.state.strategy_state = trainer.state.strategy.initialize_state(trainer.scene_scale)
    counts = []
    for step in range(60):
        trainer.step(step)
        counts.append(len(trainer.state.params["means"]))
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
    pausing = {"pause_refine_after_reset": 7, "reset_every": 25, "refine_scale2d_stop_iter": 30}
    strategy = config.strategy.model_copy(update=pausing)
    scaled = config.model_copy(update={"steps_scaler": 2.0, "strategy": strategy})
    found = densify.build(scaled, "cpu")
    assert (found.refine_start_iter, found.refine_every, found.refine_stop_iter) == (20, 20, 120)
    assert (found.pause_refine_after_reset, found.reset_every) == (14, 50)
    assert found.refine_scale2d_stop_iter == 60


def grown(gradients: list[float], room: int, **values: Any) -> list[float]:
    """Places along x of all Gaussians after one refinement; that of the k-th was k before.

    `sizes`, `counts` and `radii` default to small ones seen once each.
    """
    count = len(gradients)
    given = {"sizes": [0.001] * count, "counts": [1] * count, "radii": [0.0] * count} | values
    start = {
        "means": torch.arange(float(count))[:, None] * torch.tensor([1.0, 0, 0]),
        "scales": torch.tensor(given["sizes"])[:, None].expand(-1, 3).log().contiguous(),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        "opacities": torch.ones(count),
    }
    params = {name: torch.nn.Parameter(value) for name, value in start.items()}
    optimizers = {name: torch.optim.Adam([param]) for name, param in params.items()}
    strategy = densify.CappedStrategy(
        refine_start_iter=0,
        refine_every=1,
        reset_every=1000,
        refine_scale2d_stop_iter=100,
        grow_grad2d=0.1,
        grow_scale2d=0.5,
        grow_scale3d=0.01,
        prune_scale3d=1e9,
        prune_scale2d=1e9,
    )
    strategy.max_gaussians = count + room
    state = {
        "grad2d": torch.tensor(gradients),
        "count": torch.tensor(given["counts"]),
        "radii": torch.tensor(given["radii"]),
        "scene_scale": 1.0,
    }
    strategy.refine(params, optimizers, state, 5)
    return sorted(params["means"][:, 0].tolist())


def test_largest_mean_gradients_grow_while_there_is_room() -> None:
    gradients = [0.2, 0.9, 0.3, 0.8, 0.01]
    assert grown(gradients, 9) == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert grown(gradients, 2) == [0, 1, 1, 2, 3, 3, 4]
    assert grown(gradients, 1) == [0, 1, 1, 2, 3, 4]
    assert grown(gradients, 0) == [0, 1, 2, 3, 4]
    assert grown(gradients, 2, counts=[1, 4, 1, 1, 1]) == [0, 1, 2, 2, 3, 3, 4], "means, not sums"
    # Of equal ones the first.
    assert grown([0.5] * 200, 100) == sorted([*range(200), *range(100)])


def test_what_is_large_in_an_image_or_the_scene_counts_at_the_limit() -> None:
    """The first grows by its gradient, the second by its image, the third is split by both."""
    gradients, radii, sizes = [0.9, 0.01, 0.3], [0.0, 0.9, 0.9], [0.001, 0.001, 0.02]
    for room in range(4):
        assert len(grown(gradients, room, radii=radii, sizes=sizes)) == 3 + room
    # By the gradient alone.
    assert grown(gradients, 1, sizes=sizes) == [0, 0, 1, 2]
    split = grown(gradients, 2, sizes=sizes)
    assert split[:3] == [0, 0, 1]
    assert len(split) == 5


def test_gaussians_change_at_the_steps_that_acts_at_names(config, views, points) -> None:
    strategy = config.strategy.model_copy(
        update={"reset_every": 25, "pause_refine_after_reset": 8, "refine_stop_iter": 45}
    )
    trainer = Trainer(views, *points, config.model_copy(update={"strategy": strategy}), "cpu")
    changed = []
    for step in range(60):
        before = trainer.state.params["opacities"]
        trainer.step(step)
        if trainer.state.params["opacities"] is not before:
            changed.append(step)
    # Refined every ten steps after the tenth, unless a reset was less than eight before.
    assert changed == [20, 25, 40]
    assert [step for step in range(60) if densify.acts_at(trainer.state.strategy, step)] == changed


def test_mcmc_acts_when_it_relocates() -> None:
    strategy = MCMCStrategy(refine_start_iter=10, refine_every=10, refine_stop_iter=40)
    assert [step for step in range(60) if densify.acts_at(strategy, step)] == [20, 30]
