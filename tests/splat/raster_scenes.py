"""Small scenes for the rasteriser: every known hard case, in one image."""

import math

import numpy as np
import torch
from torch import Tensor

from stages.scenes.cameras import look_at

WIDTH, HEIGHT = 52, 37
NAMES = ("means", "quats", "scales", "opacities", "colors")


def pinhole(width: int, height: int, fov_deg: float = 50.0) -> Tensor:
    """Intrinsics [3, 3] with the optical axis a little off the middle."""
    f = 0.5 * width / math.tan(math.radians(fov_deg) / 2)
    return torch.tensor([[f, 0, 0.48 * width], [0, 1.05 * f, 0.53 * height], [0, 0, 1]])


def camera(k: int) -> Tensor:
    """World to camera [4, 4] of one of eight cameras around the origin."""
    angle = 2 * math.pi * k / 8
    eye = np.array([4 * math.cos(angle), 0.8, 4 * math.sin(angle)])
    return torch.tensor(look_at(eye, np.zeros(3), np.array([0, -1.0, 0])), dtype=torch.float32)


def hard_scene(degree: int, seed: int, count: int = 220) -> dict[str, Tensor]:
    """Huge, sub-pixel, nearly opaque, nearly invisible, flat Gaussians; some about camera 0.

    Colours are harmonics [N, (degree + 1)^2, 3], some of which are negative and so clamped.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random)

    means, scales = 0.9 * normal(count, 3), 0.09 * torch.exp(0.5 * normal(count, 3))
    opacities = torch.sigmoid(0.5 + 1.8 * normal(count))
    scales[:20] *= 5
    scales[20:40] *= 0.05
    scales[40:50, 0] *= 0.01
    opacities[50:60], opacities[60:70], opacities[70:85] = 0.9995, 0.002, 0.97
    means[85:95] = camera(0).inverse()[:3, 3] + 0.3 * normal(10, 3)
    colors = 0.6 * normal(count, (degree + 1) ** 2, 3)
    return dict(zip(NAMES, (means, normal(count, 4), scales, opacities, colors), strict=True))


def leaves(scene: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Copies that gather gradients."""
    return {name: part.to(dtype).clone().requires_grad_() for name, part in scene.items()}


def relative_error(value: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what is expected."""
    difference = value.double() - expected.double()
    return (difference.norm() / expected.double().norm().clamp(min=1e-30)).item()
