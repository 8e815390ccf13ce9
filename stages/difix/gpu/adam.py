"""AdamW (Loshchilov and Hutter 2019) over one run of memory: each number is read and written once.

Weights w and moments m, v are float32. Gradients g may be of lower precision, and so may the copy
of the weights that the network computes with, which is written on the way.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

_SIZE = 1024  # numbers a program works on
# Of what `control` holds, float32: steps made, the scale of the loss, and steps since it changed.
STEPS, SCALE, GOOD = 0, 1, 2


def squared_norm(gradients: Tensor) -> Tensor:
    """Sum of squares in float32, the same at every call; scalar."""
    parts = gradients.new_empty(triton.cdiv(gradients.numel(), _SIZE), dtype=torch.float32)
    _squares[(len(parts),)](gradients, parts, gradients.numel(), SIZE=_SIZE)
    return parts.sum()


def adamw(
    weights: Tensor,
    copy: Tensor,  # may be `weights` itself
    gradients: Tensor,
    moments: Tensor,  # [2, numbers]
    control: Tensor,
    norm: Tensor,
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    factor: float,  # gradients are multiplied by factor / scale
    max_norm: float,  # 0: no bound
) -> None:
    """One step, whose number is in `control`; none where `norm`, of all gradients, isn't finite."""
    total = weights.numel()
    _adamw[(triton.cdiv(total, _SIZE),)](
        weights, copy, gradients, moments[0], moments[1], control, norm, total, lr,
        *betas, *(math.log(beta) for beta in betas), eps, weight_decay, factor, max_norm,
        COPY=copy.data_ptr() != weights.data_ptr(), SIZE=_SIZE,
    )  # fmt: skip


@triton.jit
def _squares(g, parts, total, SIZE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    value = tl.load(g + place, mask=place < total, other=0.0).to(tl.float32)
    tl.store(parts + tl.program_id(0), tl.sum(value * value, 0))


@triton.jit
def _adamw(
    w, copy, g, m, v, control, norm, total, lr, beta1, beta2, log_beta1, log_beta2, eps, decay,
    factor, bound, COPY: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    size = tl.load(norm)
    if size < float("inf"):  # neither infinite nor no number
        place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
        there = place < total
        step, scale = tl.load(control), tl.load(control + 1)
        by = factor / scale
        if bound > 0:
            by *= tl.minimum(bound / (size + 1e-6), 1.0)
        gradient = tl.load(g + place, mask=there, other=0.0).to(tl.float32) * by
        first = tl.load(m + place, mask=there, other=0.0)
        second = tl.load(v + place, mask=there, other=0.0)
        weight = tl.load(w + place, mask=there, other=0.0)
        first += (1.0 - beta1) * (gradient - first)
        second = beta2 * second + (1.0 - beta2) * gradient * gradient
        # In float32 the difference to one would be off by a part in ten thousand at the start.
        count = step.to(tl.float64)
        rise1 = (1.0 - tl.exp(count * log_beta1)).to(tl.float32)
        rise2 = (1.0 - tl.exp(count * log_beta2)).to(tl.float32)
        weight -= lr * decay * weight
        weight -= lr / rise1 * first / (tl.sqrt(second / rise2) + eps)
        tl.store(m + place, first, mask=there)
        tl.store(v + place, second, mask=there)
        tl.store(w + place, weight, mask=there)
        if COPY:
            tl.store(copy + place, weight.to(copy.dtype.element_ty), mask=there)
