"""Adam's kernel against torch's Adam, and the kernel of the statistics against the strategy."""

from types import SimpleNamespace

import pytest
import torch
from kernel_device import DEVICE

from stages.splat.gpu.adam import accumulate, descend, descend_harmonics, state_of
from stages.splat.training.densify import CappedStrategy

COUNT = 37


def adam(value: torch.Tensor, decay: float = 0.0) -> torch.optim.Adam:
    return torch.optim.Adam([torch.nn.Parameter(value)], lr=0.01, eps=1e-15, weight_decay=decay)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_steps_are_those_of_torch(decay: float) -> None:
    random = torch.Generator().manual_seed(0)
    start = torch.randn(COUNT, 2, 3, generator=random).to(DEVICE)
    rows = torch.zeros(COUNT, 16, 3, device=DEVICE)
    rows[:, 1:3] = start
    part = rows[:, 1:3]  # a slice of wider rows, as the harmonics are
    ours, theirs = adam(part, decay), adam(start.clone(), decay)
    rate, rates = torch.full((), 0.03, device=DEVICE), {}
    for step in range(4):
        gradient = torch.randn(COUNT, 5, 3, generator=random).to(DEVICE)
        if step == 2:  # from now on the rate is a number on the device
            rates[ours], theirs.param_groups[0]["lr"] = rate, 0.03
        descend([ours], [gradient[:, 2:4]], torch.ones((), device=DEVICE), rates)
        theirs.param_groups[0]["params"][0].grad = gradient[:, 2:4].clone()
        theirs.step()
    (our_param,), (their_param,) = (adam.param_groups[0]["params"] for adam in (ours, theirs))
    assert torch.allclose(our_param, their_param, rtol=1e-5, atol=1e-7)
    assert our_param.data_ptr() == part.data_ptr()
    assert not rows[:, 3:].any()
    for key in ("exp_avg", "exp_avg_sq", "step"):
        assert torch.allclose(ours.state[our_param][key], theirs.state[their_param][key].to(DEVICE))


def test_steps_of_harmonics_are_those_of_torch() -> None:
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(COUNT, 16, 3, generator=random).to(DEVICE)
    theirs = [adam(part.clone()) for part in (rows[:, :1], rows[:, 1:])]
    ours = [adam(part) for part in (rows[:, :1], rows[:, 1:])]
    for pair in (ours, theirs):
        pair[1].param_groups[0]["lr"] = 0.002
    for step in range(4):
        gradient = torch.randn(COUNT, 16, 3, generator=random).to(DEVICE)
        taken = torch.full((), float(step != 1), device=DEVICE)
        descend_harmonics(*ours, rows, gradient, taken)
        if step == 1:
            continue
        for one, part in zip(theirs, (gradient[:, :1], gradient[:, 1:]), strict=True):
            one.param_groups[0]["params"][0].grad = part.clone()
            one.step()
    for one, other in zip(ours, theirs, strict=True):
        (param,), (their_param,) = (adam.param_groups[0]["params"] for adam in (one, other))
        assert torch.allclose(param, their_param, rtol=1e-5, atol=1e-7)
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.allclose(one.state[param][key], other.state[their_param][key].to(DEVICE))


@pytest.mark.parametrize("steps", [1, 5, 400, 30_000])
def test_bias_of_late_steps_is_as_exact_as_of_early_ones(steps: int) -> None:
    one = adam(torch.zeros(COUNT, 3, device=DEVICE))
    state = state_of(one)
    state["step"].fill_(steps - 1)
    state["exp_avg_sq"].fill_(1e-3)
    gradient = torch.ones(COUNT, 3, device=DEVICE)
    descend([one], [gradient], torch.ones((), device=DEVICE), {})
    mean, square = 0.1 / (1 - 0.9**steps), (0.999 * 1e-3 + 1e-3) / (1 - 0.999**steps)
    (param,) = one.param_groups[0]["params"]
    assert float(param.detach()[0, 0]) == pytest.approx(-0.01 * mean / square**0.5, rel=2e-6)


def test_step_that_is_not_taken_changes_nothing() -> None:
    one = adam(torch.ones(COUNT, 3, device=DEVICE))
    (param,) = one.param_groups[0]["params"]
    gradient = torch.ones(COUNT, 3, device=DEVICE)
    for taken, steps, value in ((1.0, 1, 0.99), (0.0, 1, 0.99), (1.0, 2, 0.98)):
        descend([one], [gradient], torch.full((), taken, device=DEVICE), {})
        assert float(one.state[param]["step"]) == steps
        assert torch.allclose(param, torch.full_like(param, value))


@pytest.mark.parametrize("sizes", [True, False])
def test_statistics_are_the_strategys(sizes: bool) -> None:
    random = torch.Generator().manual_seed(0)
    strategy = CappedStrategy(refine_scale2d_stop_iter=100 if sizes else 0)
    ours, theirs = strategy.initialize_state(), strategy.initialize_state()
    params = {"means": torch.zeros(COUNT, 3, device=DEVICE)}
    for taken in (1.0, 1.0, 0.0):
        gradient = torch.randn(1, COUNT, 2, generator=random).to(DEVICE)
        radii = torch.randint(0, 3, (1, COUNT, 2), generator=random, dtype=torch.int32).to(DEVICE)
        accumulate(ours, gradient, radii, 30, 50, torch.full((), taken, device=DEVICE))
        if taken:
            places = SimpleNamespace(grad=gradient, device=gradient.device)
            info = {"means2d": places, "radii": radii, "width": 30, "height": 50, "n_cameras": 1}
            strategy.collect(params, theirs, info)
    for key in ("grad2d", "count", *(["radii"] if sizes else [])):
        assert torch.allclose(ours[key], theirs[key]), key
    assert ours["count"].unique().tolist() == [0, 1, 2]
