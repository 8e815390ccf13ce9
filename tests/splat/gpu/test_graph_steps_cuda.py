"""Steps as graphs against the same steps by calls, on a GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from known_scene import known_gaussians, ring

from stages.run.process.stopping import Preemption
from stages.splat.config import TrainConfig
from stages.splat.raster import choose_backend
from stages.splat.render import render
from stages.splat.training.placement import side_by_side
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]


@pytest.fixture(params=["own", "gsplat"])
def config(config: TrainConfig, request: pytest.FixtureRequest) -> TrainConfig:
    """The small recipe by each rasteriser."""
    return changed(config, rasteriser=request.param)


@pytest.fixture(scope="module")
def gpu_views() -> list[TrainView]:
    choose_backend("cuda")
    truth = known_gaussians(degree=1).to("cuda")
    return [TrainView(camera, render(truth, camera, "cuda").rgb) for camera in ring(5, 80)]


def trainer(views: list[TrainView], config: TrainConfig, graphs: bool = True) -> Trainer:
    truth = known_gaussians()
    points = truth.means.double().numpy()
    colors = np.full((len(points), 3), 128, np.uint8)
    execution = "graph" if graphs else "eager"
    config = config.model_copy(update={"execution": execution})
    return Trainer(views, points, colors, config, "cuda")


def changed(config: TrainConfig, **values: object) -> TrainConfig:
    return config.model_copy(update=values)


def both(views: list[TrainView], config: TrainConfig, steps: int) -> list[list[float]]:
    """Losses of steps by calls and as graphs."""
    losses = []
    for graphs in (False, True):
        one = trainer(views, config, graphs)
        losses.append([float(one.step(step)[0]) for step in range(steps)])
        assert graphs == bool(one.graphs and one.graphs._graphs)
    return losses


RECIPES = {
    "plain": {},
    "poses": {"pose_opt": True, "pose_opt_lr": 1e-3},
    "colours": {"color_opt": True, "color_opt_lr": 0.02},
    "classic": {"antialiased": False, "scale_reg": 0.0},
    "harmonics": {"sh_degree": 2, "sh_degree_interval": 4, "opacity_reg": 0.01},
}


def test_losses_of_poses_in_deviations_are_those_of_calls(gpu_views, config) -> None:
    covariance = np.diag([1e-2, 2e-2, 3e-2, 1e-2, 2e-2, 3e-2]) ** 2
    views = [replace(view, pose_covariance=covariance) for view in gpu_views]
    config = changed(config, pose_opt=True, pose_opt_lr="auto", pose_opt_reg="auto")
    calls, graphs = both(views, config, 11)
    assert graphs == pytest.approx(calls, rel=2e-3)
    one = trainer(views, config)
    for step in range(11):
        one.step(step)
    assert (one.state.corrections[:, :6].abs().amax(1) > 0.01).all()
    assert not one.state.corrections[:, 6:].any()


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_are_those_of_calls(gpu_views, config, recipe: str) -> None:
    calls, graphs = both(gpu_views, changed(config, **RECIPES[recipe]), 11)
    assert graphs == pytest.approx(calls, rel=2e-3)
    assert graphs[10] < graphs[0]


def test_masks_weights_and_sizes_act(gpu_views, config) -> None:
    mask = torch.zeros(80, 80, dtype=torch.bool, device="cuda")
    mask[20:60, 30:70] = True
    small = gpu_views[1]
    half = replace(
        small,
        camera=small.camera.resized(40, 40),
        image=small.image.reshape(40, 2, 40, 2, 3).mean((1, 3)),
    )
    views = [replace(gpu_views[0], mask=mask), half, replace(gpu_views[2], weight=0.3)]
    calls, graphs = both(views, config, 11)
    assert graphs == pytest.approx(calls, rel=2e-3)


def test_absolute_gradients_and_sizes_are_accumulated(gpu_views, config) -> None:
    strategy = config.strategy.model_copy(update={"absgrad": True, "refine_scale2d_stop_iter": 50})
    states = []
    for graphs in (False, True):
        one = trainer(gpu_views, changed(config, strategy=strategy), graphs)
        for step in range(10):
            one.step(step)
        one.check_finite(0.0, 10)
        states.append(one.state.strategy_state)
    calls, graphs = states
    assert torch.equal(calls["count"], graphs["count"])
    assert torch.allclose(calls["grad2d"], graphs["grad2d"], rtol=0.02, atol=1e-6)
    # Radii are whole pixels, of 80: where one is on the edge, rounding decides.
    apart = ((calls["radii"] - graphs["radii"]).abs() * 80).round()
    assert apart.max() <= 1
    assert (apart > 0).float().mean() < 0.02


def test_growth_goes_on_between_graphs(gpu_views, config) -> None:
    one = trainer(gpu_views, config)
    losses = [float(one.step(step)[0]) for step in range(80)]
    assert len(one.state.params["means"]) > 160
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:10])
    state = one.state.optimizers["sh0"].state[one.state.params["sh0"]]
    assert state["exp_avg"].shape == one.state.params["sh0"].shape
    assert float(state["step"]) == 80


def test_memory_of_fewer_gaussians_is_given_back(gpu_views, config) -> None:
    grows = {"grow_grad2d": 1e-12, "grow_scale2d": 10.0, "refine_start_iter": 4, "refine_every": 5}
    strategy = config.strategy.model_copy(update=grows | {"refine_stop_iter": 70})
    one = trainer(gpu_views, changed(config, strategy=strategy, max_gaussians=400_000))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    for step in range(80):
        one.step(step)
    one.value(one.step(80)[0])
    assert len(one.state.params["means"]) > 100_000
    assert torch.cuda.max_memory_reserved() <= 1.5 * torch.cuda.max_memory_allocated()


def test_steps_without_room_are_repeated(gpu_views, config, monkeypatch) -> None:
    monkeypatch.setattr("stages.splat.training.graph_steps._GRAIN", 16)
    calls = trainer(gpu_views, config, False)
    one = trainer(gpu_views, config)
    for step in range(9):
        calls.step(step)
        if step == 6:  # one was taken by calls, five by a graph
            one.graphs.settle()
            one.graphs._graphs.clear()
            one.graphs._room = 0.0
        one.step(step)
    assert not one.graphs._taken[:3].any()
    gaussians = one.gaussians(9)
    state = one.state.optimizers["means"].state[one.state.params["means"]]
    assert float(state["step"]) == 9
    assert torch.allclose(gaussians.means, calls.state.params["means"], atol=2e-3)


def whole_and_resumed(views, config, steps: int, stopped_at: int):
    """A trainer after all steps, and one that went on from the state of another at a step."""
    whole, first, second = (trainer(views, config) for _ in range(3))
    for step in range(steps):
        whole.step(step)
        if step < stopped_at:
            first.step(step)
    second.load_state_dict(first.state_dict())
    for step in range(stopped_at, steps):
        second.step(step)
    return whole, second


def test_state_goes_on_where_it_was(gpu_views, config) -> None:
    both = whole_and_resumed(gpu_views, config, 20, stopped_at=12)
    a, b = (one.gaussians(20) for one in both)
    assert len(a) == len(b)
    assert float((a.means - b.means).abs().mean()) < 1e-2


def test_colours_are_learnt_and_go_on_where_they_were(gpu_views, config) -> None:
    red = torch.tensor([1.5, 1.0, 1.0], device="cuda")
    views = [replace(gpu_views[0], image=gpu_views[0].image * red), *gpu_views[1:]]
    config = changed(config, color_opt=True, color_opt_lr=0.02)
    both = whole_and_resumed(views, config, 40, stopped_at=20)
    gains, again = (np.array(one.gaussians(40).colors["maps"])[:, 0, 0] for one in both)
    assert gains[0] > gains[1:].max() + 0.05
    assert np.abs(gains - again).max() < 0.02


def test_mcmc_relocates_and_adds(gpu_views, config) -> None:
    strategy = config.strategy.model_copy(update={"kind": "mcmc"})
    one = trainer(gpu_views, changed(config, strategy=strategy, max_gaussians=190))
    losses = [float(one.step(step)[0]) for step in range(80)]
    assert 160 < len(one.state.params["means"]) <= 190
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_halving_is_that_of_calls(gpu_views, config) -> None:
    strategy = config.strategy.model_copy(update={"halve_every": 20})
    config = changed(config, strategy=strategy)
    one, calls = trainer(gpu_views, config), trainer(gpu_views, config, False)
    for step in range(21):
        one.step(step)
        calls.step(step)
    opacities, wanted = (
        torch.sigmoid(each.state.params["opacities"].detach()).mean() for each in (one, calls)
    )
    assert float(opacities) == pytest.approx(float(wanted), rel=0.02)
    losses = [float(one.step(step)[0]) for step in range(21, 80)]
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_streams_train_each_timestamp(gpu_views, config) -> None:
    names = [str(k) for k in range(12)]
    last: dict[str, float] = {}

    def train(name: str, _: Preemption) -> None:
        one = trainer(gpu_views, config)
        losses = [one.step(step)[0].clone() for step in range(80)]
        one.check_finite(0.0, 80)
        last[name] = float(torch.stack(losses[-10:]).mean() / torch.stack(losses[:10]).mean())

    side_by_side(names, train, at_once=3)
    assert sorted(last) == sorted(names)
    assert max(last.values()) < 0.5
