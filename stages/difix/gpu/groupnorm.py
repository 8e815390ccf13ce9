"""Group normalisation and what stands beside it, in as few passes over memory as it takes.

torch's kernel wants channels first, and so copies what
convolutions on tensor cores leave channels last; it also writes out what SiLU reads again. Here an
input is read twice and the output written once, gradients likewise. Statistics are float32 and
merged from parts (Chan et al. 1983), so that they hold at any size.

torch.compile makes kernels within 5 % of these from plain torch, but takes a minute for each shape
of batch where Triton takes 5 s in all (`benchmarks/difix.md`).

R rows are the pixels of an image, C the channels; a part is a run of rows. x is [N, C, H, W].
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

_ROWS, _CHANNELS = 128, 64  # of a tile
_MOST_PARTS = 512


def group_norm(
    x: Tensor,  # [N, C, H, W]
    layer: torch.nn.GroupNorm,
    *,
    silu: bool = False,
    shift: Tensor | None = None,  # [N, C]
) -> Tensor:
    """`silu(layer(x + shift))`, channels last and in x's precision."""
    x = x.contiguous(memory_format=torch.channels_last)
    assert layer.weight is not None, "a normalisation without weights"
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
        parts, length, grid = _split(count, rows, channels)
        found = x.new_empty((count, parts, 2, channels), dtype=torch.float32)
        _moments[grid](x, found, rows, channels, parts, length, ROWS=_ROWS, CHANNELS=_CHANNELS)
        # Of each channel: scale and offset of its values, their mean, and its group's centre and
        # 1 / standard deviation.
        table = x.new_empty((5, count, channels), dtype=torch.float32)
        _merge[(count, groups)](
            found,
            x if shift is None else shift.contiguous(),
            weight,
            bias,
            table,
            rows,
            channels,
            groups,
            parts,
            length,
            eps,
            shift is not None,
            PARTS=triton.next_power_of_2(parts),
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
        parts, length, grid = _split(count, rows, channels)
        found = x.new_empty((count, parts, 2, channels), dtype=torch.float32)
        _gradient_sums[grid](
            x,
            dy,
            table,
            found,
            rows,
            channels,
            count,
            parts,
            length,
            ctx.silu,
            ROWS=_ROWS,
            CHANNELS=_CHANNELS,
        )
        # Gradients of weight, bias and shift for each image; factors of du, x and 1 in x's.
        told = x.new_empty((5, count, channels), dtype=torch.float32)
        _merge_gradients[(count, groups)](
            found,
            table,
            weight,
            told,
            rows,
            channels,
            groups,
            parts,
            count,
            PARTS=triton.next_power_of_2(parts),
            WIDTH=triton.next_power_of_2(channels // groups),
        )
        dx = torch.empty_like(x)
        tiles = (count, triton.cdiv(rows, _ROWS), triton.cdiv(channels, _CHANNELS))
        _apply_gradient[tiles](
            x,
            dy,
            table,
            told,
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
            told[2].to(ctx.shift_dtype) if ctx.shifted else None,
            told[0].sum(0).to(weight.dtype) if needs_weight else None,
            told[1].sum(0).to(weight.dtype) if needs_bias else None,
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


def _split(count: int, rows: int, channels: int) -> tuple[int, int, tuple[int, int, int]]:
    """Number of parts and their length in rows, and the grid that goes over them."""
    length = triton.cdiv(triton.cdiv(rows, _MOST_PARTS), _ROWS) * _ROWS
    parts = triton.cdiv(rows, length)
    return parts, length, (count, parts, triton.cdiv(channels, _CHANNELS))


@triton.jit
def _moments(x, found, rows, channels, parts, length, ROWS: tl.constexpr, CHANNELS: tl.constexpr):
    """Mean of each channel over a part, and the sum of squared distances from it."""
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    first = part * length
    last = tl.minimum(first + length, rows)
    total = tl.zeros((CHANNELS,), tl.float32)
    squares = tl.zeros((CHANNELS,), tl.float32)
    # Sums of distances from a value of the channel, so that a mean far from 0 costs no digits.
    near = tl.load(x + (image * rows + first) * channels + c, mask=c < channels, other=0.0)
    near = near.to(tl.float32)
    for begin in range(first, last, ROWS):
        r = begin + tl.arange(0, ROWS)
        seen = (r < last)[:, None] & (c < channels)[None, :]
        place = (image * rows + r)[:, None] * channels + c[None, :]
        value = tl.load(x + place, mask=seen, other=0.0).to(tl.float32)
        value = tl.where(seen, value - near[None, :], 0.0)
        total += tl.sum(value, 0)
        squares += tl.sum(value * value, 0)
    mean = total / (last - first)
    out = found + (image * parts + part) * 2 * channels + c
    tl.store(out, near + mean, mask=c < channels)
    tl.store(out + channels, tl.maximum(squares - total * mean, 0.0), mask=c < channels)


@triton.jit
def _merge(
    found,
    shift,
    weight,
    bias,
    table,
    rows,
    channels,
    groups,
    parts,
    length,
    eps,
    SHIFTED: tl.constexpr,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Statistics of a group from those of its channels' parts."""
    image, group = tl.program_id(0), tl.program_id(1)
    width = channels // groups
    inner, p = tl.arange(0, WIDTH), tl.arange(0, PARTS)
    c = group * width + inner
    there = inner < width
    seen = (p < parts)[:, None] & there[None, :]
    place = found + (image * parts + p)[:, None] * 2 * channels + c[None, :]
    means = tl.load(place, mask=seen, other=0.0)
    spread = tl.sum(tl.sum(tl.load(place + channels, mask=seen, other=0.0), 0), 0)
    counts = tl.minimum(length, rows - p * length).to(tl.float32)
    counts = tl.where(p < parts, counts, 0.0)
    added = tl.zeros((WIDTH,), tl.float32)
    if SHIFTED:
        added = tl.load(shift + image * channels + c, mask=there, other=0.0).to(tl.float32)
    mean = tl.sum(means * counts[:, None], 0) / rows
    centre = tl.sum(tl.where(there, mean + added, 0.0), 0) / width
    off = tl.where(seen, means + added[None, :] - centre, 0.0)
    spread += tl.sum(tl.sum(off * off * counts[:, None], 0), 0)
    inverse = 1.0 / tl.sqrt(spread / (rows * width) + eps)
    scale = tl.load(weight + c, mask=there, other=0.0).to(tl.float32) * inverse
    start = tl.load(bias + c, mask=there, other=0.0).to(tl.float32)
    out, plane = table + image * channels + c, tl.num_programs(0) * channels
    tl.store(out, scale, mask=there)
    tl.store(out + plane, start + (added - centre) * scale, mask=there)
    tl.store(out + 2 * plane, mean, mask=there)
    tl.store(out + 3 * plane, centre - added, mask=there)
    tl.store(out + 4 * plane, inverse + tl.zeros((WIDTH,), tl.float32), mask=there)


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
    """Scale and move every value, and what SiLU makes of it."""
    image = tl.program_id(0).to(tl.int64)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    seen = (r < rows)[:, None] & (c < channels)[None, :]
    place = (image * rows + r)[:, None] * channels + c[None, :]
    row = table + image * channels + c
    scale = tl.load(row, mask=c < channels, other=0.0)
    offset = tl.load(row + count * channels, mask=c < channels, other=0.0)
    u = tl.load(x + place, mask=seen, other=0.0).to(tl.float32) * scale[None, :] + offset[None, :]
    if SILU:
        u = u * tl.sigmoid(u)
    tl.store(y + place, u.to(y.dtype.element_ty), mask=seen)


@triton.jit
def _after_silu(dy, u, SILU: tl.constexpr):
    """The gradient before SiLU."""
    if SILU:
        s = tl.sigmoid(u)
        dy = dy * s * (1.0 + u * (1.0 - s))
    return dy


@triton.jit
def _gradient_sums(
    x,
    dy,
    table,
    found,
    rows,
    channels,
    count,
    parts,
    length,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Sums over a part of the gradient du before SiLU, and of du times the normalised value."""
    image, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    there = c < channels
    row, plane = table + image * channels + c, count * channels
    scale = tl.load(row, mask=there, other=0.0)
    offset = tl.load(row + plane, mask=there, other=0.0)
    centre = tl.load(row + 3 * plane, mask=there, other=0.0)
    inverse = tl.load(row + 4 * plane, mask=there, other=0.0)
    first = part * length
    last = tl.minimum(first + length, rows)
    total = tl.zeros((CHANNELS,), tl.float32)
    products = tl.zeros((CHANNELS,), tl.float32)
    for begin in range(first, last, ROWS):
        r = begin + tl.arange(0, ROWS)
        seen = (r < last)[:, None] & there[None, :]
        place = (image * rows + r)[:, None] * channels + c[None, :]
        value = tl.load(x + place, mask=seen, other=0.0).to(tl.float32)
        u = value * scale[None, :] + offset[None, :]
        du = _after_silu(tl.load(dy + place, mask=seen, other=0.0).to(tl.float32), u, SILU)
        total += tl.sum(du, 0)
        products += tl.sum(du * (value - centre[None, :]), 0)
    out = found + (image * parts + part) * 2 * channels + c
    tl.store(out, total, mask=there)
    tl.store(out + channels, products * inverse, mask=there)


@triton.jit
def _merge_gradients(
    found,
    table,
    weight,
    told,
    rows,
    channels,
    groups,
    parts,
    count,
    PARTS: tl.constexpr,
    WIDTH: tl.constexpr,
):
    """Gradients of what belongs to channels, and what a group's mean and spread send back."""
    image, group = tl.program_id(0), tl.program_id(1)
    width = channels // groups
    inner, p = tl.arange(0, WIDTH), tl.arange(0, PARTS)
    c = group * width + inner
    there = inner < width
    seen = (p < parts)[:, None] & there[None, :]
    place = found + (image * parts + p)[:, None] * 2 * channels + c[None, :]
    total = tl.sum(tl.load(place, mask=seen, other=0.0), 0)
    products = tl.sum(tl.load(place + channels, mask=seen, other=0.0), 0)
    row, plane = table + image * channels + c, count * channels
    scale = tl.load(row, mask=there, other=0.0)
    mean = tl.load(row + 2 * plane, mask=there, other=0.0)
    centre = tl.load(row + 3 * plane, mask=there, other=0.0)
    inverse = tl.load(row + 4 * plane, mask=there, other=0.0)
    gain = tl.load(weight + c, mask=there, other=0.0).to(tl.float32)
    by_mean = tl.sum(gain * total, 0) / (rows * width)
    by_spread = tl.sum(gain * products, 0) / (rows * width)
    of_x = -inverse * inverse * by_spread
    of_one = -inverse * by_mean - of_x * centre
    out = told + image * channels + c
    tl.store(out, products, mask=there)
    tl.store(out + plane, total, mask=there)
    tl.store(out + 2 * plane, scale * total + rows * (of_x * mean + of_one), mask=there)
    tl.store(out + 3 * plane, of_x, mask=there)
    tl.store(out + 4 * plane, of_one, mask=there)


@triton.jit
def _apply_gradient(
    x,
    dy,
    table,
    told,
    dx,
    rows,
    channels,
    count,
    SILU: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """The gradient of every value."""
    image = tl.program_id(0).to(tl.int64)
    r = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    there = c < channels
    seen = (r < rows)[:, None] & there[None, :]
    place = (image * rows + r)[:, None] * channels + c[None, :]
    row, plane = image * channels + c, count * channels
    scale = tl.load(table + row, mask=there, other=0.0)
    offset = tl.load(table + row + plane, mask=there, other=0.0)
    of_x = tl.load(told + row + 3 * plane, mask=there, other=0.0)
    of_one = tl.load(told + row + 4 * plane, mask=there, other=0.0)
    value = tl.load(x + place, mask=seen, other=0.0).to(tl.float32)
    u = value * scale[None, :] + offset[None, :]
    du = _after_silu(tl.load(dy + place, mask=seen, other=0.0).to(tl.float32), u, SILU)
    told_x = scale[None, :] * du + of_x[None, :] * value + of_one[None, :]
    tl.store(dx + place, told_x.to(dx.dtype.element_ty), mask=seen)


@triton.jit
def _add(x, other, bias, y, total, channels, SIZE: tl.constexpr):
    """Two tensors and what belongs to their channels."""
    place = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    seen = place < total
    value = tl.load(x + place, mask=seen, other=0.0).to(tl.float32)
    value += tl.load(other + place, mask=seen, other=0.0).to(tl.float32)
    value += tl.load(bias + place % channels, mask=seen, other=0.0).to(tl.float32)
    tl.store(y + place, value.to(y.dtype.element_ty), mask=seen)
