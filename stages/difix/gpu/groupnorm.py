"""Group normalisation fused with bias, SiLU and residual addition, in Triton kernels.

torch's kernel needs channels first, so it copies the channels-last output of convolutions on tensor
cores; it also writes an intermediate result that SiLU reads again. Here the input is read twice and
the output written once, and likewise for gradients. Statistics are float32 and merged from chunks
(Chan et al. 1983), so they are accurate at any size.

torch.compile generates kernels within 5 % of these from plain torch, but takes a minute per batch
shape, where Triton takes 5 s in total (`benchmarks/difix.md`).

The rows are the pixels of an image; a chunk is a range of consecutive rows. x is [N, C, H, W].
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _CHANNELS = 128, 64  # per tile
_MAX_CHUNKS = 512


def group_norm(
    x: Tensor,  # [N, C, H, W]
    layer: torch.nn.GroupNorm,
    *,
    silu: bool = False,
    shift: Tensor | None = None,  # [N, C]
) -> Tensor:
    """`silu(layer(x + shift))`, channels last and in x's precision."""
    x = x.contiguous(memory_format=torch.channels_last)
    assert layer.weight is not None, "the normalisation has no weights"
    return _GroupNorm.apply(x, shift, layer.weight, layer.bias, layer.num_groups, layer.eps, silu)


def add(x: Tensor, other: Tensor, bias: Tensor) -> Tensor:  # [N, C, H, W] twice, [C]
    """`x + other + bias` in one pass, channels last."""
    last = torch.channels_last
    return _Add.apply(x.contiguous(memory_format=last), other.contiguous(memory_format=last), bias)


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        shift: Tensor | None,
        weight: Tensor,
        bias: Tensor,
        groups: int,
        eps: float,
        silu: bool,
    ) -> Tensor:
        count, channels, height, width = x.shape
        rows = height * width
        chunks, length, grid = _chunked(count, rows, channels)
        partials = x.new_empty((count, chunks, 2, channels), dtype=torch.float32)
        _moments[grid](x, partials, rows, channels, chunks, length, ROWS=_ROWS, CHANNELS=_CHANNELS)
        # Per channel: scale and offset of its values, their mean, and its group's centre and
        # 1 / standard deviation.
        table = x.new_empty((5, count, channels), dtype=torch.float32)
        _merge[(count, groups)](
            partials,
            x if shift is None else shift.contiguous(),
            weight,
            bias,
            table,
            rows,
            channels,
            groups,
            chunks,
            length,
            eps,
            shift is not None,
            CHUNKS=triton.next_power_of_2(chunks),
            WIDTH=triton.next_power_of_2(channels // groups),
        )
        y = torch.empty_like(x)
        tiles = (count, triton.cdiv(rows, _ROWS), triton.cdiv(channels, _CHANNELS))
        _apply[tiles](x, table, y, rows, channels, count, silu, ROWS=_ROWS, CHANNELS=_CHANNELS)
        ctx.save_for_backward(x, table, weight)
        ctx.silu, ctx.groups, ctx.shifted = silu, groups, shift is not None
        ctx.shift_dtype = None if shift is None else shift.dtype
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, table, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        count, channels, height, width = x.shape
        rows, groups = height * width, ctx.groups
        chunks, length, grid = _chunked(count, rows, channels)
        partials = x.new_empty((count, chunks, 2, channels), dtype=torch.float32)
        _gradient_sums[grid](
            x,
            dy,
            table,
            partials,
            rows,
            channels,
            count,
            chunks,
            length,
            ctx.silu,
            ROWS=_ROWS,
            CHANNELS=_CHANNELS,
        )
        # Per image: gradients of weight, bias and shift; factors of x and 1 in the gradient of x.
        merged = x.new_empty((5, count, channels), dtype=torch.float32)
        _merge_gradients[(count, groups)](
            partials,
            table,
            weight,
            merged,
            rows,
            channels,
            groups,
            chunks,
            count,
            CHUNKS=triton.next_power_of_2(chunks),
            WIDTH=triton.next_power_of_2(channels // groups),
        )
        dx = torch.empty_like(x)
        tiles = (count, triton.cdiv(rows, _ROWS), triton.cdiv(channels, _CHANNELS))
        _apply_gradient[tiles](
            x,
            dy,
            table,
            merged,
            dx,
            rows,
            channels,
            count,
            ctx.silu,
            ROWS=_ROWS,
            CHANNELS=_CHANNELS,
        )
        needs_weight, needs_bias = ctx.needs_input_grad[2:4]
        return (
            dx,
            merged[2].to(ctx.shift_dtype) if ctx.shifted else None,
            merged[0].sum(0).to(weight.dtype) if needs_weight else None,
            merged[1].sum(0).to(weight.dtype) if needs_bias else None,
            None,
            None,
            None,
        )


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, other: Tensor, bias: Tensor) -> Tensor:
        y = torch.empty_like(x)
        total, size = x.numel(), 4096
        _add[(triton.cdiv(total, size),)](x, other, bias, y, total, x.shape[1], SIZE=size)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return dy, dy, dy.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None


def _chunked(count: int, rows: int, channels: int) -> tuple[int, int, tuple[int, int, int]]:
    """Number of chunks, their length in rows, and the launch grid over them."""
    length = triton.cdiv(triton.cdiv(rows, _MAX_CHUNKS), _ROWS) * _ROWS
    chunks = triton.cdiv(rows, length)
    return chunks, length, (count, chunks, triton.cdiv(channels, _CHANNELS))


@triton.jit
def _moments(
    x, partials, rows, channels, chunks, length, ROWS: tl.constexpr, CHANNELS: tl.constexpr
):
    """Mean of each channel over a chunk, and the sum of squared deviations from it."""
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    first = chunk * length
    last = tl.minimum(first + length, rows)
    total = tl.zeros((CHANNELS,), tl.float32)
    squares = tl.zeros((CHANNELS,), tl.float32)
    # Deviations from one value of the channel are summed: a mean far from 0 costs no precision.
    pivot = tl.load(x + (image * rows + first) * channels + c, mask=c < channels, other=0.0)
    pivot = pivot.to(tl.float32)
    for begin in range(first, last, ROWS):
        r = begin + tl.arange(0, ROWS)
        mask = (r < last)[:, None] & (c < channels)[None, :]
        index = (image * rows + r)[:, None] * channels + c[None, :]
        value = tl.load(x + index, mask=mask, other=0.0).to(tl.float32)
        value = tl.where(mask, value - pivot[None, :], 0.0)
        total += tl.sum(value, 0)
        squares += tl.sum(value * value, 0)
    mean = total / (last - first)
    out = partials + (image * chunks + chunk) * 2 * channels + c
    tl.store(out, pivot + mean, mask=c < channels)
    tl.store(out + channels, tl.maximum(squares - total * mean, 0.0), mask=c < channels)


@triton.jit
def _merge(
    partials,
    shift,
    weight,
    bias,
    table,
    rows,
    channels,
    groups,
    chunks,
    length,
    eps,
    SHIFTED: tl.constexpr,
    CHUNKS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Merge the statistics of chunks and channels into those of a group."""
    image, group = tl.program_id(0), tl.program_id(1)
    width = channels // groups
    inner, p = tl.arange(0, WIDTH), tl.arange(0, CHUNKS)
    c = group * width + inner
    valid = inner < width
    mask = (p < chunks)[:, None] & valid[None, :]
    pointers = partials + (image * chunks + p)[:, None] * 2 * channels + c[None, :]
    means = tl.load(pointers, mask=mask, other=0.0)
    spread = tl.sum(tl.sum(tl.load(pointers + channels, mask=mask, other=0.0), 0), 0)
    counts = tl.minimum(length, rows - p * length).to(tl.float32)
    counts = tl.where(p < chunks, counts, 0.0)
    added = tl.zeros((WIDTH,), tl.float32)
    if SHIFTED:
        added = tl.load(shift + image * channels + c, mask=valid, other=0.0).to(tl.float32)
    mean = tl.sum(means * counts[:, None], 0) / rows
    centre = tl.sum(tl.where(valid, mean + added, 0.0), 0) / width
    off = tl.where(mask, means + added[None, :] - centre, 0.0)
    spread += tl.sum(tl.sum(off * off * counts[:, None], 0), 0)
    inverse = 1.0 / tl.sqrt(spread / (rows * width) + eps)
    scale = tl.load(weight + c, mask=valid, other=0.0).to(tl.float32) * inverse
    start = tl.load(bias + c, mask=valid, other=0.0).to(tl.float32)
    out, plane = table + image * channels + c, tl.num_programs(0) * channels
    tl.store(out, scale, mask=valid)
    tl.store(out + plane, start + (added - centre) * scale, mask=valid)
    tl.store(out + 2 * plane, mean, mask=valid)
    tl.store(out + 3 * plane, centre - added, mask=valid)
    tl.store(out + 4 * plane, inverse + tl.zeros((WIDTH,), tl.float32), mask=valid)


@triton.jit
def _apply(
    x,
    table,
    y,
    rows,
    channels,
    count,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Scale and shift every value, then apply SiLU if requested."""
    image = tl.program_id(0).to(tl.int64)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    mask = (r < rows)[:, None] & (c < channels)[None, :]
    index = (image * rows + r)[:, None] * channels + c[None, :]
    row = table + image * channels + c
    scale = tl.load(row, mask=c < channels, other=0.0)
    offset = tl.load(row + count * channels, mask=c < channels, other=0.0)
    u = tl.load(x + index, mask=mask, other=0.0).to(tl.float32) * scale[None, :] + offset[None, :]
    if SILU:
        u = u * tl.sigmoid(u)
    tl.store(y + index, u.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _after_silu(dy, u, SILU: tl.constexpr):
    """The gradient with respect to the input of SiLU."""
    if SILU:
        s = tl.sigmoid(u)
        dy = dy * s * (1.0 + u * (1.0 - s))
    return dy


@triton.jit
def _gradient_sums(
    x,
    dy,
    table,
    partials,
    rows,
    channels,
    count,
    chunks,
    length,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Sums over a chunk of du, the gradient before SiLU, and of du times the normalised value."""
    image, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    valid = c < channels
    row, plane = table + image * channels + c, count * channels
    scale = tl.load(row, mask=valid, other=0.0)
    offset = tl.load(row + plane, mask=valid, other=0.0)
    centre = tl.load(row + 3 * plane, mask=valid, other=0.0)
    inverse = tl.load(row + 4 * plane, mask=valid, other=0.0)
    first = chunk * length
    last = tl.minimum(first + length, rows)
    total = tl.zeros((CHANNELS,), tl.float32)
    products = tl.zeros((CHANNELS,), tl.float32)
    for begin in range(first, last, ROWS):
        r = begin + tl.arange(0, ROWS)
        mask = (r < last)[:, None] & valid[None, :]
        index = (image * rows + r)[:, None] * channels + c[None, :]
        value = tl.load(x + index, mask=mask, other=0.0).to(tl.float32)
        u = value * scale[None, :] + offset[None, :]
        du = _after_silu(tl.load(dy + index, mask=mask, other=0.0).to(tl.float32), u, SILU)
        total += tl.sum(du, 0)
        products += tl.sum(du * (value - centre[None, :]), 0)
    out = partials + (image * chunks + chunk) * 2 * channels + c
    tl.store(out, total, mask=valid)
    tl.store(out + channels, products * inverse, mask=valid)


@triton.jit
def _merge_gradients(
    partials,
    table,
    weight,
    merged,
    rows,
    channels,
    groups,
    chunks,
    count,
    CHUNKS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Gradients of weight, bias and shift, and those through a group's mean and variance."""
    image, group = tl.program_id(0), tl.program_id(1)
    width = channels // groups
    inner, p = tl.arange(0, WIDTH), tl.arange(0, CHUNKS)
    c = group * width + inner
    valid = inner < width
    mask = (p < chunks)[:, None] & valid[None, :]
    pointers = partials + (image * chunks + p)[:, None] * 2 * channels + c[None, :]
    total = tl.sum(tl.load(pointers, mask=mask, other=0.0), 0)
    products = tl.sum(tl.load(pointers + channels, mask=mask, other=0.0), 0)
    row, plane = table + image * channels + c, count * channels
    scale = tl.load(row, mask=valid, other=0.0)
    mean = tl.load(row + 2 * plane, mask=valid, other=0.0)
    centre = tl.load(row + 3 * plane, mask=valid, other=0.0)
    inverse = tl.load(row + 4 * plane, mask=valid, other=0.0)
    gain = tl.load(weight + c, mask=valid, other=0.0).to(tl.float32)
    by_mean = tl.sum(gain * total, 0) / (rows * width)
    by_spread = tl.sum(gain * products, 0) / (rows * width)
    of_x = -inverse * inverse * by_spread
    of_one = -inverse * by_mean - of_x * centre
    out = merged + image * channels + c
    tl.store(out, products, mask=valid)
    tl.store(out + plane, total, mask=valid)
    tl.store(out + 2 * plane, scale * total + rows * (of_x * mean + of_one), mask=valid)
    tl.store(out + 3 * plane, of_x, mask=valid)
    tl.store(out + 4 * plane, of_one, mask=valid)


@triton.jit
def _apply_gradient(
    x,
    dy,
    table,
    merged,
    dx,
    rows,
    channels,
    count,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The gradient of every input value."""
    image = tl.program_id(0).to(tl.int64)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    valid = c < channels
    mask = (r < rows)[:, None] & valid[None, :]
    index = (image * rows + r)[:, None] * channels + c[None, :]
    row, plane = image * channels + c, count * channels
    scale = tl.load(table + row, mask=valid, other=0.0)
    offset = tl.load(table + row + plane, mask=valid, other=0.0)
    of_x = tl.load(merged + row + 3 * plane, mask=valid, other=0.0)
    of_one = tl.load(merged + row + 4 * plane, mask=valid, other=0.0)
    value = tl.load(x + index, mask=mask, other=0.0).to(tl.float32)
    u = value * scale[None, :] + offset[None, :]
    du = _after_silu(tl.load(dy + index, mask=mask, other=0.0).to(tl.float32), u, SILU)
    dx_value = scale[None, :] * du + of_x[None, :] * value + of_one[None, :]
    tl.store(dx + index, dx_value.to(dx.dtype.element_ty), mask=mask)


@triton.jit
def _add(x, other, bias, y, total, channels, SIZE: tl.constexpr):
    """Two tensors and a bias per channel."""
    index = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    mask = index < total
    value = tl.load(x + index, mask=mask, other=0.0).to(tl.float32)
    value += tl.load(other + index, mask=mask, other=0.0).to(tl.float32)
    value += tl.load(bias + index % channels, mask=mask, other=0.0).to(tl.float32)
    tl.store(y + index, value.to(y.dtype.element_ty), mask=mask)
