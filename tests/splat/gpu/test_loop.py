"""The loop's book-keeping without a GPU: recorded work is run when it is replayed.

Kernels run in Python, and pictures are the CPU rasteriser's.
"""

import weakref
from collections.abc import Callable

import pytest
import torch

from stages.splat.config import TrainConfig
from stages.splat.gpu.rasterize import Drawn, Viewpoint
from stages.splat.raster import rasterization
from stages.splat.training import graph_steps as loops
from stages.splat.training.trainer import Trainer

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="on a GPU kernels do not run in Python: test_loop_cuda.py"
)
MEETINGS = 1000  # what every picture of these tests says that it needs


class Replayed:
    """A graph on the CPU."""

    def __init__(self, work: Callable[[], object]):
        self.replay = work


class Recorder:
    """Keeps work instead of recording what it starts."""

    def record(self, work: Callable[[], object]) -> Replayed:
        return Replayed(work)


def draw(params, harmonics, view: Viewpoint, degree, background, config, room=None) -> Drawn:
    """As the GPU draws; with too little room nothing is seen."""
    assert torch.allclose(view.eye, torch.linalg.inv(view.cam_from_norm)[:, :3, 3], atol=1e-5)
    images, _, info = rasterization(
        params["means"], params["quats"], torch.exp(params["scales"]),
        torch.sigmoid(params["opacities"]), harmonics, view.cam_from_norm, view.K, view.width,
        view.height, backend="cpu", sh_degree=degree, backgrounds=background,
        rasterize_mode="antialiased" if config.antialiased else "classic",
    )  # fmt: skip
    image = images[0] if room is None or room >= MEETINGS else images[0] * 0
    total = torch.tensor(MEETINGS, dtype=torch.int32)
    return Drawn(image, info["means2d"], info["radii"], total)


@pytest.fixture(autouse=True)
def without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "Recorder", Recorder)
    monkeypatch.setattr(loops, "draw", draw)
    monkeypatch.setattr(loops, "meetings", lambda *_: torch.tensor(float(MEETINGS)))
    monkeypatch.setattr(loops, "wait", lambda: None)


@pytest.fixture
def recipe(config: TrainConfig) -> TrainConfig:
    """Learnt poses, growth at steps 6 and 9, harmonics whose degree rises at 7."""
    strategy = config.strategy.model_copy(update={"refine_start_iter": 5, "refine_every": 3})
    changes = {"pose_opt": True, "pose_opt_lr": 1e-3, "sh_degree": 1, "sh_degree_interval": 7}
    return config.model_copy(update=changes | {"strategy": strategy})


def looping(views, points, config: TrainConfig) -> Trainer:
    trainer = Trainer(views, *points, config, "cpu")
    trainer.loop = loops.Loop(trainer)
    trainer.loop.set_views()
    return trainer


def test_steps_are_those_of_calls_through_growth(views, points, recipe) -> None:
    calls = Trainer(views, *points, recipe, "cpu")
    losses = [float(calls.step(step)[0]) for step in range(9)]
    trainer = looping(views, points, recipe)
    found = [float(trainer.step(step)[0]) for step in range(9)]
    assert found == pytest.approx(losses, rel=1e-3)
    assert len(trainer.params["means"]) == len(calls.params["means"]) > 150
    assert float((trainer.corrections - calls.corrections).detach().abs().mean()) < 1e-5
    sh0, rest = trainer.params["sh0"], trainer.params["shN"]
    assert rest.data_ptr() == sh0.data_ptr() + 12  # parts of one tensor again
    assert trainer.pose_optimizer.state[trainer.corrections]["step"] == 9


def test_steps_without_room_are_repeated_before_anyone_looks(
    views, points, recipe, monkeypatch
) -> None:
    monkeypatch.setattr(loops, "_GRAIN", 16)
    recipe = recipe.model_copy(
        update={"strategy": recipe.strategy.model_copy(update={"refine_start_iter": 50})}
    )
    calls = Trainer(views, *points, recipe, "cpu")
    trainer = looping(views, points, recipe)
    for step in range(8):
        if step == 6:  # one was taken by calls, five have had room
            trainer.loop.settle()
            trainer.loop._graphs.clear()
            trainer.loop._room = 0.0
        calls.step(step)
        trainer.step(step)
    assert trainer.optimizers["means"].state[trainer.params["means"]]["step"] == 6
    gaussians = trainer.gaussians(8)
    assert trainer.optimizers["means"].state[trainer.params["means"]]["step"] == 8
    assert torch.allclose(gaussians.means, calls.params["means"], atol=1e-4)
    assert trainer.loop._room >= MEETINGS


def test_new_views_are_learnt_from_and_weighed(views, points, recipe) -> None:
    trainer = looping(views, points, recipe)
    trainer.step(0)
    trainer.set_views(views[3:])
    trainer.weights[1] = 0.25
    trainer.loop.set_views()
    before = [float(trainer.step(step, 1)[0]) for step in (1, 2)]
    trainer.weights[1] = 1.0
    trainer.loop.set_views()
    assert float(trainer.step(3, 1)[0]) == pytest.approx(4 * before[1], rel=0.1)


def test_a_finished_training_is_freed_at_once(views, points, recipe) -> None:
    trainer = looping(views, points, recipe)
    loop = weakref.ref(trainer.loop)
    del trainer
    assert loop() is None
