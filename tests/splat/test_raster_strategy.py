"""gsplat's own DefaultStrategy, unchanged, on what the CPU backend returns."""

import math

import pytest
import torch
from raster_scenes import camera, pinhole
from torch import Tensor

from stages.splat.raster import DefaultStrategy, rasterization
from stages.splat.training.densify import CappedStrategy

SIZE, STEPS = 48, 30
K = pinhole(SIZE, SIZE)
VIEWS = torch.stack([camera(k) for k in (1, 4, 6)])


def start(count: int = 60) -> torch.nn.ParameterDict:
    """Grey Gaussians about the origin; the first ten are too faint to keep."""
    random = torch.Generator().manual_seed(0)
    opacities = torch.full((count,), 0.5).logit()
    opacities[:10] = torch.full((10,), 0.004).logit()
    return torch.nn.ParameterDict(
        {
            "means": 0.7 * torch.randn(count, 3, generator=random),
            "scales": torch.full((count, 3), 0.08).log(),
            "quats": torch.randn(count, 4, generator=random),
            "opacities": opacities,
            "colors": torch.full((count, 3), 0.5),
        }
    )


def render(parameters: torch.nn.ParameterDict, view: Tensor, absgrad: bool) -> tuple:
    return rasterization(
        parameters["means"],
        parameters["quats"],
        parameters["scales"].exp(),
        parameters["opacities"].sigmoid(),
        parameters["colors"],
        view[None],
        K[None],
        SIZE,
        SIZE,
        backend="cpu",
        absgrad=absgrad,
    )


def train(absgrad: bool) -> tuple[torch.nn.ParameterDict, list[int], list[float]]:
    """Fit images of a striped ball; the parameters, their number and the loss by step."""
    parameters = start()
    optimizers = {
        name: torch.optim.Adam([{"params": [value], "name": name}], lr=0.01)
        for name, value in parameters.items()
    }
    strategy = DefaultStrategy(
        refine_start_iter=4,
        refine_every=5,
        refine_stop_iter=STEPS,
        grow_grad2d=2e-4,
        grow_scale3d=0.06,
        absgrad=absgrad,
    )
    strategy.check_sanity(parameters, optimizers)
    state = strategy.initialize_state(scene_scale=1.0)
    rows = torch.arange(SIZE)
    disc = ((rows - SIZE / 2) ** 2 + (rows[:, None] - SIZE / 2) ** 2 < (SIZE / 3) ** 2).float()
    target = torch.stack([disc, disc * (rows % 8 < 4), 0 * disc], dim=-1)
    counts, losses = [], []
    for step in range(STEPS):
        image, _, info = render(parameters, VIEWS[step % 3], absgrad)
        loss = (image[0] - target).square().mean()
        strategy.step_pre_backward(parameters, optimizers, state, step, info)
        loss.backward()
        for optimizer in optimizers.values():
            optimizer.step()
            optimizer.zero_grad()
        strategy.step_post_backward(parameters, optimizers, state, step, info, packed=False)
        counts.append(len(parameters["means"]))
        losses.append(loss.item())
    return parameters, counts, losses


@pytest.mark.parametrize("absgrad", [False, True])
def test_default_strategy_densifies_and_prunes(absgrad: bool) -> None:
    parameters, counts, losses = train(absgrad)
    assert counts[4] == 60  # nothing happens before refine_start_iter
    assert counts[-1] > 70
    assert all(len(value) == counts[-1] for value in parameters.values())
    least = parameters["opacities"].sigmoid().min().item()
    assert least > 0.004, "the faint ones were pruned"
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("absgrad", [False, True])
def test_capped_strategy_keeps_the_statistics_of_gsplats(absgrad: bool) -> None:
    """Over three steps of a view each, whose pictures are wider than high."""
    values = {"refine_scale2d_stop_iter": 10, "absgrad": absgrad, "refine_start_iter": 100}
    parameters, states = start(), []
    for strategy in (DefaultStrategy(**values), CappedStrategy(**values)):
        state = strategy.initialize_state(scene_scale=1.0)
        for step in range(3):
            image, _, info = rasterization(
                parameters["means"],
                parameters["quats"],
                parameters["scales"].exp(),
                parameters["opacities"].sigmoid(),
                parameters["colors"],
                VIEWS[step : step + 1],
                K[None],
                SIZE,
                SIZE // 2,
                backend="cpu",
                absgrad=absgrad,
            )
            strategy.step_pre_backward(parameters, {}, state, step, info)
            image.square().sum().backward()
            strategy.step_post_backward(parameters, {}, state, step, info)
        states.append(state)
    ours, gsplats = states[1], states[0]
    assert gsplats["count"].max() == 3
    assert gsplats["count"].min() < 3
    for key in ("grad2d", "count", "radii"):
        torch.testing.assert_close(ours[key], gsplats[key])


def test_accumulated_gradient_is_gsplats_screen_gradient() -> None:
    """The strategy's statistic: |dL/dmeans2d| in units of half an image, for what is visible."""
    parameters, strategy = start(), DefaultStrategy()
    state = strategy.initialize_state(scene_scale=1.0)
    image, _, info = render(parameters, VIEWS[0], absgrad=False)
    strategy.step_pre_backward(parameters, {}, state, 1, info)
    image.square().sum().backward()
    strategy.step_post_backward(parameters, {}, state, 1, info)
    visible = (info["radii"][0] > 0).all(-1)
    assert not visible[:10].any() or visible.sum() > 30
    expected = info["means2d"].grad[0].norm(dim=-1) * SIZE / 2
    torch.testing.assert_close(state["grad2d"], torch.where(visible, expected, 0.0))
    assert torch.equal(state["count"], visible.float())
    assert math.isfinite(state["grad2d"].sum().item())
