"""Rasterisation on the CPU with gsplat's signature, meaning and `info`, differentiable by torch."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from stages.splat.cpu.bins import bin_strips, depth_order
from stages.splat.cpu.compiling import f32
from stages.splat.cpu.project import project_backward, project_forward
from stages.splat.cpu.strips import (
    MAX_WIDTH,
    STRIP,
    composite_backward,
    composite_backward_abs,
    composite_forward,
    gather_gradients,
)

MAX_CHANNELS = 4


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz, any length
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [N, K, 3] SH, or [N, D] without sh_degree
    viewmats: Tensor,  # [C, 4, 4] cam_from_world
    Ks: Tensor,  # [C, 3, 3]
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,  # [C, D]
    render_mode: str = "RGB",
    absgrad: bool = False,
    rasterize_mode: str = "classic",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Colours [C, H, W, D], alphas [C, H, W, 1] and what a densification strategy needs.

    D is the colour channels, plus one of depth in modes RGB+D and RGB+ED, or depth alone in D and
    ED; it is at most 4. Gradients reach means, quats, scales, opacities, colors, viewmats and
    backgrounds, and `info["means2d"]` in px (its `.absgrad` too, when asked).
    """
    antialiased = rasterize_mode == "antialiased"
    sh = colors if sh_degree is not None else colors[:, None, :3]
    degree = -1 if sh_degree is None else sh_degree
    projected = [
        _Project.apply(
            means, quats, scales, opacities, sh, view, torch.inverse(view)[:3, 3], K,
            (width, height, degree, eps2d, near_plane, far_plane, antialiased),
        )
        for view, K in zip(viewmats, Ks, strict=True)
    ]  # fmt: skip
    means2d = torch.stack([parts[0] for parts in projected])
    images, alphas, weights = [], [], []
    for index, (_, conics, depths, compensation, shaded, radii) in enumerate(projected):
        weights.append(opacities * compensation if antialiased else opacities)
        features, background = _channels(
            shaded if sh_degree is not None else colors,
            depths,
            None if backgrounds is None else backgrounds[index],
            render_mode,
        )
        image, alpha = _Composite.apply(
            means2d[index], conics, features, weights[-1], background,
            depths.detach(), radii, (width, height, absgrad, means2d, index),
        )  # fmt: skip
        if render_mode in ("ED", "RGB+ED"):
            expected = image[..., -1:] / alpha[..., None].clamp(min=1e-10)
            image = torch.cat([image[..., :-1], expected], dim=-1)
        images.append(image)
        alphas.append(alpha[..., None])
    info = {
        "means2d": means2d,
        "conics": torch.stack([parts[1] for parts in projected]),
        "depths": torch.stack([parts[2] for parts in projected]),
        "radii": torch.stack([parts[5] for parts in projected]),
        "opacities": torch.stack(weights),
        "gaussian_ids": None,
        "width": width,
        "height": height,
        "n_cameras": len(projected),
    }
    return torch.stack(images), torch.stack(alphas), info


def _channels(
    colors: Tensor, depths: Tensor, background: Tensor | None, mode: str
) -> tuple[Tensor, Tensor | None]:
    """What is composited [N, D] and its background [D]; depth has none."""
    if mode in ("D", "ED"):
        return depths[:, None], None
    if mode in ("RGB+D", "RGB+ED"):
        colors = torch.cat([colors, depths[:, None]], dim=1)
        if background is not None:
            background = torch.cat([background, background.new_zeros(1)])
    if colors.shape[1] > MAX_CHANNELS:
        raise ValueError(
            f"{colors.shape[1]} channels with render_mode {mode!r}; at most {MAX_CHANNELS}"
        )
    return colors, background


class _Project(torch.autograd.Function):
    """Means2d [N, 2], conics [N, 3], depths [N], compensations [N], colours [N, 3], radii."""

    @staticmethod
    def forward(ctx: FunctionCtx, *inputs: Any) -> tuple[Tensor, ...]:
        *tensors, settings = inputs
        width, height, degree, eps2d, near, far, antialiased = settings
        means, quats, scales, opacities, sh, view, eye, K = (_array(one) for one in tensors)
        count = len(means)
        xy, conics = np.zeros((count, 2), f32), np.zeros((count, 3), f32)
        depths, compensation = np.zeros(count, f32), np.zeros(count, f32)
        colors, radii = np.zeros((count, 3), f32), np.zeros((count, 2), np.int32)
        project_forward(
            means, quats, scales, opacities, sh, degree, view, K, eye, f32(width), f32(height),
            f32(eps2d), f32(near), f32(far), antialiased,
            xy, conics, depths, compensation, colors, radii,
        )  # fmt: skip
        ctx.arrays = means, quats, scales, sh, view, eye, K, compensation, colors, radii
        ctx.settings = settings
        visible = torch.from_numpy(radii)
        ctx.mark_non_differentiable(visible)
        made = (xy, conics, depths, compensation, colors)
        return *(torch.from_numpy(one) for one in made), visible

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        means, quats, scales, sh, view, eye, K, compensation, colors, radii = ctx.arrays
        width, height, degree, eps2d, _, _, antialiased = ctx.settings
        g_xy, g_conics, g_depths, g_compensation, g_colors = (_array(g) for g in gradients[:5])
        g_means, g_quats = np.zeros_like(means), np.zeros_like(quats)
        g_scales, g_sh = np.zeros_like(scales), np.zeros_like(sh)
        g_view, g_eye = project_backward(
            means, quats, scales, sh, degree, view, K, eye, f32(width), f32(height), f32(eps2d),
            antialiased, compensation, colors, radii,
            g_xy, g_conics, g_depths, g_compensation, g_colors, g_means, g_quats, g_scales, g_sh,
        )  # fmt: skip
        whole_view = np.zeros((4, 4), f32)
        whole_view[:3] = g_view
        back = (torch.from_numpy(g) for g in (g_means, g_quats, g_scales))
        return *back, None, *(torch.from_numpy(g) for g in (g_sh, whole_view, g_eye)), None, None


class _Composite(torch.autograd.Function):
    """Image [H, W, D] over its background, and alpha [H, W]."""

    @staticmethod
    def forward(ctx: FunctionCtx, *inputs: Any) -> tuple[Tensor, Tensor]:
        *tensors, settings = inputs
        means2d, conics, colors, opacities, background, depths, radii = tensors
        width, height = settings[:2]
        xy, conics, colors, opacities = (_array(t) for t in (means2d, conics, colors, opacities))
        order = depth_order(_array(depths).view(np.uint32), radii.numpy())
        extent = np.empty((len(order), 2), f32)
        slots_of = np.empty(len(order) + 1, np.int64)
        bins = bin_strips(order, xy, conics, opacities, height, STRIP, extent, slots_of)
        offsets, ids, slot = bins
        image = np.empty((height, width, colors.shape[1]), f32)
        left = np.empty((height, width), f32)
        for begin, end in _bands(width):
            part, clear = _contiguous(image, begin, end), _contiguous(left, begin, end)
            composite_forward(
                order, offsets, ids, extent, _shifted(xy, begin), conics, opacities, colors,
                end - begin, height, part, clear,
            )  # fmt: skip
            image[:, begin:end], left[:, begin:end] = part, clear
        behind = None if background is None else _array(background)
        ctx.arrays = xy, conics, colors, opacities, order, offsets, ids, slot, slots_of, extent
        ctx.images = image, left, behind
        ctx.settings = settings
        whole = image if behind is None else image + left[..., None] * behind
        return torch.from_numpy(whole), torch.from_numpy(1 - left)

    @staticmethod
    def backward(ctx: Any, g_image: Tensor, g_alpha: Tensor) -> tuple[Tensor | None, ...]:
        xy, conics, colors, opacities, order, offsets, ids, slot, slots_of, extent = ctx.arrays
        image, left, background = ctx.images
        width, height, absgrad, means2d, index = ctx.settings
        g_image, g_left = _array(g_image), -_array(g_alpha)
        g_background = None
        if background is not None:
            g_left = g_left + g_image @ background
            g_background = torch.from_numpy(np.einsum("hw,hwc->c", left, g_image))
        behind = np.einsum("hwc,hwc->hw", image, g_image) + left * g_left
        partial = np.zeros((len(ids), 12), f32)
        composite = composite_backward_abs if absgrad else composite_backward
        for begin, end in _bands(width):
            band = np.empty_like(partial)
            composite(
                order, offsets, ids, extent, _shifted(xy, begin), conics, opacities, colors,
                end - begin, height, _contiguous(behind, begin, end),
                _contiguous(g_image, begin, end), band,
            )  # fmt: skip
            partial = band if width <= MAX_WIDTH else partial + band
        g_xy, g_abs = np.zeros_like(xy), np.zeros_like(xy)
        g_conics, g_opacities = np.zeros_like(conics), np.zeros_like(opacities)
        g_colors = np.zeros_like(colors)
        gather_gradients(
            order, slots_of, slot, partial, conics, opacities, absgrad,
            g_xy, g_conics, g_opacities, g_colors, g_abs,
        )  # fmt: skip
        if absgrad:
            _store_absgrad(means2d, index, torch.from_numpy(g_abs))
        back = (torch.from_numpy(g) for g in (g_xy, g_conics, g_colors, g_opacities))
        return *back, g_background, None, None, None


def _store_absgrad(means2d: Tensor, index: int, values: Tensor) -> None:
    """Set one camera's row of `means2d.absgrad`, as gsplat's CUDA backward does for all."""
    if not hasattr(means2d, "absgrad"):
        means2d.absgrad = torch.zeros_like(means2d)
    means2d.absgrad[index] = values


def _bands(width: int) -> list[tuple[int, int]]:
    return [(x, min(x + MAX_WIDTH, width)) for x in range(0, width, MAX_WIDTH)]


def _contiguous(image: np.ndarray, begin: int, end: int) -> np.ndarray:
    return image if image.shape[1] == end - begin else np.ascontiguousarray(image[:, begin:end])


def _shifted(xy: np.ndarray, begin: int) -> np.ndarray:
    return xy if begin == 0 else xy - np.array([begin, 0], f32)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
