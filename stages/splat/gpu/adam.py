"""Adam and the statistics of densification, one kernel a parameter.

The state is torch.optim.Adam's own, so that gsplat's strategies edit it and a run can go on
without this module. torch's fused Adam reaches a third of the memory's speed on tensors this small.
"""

import math
from collections.abc import Mapping

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK = 1024
_HARMONICS_BLOCK = 512  # a tenth faster than 1024 on an H200


def state_of(optimizer: torch.optim.Adam) -> dict[str, Tensor]:
    """Step, exp_avg and exp_avg_sq of an optimiser's one parameter, created at its first use."""
    (param,) = optimizer.param_groups[0]["params"]
    state = optimizer.state[param]
    if "exp_avg" not in state:
        state["step"] = torch.zeros((), device=param.device)
        for key in ("exp_avg", "exp_avg_sq"):
            state[key] = torch.zeros(param.shape, device=param.device)
    return state


def descend(
    optimizers: list[torch.optim.Adam],
    gradients: list[Tensor],
    taken: Tensor,  # [] 1, or 0 for a step that changes nothing
    rates: Mapping[torch.optim.Adam, Tensor],  # [] on the device, in place of an optimiser's own
) -> None:
    """One step of each optimiser.

    Parameters and gradients may be slices of wider rows: [N, ...] with the rest contiguous.
    """
    states = [state_of(optimizer) for optimizer in optimizers]
    steps = [state["step"] for state in states]
    torch._foreach_add_(steps, [taken] * len(steps))  # a single tensor would be read by the host
    for optimizer, gradient, state in zip(optimizers, gradients, states, strict=True):
        group = optimizer.param_groups[0]
        (param,) = group["params"]
        width = math.prod(param.shape[1:])
        if param.numel() == 0:
            continue
        rate = rates.get(optimizer, group["lr"])
        _adam[(triton.cdiv(param.numel(), _BLOCK),)](
            param,
            gradient,
            state["exp_avg"],
            state["exp_avg_sq"],
            state["step"],
            rate,
            taken,
            param.numel(),
            param.stride(0),
            gradient.stride(0),
            float(group["weight_decay"]),
            group["eps"],
            *(number for beta in group["betas"] for number in (beta, 1 - beta, math.log(beta))),
            width,
            isinstance(rate, Tensor),
            _BLOCK,
        )


def descend_harmonics(
    first: torch.optim.Adam,
    others: torch.optim.Adam,
    harmonics: Tensor,  # [N, K, 3], of which the parameters of the optimisers are slices
    gradient: Tensor,  # [N, K, 3]
    taken: Tensor,
) -> None:
    """One step of the optimisers of sh0 [N, 1, 3] and shN [N, K - 1, 3], in one pass over both.

    Settings but the rates are those of `first`; rows of three numbers by themselves would take as
    long as rows of eight.
    """
    states = [state_of(optimizer) for optimizer in (first, others)]
    torch._foreach_add_([state["step"] for state in states], [taken] * 2)
    group, size = first.param_groups[0], harmonics.numel()
    if size == 0:
        return
    _adam_harmonics[(triton.cdiv(size, _HARMONICS_BLOCK),)](
        harmonics,
        gradient,
        *(state[key] for state in states for key in ("exp_avg", "exp_avg_sq")),
        states[0]["step"],
        taken,
        size,
        group["lr"],
        others.param_groups[0]["lr"],
        group["eps"],
        *(number for beta in group["betas"] for number in (beta, 1 - beta, math.log(beta))),
        math.prod(harmonics.shape[1:]),
        _HARMONICS_BLOCK,
    )


def accumulate(
    state: dict[str, Tensor],
    gradients: Tensor,  # [1, N, 2] of means2d, or absolute ones
    radii: Tensor,  # [1, N, 2] int32 px
    width: int,
    height: int,
    taken: Tensor,
) -> None:
    """Add one step to a strategy's statistics, as `CappedStrategy.collect` does.

    Args:
        state: the strategy's statistics, changed in place.
        gradients: of the loss by projected means.
        radii: of the Gaussians on the image; 0 where not visible.
        width: of the image, px.
        height: of the image, px.
        taken: [] 1, or 0 for a step that changes nothing.
    """
    count = radii.shape[1]
    keys = ("grad2d", "count", *(["radii"] if "radii" in state else []))
    for key in keys:
        if state[key] is None:
            state[key] = torch.zeros(count, device=radii.device)
    _accumulate[(triton.cdiv(count, _BLOCK),)](
        gradients,
        radii,
        state["grad2d"],
        state["count"],
        state.get("radii", state["count"]),
        taken,
        count,
        width / 2,
        height / 2,
        1 / max(width, height),
        "radii" in state,
        _BLOCK,
    )


@triton.jit(do_not_specialize=["size", "param_stride", "gradient_stride"])
def _adam(
    param,
    gradient,
    exp_avg,
    exp_avg_sq,
    step,
    rate,
    taken,
    size,
    param_stride,
    gradient_stride,
    decay,
    eps,
    beta1,
    rest1,
    log_beta1,
    beta2,
    rest2,
    log_beta2,
    width: tl.constexpr,
    rate_on_device: tl.constexpr,
    block: tl.constexpr,
):
    lr = tl.load(rate) if rate_on_device else rate
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < tl.where(tl.load(taken) > 0, size, 0)
    row, column = at // width, at % width
    p = tl.load(param + row * param_stride + column, mask=inside, other=0.0)
    g = tl.load(gradient + row * gradient_stride + column, mask=inside, other=0.0) + decay * p
    m = tl.load(exp_avg + at, mask=inside, other=0.0)
    v = tl.load(exp_avg_sq + at, mask=inside, other=0.0)
    p, m, v = _updated(
        p, g, m, v, tl.load(step), lr, eps, beta1, rest1, log_beta1, beta2, rest2, log_beta2
    )
    tl.store(exp_avg + at, m, mask=inside)
    tl.store(exp_avg_sq + at, v, mask=inside)
    tl.store(param + row * param_stride + column, p, mask=inside)


@triton.jit
def _updated(p, g, m, v, count, lr, eps, beta1, rest1, log_beta1, beta2, rest2, log_beta2):
    """Parameters and both moments after the step of number `count`, by gradients g."""
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    unbias1 = _missing(count * log_beta1)
    unbias2 = tl.sqrt(_missing(count * log_beta2))
    return p - lr / unbias1 * m / (tl.sqrt(v) / unbias2 + eps), m, v


@triton.jit
def _missing(x):
    """1 - exp(x) for x <= 0, by its series where the difference would lose digits."""
    series = 1 + x / 4 * (1 + x / 5 * (1 + x / 6 * (1 + x / 7 * (1 + x / 8))))
    series = -x * (1 + x / 2 * (1 + x / 3 * series))
    return tl.where(x > -0.5, series, 1 - tl.exp(x))


@triton.jit(do_not_specialize=["size"])
def _adam_harmonics(
    param,
    gradient,
    exp_avg_0,
    exp_avg_sq_0,
    exp_avg_n,
    exp_avg_sq_n,
    step,
    taken,
    size,
    rate_0,
    rate_n,
    eps,
    beta1,
    rest1,
    log_beta1,
    beta2,
    rest2,
    log_beta2,
    width: tl.constexpr,
    block: tl.constexpr,
):
    """`_adam` of rows whose first three numbers have moments and a rate of their own."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < tl.where(tl.load(taken) > 0, size, 0)
    row, column = at // width, at % width
    first, other = inside & (column < 3), inside & (column >= 3)
    at_0, at_n = 3 * row + column, (width - 3) * row + column - 3
    p = tl.load(param + at, mask=inside, other=0.0)
    g = tl.load(gradient + at, mask=inside, other=0.0)
    m = tl.load(exp_avg_0 + at_0, mask=first, other=0.0)
    m += tl.load(exp_avg_n + at_n, mask=other, other=0.0)
    v = tl.load(exp_avg_sq_0 + at_0, mask=first, other=0.0)
    v += tl.load(exp_avg_sq_n + at_n, mask=other, other=0.0)
    lr = tl.where(column < 3, rate_0, rate_n)
    p, m, v = _updated(
        p, g, m, v, tl.load(step), lr, eps, beta1, rest1, log_beta1, beta2, rest2, log_beta2
    )
    tl.store(exp_avg_0 + at_0, m, mask=first)
    tl.store(exp_avg_n + at_n, m, mask=other)
    tl.store(exp_avg_sq_0 + at_0, v, mask=first)
    tl.store(exp_avg_sq_n + at_n, v, mask=other)
    tl.store(param + at, p, mask=inside)


@triton.jit(do_not_specialize=["count"])
def _accumulate(
    gradients,
    radii,
    norms,
    times,
    sizes,
    taken,
    count,
    half_width,
    half_height,
    share,
    with_sizes: tl.constexpr,
    block: tl.constexpr,
):
    at = tl.program_id(0) * block + tl.arange(0, block)
    inside = at < tl.where(tl.load(taken) > 0, count, 0)
    wide = tl.load(radii + 2 * at, mask=inside, other=0)
    high = tl.load(radii + 2 * at + 1, mask=inside, other=0)
    visible = inside & (wide > 0) & (high > 0)
    x = tl.load(gradients + 2 * at, mask=visible, other=0.0) * half_width
    y = tl.load(gradients + 2 * at + 1, mask=visible, other=0.0) * half_height
    tl.store(norms + at, tl.load(norms + at, mask=visible) + tl.sqrt(x * x + y * y), mask=visible)
    tl.store(times + at, tl.load(times + at, mask=visible) + 1, mask=visible)
    if with_sizes:
        size = tl.maximum(wide, high).to(tl.float32) * share
        tl.store(sizes + at, tl.maximum(tl.load(sizes + at, mask=visible), size), mask=visible)
