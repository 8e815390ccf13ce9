"""The CPU kernels as differentiable functions of torch tensors, for C cameras at once.

All tensors are float32 on the CPU. Kernels see one camera at a time, as numpy views.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from stages.splat.cpu.bins import (
    COLUMNS,
    ROWS,
    Bins,
    bin_splats,
    depth_order,
    pack_backward,
    pack_splats,
)
from stages.splat.cpu.compiling import Array, f32
from stages.splat.cpu.composite import composite_backward, composite_forward
from stages.splat.cpu.project import Cloud, Lens, Screen, project_backward, project_forward
from stages.splat.cpu.sh import shade_backward, shade_forward
from stages.splat.cpu.window import SUMS


class RenderSettings(NamedTuple):
    """Settings that all cameras of one call share."""

    width: int
    height: int
    near: float
    far: float
    eps2d: float
    antialiased: bool


class Project(torch.autograd.Function):
    """Means2d [C, N, 2], conics [C, N, 3], depths [C, N], opacities [C, N] and radii [C, N, 2]."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,  # [N, 3]
        quats: Tensor,  # [N, 4]
        scales: Tensor,  # [N, 3]
        opacities: Tensor,  # [N]
        viewmats: Tensor,  # [C, 4, 4]
        Ks: Tensor,  # [C, 3, 3]
        settings: RenderSettings,
    ) -> tuple[Tensor, ...]:
        ctx.settings = settings
        cloud = Cloud(*_arrays(means, quats, scales, opacities))
        views, Ks_array = _arrays(viewmats, Ks)
        cameras, count = len(views), len(means)
        shapes = ((cameras, count, 2), (cameras, count, 3), (cameras, count), (cameras, count))
        screen = Screen(
            *(np.zeros(shape, f32) for shape in shapes), np.zeros((cameras, count, 2), np.int32)
        )
        for c in range(cameras):
            lens = _lens(views[c], Ks_array[c], settings)
            project_forward(cloud, lens, Screen(*(part[c] for part in screen)))
        outputs = tuple(torch.from_numpy(part) for part in screen)
        ctx.save_for_backward(means, quats, scales, opacities, viewmats, Ks, outputs[-1])
        ctx.mark_non_differentiable(outputs[-1])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *g_outputs: Tensor) -> tuple[Tensor | None, ...]:
        *parts, views, Ks, radii = _arrays(*ctx.saved_tensors)
        cloud, g_screen = Cloud(*parts), Screen(*_arrays(*g_outputs[:4]), radii)
        g_cloud = Cloud(*(np.zeros(part.shape, f32) for part in cloud))
        g_views = np.zeros(views.shape, f32)
        for c in range(len(views)):
            lens = _lens(views[c], Ks[c], ctx.settings)
            g_part = Screen(*(part[c] for part in g_screen))
            g_views[c, :3] = project_backward(cloud, lens, radii[c], g_part, g_cloud)
        return *(torch.from_numpy(g) for g in (*g_cloud, g_views)), None, None


class Shade(torch.autograd.Function):
    """Colours [C, N, 3] of the Gaussians that are visible to each camera; zero for the others."""

    @staticmethod
    def forward(
        ctx: Any,
        means: Tensor,  # [N, 3]
        sh: Tensor,  # [N, K, 3]
        viewmats: Tensor,  # [C, 4, 4]
        radii: Tensor,  # [C, N, 2]
        degree: int,
    ) -> Tensor:
        means_array, sh_array, views, radii_array = _arrays(means, sh, viewmats, radii)
        ctx.degree, ctx.worlds = degree, np.linalg.inv(views.astype(np.float64))
        colors = np.zeros((len(views), len(means), 3), f32)
        for c, world in enumerate(ctx.worlds):
            eye = world[:3, 3].astype(f32)
            shade_forward(means_array, sh_array, eye, radii_array[c], degree, colors[c])
        shaded = torch.from_numpy(colors)
        ctx.save_for_backward(means, sh, radii, shaded)
        return shaded

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_colors: Tensor) -> tuple[Tensor | None, ...]:
        means, sh, radii, colors = _arrays(*ctx.saved_tensors)
        (g_shaded,) = _arrays(g_colors)
        g_means, g_sh = np.zeros(means.shape, f32), np.zeros(sh.shape, f32)
        g_views = np.zeros((len(colors), 4, 4), f32)
        for c, world in enumerate(ctx.worlds):
            eye = world[:3, 3]
            g_eye = shade_backward(
                means,
                sh,
                eye.astype(f32),
                radii[c],
                ctx.degree,
                colors[c],
                g_shaded[c],
                g_means,
                g_sh,
            )
            # eye is the last column of the inverse of view, whose derivative is -inv dview inv.
            g_views[c] = -np.outer(world[:3].T @ g_eye, world[:, 3])
        return *(torch.from_numpy(g) for g in (g_means, g_sh, g_views)), None, None


class Composite(torch.autograd.Function):
    """Images [C, H, W, D] over their backgrounds, and alphas [C, H, W, 1]."""

    @staticmethod
    def forward(
        ctx: Any,
        means2d: Tensor,  # [C, N, 2]
        conics: Tensor,  # [C, N, 3]
        opacities: Tensor,  # [C, N]
        colors: Tensor,  # [C, N, D]
        backgrounds: Tensor | None,  # [C, D]
        depths: Tensor,  # [C, N]
        radii: Tensor,  # [C, N, 2]
        settings: RenderSettings,
        absgrad: bool,
    ) -> tuple[Tensor, Tensor]:
        shape = (len(means2d), settings.height, settings.width)
        channels = colors.shape[-1]
        images, left = np.empty((*shape, channels), f32), np.empty((*shape, 1), f32)
        arrays = _arrays(means2d, conics, opacities, colors)
        depth_bits = depths.numpy().view(np.uint32)
        behind = np.zeros((shape[0], channels), f32)
        if backgrounds is not None:
            behind = backgrounds.detach().numpy()
        ctx.orders, ctx.bins = [], []
        for c in range(shape[0]):
            order = depth_order(depth_bits[c], radii.numpy()[c])
            bins = _bins(pack_splats(order, *(part[c] for part in arrays)), settings)
            composite_forward(bins, np.ascontiguousarray(behind[c]), images[c], left[c, ..., 0])
            ctx.orders.append(order)
            ctx.bins.append(bins)
        composited = torch.from_numpy(images)
        ctx.save_for_backward(conics, opacities, composited)
        ctx.left, ctx.channels = left, channels
        ctx.means2d = means2d if absgrad else None
        return composited, torch.from_numpy(1 - left)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_images: Tensor, g_alphas: Tensor) -> tuple[Tensor | None, ...]:
        conics, opacities, images = _arrays(*ctx.saved_tensors)
        g_composited, g_left = _arrays(g_images, -g_alphas)
        g_means2d, g_conics = np.zeros((*opacities.shape, 2), f32), np.zeros(conics.shape, f32)
        g_opacities = np.zeros(opacities.shape, f32)
        g_colors = np.zeros((*opacities.shape, ctx.channels), f32)
        absgrad = None if ctx.means2d is None else np.zeros(g_means2d.shape, f32)
        for c, (order, bins) in enumerate(zip(ctx.orders, ctx.bins, strict=True)):
            sums = np.zeros((len(order), SUMS), f32)
            absolute = None if absgrad is None else np.zeros((len(order), 2), f32)
            left, g_one_left = ctx.left[c, ..., 0], g_left[c, ..., 0]
            composite_backward(bins, images[c], left, g_composited[c], g_one_left, sums, absolute)
            pack_backward(
                order,
                conics[c],
                opacities[c],
                sums,
                g_means2d[c],
                g_conics[c],
                g_opacities[c],
                g_colors[c],
            )
            if absgrad is not None:
                absgrad[c, order] = absolute
        if absgrad is not None:
            ctx.means2d.absgrad = torch.from_numpy(absgrad)
        g_backgrounds = None
        if ctx.needs_input_grad[4]:
            g_backgrounds = torch.from_numpy(
                np.einsum("chw,chwd->cd", ctx.left[..., 0], g_composited)
            )
        back = (torch.from_numpy(g) for g in (g_means2d, g_conics, g_opacities, g_colors))
        return *back, g_backgrounds, None, None, None, None


def _bins(splats: Array, settings: RenderSettings) -> Bins:
    across, down = -(-settings.width // COLUMNS), -(-settings.height // ROWS)
    return Bins(splats, *bin_splats(splats, across, down), across, settings.width, settings.height)


def _lens(view: Array, K: Array, settings: RenderSettings) -> Lens:
    numbers = (f32(value) for value in settings[:5])
    return Lens(view, K, *numbers, settings.antialiased)


def _arrays(*tensors: Tensor) -> list[Array]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]
