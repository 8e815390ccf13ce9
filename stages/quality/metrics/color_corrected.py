"""PSNR after a colour correction by channel: gsplat's `cc_psnr` of `color_correct_method: affine`.

That is its default since 1.6. Its method `quadratic`, the only one before, is another measure.
"""

import torch
from torch import Tensor

from stages.quality.metrics.batch import check_pair

_FLAT = 1e-8  # of a variance or slope


def cc_psnr(truth: Tensor, render: Tensor, valid: Tensor | None = None) -> Tensor:
    """PSNR in dB [B] of renders [B, 3, H, W], corrected to the ground truth's colours, float64.

    For each image and channel the least squares of render = a * truth + b are solved; the
    corrected render is (render - b) / a, clipped to [0, 1], where an `a` of zero then counts as 1.
    It may be below PSNR: noise lowers `a`, and the division raises the noise. Only pixels of
    `valid` [B, 1, H, W] count.

    >>> truth = torch.linspace(0, 1, 48).reshape(1, 3, 4, 4)
    >>> bool(cc_psnr(truth, 0.5 * truth + 0.2) > 100)
    True
    """
    check_pair(truth, render)
    x, y = truth.double(), render.double()
    weights = torch.ones_like(x[:, :1]) if valid is None else valid.double()
    weights = weights / weights.sum(dim=(2, 3), keepdim=True).clamp(min=1)

    def mean(values: Tensor) -> Tensor:
        return (weights * values).sum(dim=(2, 3), keepdim=True)

    mean_x, mean_y = mean(x), mean(y)
    variance = mean((x - mean_x).square()).clamp(min=_FLAT)
    slope = mean((x - mean_x) * (y - mean_y)) / variance
    offset = mean_y - slope * mean_x
    slope = torch.where(slope.abs() < _FLAT, 1.0, slope)
    corrected = ((y - offset) / slope).clamp(0, 1)
    return -10 * torch.log10(mean((corrected - x).square()).mean(dim=(1, 2, 3)))
