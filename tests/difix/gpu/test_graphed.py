"""Steps by graphs train as torch's do. Without a GPU a replay recomputes the step."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from fixers import random_images
from torch import Tensor, nn
from tuning import gram_loss, no_weights, one_run, small_fixer, tune_config  # noqa: F401

from stages.difix.config import LossConfig
from stages.difix.gpu.adam import GOOD, SCALE, STEPS
from stages.difix.gpu.master_weights import Buckets, FlatParameters, MasterWeights
from stages.difix.network.model import Fixer, trainable
from stages.difix.network.precision import choose_execution
from stages.difix.tuning import graphed
from stages.difix.tuning.eager import EagerStep
from stages.difix.tuning.graphed import GraphedStep
from stages.difix.tuning.losses import FixerLoss, Terms
from stages.run.errors import UserError

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ADAM = {"betas": (0.9, 0.999), "weight_decay": 0.01, "max_norm": 1.0}
PUBLISHED = {"lora_rank": 2, "residual": False}
pytestmark = pytest.mark.usefixtures("one_run")


class RecomputingGraph:
    """A graph whose replay computes the step again."""

    def __init__(self, work: Callable[[bool], Terms]):
        self.work = work
        self.terms = Terms(*(term.clone() for term in work(False)))

    def replay(self) -> None:
        for output, term in zip(self.terms, self.work(True), strict=True):
            output.copy_(term)


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cuda":
        return
    monkeypatch.setattr(graphed, "fuse", lambda fixer: None)  # has its own test

    def record(step: GraphedStep, work: Callable[[bool], Terms]) -> tuple[RecomputingGraph, Terms]:
        graph = RecomputingGraph(work)
        return graph, graph.terms

    monkeypatch.setattr(GraphedStep, "_record_graph", record)
    monkeypatch.setattr(graphed, "_BUCKET", 20_000)


def loss(tmp_path: Path) -> FixerLoss:
    config: LossConfig = tune_config().losses
    return FixerLoss(config, no_weights(tmp_path), torch.device(DEVICE))


def new_fixer(which: str, **spec: Any) -> tuple[Fixer, dict[str, nn.Parameter]]:
    fixer = small_fixer(**spec).to(DEVICE, memory_format=torch.channels_last)
    return fixer, trainable(fixer, which)


def train(step: Any, criterion: FixerLoss, steps: int, accumulation: int) -> list[float]:
    """Take a few steps on a few images; their losses and gradient norms."""
    values = []
    for number in range(steps):
        for micro in range(accumulation):
            views = random_images(1, 2, 3, 16, 24, seed=10 * number + micro).to(DEVICE)
            last = micro == accumulation - 1
            terms = step.gradients(criterion, views, views[:, 1], number, last=last, generator=None)
            values.append(float(terms.loss.detach()))
        values.append(float(step.learn(1e-3)[0]))
    return values


@pytest.mark.parametrize(
    ("which", "spec", "accumulation"), [("all", {}, 1), ("published", PUBLISHED, 2)]
)
def test_float32_steps_equal_those_of_torch(
    tmp_path: Path, which: str, spec: dict, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Adam's first steps follow the sign of even tiny gradients, of which TF32 would flip many.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    criterion = loss(tmp_path)
    fixer, parameters = new_fixer(which, **spec)
    accelerator = Accelerator(cpu=DEVICE == "cpu")
    eager = EagerStep(accelerator, fixer, parameters, accumulation=accumulation, **ADAM)
    expected = train(eager, criterion, 2, accumulation)
    other, parameters = new_fixer(which, **spec)
    names, start = list(parameters), [weight.detach().clone() for weight in parameters.values()]
    step = GraphedStep(other, parameters, torch.float32, accumulation=accumulation, **ADAM)
    assert train(step, criterion, 2, accumulation) == pytest.approx(expected, rel=1e-3)
    assert list(step.parameters) == names
    trained, torchs = step.release().state_dict(), eager.release().state_dict()
    moved = sum(
        float((trained[key] - weight).abs().sum()) for key, weight in zip(names, start, strict=True)
    )
    difference = sum(float((trained[key] - torchs[key]).abs().sum()) for key in names)
    assert 0 < difference + 1e-9 < 1e-3 * moved
    frozen = trained.keys() - set(names)
    assert all(torch.equal(trained[key], torchs[key]) for key in frozen)


def test_replayed_steps_use_their_own_crops(tmp_path: Path) -> None:
    """A graph reads the crop from a tensor that every step overwrites."""
    criterion = gram_loss(tmp_path, torch.device(DEVICE), 32)
    views = random_images(1, 2, 3, 40, 48, seed=1).to(DEVICE)
    fixer, parameters = new_fixer("published", **PUBLISHED)
    with torch.no_grad():
        expected = [float(criterion(fixer(views), views[:, 1], step).gram) for step in range(3)]
    step = GraphedStep(fixer, parameters, torch.float32, accumulation=1, **ADAM)
    grams = [
        float(step.gradients(criterion, views, views[:, 1], number, last=True).gram)
        for number in range(3)
    ]
    assert grams == pytest.approx(expected, rel=1e-3)
    assert len(step._graphs) == 1
    assert len(set(expected)) == 3


def test_gradients_of_bf16_copies_update_float32_weights(tmp_path: Path) -> None:
    """Small changes are added in float32: low-rank changes, and steps of fine-tuning."""
    fixer, parameters = new_fixer("published", **PUBLISHED)
    before = {key: weight.clone() for key, weight in fixer.state_dict().items()}
    step = GraphedStep(fixer, parameters, torch.bfloat16, accumulation=1, **ADAM)
    now = dict(fixer.named_parameters())
    assert now["unet.conv_in.weight"].dtype == torch.bfloat16
    assert now["vae.encoder.conv_in.weight"].dtype == torch.bfloat16
    kept = {key for key, weight in now.items() if weight.dtype == torch.float32}
    assert "vae.decoder.conv_in.weight" in kept  # changed by LoRA
    assert {key for key in now if key.startswith(("lora.", "skips."))} <= kept
    train(step, loss(tmp_path), 2, 1)
    weight = step.parameters["unet.conv_in.weight"]
    torch.testing.assert_close(now["unet.conv_in.weight"], weight.bfloat16(), atol=0, rtol=0)
    after = step.release().state_dict()
    assert all(weight.dtype == torch.float32 for weight in after.values())
    trained = set(parameters)
    assert not any(torch.equal(after[key], before[key]) for key in trained if "to_q" in key)
    assert all(torch.equal(after[key], before[key]) for key in after.keys() - trained)


def test_a_restored_state_continues_the_same(tmp_path: Path) -> None:
    criterion, steps = loss(tmp_path), []
    for _ in range(2):
        fixer, parameters = new_fixer("published", **PUBLISHED)
        steps.append(GraphedStep(fixer, parameters, torch.bfloat16, accumulation=1, **ADAM))
    first, second = steps
    train(first, criterion, 2, 1)
    with torch.no_grad():
        for key, weight in second.parameters.items():
            weight.copy_(first.parameters[key])
    second.load(first.state())
    assert train(first, criterion, 1, 1) == train(second, criterion, 1, 1)
    for key, weight in first.parameters.items():
        assert torch.equal(weight, second.parameters[key])


def master_weights(dtype: torch.dtype, **values: Any) -> tuple[MasterWeights, nn.Parameter]:
    weight = nn.Parameter(random_images(6, 5, 3, 3).to(DEVICE, memory_format=torch.channels_last))
    options: dict[str, Any] = ADAM | {"factor": 1.0, "gradient_dtype": dtype} | values
    return MasterWeights({"weight": weight}, set(), dtype, **options), weight


def set_gradient(optimiser: MasterWeights, gradient: Tensor) -> None:
    (group,) = optimiser.groups
    group.views(group.gradients)[0].copy_(gradient)


@pytest.mark.parametrize("max_norm", [0.0, 0.1])
def test_adam_equals_torchs(max_norm: float) -> None:
    optimiser, weight = master_weights(torch.float32, max_norm=max_norm)
    other = nn.Parameter(weight.detach().clone())
    adam = torch.optim.AdamW([other], 1e-2, ADAM["betas"], weight_decay=0.01)
    for seed in range(3):
        gradient = random_images(6, 5, 3, 3, seed=seed).to(DEVICE) - 0.5
        set_gradient(optimiser, gradient)
        other.grad = gradient.clone()
        expected = torch.nn.utils.clip_grad_norm_([other], max_norm or 1e9)
        adam.step()
        torch.testing.assert_close(optimiser.step(1e-2), expected)
        torch.testing.assert_close(weight, other)


def test_a_step_that_overflows_is_skipped_and_the_scale_halved() -> None:
    optimiser, weight = master_weights(torch.float16)
    before, scale = weight.detach().clone(), float(optimiser.control[SCALE])
    gradient = torch.ones(6, 5, 3, 3, device=DEVICE)
    set_gradient(optimiser, gradient * float("inf"))
    assert not optimiser.step(1e-2).isfinite()
    assert torch.equal(weight, before)
    assert optimiser.control.tolist() == [0.0, scale / 2, 0.0]
    set_gradient(optimiser, gradient * scale / 2 / 1000)
    assert float(optimiser.step(1e-2)) == pytest.approx(270**0.5 / 1000, rel=1e-2)
    assert not torch.equal(weight, before)
    assert float(optimiser.control[STEPS]) == float(optimiser.control[GOOD]) == 1


def test_buckets_are_passed_on_in_order_whichever_is_complete_first() -> None:
    """Processes that exchange in different orders would deadlock."""
    weights = {name: nn.Parameter(torch.ones(64, device=DEVICE)) for name in "abcd"}
    group = FlatParameters(weights, torch.float32, torch.float32)
    buckets, ready = Buckets(group, size=128), []
    buckets.on_ready = lambda gradients: ready.append(gradients.tolist()[::64])
    a, b, c, d = weights.values()
    for adding, expected in ((False, [[3.0, 4.0], [1.0, 2.0]]), (True, [[6.0, 8.0], [2.0, 4.0]])):
        ready.clear()
        buckets.adding = adding
        buckets.begin()
        (a.sum() + 2 * b.sum()).backward()  # the last bucket in order
        assert ready == []
        (3 * c.sum() + 4 * d.sum()).backward()
        assert ready == expected
        assert a.grad is None
    buckets.adding = False
    buckets.begin()
    (5 * a.sum()).backward()
    buckets.end()
    assert ready[-2:] == [[0.0, 0.0], [5.0, 0.0]]


def test_the_scale_doubles_after_enough_finite_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.difix.gpu.master_weights._PATIENCE", 2)
    optimiser, _ = master_weights(torch.float16)
    scales = []
    for _ in range(4):
        optimiser.step(1e-3)
        scales.append(float(optimiser.control[SCALE]) / 2**16)
    assert scales == [1, 2, 2, 4]


def test_graphs_are_refused_without_a_gpu_or_with_random_latents() -> None:
    with pytest.raises(UserError, match="only a GPU"):
        choose_execution("graph", torch.device("cpu"), False, "tune.execution")
    with pytest.raises(UserError, match="the same latents"):
        choose_execution("graph", torch.device("cuda"), True, "tune.execution")


@pytest.mark.parametrize(
    ("requested", "device", "random_latents", "execution"),
    [
        ("auto", "cuda", False, "graph"),
        ("auto", "cuda", True, "eager"),
        ("auto", "cpu", False, "eager"),
        ("graph", "cuda", False, "graph"),
        ("eager", "cuda", False, "eager"),
    ],
)
def test_a_gpu_uses_graphs_where_possible(
    requested: str, device: str, random_latents: bool, execution: str
) -> None:
    chosen = choose_execution(requested, torch.device(device), random_latents, "tune.execution")
    assert chosen == execution


def test_release_frees_weights_and_moments(tmp_path: Path) -> None:
    fixer, parameters = new_fixer("published", **PUBLISHED)
    step = GraphedStep(fixer, parameters, torch.bfloat16, accumulation=1, **ADAM)
    train(step, loss(tmp_path), 1, 1)
    group = weakref.ref(step.master_weights.groups[0])
    step.release()
    del step
    gc.collect()
    assert group() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_graphs_of_one_and_two_views_share_memory(tmp_path: Path, dtype: torch.dtype) -> None:
    """Steps with and without a reference alternate, as with dropout of references."""
    fixer, parameters = new_fixer("published", **PUBLISHED)
    step, criterion = GraphedStep(fixer, parameters, dtype, accumulation=1, **ADAM), loss(tmp_path)
    views = random_images(1, 2, 3, 32, 32).cuda()
    losses = []
    for number in range(12):
        inputs = views[:, :1] if number % 3 == 1 else views
        terms = step.gradients(criterion, inputs, views[:, 1], number, last=True)
        losses.append(float(terms.loss.detach()))
        step.learn(1e-3)
    assert losses[-1] < losses[0]
    assert len(step._graphs) == 2
