"""L1 and structural dissimilarity of one image with their gradient, by four Triton kernels.

An image [H, W, 3] is taken as H rows of 3 W numbers, so that a window's taps lie 3 apart in a row
and kernels need not know the channels. Windows are those that lie inside the image.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from stages.quality.metrics.ssim import SIGMA, TAPS

_C1, _C2 = tl.constexpr(0.01**2), tl.constexpr(0.03**2)
_ROWS, _COLUMNS = 4, 128  # the fastest of nine shapes on an H100
_SIZES = ["height", "width", "valid_height", "valid_width"]


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
    valid_height, valid_width = height - TAPS + 1, width - 3 * (TAPS - 1)
    size = (height, width, valid_height, valid_width)
    taps = _taps(image.device)
    statistics = image.new_empty(5, height, valid_width)
    slopes = image.new_empty(3, valid_height, valid_width)
    spread = image.new_empty(3, height, valid_width)
    slope = torch.empty_like(image)
    loss = torch.full((), ssim_lambda, device=image.device)
    of_windows = ssim_lambda / (valid_height * valid_width)
    of_pixels = (1 - ssim_lambda) / (height * width)
    _row_statistics[_grid(height, valid_width)](
        image, target, taps, statistics, *size, TAPS, _ROWS, _COLUMNS
    )
    _window_slopes[_grid(valid_height, valid_width)](
        statistics, taps, slopes, loss, of_windows, *size, TAPS, _ROWS, _COLUMNS
    )
    _spread_columns[_grid(height, valid_width)](slopes, taps, spread, *size, TAPS, _ROWS, _COLUMNS)
    _pixel_slopes[_grid(height, width)](
        image,
        target,
        spread,
        taps,
        slope,
        loss,
        of_windows,
        of_pixels,
        *size,
        TAPS,
        _ROWS,
        _COLUMNS,
    )
    return loss, slope


def _grid(height: int, width: int) -> tuple[int, int]:
    return triton.cdiv(height, _ROWS), triton.cdiv(width, _COLUMNS)


_TAPS_ON: dict[torch.device, Tensor] = {}


def _taps(device: torch.device) -> Tensor:
    """The normalised window [11], kept on the device."""
    if device not in _TAPS_ON:
        offsets = torch.arange(TAPS, dtype=torch.float64) - TAPS // 2
        taps = torch.exp(-offsets.square() / (2 * SIGMA**2))
        _TAPS_ON[device] = (taps / taps.sum()).float().to(device)
    return _TAPS_ON[device]


@triton.jit
def _block(height, width, rows: tl.constexpr, columns: tl.constexpr):
    y = (tl.program_id(0) * rows + tl.arange(0, rows))[:, None]
    x = (tl.program_id(1) * columns + tl.arange(0, columns))[None, :]
    return y, x, (y < height) & (x < width)


@triton.jit(do_not_specialize=_SIZES)
def _row_statistics(
    image,
    target,
    taps,
    statistics,
    height,
    width,
    valid_height,
    valid_width,
    count: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Means of a, b, aa, bb and ab along each row."""
    y, x, inside = _block(height, valid_width, rows, columns)
    at = y * width + x
    mean_a = tl.zeros((rows, columns), tl.float32)
    mean_b = tl.zeros((rows, columns), tl.float32)
    aa = tl.zeros((rows, columns), tl.float32)
    bb = tl.zeros((rows, columns), tl.float32)
    ab = tl.zeros((rows, columns), tl.float32)
    for k in tl.static_range(count):
        weight = tl.load(taps + k)
        a = tl.load(image + at + 3 * k, mask=inside, other=0.0)
        b = tl.load(target + at + 3 * k, mask=inside, other=0.0)
        mean_a += weight * a
        mean_b += weight * b
        aa += weight * a * a
        bb += weight * b * b
        ab += weight * a * b
    out = statistics + y * valid_width + x
    plane = height * valid_width
    tl.store(out, mean_a, mask=inside)
    tl.store(out + plane, mean_b, mask=inside)
    tl.store(out + 2 * plane, aa, mask=inside)
    tl.store(out + 3 * plane, bb, mask=inside)
    tl.store(out + 4 * plane, ab, mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def _window_slopes(
    statistics,
    taps,
    slopes,
    loss,
    share,
    height,
    width,
    valid_height,
    valid_width,
    count: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """SSIM of each window, subtracted from the loss; its gradients by mean a, aa and ab."""
    y, x, inside = _block(valid_height, valid_width, rows, columns)
    at = statistics + y * valid_width + x
    plane = height * valid_width
    a = tl.zeros((rows, columns), tl.float32)
    b = tl.zeros((rows, columns), tl.float32)
    aa = tl.zeros((rows, columns), tl.float32)
    bb = tl.zeros((rows, columns), tl.float32)
    ab = tl.zeros((rows, columns), tl.float32)
    for k in tl.static_range(count):
        weight = tl.load(taps + k)
        row = at + k * valid_width
        a += weight * tl.load(row, mask=inside, other=0.0)
        b += weight * tl.load(row + plane, mask=inside, other=0.0)
        aa += weight * tl.load(row + 2 * plane, mask=inside, other=0.0)
        bb += weight * tl.load(row + 3 * plane, mask=inside, other=0.0)
        ab += weight * tl.load(row + 4 * plane, mask=inside, other=0.0)
    above = 2 * a * b + _C1
    below = a * a + b * b + _C1
    above2 = 2 * (ab - a * b) + _C2
    below2 = (aa - a * a) + (bb - b * b) + _C2
    ssim = above * above2 / (below * below2)
    by_mean = 2 * (b * (above2 - above) / (below * below2) + a * ssim * (1 / below2 - 1 / below))
    out = slopes + y * valid_width + x
    plane = valid_height * valid_width
    tl.store(out, by_mean, mask=inside)
    tl.store(out + plane, -ssim / below2, mask=inside)
    tl.store(out + 2 * plane, 2 * above / (below * below2), mask=inside)
    tl.atomic_add(loss, -share * tl.sum(tl.where(inside, ssim, 0.0)))


@triton.jit(do_not_specialize=_SIZES)
def _spread_columns(
    slopes,
    taps,
    spread,
    height,
    width,
    valid_height,
    valid_width,
    count: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Gradients of each column's windows, spread over its rows."""
    y, x, inside = _block(height, valid_width, rows, columns)
    plane = valid_height * valid_width
    by_mean = tl.zeros((rows, columns), tl.float32)
    by_aa = tl.zeros((rows, columns), tl.float32)
    by_ab = tl.zeros((rows, columns), tl.float32)
    for k in tl.static_range(count):
        weight = tl.load(taps + k)
        row = y - k
        within = inside & (row >= 0) & (row < valid_height)
        at = slopes + row * valid_width + x
        by_mean += weight * tl.load(at, mask=within, other=0.0)
        by_aa += weight * tl.load(at + plane, mask=within, other=0.0)
        by_ab += weight * tl.load(at + 2 * plane, mask=within, other=0.0)
    out = spread + y * valid_width + x
    plane = height * valid_width
    tl.store(out, by_mean, mask=inside)
    tl.store(out + plane, by_aa, mask=inside)
    tl.store(out + 2 * plane, by_ab, mask=inside)


@triton.jit(do_not_specialize=_SIZES)
def _pixel_slopes(
    image,
    target,
    spread,
    taps,
    slope,
    loss,
    of_windows,
    of_pixels,
    height,
    width,
    valid_height,
    valid_width,
    count: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
):
    """Gradient by each value of the image; L1 is added to the loss."""
    y, x, inside = _block(height, width, rows, columns)
    plane = height * valid_width
    by_mean = tl.zeros((rows, columns), tl.float32)
    by_aa = tl.zeros((rows, columns), tl.float32)
    by_ab = tl.zeros((rows, columns), tl.float32)
    for k in tl.static_range(count):
        weight = tl.load(taps + k)
        column = x - 3 * k
        within = inside & (column >= 0) & (column < valid_width)
        at = spread + y * valid_width + column
        by_mean += weight * tl.load(at, mask=within, other=0.0)
        by_aa += weight * tl.load(at + plane, mask=within, other=0.0)
        by_ab += weight * tl.load(at + 2 * plane, mask=within, other=0.0)
    a = tl.load(image + y * width + x, mask=inside, other=0.0)
    b = tl.load(target + y * width + x, mask=inside, other=0.0)
    away = a - b
    sign = tl.where(away > 0, 1.0, tl.where(away < 0, -1.0, 0.0))
    gradient = of_pixels * sign - of_windows * (by_mean + 2 * a * by_aa + b * by_ab)
    tl.store(slope + y * width + x, gradient, mask=inside)
    tl.atomic_add(loss, of_pixels * tl.sum(tl.where(inside, tl.abs(away), 0.0)))
