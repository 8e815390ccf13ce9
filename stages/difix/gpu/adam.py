"""AdamW (Loshchilov and Hutter 2019) over one run of memory: each number is read and written once.

Weights w and moments m, v are float32. Gradients g may be of lower precision, and so may the copy
of the weights that the network computes with, which is written on the way.

On a GPU torch.compile makes one kernel of it, as fast as one written by hand was (6.3 ms for 867 M
weights on an H200; torch's own AdamW with clipping takes 9.8 ms).
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

# Of what `control` holds, float32: steps made, the scale of the loss, and steps since it changed.
STEPS, SCALE, GOOD = 0, 1, 2


def squared_norm(gradients: Tensor) -> Tensor:
    """Sum of squares in float32, the same at every call; scalar."""
    return torch.linalg.vector_norm(gradients, dtype=torch.float32).square()


def adamw(
    weights: Tensor,
    copy: Tensor,  # may be `weights` itself
    gradients: Tensor,
    moments: Tensor,  # [2, numbers]
    control: Tensor,
    norm: Tensor,
    *,
    lr: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    factor: float,  # gradients are multiplied by factor / scale
    max_norm: float,  # 0: no bound
) -> None:
    """One step, whose number is in `control`; none where `norm`, of all gradients, isn't finite."""
    update = _compiled() if weights.is_cuda else _update
    update(
        weights,
        None if copy is weights else copy,
        gradients,
        *moments,
        control,
        norm,
        lr,
        betas,
        eps,
        weight_decay,
        factor,
        max_norm,
    )


@cache
def _compiled() -> Any:
    return torch.compile(_update, dynamic=False)


def _update(
    weights: Tensor,
    copy: Tensor | None,
    gradients: Tensor,
    m: Tensor,
    v: Tensor,
    control: Tensor,
    norm: Tensor,
    lr: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    factor: float,
    max_norm: float,
) -> None:
    by = factor / control[SCALE]
    if max_norm > 0:
        by = by * (max_norm / (norm + 1e-6)).clamp(max=1)
    gradient = gradients.float() * by
    first = m + (1 - betas[0]) * (gradient - m)
    second = betas[1] * v + (1 - betas[1]) * gradient * gradient
    # In float32 the difference to one would be off by a part in ten thousand at the start.
    rise1, rise2 = ((1 - beta ** control[STEPS].double()).float() for beta in betas)
    weight = weights - lr * weight_decay * weights
    weight = weight - lr / rise1 * first / ((second / rise2).sqrt() + eps)
    good = norm.isfinite()
    m.copy_(torch.where(good, first, m))
    v.copy_(torch.where(good, second, v))
    weights.copy_(torch.where(good, weight, weights))
    if copy is not None:
        copy.copy_(weights)
