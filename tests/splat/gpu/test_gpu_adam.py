"""Adam's kernel against torch's Adam, and the kernel of the statistics against the strategy."""

from types import SimpleNamespace

import pytest
import torch
from kernel_device import DEVICE

from stages.splat.gpu.adam import accumulate, descend
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
