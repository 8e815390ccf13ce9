"""Learnt corrections of poses, one kernel forward and one backward: `splat.poses.corrected`."""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor


class Corrected(torch.autograd.Function):
    """cam_from_world [1, 4, 4] of one view after its correction, and its camera's centre [1, 3]."""

    @staticmethod
    def forward(
        ctx: Any, corrections: Tensor, cams_from_world: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:  # [V, 9], [V, 4, 4], [1] int64
        """Correct the pose of view `index`."""
        pose, eye = corrections.new_empty(1, 4, 4), corrections.new_empty(1, 3)
        _corrected[(1,)](corrections, cams_from_world, index, pose, eye)
        ctx.save_for_backward(corrections, cams_from_world, index)
        return pose, eye

    @staticmethod
    def backward(ctx: Any, by_pose: Tensor, by_eye: Tensor) -> tuple[Tensor, None, None]:
        """Gradient of all corrections; one row is not zero."""
        corrections, cams_from_world, index = ctx.saved_tensors
        gradient = torch.zeros_like(corrections)
        _slopes[(1,)](
            corrections, cams_from_world, index, by_pose.contiguous(), by_eye.contiguous(), gradient
        )
        return gradient, None, None


@triton.jit
def _three(pointer, stride):
    """A vector of three, padded to four by zero."""
    k = tl.arange(0, 4)
    return tl.load(pointer + k * stride, mask=k < 3, other=0.0)


@triton.jit
def _axis(nth: tl.constexpr):
    return tl.where(tl.arange(0, 4) == nth, 1.0, 0.0)


@triton.jit
def _cross(a, b):
    """a x b of padded vectors."""
    a0, a1, a2 = tl.sum(a * _axis(0)), tl.sum(a * _axis(1)), tl.sum(a * _axis(2))
    b0, b1, b2 = tl.sum(b * _axis(0)), tl.sum(b * _axis(1)), tl.sum(b * _axis(2))
    x, y, z = a1 * b2 - a2 * b1, a2 * b0 - a0 * b2, a0 * b1 - a1 * b0
    return x * _axis(0) + y * _axis(1) + z * _axis(2)


@triton.jit
def _frame(correction):
    """Columns of the rotation (Gram and Schmidt), and what its gradient needs."""
    a = _three(correction + 3, 1) + _axis(0)
    b = _three(correction + 6, 1) + _axis(1)
    long = tl.sqrt(tl.sum(a * a))
    x = a / long
    along = tl.sum(x * b)
    rest = b - along * x
    far = tl.sqrt(tl.sum(rest * rest))
    y = rest / far
    return x, y, _cross(x, y), b, along, long, far


@triton.jit
def _corrected(corrections, cams_from_world, index, pose, eye):
    view = tl.load(index)
    correction, cam_from_world = corrections + 9 * view, cams_from_world + 16 * view
    x, y, z, _b, _along, _long, _far = _frame(correction)
    moved = _three(cam_from_world + 3, 4) - _three(correction, 1)
    for column in tl.static_range(3):
        across = _three(cam_from_world + column, 4)
        tl.store(pose + column, tl.sum(x * across))
        tl.store(pose + 4 + column, tl.sum(y * across))
        tl.store(pose + 8 + column, tl.sum(z * across))
        tl.store(pose + 12 + column, 0.0)
        tl.store(eye + column, -tl.sum(across * moved))
    tl.store(pose + 3, tl.sum(x * moved))
    tl.store(pose + 7, tl.sum(y * moved))
    tl.store(pose + 11, tl.sum(z * moved))
    tl.store(pose + 15, 1.0)


@triton.jit
def _slopes(corrections, cams_from_world, index, by_pose, by_eye, gradient):
    view = tl.load(index)
    correction, cam_from_world = corrections + 9 * view, cams_from_world + 16 * view
    x, y, z, b, along, long, far = _frame(correction)
    moved = _three(cam_from_world + 3, 4) - _three(correction, 1)
    right, down, deep = tl.load(by_pose + 3), tl.load(by_pose + 7), tl.load(by_pose + 11)
    by_x, by_y, by_z = right * moved, down * moved, deep * moved
    by_shift = -(right * x + down * y + deep * z)
    for column in tl.static_range(3):
        across = _three(cam_from_world + column, 4)
        by_x += tl.load(by_pose + column) * across
        by_y += tl.load(by_pose + 4 + column) * across
        by_z += tl.load(by_pose + 8 + column) * across
        by_shift += tl.load(by_eye + column) * across
    by_x += _cross(y, by_z)
    by_y += _cross(by_z, x)
    by_rest = (by_y - y * tl.sum(y * by_y)) / far
    by_b = by_rest - x * tl.sum(x * by_rest)
    by_x -= along * by_rest + b * tl.sum(x * by_rest)
    by_a = (by_x - x * tl.sum(x * by_x)) / long
    k = tl.arange(0, 4)
    out = gradient + 9 * view + k
    tl.store(out, by_shift, mask=k < 3)
    tl.store(out + 3, by_a, mask=k < 3)
    tl.store(out + 6, by_b, mask=k < 3)
