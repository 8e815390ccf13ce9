"""AdamW (Loshchilov and Hutter 2019) over contiguous tensors: each value is read and written once.

Master weights and moments m, v are float32. Gradients may have a lower precision, as may the copy
of the weights that the network computes with, which is updated in the same pass.

On a GPU torch.compile fuses it into one kernel, as fast as a hand-written one (6.3 ms for 867 M
weights on an H200; torch's own AdamW with clipping takes 9.8 ms).
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

# Indices into `control`, float32: steps taken, scale of the loss, steps since the scale changed.
STEPS, SCALE, GOOD = 0, 1, 2


def squared_norm(gradients: Tensor) -> Tensor:
    """Sum of squares in float32, deterministic; scalar."""
    return torch.linalg.vector_norm(gradients, dtype=torch.float32).square()


def adamw(
    weights: Tensor,
    copy: Tensor,  # may be `weights` itself
    gradients: Tensor,
    moments: Tensor,  # [2, weights]
    control: Tensor,
    norm: Tensor,
    *,
    lr: Tensor,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
    factor: float,  # gradients are multiplied by factor / scale
    max_norm: float,  # 0: no clipping
) -> None:
    """One step, numbered by `control`; skipped if `norm`, of all gradients, is not finite."""
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
    # Trying block sizes took 23 s, by copies to the host, and gained 1 %.
    options = {"triton.autotune_pointwise": False}
    return torch.compile(_update, dynamic=False, options=options)


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
    multiplier = factor / control[SCALE]
    if max_norm > 0:
        multiplier = multiplier * (max_norm / (norm + 1e-6)).clamp(max=1)
    gradient = gradients.float() * multiplier
    first = m + (1 - betas[0]) * (gradient - m)
    second = betas[1] * v + (1 - betas[1]) * gradient * gradient
    # In float64: 1 - beta^step would have a relative error of 1e-4 in float32 at first.
    correction1, correction2 = ((1 - beta ** control[STEPS].double()).float() for beta in betas)
    weight = weights - lr * weight_decay * weights
    weight = weight - lr / correction1 * first / ((second / correction2).sqrt() + eps)
    finite = norm.isfinite()
    m.copy_(torch.where(finite, first, m))
    v.copy_(torch.where(finite, second, v))
    weights.copy_(torch.where(finite, weight, weights))
    if copy is not None:
        copy.copy_(weights)
