"""Growth to a number of Gaussians, drawn by what the pixels that they cover have wrong."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import raster_reference as reference
import torch
from torch import Tensor

from stages.splat.config import StrategyConfig, TrainConfig, doubtful, inert
from stages.splat.training import densify
from stages.splat.training.budget import BudgetStrategy, Fragments
from stages.splat.training.trainer import Trainer

COUNT = 40


@pytest.fixture
def budget(config: TrainConfig) -> TrainConfig:
    """Growth from 150 to 400 at steps 10, 20, ... 50, and halvings at steps 25 and 50."""
    changes = {"kind": "budget", "refine_start_iter": 5, "reset_every": 25}
    strategy = config.strategy.model_copy(update=changes)
    return config.model_copy(update={"strategy": strategy})


def counts(config: TrainConfig, views, points) -> list[int]:
    trainer = Trainer(views, *points, config, "cpu")
    found = []
    for step in range(config.steps):
        trainer.step(step)
        found.append(len(trainer.state.params["means"]))
    return found


def test_number_rises_in_equal_shares_to_the_target_and_stays(budget, views, points) -> None:
    found = counts(budget, views, points)
    assert [found[step] for step in (9, 10, 20, 30, 40, 50, 79)] == pytest.approx(
        [150, 200, 250, 300, 350, 400, 400],
        abs=3,  # some are hidden and go
    )
    assert found[49] < found[50] == found[-1] == 400
    assert len(set(found)) == 6, "between two growths nothing changes"


def test_nothing_grows_beyond_a_target_that_the_points_reach(budget, views, points) -> None:
    assert set(counts(budget.model_copy(update={"max_gaussians": 150}), views, points)) == {150}


def test_gaussians_change_at_the_steps_that_acts_at_names(budget, views, points) -> None:
    trainer = Trainer(views, *points, budget, "cpu")
    acted, changed = [], []
    for step in range(budget.steps):
        if densify.acts_at(trainer.state.strategy, step):
            acted.append(step)
        before = trainer.state.params["opacities"].detach().clone()
        trainer.step(step)
        after = trainer.state.params["opacities"].detach()
        if len(after) != len(before) or float((after - before).mean()) < -0.3:
            changed.append(step)
    assert changed == acted == [10, 20, 25, 30, 40, 50]


def strategy(most: int = COUNT, **changes: int) -> BudgetStrategy:
    numbers = {"refine_start_iter": 0, "refine_stop_iter": 20, "refine_every": 10}
    return BudgetStrategy(
        most=most, grow_scale3d=0.01, **(numbers | {"reset_every": 1000} | changes)
    )


def refined(
    of: BudgetStrategy, fragments: Fragments, opacities: Tensor, sizes: Tensor, step: int = 10
) -> tuple[dict[str, Tensor], dict[str, torch.optim.Adam]]:
    """Parameters and optimisers after one refinement; the k-th Gaussian was at x = k."""
    start = {
        "means": torch.arange(float(len(sizes)))[:, None] * torch.tensor([1.0, 0, 0]),
        "scales": sizes[:, None].expand(-1, 3).log().contiguous(),
        "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(len(sizes), 1),
        "opacities": torch.logit(opacities),
    }
    params = {name: torch.nn.Parameter(value.clone()) for name, value in start.items()}
    optimizers = {name: torch.optim.Adam([param]) for name, param in params.items()}
    sum(param.sum() for param in params.values()).backward()
    for optimizer in optimizers.values():
        optimizer.step()
    with torch.no_grad():
        for name, value in start.items():
            params[name].copy_(value)
    of.refine(params, optimizers, {"scene_scale": 1.0}, step, lambda: fragments)
    return params, optimizers


def alike(weight: Tensor) -> Fragments:
    """Errors of mean 0.1 and standard deviation 0.2 for all."""
    return Fragments(weight, 0.1 * weight, 0.05 * weight)


def test_what_no_view_shows_is_removed(config) -> None:
    weight = torch.ones(COUNT)
    weight[::4] = 0
    params, _ = refined(
        strategy(10), alike(weight), torch.full((COUNT,), 0.5), torch.full((COUNT,), 0.001)
    )
    assert params["means"][:, 0].tolist() == [k for k in range(COUNT) if k % 4]


def test_gaussians_of_view_0_alone_go_with_it(budget, views, points) -> None:
    """What the trainer measures: a Gaussian behind all cameras has no weight in any."""
    trainer = Trainer(views, *points, budget, "cpu")
    with torch.no_grad():
        trainer.state.params["means"][7] = 1e3
    weight = trainer._fragments(0).weight
    assert weight[7] == 0
    assert (weight > 0).sum() > 100
    hidden = int((weight == 0).sum())
    trainer.state.strategy.most = 0
    trainer._refine(10, {}, 0.0)
    assert len(trainer.state.params["means"]) == 150 - hidden


def test_large_ones_are_split_and_small_ones_duplicated() -> None:
    sizes = torch.full((COUNT,), 0.001)
    sizes[COUNT // 2 :] = 0.02
    params, _ = refined(
        strategy(2 * COUNT), alike(torch.ones(COUNT)), torch.full((COUNT,), 0.5), sizes
    )
    places, scales = params["means"][:, 0], params["scales"][:, 0].exp()
    assert len(places) == 2 * COUNT
    small = scales < 0.01
    assert sorted(places[small].tolist()) == sorted([*range(COUNT // 2)] * 2)
    assert scales[~small].tolist() == pytest.approx([0.02 / 1.6] * COUNT, rel=1e-5)


def test_draws_follow_variation_times_squared_opacity() -> None:
    """Of four kinds of equal number the shares are 1 : 4 : 9 : 0."""
    torch.manual_seed(0)
    kinds = torch.arange(4).repeat(5000)
    deviations, opacities = (
        torch.tensor(values)[kinds] for values in ([0.1, 0.2, 0.1, 0.0], [0.2, 0.2, 0.6, 0.9])
    )
    weight = torch.ones(len(kinds))
    fragments = Fragments(weight, 0.3 * weight, 0.09 + deviations**2)
    params, _ = refined(
        strategy(len(kinds) + 200), fragments, opacities, torch.full_like(weight, 0.001)
    )
    drawn = params["means"][len(kinds) :, 0].long()
    assert len(drawn.unique()) == 200, "without replacement"
    shares = torch.bincount(kinds[drawn], minlength=4) / 200
    assert shares.tolist() == pytest.approx([1 / 14, 4 / 14, 9 / 14, 0], abs=0.1)
    assert shares[3] == 0


def test_opacities_are_halved_down_to_the_least_one_and_forget_their_moments() -> None:
    halving = strategy(reset_every=7)
    opacities = torch.tensor([0.9, 0.5, 0.012])
    params, optimizers = refined(
        halving, alike(torch.ones(3)), opacities, torch.full((3,), 0.001), step=7
    )
    found = torch.sigmoid(params["opacities"]).tolist()
    assert found == pytest.approx([0.45, 0.25, 1 / 128], rel=1e-5)
    (moments,) = optimizers["opacities"].state.values()
    assert float(moments["exp_avg"].abs().max()) == float(moments["exp_avg_sq"].abs().max()) == 0
    (others,) = optimizers["means"].state.values()
    assert float(others["exp_avg"].abs().min()) > 0


def by_hand(trainer: Trainer, masked: Callable[[int], Tensor]) -> Tensor:
    """Weight, error and squared error [N, 3] by brute force in float64, pixel by pixel."""
    params = {name: value.detach().double() for name, value in trainer.state.params.items()}
    count = len(params["means"])
    sums = torch.zeros(count, 3, dtype=torch.float64)
    for index, camera in enumerate(trainer.views.cameras):
        shape = (params["means"], params["quats"], params["scales"].exp())
        opacities = torch.sigmoid(params["opacities"])
        where = (trainer.views.viewmats[index].double(), trainer.views.Ks[index].double())
        size = (camera.width, camera.height)
        image = reference.rasterize(
            *shape, opacities, params["sh0"], *where, *size, sh_degree=0, antialiased=True
        ).image
        # With colours of one Gaussian each, channel n is the weight of Gaussian n.
        weights = reference.rasterize(
            *shape, opacities, torch.eye(count).double(), *where, *size, antialiased=True
        ).image
        error = (image - trainer.views.images[index]).abs().mean(-1)
        weights = weights * masked(index)[..., None]
        for column, factor in enumerate((torch.ones_like(error), error, error**2)):
            sums[:, column] += (weights * factor[..., None]).sum((0, 1))
    return sums


@pytest.mark.parametrize("has_masks", [False, True])
def test_fragments_are_sums_over_pixels(budget, views, points, has_masks: bool) -> None:
    xyz, colors = points
    mask = torch.zeros(views[0].image.shape[:2], dtype=torch.bool)
    mask[:, 10:30] = True
    first = replace(views[0], mask=mask if has_masks else None)
    recipe = budget.model_copy(update={"init_type": "sfm"})
    trainer = Trainer([first, views[1]], xyz[:20], colors[:20], recipe, "cpu")
    expected = by_hand(
        trainer, lambda index: mask if has_masks and index == 0 else torch.ones_like(mask)
    )
    found = trainer._fragments(0)
    for one, exact in zip(found, expected.T, strict=True):
        assert torch.allclose(one.double(), exact, rtol=1e-3, atol=1e-3)
    weight, error, squared = expected.T
    exact = squared - error**2 / weight.clamp_min(1e-12)
    assert float(exact.max()) > 0.1
    assert torch.allclose(found.variation().double(), exact, rtol=1e-3, atol=1e-4)


def test_stopped_training_goes_on_as_if_it_had_not(budget, views, points) -> None:
    whole = Trainer(views, *points, budget, "cpu")
    for step in range(60):
        whole.step(step)
        if step == 27:
            kept = whole.state_dict()
            kept = torch.utils._pytree.tree_map(
                lambda leaf: leaf.clone() if torch.is_tensor(leaf) else leaf, kept
            )
    torch.manual_seed(9)
    again = Trainer(views, *points, budget, "cpu")
    again.load_state_dict(kept)
    for step in range(28, 60):
        again.step(step)
    for name, value in whole.state.params.items():
        assert torch.equal(value, again.state.params[name]), name


def test_training_by_it_learns(budget, views, points) -> None:
    trainer = Trainer(views, *points, budget, "cpu")
    losses = [float(trainer.step(step)[0]) for step in range(80)]
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])


@pytest.mark.parametrize(
    ("steps", "values", "acting"),
    [
        (30000, {}, {"refine_start_iter", "refine_stop_iter", "refine_every", "grow_scale3d"}),
        (400, {"reset_every": 100}, {"refine_stop_iter", "reset_every"}),
        (400, {}, set()),
        (3000, {"refine_stop_iter": 0, "reset_every": 100}, {"refine_stop_iter"}),
    ],
)
def test_keys_that_cannot_act_are_named(steps: int, values: dict, acting: set[str]) -> None:
    config = TrainConfig(max_steps=steps, strategy=StrategyConfig(kind="budget", **values))
    named = {key for key, _ in inert(config) if key.startswith("strategy.")}
    keys = {f"strategy.{key}" for key in StrategyConfig.model_fields} - {"strategy.kind"}
    assert keys - named == {f"strategy.{key}" for key in acting}


def test_growth_that_would_end_after_training_is_told() -> None:
    strategy = StrategyConfig(kind="budget", refine_stop_iter=90)
    assert doubtful(TrainConfig(max_steps=100, strategy=strategy)) == []
    ((key, reason),) = doubtful(TrainConfig(max_steps=80, strategy=strategy))
    assert key == "strategy.refine_stop_iter"
    assert reason.startswith("90 lies beyond the last step, 80: max_gaussians is not reached")


def test_masks_that_leave_no_pixel_leave_the_gaussians(budget, views, points) -> None:
    nothing = torch.zeros(views[0].image.shape[:2], dtype=torch.bool)
    trainer = Trainer([replace(view, mask=nothing) for view in views], *points, budget, "cpu")
    trainer._refine(10, {}, 0.0)
    assert len(trainer.state.params["means"]) == len(points[0])
