"""Recorded steps teach what steps by torch teach. Without a GPU a recording is computed anew."""

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
from stages.difix.gpu.master_weights import Buckets, MasterWeights, Run
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


class Anew:
    """A graph that computes instead of replaying."""

    def __init__(self, work: Callable[[bool], Terms]):
        self.work = work
        self.terms = Terms(*(one.clone() for one in work(False)))

    def replay(self) -> None:
        for kept, term in zip(self.terms, self.work(True), strict=True):
            kept.copy_(term)


@pytest.fixture(autouse=True)
def recorder(monkeypatch: pytest.MonkeyPatch) -> None:
    if DEVICE == "cuda":
        return
    monkeypatch.setattr(graphed, "fuse", lambda fixer: None)  # has a test of its own

    def captured(step: GraphedStep, work: Callable[[bool], Terms]) -> tuple[Anew, Terms]:
        graph = Anew(work)
        return graph, graph.terms

    monkeypatch.setattr(GraphedStep, "_captured", captured)
    monkeypatch.setattr(graphed, "_BUCKET", 20_000)


def loss(tmp_path: Path) -> FixerLoss:
    config: LossConfig = tune_config().losses
    return FixerLoss(config, no_weights(tmp_path), torch.device(DEVICE))


def fresh(which: str, **spec: Any) -> tuple[Fixer, dict[str, nn.Parameter]]:
    fixer = small_fixer(**spec).to(DEVICE, memory_format=torch.channels_last)
    return fixer, trainable(fixer, which)


def taught(step: Any, judge: FixerLoss, steps: int, accumulation: int) -> list[float]:
    """Loss and gradient norm of a few steps on a few pictures."""
    told = []
    for number in range(steps):
        for micro in range(accumulation):
            views = random_images(1, 2, 3, 16, 24, seed=10 * number + micro).to(DEVICE)
            last = micro == accumulation - 1
            terms = step.gradients(judge, views, views[:, 1], number, last=last, generator=None)
            told.append(float(terms.loss.detach()))
        told.append(float(step.learn(1e-3)[0]))
    return told


@pytest.mark.parametrize(
    ("which", "spec", "accumulation"), [("all", {}, 1), ("published", PUBLISHED, 2)]
)
def test_float32_steps_are_those_of_torch(
    tmp_path: Path, which: str, spec: dict, accumulation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Adam's first steps follow the sign of a gradient, however small: TF32 would turn many.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    judge = loss(tmp_path)
    fixer, parameters = fresh(which, **spec)
    accelerator = Accelerator(cpu=DEVICE == "cpu")
    eager = EagerStep(accelerator, fixer, parameters, accumulation=accumulation, **ADAM)
    wanted = taught(eager, judge, 2, accumulation)
    other, parameters = fresh(which, **spec)
    names, start = list(parameters), [one.detach().clone() for one in parameters.values()]
    step = GraphedStep(other, parameters, torch.float32, accumulation=accumulation, **ADAM)
    assert taught(step, judge, 2, accumulation) == pytest.approx(wanted, rel=1e-3)
    assert list(step.parameters) == names
    found, torchs = step.release().state_dict(), eager.release().state_dict()
    moved = sum(
        float((found[key] - one).abs().sum()) for key, one in zip(names, start, strict=True)
    )
    apart = sum(float((found[key] - torchs[key]).abs().sum()) for key in names)
    assert 0 < apart + 1e-9 < 1e-3 * moved
    untouched = found.keys() - set(names)
    assert all(torch.equal(found[key], torchs[key]) for key in untouched)


def test_recorded_steps_look_at_their_own_crops(tmp_path: Path) -> None:
    """A recording holds the crop of the step that it was made in."""
    judge = gram_loss(tmp_path, torch.device(DEVICE), 32)
    views = random_images(1, 2, 3, 40, 48, seed=1).to(DEVICE)
    fixer, parameters = fresh("published", **PUBLISHED)
    with torch.no_grad():
        wanted = [float(judge(fixer(views), views[:, 1], step).gram) for step in range(3)]
    step = GraphedStep(fixer, parameters, torch.float32, accumulation=1, **ADAM)
    found = [
        float(step.gradients(judge, views, views[:, 1], number, last=True).gram)
        for number in range(3)
    ]
    assert found == pytest.approx(wanted, rel=1e-3)
    assert len(step._recordings) == 1
    assert len(set(wanted)) == 3


def test_bf16_copies_teach_float32_weights(tmp_path: Path) -> None:
    """What changes little is added in float32: low-rank changes, and steps of fine-tuning."""
    fixer, parameters = fresh("published", **PUBLISHED)
    before = {key: one.clone() for key, one in fixer.state_dict().items()}
    step = GraphedStep(fixer, parameters, torch.bfloat16, accumulation=1, **ADAM)
    now = dict(fixer.named_parameters())
    assert now["unet.conv_in.weight"].dtype == torch.bfloat16
    assert now["vae.encoder.conv_in.weight"].dtype == torch.bfloat16
    kept = {key for key, one in now.items() if one.dtype == torch.float32}
    assert "vae.decoder.conv_in.weight" in kept  # what LoRA changes
    assert {key for key in now if key.startswith(("lora.", "skips."))} <= kept
    taught(step, loss(tmp_path), 2, 1)
    weight = step.parameters["unet.conv_in.weight"]
    torch.testing.assert_close(now["unet.conv_in.weight"], weight.bfloat16(), atol=0, rtol=0)
    after = step.release().state_dict()
    assert all(one.dtype == torch.float32 for one in after.values())
    learnt = set(parameters)
    assert not any(torch.equal(after[key], before[key]) for key in learnt if "to_q" in key)
    assert all(torch.equal(after[key], before[key]) for key in after.keys() - learnt)


def test_a_state_is_taken_up_again(tmp_path: Path) -> None:
    judge, steps = loss(tmp_path), []
    for _ in range(2):
        fixer, parameters = fresh("published", **PUBLISHED)
        steps.append(GraphedStep(fixer, parameters, torch.bfloat16, accumulation=1, **ADAM))
    first, second = steps
    taught(first, judge, 2, 1)
    with torch.no_grad():
        for key, one in second.parameters.items():
            one.copy_(first.parameters[key])
    second.load(first.state())
    assert taught(first, judge, 1, 1) == taught(second, judge, 1, 1)
    for key, one in first.parameters.items():
        assert torch.equal(one, second.parameters[key])


def master_weights(dtype: torch.dtype, **values: Any) -> tuple[MasterWeights, nn.Parameter]:
    weight = nn.Parameter(random_images(6, 5, 3, 3).to(DEVICE, memory_format=torch.channels_last))
    given: dict[str, Any] = ADAM | {"factor": 1.0, "summed": dtype} | values
    return MasterWeights({"weight": weight}, set(), dtype, **given), weight


def give(found: MasterWeights, gradient: Tensor) -> None:
    (run,) = found.runs
    run.views(run.gradients)[0].copy_(gradient)


@pytest.mark.parametrize("max_norm", [0.0, 0.1])
def test_adam_is_torchs(max_norm: float) -> None:
    found, weight = master_weights(torch.float32, max_norm=max_norm)
    other = nn.Parameter(weight.detach().clone())
    adam = torch.optim.AdamW([other], 1e-2, ADAM["betas"], weight_decay=0.01)
    for seed in range(3):
        gradient = random_images(6, 5, 3, 3, seed=seed).to(DEVICE) - 0.5
        give(found, gradient)
        other.grad = gradient.clone()
        wanted = torch.nn.utils.clip_grad_norm_([other], max_norm or 1e9)
        adam.step()
        torch.testing.assert_close(found.step(1e-2), wanted)
        torch.testing.assert_close(weight, other)


def test_a_step_that_overflows_is_left_out_and_the_scale_halved() -> None:
    found, weight = master_weights(torch.float16)
    before, scale = weight.detach().clone(), float(found.control[SCALE])
    gradient = torch.ones(6, 5, 3, 3, device=DEVICE)
    give(found, gradient * float("inf"))
    assert not found.step(1e-2).isfinite()
    assert torch.equal(weight, before)
    assert found.control.tolist() == [0.0, scale / 2, 0.0]
    give(found, gradient * scale / 2 / 1000)
    assert float(found.step(1e-2)) == pytest.approx(270**0.5 / 1000, rel=1e-2)
    assert not torch.equal(weight, before)
    assert float(found.control[STEPS]) == float(found.control[GOOD]) == 1


def test_buckets_are_handed_on_in_order_whatever_comes_first() -> None:
    """Processes that exchange in different orders wait for each other for ever."""
    weights = {name: nn.Parameter(torch.ones(64, device=DEVICE)) for name in "abcd"}
    run = Run(weights, torch.float32, torch.float32)
    buckets, handed = Buckets(run, size=128), []
    buckets.hand_on = lambda part: handed.append(part.tolist()[::64])
    a, b, c, d = weights.values()
    for adding, wanted in ((False, [[3.0, 4.0], [1.0, 2.0]]), (True, [[6.0, 8.0], [2.0, 4.0]])):
        handed.clear()
        buckets.adding = adding
        buckets.begin()
        (a.sum() + 2 * b.sum()).backward()  # the bucket whose turn is last
        assert handed == []
        (3 * c.sum() + 4 * d.sum()).backward()
        assert handed == wanted
        assert a.grad is None
    buckets.adding = False
    buckets.begin()
    (5 * a.sum()).backward()
    buckets.end()
    assert handed[-2:] == [[0.0, 0.0], [5.0, 0.0]]


def test_the_scale_grows_with_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.difix.gpu.master_weights._PATIENCE", 2)
    found, _ = master_weights(torch.float16)
    scales = []
    for _ in range(4):
        found.step(1e-3)
        scales.append(float(found.control[SCALE]) / 2**16)
    assert scales == [1, 2, 2, 4]


def test_a_graph_is_refused_where_there_can_be_none() -> None:
    with pytest.raises(UserError, match="only a GPU"):
        choose_execution("graph", torch.device("cpu"), False, "tune.execution")
    with pytest.raises(UserError, match="the same latents"):
        choose_execution("graph", torch.device("cuda"), True, "tune.execution")


@pytest.mark.parametrize(
    ("requested", "device", "draws", "found"),
    [
        ("auto", "cuda", False, "graph"),
        ("auto", "cuda", True, "eager"),
        ("auto", "cpu", False, "eager"),
        ("graph", "cuda", False, "graph"),
        ("eager", "cuda", False, "eager"),
    ],
)
def test_a_gpu_records_where_it_can(requested: str, device: str, draws: bool, found: str) -> None:
    assert choose_execution(requested, torch.device(device), draws, "tune.execution") == found


def test_what_was_released_is_freed(tmp_path: Path) -> None:
    fixer, parameters = fresh("published", **PUBLISHED)
    step = GraphedStep(fixer, parameters, torch.bfloat16, accumulation=1, **ADAM)
    taught(step, loss(tmp_path), 1, 1)
    moments = weakref.ref(step.master_weights.runs[0])
    step.release()
    del step
    gc.collect()
    assert moments() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_recordings_of_both_numbers_of_views_share_their_memory(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    """A step without its reference between two with it, as dropout of references makes them."""
    fixer, parameters = fresh("published", **PUBLISHED)
    step, judge = GraphedStep(fixer, parameters, dtype, accumulation=1, **ADAM), loss(tmp_path)
    views = random_images(1, 2, 3, 32, 32).cuda()
    told = []
    for number in range(12):
        seen = views[:, :1] if number % 3 == 1 else views
        terms = step.gradients(judge, seen, views[:, 1], number, last=True)
        told.append(float(terms.loss.detach()))
        step.learn(1e-3)
    assert told[-1] < told[0]
    assert len(step._recordings) == 2
