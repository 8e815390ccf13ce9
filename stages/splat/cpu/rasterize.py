"""Rasterisation on the CPU with gsplat's signature, meaning and `info`, differentiable by torch."""

from typing import Any

import torch
from torch import Tensor

from stages.splat.cpu.autograd import Composite, Project, RenderSettings, Shade
from stages.splat.cpu.bins import CHANNELS
from stages.splat.cpu.sh import MAX_DEGREE

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
RASTERIZE_MODES = ("classic", "antialiased")


def rasterization(
    means: Tensor,  # [N, 3]
    quats: Tensor,  # [N, 4] wxyz, any length
    scales: Tensor,  # [N, 3]
    opacities: Tensor,  # [N]
    colors: Tensor,  # [N, K, 3] SH, or [N, D] or [C, N, D] without sh_degree
    viewmats: Tensor,  # [C, 4, 4] cam_from_world
    Ks: Tensor,  # [C, 3, 3] px
    width: int,
    height: int,
    *,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    backgrounds: Tensor | None = None,  # [C, D], without depth
    render_mode: str = "RGB",
    absgrad: bool = False,
    rasterize_mode: str = "classic",
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Colours [C, H, W, D], alphas [C, H, W, 1] and the info that densification reads.

    D counts the colours, one more for depth in modes RGB+D and RGB+ED, depth alone in D and ED; it
    is at most 4. Gradients reach means, quats, scales, opacities, colors, viewmats, backgrounds and
    `info["means2d"]`, in px; with absgrad its `.absgrad` holds the sums of absolute values.
    Raises ValueError on wrong shapes or modes, TypeError on tensors that are not float32 on a CPU.
    """
    _check_types(means, quats, scales, opacities, colors, viewmats, Ks, backgrounds)
    _check_shapes(means, quats, scales, opacities, viewmats, Ks)
    _check_modes(render_mode, rasterize_mode)
    settings = RenderSettings(
        width, height, near_plane, far_plane, eps2d, rasterize_mode == "antialiased"
    )
    means2d, conics, depths, weights, radii = Project.apply(
        means, quats, scales, opacities, viewmats, Ks, settings
    )
    if render_mode in ("D", "ED"):
        channels, backgrounds = depths[..., None], None
    else:
        channels = _shaded(means, colors, viewmats, radii, sh_degree)
        channels, backgrounds = _with_depth(channels, depths, backgrounds, render_mode)
    _check_channels(channels, backgrounds, render_mode)
    images, alphas = Composite.apply(
        means2d, conics, weights, channels, backgrounds, depths.detach(), radii, settings, absgrad
    )
    if render_mode in ("ED", "RGB+ED"):
        expected = images[..., -1:] / alphas.clamp(min=1e-10)
        images = torch.cat([images[..., :-1], expected], dim=-1)
    info = {
        "means2d": means2d,
        "conics": conics,
        "depths": depths,
        "radii": radii,
        "opacities": weights,
        "gaussian_ids": None,
        "width": width,
        "height": height,
        "n_cameras": len(viewmats),
    }
    return images, alphas, info


def _shaded(
    means: Tensor, colors: Tensor, viewmats: Tensor, radii: Tensor, sh_degree: int | None
) -> Tensor:
    """Colour of each Gaussian in each camera [C, N, D]."""
    if sh_degree is None:
        if colors.ndim == 2:
            colors = colors[None].expand(len(viewmats), -1, -1)
        if colors.shape[:2] != radii.shape[:2]:
            raise ValueError(
                f"colors {tuple(colors.shape)} for {radii.shape[0]} cameras and {radii.shape[1]} "
                "Gaussians; [N, D] or [C, N, D] is expected, or sh_degree for harmonics"
            )
        return colors
    if not 0 <= sh_degree <= MAX_DEGREE:
        raise ValueError(f"sh_degree {sh_degree}; 0 to {MAX_DEGREE} is possible")
    if colors.ndim != 3 or colors.shape[2] != 3 or colors.shape[1] < (sh_degree + 1) ** 2:
        raise ValueError(
            f"colors {tuple(colors.shape)} with sh_degree {sh_degree}; "
            f"[N, K, 3] with K >= {(sh_degree + 1) ** 2} is expected"
        )
    return Shade.apply(means, colors, viewmats, radii, sh_degree)


def _with_depth(
    colors: Tensor, depths: Tensor, backgrounds: Tensor | None, render_mode: str
) -> tuple[Tensor, Tensor | None]:
    """Colours and backgrounds, with depth as the last channel where the mode has it."""
    if render_mode == "RGB":
        return colors, backgrounds
    if backgrounds is not None:
        backgrounds = torch.cat([backgrounds, backgrounds.new_zeros(len(backgrounds), 1)], dim=-1)
    return torch.cat([colors, depths[..., None]], dim=-1), backgrounds


def _check_types(*tensors: Tensor | None) -> None:
    for tensor in tensors:
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise TypeError(f"{tensor.dtype} on {tensor.device}; float32 on the CPU is expected")


def _check_shapes(
    means: Tensor, quats: Tensor, scales: Tensor, opacities: Tensor, viewmats: Tensor, Ks: Tensor
) -> None:
    count, cameras = len(means), len(viewmats)
    expected = {
        "means": (means, (count, 3)),
        "quats": (quats, (count, 4)),
        "scales": (scales, (count, 3)),
        "opacities": (opacities, (count,)),
        "viewmats": (viewmats, (cameras, 4, 4)),
        "Ks": (Ks, (cameras, 3, 3)),
    }
    for name, (tensor, shape) in expected.items():
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} {tuple(tensor.shape)}; {shape} is expected")


def _check_modes(render_mode: str, rasterize_mode: str) -> None:
    if render_mode not in RENDER_MODES:
        raise ValueError(f"render_mode {render_mode!r}; one of {RENDER_MODES} is expected")
    if rasterize_mode not in RASTERIZE_MODES:
        raise ValueError(f"rasterize_mode {rasterize_mode!r}; one of {RASTERIZE_MODES} is expected")


def _check_channels(channels: Tensor, backgrounds: Tensor | None, render_mode: str) -> None:
    if not 1 <= channels.shape[-1] <= CHANNELS:
        raise ValueError(
            f"{channels.shape[-1]} channels in render_mode {render_mode!r}; "
            f"the CPU backend renders 1 to {CHANNELS}, depth included"
        )
    if backgrounds is not None and backgrounds.shape != (len(channels), channels.shape[-1]):
        raise ValueError(
            f"backgrounds {tuple(backgrounds.shape)} for images of {len(channels)} cameras "
            f"and {channels.shape[-1]} channels; [C, D] is expected"
        )
