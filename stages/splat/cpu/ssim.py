"""SSIM and its gradient in one pass: a Gaussian window of 11, sigma 1.5, no padding.

Wang et al. 2004. With mu the blurred image and sxx, syy, sxy blurred products, the map is
(2 mx my + C1)(2 (sxy - mx my) + C2) / ((mx^2 + my^2 + C1)(sxx - mx^2 + syy - my^2 + C2)).
"""

import math

import numpy as np
import torch
from numba import njit
from torch import Tensor

from stages.splat.cpu.compiling import COMPILE, f32

TAPS = 11
_WEIGHTS = np.array([math.exp(-((k - 5) ** 2) / (2 * 1.5**2)) for k in range(TAPS)])
WINDOW = (_WEIGHTS / _WEIGHTS.sum()).astype(f32)
C1, C2, TWO = f32(0.01**2), f32(0.03**2), f32(2)


class MeanSsim(torch.autograd.Function):
    """Mean SSIM of [C, H, W] against [C, H, W]; gradients reach the first only."""

    @staticmethod
    def forward(ctx: object, image: Tensor, target: Tensor) -> Tensor:
        x, y = (one.detach().contiguous().numpy() for one in (image, target))
        value, gradient = ssim_and_gradient(x, y, WINDOW)
        ctx.gradient = torch.from_numpy(gradient)  # type: ignore[attr-defined]
        return image.new_tensor(value)

    @staticmethod
    def backward(ctx: object, outer: Tensor) -> tuple[Tensor, None]:
        return outer * ctx.gradient, None  # type: ignore[attr-defined]


@njit(**COMPILE)
def _blur(image, window, rows, out):
    """Valid separable blur of [H, W] into out [H - 10, W - 10]; rows [H - 10, W] is scratch."""
    height, width = out.shape
    for r in range(height):
        rows[r] = window[0] * image[r]
        for k in range(1, TAPS):
            w = window[k]
            for c in range(width + TAPS - 1):
                rows[r, c] += w * image[r + k, c]
        for c in range(width):
            total = window[0] * rows[r, c]
            for k in range(1, TAPS):
                total += window[k] * rows[r, c + k]
            out[r, c] = total


@njit(**COMPILE)
def _spread(image, window, rows, out):
    """Adjoint of `_blur`: image [H - 10, W - 10] into out [H, W]."""
    height, width = image.shape
    out[:] = f32(0)
    for r in range(height):
        rows[r] = f32(0)
        for k in range(TAPS):
            w = window[k]
            for c in range(width):
                rows[r, c + k] += w * image[r, c]
        for k in range(TAPS):
            w = window[k]
            for c in range(width + TAPS - 1):
                out[r + k, c] += w * rows[r, c]


@njit(**COMPILE)
def ssim_and_gradient(x, y, window):
    """Mean SSIM and its derivative by x, both [C, H, W]."""
    channels, height, width = x.shape
    small = (height - TAPS + 1, width - TAPS + 1)
    rows = np.empty((small[0], width), np.float32)
    mx, my = np.empty(small, np.float32), np.empty(small, np.float32)
    sxx, syy, sxy = (
        np.empty(small, np.float32),
        np.empty(small, np.float32),
        np.empty(small, np.float32),
    )
    a, b, c = (
        np.empty((height, width), np.float32),
        np.empty((height, width), np.float32),
        np.empty((height, width), np.float32),
    )
    gradient = np.empty_like(x)
    total = 0.0
    share = f32(1) / f32(channels * small[0] * small[1])
    for channel in range(channels):
        u, v = x[channel], y[channel]
        _blur(u, window, rows, mx)
        _blur(v, window, rows, my)
        _blur(u * u, window, rows, sxx)
        _blur(v * v, window, rows, syy)
        _blur(u * v, window, rows, sxy)
        for r in range(small[0]):
            line = f32(0)
            for k in range(small[1]):
                p, q = mx[r, k], my[r, k]
                n1, n2 = TWO * p * q + C1, TWO * (sxy[r, k] - p * q) + C2
                d1, d2 = p * p + q * q + C1, sxx[r, k] - p * p + syy[r, k] - q * q + C2
                value = n1 * n2 / (d1 * d2)
                line += value
                # Derivatives by mx, sxx and sxy overwrite them.
                mx[r, k] = share * (
                    TWO * q * (n2 - n1) / (d1 * d2) - TWO * p * value * (f32(1) / d1 - f32(1) / d2)
                )
                sxx[r, k] = -share * value / d2
                sxy[r, k] = share * TWO * n1 / (d1 * d2)
            total += line
        _spread(mx, window, rows, a)
        _spread(sxx, window, rows, b)
        _spread(sxy, window, rows, c)
        gradient[channel] = a + TWO * u * b + v * c
    return total * share, gradient
