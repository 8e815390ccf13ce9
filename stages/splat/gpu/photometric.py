"""L1 and structural dissimilarity of one image with their gradient: photometric.cu."""

from typing import Any

import torch
from torch import Tensor

from stages.quality.metrics.ssim import TAPS
from stages.splat.gpu.compiled import kernels

_COLUMNS, _ROWS = 128, 32  # of a block of the kernels


class Photometric(torch.autograd.Function):
    """(1 - lambda) L1 + lambda (1 - SSIM); the gradient is computed together with the value."""

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, target: Tensor, ssim_lambda: float
    ) -> Tensor:  # [H, W, 3] twice -> []
        """Loss of an image of at least 11 px a side."""
        loss, slope = loss_and_slope(image.contiguous(), target.contiguous(), ssim_lambda)
        ctx.save_for_backward(slope)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of the image."""
        return ctx.saved_tensors[0] * gradient, None, None


def loss_and_slope(image: Tensor, target: Tensor, ssim_lambda: float) -> tuple[Tensor, Tensor]:
    """The loss [] and its gradient [H, W, 3]."""
    height, width = image.shape[0], 3 * image.shape[1]
    down, across = height - TAPS + 1, width - 3 * (TAPS - 1)
    slopes, slope = image.new_empty(3, down, across), torch.empty_like(image)
    loss = torch.full((), ssim_lambda, device=image.device)
    of_windows = ssim_lambda / (down * across)
    of_pixels = (1 - ssim_lambda) / (height * width)
    both = kernels("photometric.cu")
    image, target = image.detach(), target.detach()
    both.launch(
        "window_slopes",
        (-(-across // _COLUMNS), -(-down // _ROWS)),
        _COLUMNS,
        *(image, target, slopes, loss, float(of_windows), height, width),
    )
    both.launch(
        "pixel_slopes",
        (-(-width // _COLUMNS), -(-height // _ROWS)),
        _COLUMNS,
        *(image, target, slopes, slope, loss, float(of_windows), float(of_pixels)),
        *(height, width),
    )
    return loss, slope
