"""Rasterisation by brute force: every pixel against every Gaussian, differentiated by torch.

One camera, any precision. Projection and harmonics are gsplat 1.5.3's torch functions; compositing
follows its CUDA kernels: alpha = min(0.999, o exp(-sigma)), at least 1/255, and a pixel ends before
the Gaussian that would bring its transmittance to 1e-4 or below.
"""

from typing import NamedTuple

import torch
from gsplat.cuda._torch_impl import (
    _fully_fused_projection,
    _quat_scale_to_covar_preci,
    _spherical_harmonics,
)
from torch import Tensor


class ExactRender(NamedTuple):
    image: Tensor  # [H, W, D]
    alpha: Tensor  # [H, W, 1]
    means2d: Tensor  # [N, 2]
    offsets: Tensor  # [P, V, 2] centre minus pixel; its gradient is each pixel's share
    order: Tensor  # [V] Gaussians, nearest first
    margin: float  # least distance, as a share, of an alpha or a transmittance from its threshold


def rasterize(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmat: Tensor,
    K: Tensor,
    width: int,
    height: int,
    *,
    sh_degree: int | None = None,
    background: Tensor | None = None,
    render_mode: str = "RGB",
    antialiased: bool = False,
    near: float = 0.01,
    far: float = 1e10,
    eps2d: float = 0.3,
) -> ExactRender:
    """What one camera sees; colors [N, K, 3] with sh_degree, else [N, D]."""
    covariances, _ = _quat_scale_to_covar_preci(quats, scales, True, False, triu=False)
    radii, means2d, depths, conics, compensations = _fully_fused_projection(
        means,
        covariances,
        viewmat[None],
        K[None],
        width,
        height,
        eps2d,
        near,
        far,
        calc_compensations=antialiased,
    )
    means2d, depths, conics = means2d[0], depths[0], conics[0]
    if antialiased:
        opacities = opacities * compensations[0]
    if sh_degree is not None:
        directions = means - torch.inverse(viewmat)[:3, 3]
        colors = (_spherical_harmonics(sh_degree, directions, colors) + 0.5).clamp_min(0)
    if render_mode in ("D", "ED"):
        colors = depths[:, None]
        background = None
    elif render_mode != "RGB":
        colors = torch.cat([colors, depths[:, None]], dim=-1)
        background = None if background is None else torch.cat([background, means.new_zeros(1)])
    order = torch.argsort(depths.detach(), stable=True)
    order = order[(radii[0] > 0).all(-1)[order]]
    rows, columns = torch.meshgrid(
        torch.arange(height, dtype=means.dtype) + 0.5,
        torch.arange(width, dtype=means.dtype) + 0.5,
        indexing="ij",
    )
    pixels = torch.stack([columns, rows], dim=-1).reshape(-1, 1, 2)
    offsets = means2d[order] - pixels
    image, alpha, margin = _composite(offsets, conics[order], colors[order], opacities[order])
    if background is not None:
        image = image + (1 - alpha) * background
    if "ED" in render_mode:
        depth = image[:, -1:] / alpha.clamp(min=1e-10)
        image = torch.cat([image[:, :-1], depth], dim=-1)
    shape = (height, width, -1)
    return ExactRender(image.reshape(shape), alpha.reshape(shape), means2d, offsets, order, margin)


def _composite(
    offsets: Tensor, conics: Tensor, colors: Tensor, opacities: Tensor
) -> tuple[Tensor, Tensor, float]:
    """Colours [P, D] and alphas [P, 1] of sorted Gaussians, and the margin."""
    x, y = offsets.unbind(-1)
    sigma = 0.5 * (conics[:, 0] * x**2 + conics[:, 2] * y**2) + conics[:, 1] * x * y
    alphas = (opacities * torch.exp(-sigma)).clamp(max=0.999)
    margin = _distance(alphas, 1 / 255)
    alphas = torch.where((sigma >= 0) & (alphas >= 1 / 255), alphas, 0.0)
    left = torch.cumprod(1 - alphas.detach(), dim=1)
    margin = min(margin, _distance(left, 1e-4))
    composited = left > 1e-4
    alphas = torch.where(composited, alphas, 0.0)
    after = torch.cumprod(1 - alphas, dim=1)
    before = torch.cat([torch.ones_like(after[:, :1]), after[:, :-1]], dim=1)
    return (alphas * before) @ colors, 1 - after[:, -1:], margin


def _distance(values: Tensor, threshold: float) -> float:
    """Share of the threshold by which the nearest value misses it."""
    return (values.detach() / threshold - 1).abs().min().item() if values.numel() else 1.0
