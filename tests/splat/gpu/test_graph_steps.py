"""The book-keeping of graph steps without a GPU: recorded work is run when it is replayed.

Kernels run in Python, and renders are the CPU rasteriser's.
"""

import weakref
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from stages.splat.config import TrainConfig
from stages.splat.gpu.rasterize import Rendered, Viewpoint
from stages.splat.raster import rasterization
from stages.splat.training import graph_steps
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(),
    reason="on a GPU kernels do not run in Python: test_graph_steps_cuda.py",
)
ISECTS = 1000  # intersections that every render of these tests reports


class Replayed:
    """A graph on the CPU."""

    def __init__(self, work: Callable[[], object]):
        self.replay = work


class GraphRecorder:
    """Keeps work instead of recording what it starts."""

    released, renewed = 0, 0

    def release(self) -> None:
        type(self).released += 1

    def renew(self) -> None:
        type(self).renewed += 1

    def record(self, work: Callable[[], object]) -> Replayed:
        return Replayed(work)


def rendered(params, harmonics, view: Viewpoint, degree, background, config, room=None) -> Rendered:
    """As the GPU renders; with too little room the image is black."""
    assert torch.allclose(view.eye, torch.linalg.inv(view.cam_from_norm)[:, :3, 3], atol=1e-5)
    images, _, info = rasterization(
        params["means"],
        params["quats"],
        torch.exp(params["scales"]),
        torch.sigmoid(params["opacities"]),
        harmonics,
        view.cam_from_norm,
        view.K,
        view.width,
        view.height,
        backend="cpu",
        sh_degree=degree,
        backgrounds=background,
        rasterize_mode="antialiased" if config.antialiased else "classic",
    )
    image = images[0] if room is None or room >= ISECTS else images[0] * 0
    isects = torch.tensor(ISECTS, dtype=torch.int32)
    return Rendered(image, info["means2d"], info["radii"], isects)


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GraphRecorder, "released", 0)
    monkeypatch.setattr(GraphRecorder, "renewed", 0)
    monkeypatch.setattr(graph_steps, "GraphRecorder", GraphRecorder)
    monkeypatch.setattr(graph_steps, "render", rendered)
    monkeypatch.setattr(graph_steps, "count_isects", lambda *_: torch.tensor(float(ISECTS)))
    monkeypatch.setattr(graph_steps, "wait", lambda: None)


@pytest.fixture
def recipe(config: TrainConfig) -> TrainConfig:
    """Learnt poses, growth at steps 6 and 9, harmonics whose degree rises at 7."""
    strategy = config.strategy.model_copy(update={"refine_start_iter": 5, "refine_every": 3})
    changes = {"pose_opt": True, "pose_opt_lr": 1e-3, "sh_degree": 1, "sh_degree_interval": 7}
    return config.model_copy(update=changes | {"strategy": strategy})


def with_graphs(views, points, config: TrainConfig) -> Trainer:
    trainer = Trainer(views, *points, config, "cpu")
    trainer.use_graphs()
    return trainer


@pytest.mark.parametrize("shares", [False, True])
def test_steps_are_those_of_calls_through_growth(
    views, points, recipe, monkeypatch, shares: bool
) -> None:
    monkeypatch.setattr(graph_steps, "others_wait", lambda: shares)
    calls = Trainer(views, *points, recipe, "cpu")
    losses = [float(calls.step(step)[0]) for step in range(9)]
    trainer = with_graphs(views, points, recipe)
    graph_losses = [float(trainer.step(step)[0]) for step in range(9)]
    assert graph_losses == pytest.approx(losses, rel=1e-3)
    assert len(trainer.state.params["means"]) == len(calls.state.params["means"]) > 150
    # Memory was given back after copies were made, and before it where nobody had to wait.
    assert GraphRecorder.renewed >= 1
    assert GraphRecorder.released == (0 if shares else GraphRecorder.renewed)
    assert float((trainer.state.corrections - calls.state.corrections).detach().abs().mean()) < 1e-5
    sh0, rest = trainer.state.params["sh0"], trainer.state.params["shN"]
    assert rest.data_ptr() == sh0.data_ptr() + 12  # slices of one tensor again
    assert trainer.state.pose_optimizer.state[trainer.state.corrections]["step"] == 9


def test_graphs_stay_where_refinement_changes_nothing(views, points, recipe) -> None:
    changes = {"grow_grad2d": 1e9, "grow_scale2d": 1e9, "prune_opa": 0.0, "prune_scale3d": 1e9}
    strategy = recipe.strategy.model_copy(update=changes)
    trainer = with_graphs(views, points, recipe.model_copy(update={"strategy": strategy}))
    for step in range(11):
        trainer.step(step)
    recorded = [*trainer.graphs._graphs.values()]
    for step in range(11, 17):  # refined at 12 and 15
        trainer.step(step)
    assert [*trainer.graphs._graphs.values()] == recorded
    assert GraphRecorder.renewed == 1  # at 6: whether the first changes anything is not foreseen


def test_opacities_are_halved_as_by_calls(views, points, recipe) -> None:
    """At steps 4 and 8, of which the second follows growth."""
    strategy = recipe.strategy.model_copy(update={"halve_every": 4})
    recipe = recipe.model_copy(update={"strategy": strategy})
    found = []
    for has_graphs in (False, True):
        one = Trainer(views, *points, recipe, "cpu")
        if has_graphs:
            one.use_graphs()
        losses = [float(one.step(step)[0]) for step in range(4)]
        recorded = [*one.graphs._graphs.values()] if has_graphs else []
        losses += [float(one.step(step)[0]) for step in range(4, 6)]
        if has_graphs:
            assert [*one.graphs._graphs.values()] == recorded  # halved in place
        losses += [float(one.step(step)[0]) for step in range(6, 9)]
        found.append((losses, torch.sigmoid(one.state.params["opacities"].detach())))
    (expected, wanted), (losses, opacities) = found
    assert losses == pytest.approx(expected, rel=1e-3)
    assert float((opacities - wanted).abs().max()) < 1e-3


def test_poses_are_learnt_in_deviations_as_by_calls(views, points, recipe) -> None:
    covariance = np.diag([1e-2, 2e-2, 3e-2, 1e-2, 2e-2, 3e-2]) ** 2
    views = [replace(view, pose_covariance=covariance) for view in views]
    recipe = recipe.model_copy(update={"pose_opt_lr": "auto", "pose_opt_reg": "auto"})
    calls = Trainer(views, *points, recipe, "cpu")
    losses = [float(calls.step(step)[0]) for step in range(9)]
    trainer = with_graphs(views, points, recipe)
    assert [float(trainer.step(step)[0]) for step in range(9)] == pytest.approx(losses, rel=1e-3)
    learnt, expected = trainer.state.corrections.detach(), calls.state.corrections.detach()
    assert (learnt[:, :6].abs().amax(1) > 0.01).all()
    assert float((learnt - expected).abs().mean()) < 0.05 * float(expected.abs().mean())


def test_colours_are_learnt_as_by_calls(views, points, recipe) -> None:
    red = torch.tensor([1.5, 1.0, 1.0])
    views = [replace(views[0], image=views[0].image * red), *views[1:]]
    recipe = recipe.model_copy(update={"color_opt": True, "color_opt_lr": 0.02})
    calls = Trainer(views, *points, recipe, "cpu")
    losses = [float(calls.step(step)[0]) for step in range(9)]
    trainer = with_graphs(views, points, recipe)
    assert [float(trainer.step(step)[0]) for step in range(9)] == pytest.approx(losses, rel=1e-3)
    maps, expected = (one.state.color_maps().detach() for one in (trainer, calls))
    assert float((expected - torch.eye(3, 4)).abs().max()) > 0.02
    assert float((maps - expected).abs().mean()) < 1e-3
    assert trainer.state.color_optimizer.state[trainer.state.color_offsets]["step"] == 9


def test_steps_without_room_are_repeated_before_results_are_read(
    views, points, recipe, monkeypatch
) -> None:
    monkeypatch.setattr(graph_steps, "_GRAIN", 16)
    recipe = recipe.model_copy(
        update={"strategy": recipe.strategy.model_copy(update={"refine_start_iter": 50})}
    )
    calls = Trainer(views, *points, recipe, "cpu")
    trainer = with_graphs(views, points, recipe)
    for step in range(8):
        if step == 6:  # one was taken by calls, five have had room
            trainer.graphs.settle()
            trainer.graphs._graphs.clear()
            trainer.graphs._room = 0.0
        calls.step(step)
        trainer.step(step)
    assert trainer.state.optimizers["means"].state[trainer.state.params["means"]]["step"] == 6
    gaussians = trainer.gaussians(8)
    assert trainer.state.optimizers["means"].state[trainer.state.params["means"]]["step"] == 8
    assert torch.allclose(gaussians.means, calls.state.params["means"], atol=1e-4)
    assert trainer.graphs._room >= ISECTS


def test_new_views_are_trained_on_by_their_weights(views, points, recipe) -> None:
    trainer = with_graphs(views, points, recipe)
    trainer.step(0)
    trainer.set_views(views[3:])
    trainer.views.weights[1] = 0.25
    trainer.graphs.set_views(trainer.views)
    before = [float(trainer.step(step, 1)[0]) for step in (1, 2)]
    trainer.views.weights[1] = 1.0
    trainer.graphs.set_views(trainer.views)
    assert float(trainer.step(3, 1)[0]) == pytest.approx(4 * before[1], rel=0.1)


def test_steps_leave_the_views_and_the_rates_of_the_optimisers_alone(views, points, recipe) -> None:
    trainer = with_graphs(views, points, recipe)
    rates = [adam.param_groups[0]["lr"] for adam in trainer.state.optimizers.values()]
    before = trainer.views
    for step in range(8):  # growth at step 6 included
        trainer.step(step)
    adams = [*trainer.state.optimizers.values()]
    assert [adam.param_groups[0]["lr"] for adam in adams] == rates
    assert trainer.state.pose_optimizer.param_groups[0]["lr"] == recipe.pose_opt_lr
    assert trainer.views is before
    assert [torch.equal(a, b.image) for a, b in zip(before.images, views, strict=True)] == [
        True
    ] * 5


def test_stacked_views_hold_each_image_once(views, points, recipe) -> None:
    half = views[1].camera.resized(24, 24)
    mask = torch.zeros(48, 48, dtype=torch.bool)
    unlike = [replace(views[0], mask=mask), TrainView(half, torch.zeros(24, 24, 3)), *views[2:]]
    stacked = Trainer(unlike, *points, recipe, "cpu").views
    assert {shape: len(stack.images) for shape, stack in stacked.stacks.items()} == {
        (48, 48): 4,
        (24, 24): 1,
    }
    for index, image in enumerate(stacked.images):
        stack = stacked.stacks[stacked.shape(index)]
        assert image.data_ptr() == stack.images[stack.rows[index]].data_ptr()
        assert torch.equal(image, unlike[index].image)
    large = stacked.stacks[48, 48]
    assert [bool(large.masks[large.rows[k]].any()) for k in (0, 2, 3, 4)] == [False, *[True] * 3]
    assert stacked.stacks[24, 24].masks is None


def test_a_finished_training_is_freed_at_once(views, points, recipe) -> None:
    trainer = with_graphs(views, points, recipe)
    graphs = weakref.ref(trainer.graphs)
    del trainer
    assert graphs() is None
