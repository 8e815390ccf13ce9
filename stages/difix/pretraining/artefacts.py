"""Synthetic artefacts: those that Gaussians from few, imperfect cameras leave in a render.

Each artefact has a strength of its own for every image, and often none, so that a fixer also learns
to keep what is right. All random numbers come from the generator, on the CPU; images are
[B, 3, H, W] in [0, 1] on any device.
"""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.difix.pretraining.dead_leaves import Leaves, Viewpoints, paint

_NEEDLES, _FLOATERS, _GHOSTS = 24, 4, 2


def degraded(
    leaves: Leaves,  # on the device of the images
    views: Viewpoints,
    clean: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """The clean image of these leaves with the artefacts of a render."""
    image = _ghosted(leaves, views, clean, generator)
    image = _smeared(image, generator)
    image = _blurred(image, generator)
    image = _unobserved(image, generator)
    image = _splattered(image, _NEEDLES, (2.0, 16.0), (0.5, 1.6), (0.2, 0.9), generator)
    image = _splattered(image, _FLOATERS, (8.0, 30.0), (4.0, 14.0), (0.1, 0.6), generator)
    return _drifted(image, generator).clamp(0, 1)


def _ghosted(
    leaves: Leaves, views: Viewpoints, clean: Tensor, generator: torch.Generator
) -> Tensor:
    """Double edges: leaves at several positions at once, as from imperfect cameras."""
    height, width = clean.shape[-2:]
    strength = _sometimes(len(clean), 0.6, generator)[:, None, None].to(clean.device)
    pixel = 2 / min(width, height)
    total = clean
    for _ in range(_GHOSTS):
        jitter = torch.randn(leaves.centre.shape, generator=generator).to(clean.device)
        total = total + paint(leaves, views, width, height, 1.5 * pixel * strength * jitter)
    return total / (1 + _GHOSTS)


def _smeared(image: Tensor, generator: torch.Generator) -> Tensor:
    """Texture smeared into strokes: pixels displaced by a field that varies within a few px."""
    batch, _, height, width = image.shape
    strength_px = 2.0 * _sometimes(batch, 0.5, generator)
    coarse = torch.randn(batch, 2, max(2, height // 5), max(2, width // 5), generator=generator)
    field = F.interpolate(coarse, (height, width), mode="bicubic")
    field = field * strength_px[:, None, None, None] * _patches(batch, height, width, generator)
    scale = torch.tensor([2 / width, 2 / height])
    x = (torch.arange(width) + 0.5) * scale[0] - 1
    y = (torch.arange(height) + 0.5) * scale[1] - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)
    grid = (grid + field.movedim(1, -1) * scale).to(image.device)
    return F.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def _blurred(image: Tensor, generator: torch.Generator) -> Tensor:
    """Blur in some parts, or everywhere."""
    batch, _, height, width = image.shape
    amount = (
        _patches(batch, height, width, generator)
        * _sometimes(batch, 0.8, generator)[:, None, None, None]
    )
    return torch.lerp(image, _blur(image, 1.6), amount.to(image.device))


def _unobserved(image: Tensor, generator: torch.Generator) -> Tensor:
    """Parts that no camera observed well: their colour alone is left, their detail only in the
    reference.

    Where no Gaussian is, the black background shows: in every third image the colour fades.
    """
    batch, _, height, width = image.shape
    small = F.interpolate(image, (max(1, height // 16), max(1, width // 16)), mode="area")
    left = F.interpolate(small, (height, width), mode="bicubic")
    fading = 1 - 0.9 * _sometimes(batch, 0.35, generator)[:, None, None, None]
    left = left * fading.to(image.device)
    where = (_patches(batch, height, width, generator) - 0.6).clamp(0, 0.2) / 0.2
    amount = where * (_sometimes(batch, 0.6, generator)[:, None, None, None] > 0).float()
    return torch.lerp(image, left, amount.to(image.device))


def _splattered(
    image: Tensor,
    count: int,
    length_px: tuple[float, float],
    width_px: tuple[float, float],
    opacity: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Single misplaced Gaussians, most of them in colours from elsewhere in the image.

    Args:
        image: [B, 3, H, W].
        count: at most so many per image.
        length_px, width_px, opacity: least and largest value.
        generator: of all random numbers.
    """
    batch, _, height, width = image.shape

    def uniform(low: float = 0.0, high: float = 1.0, *shape: int) -> Tensor:
        value = low + (high - low) * torch.rand(batch, count, *shape, generator=generator)
        return value.to(image.device)

    x, y, angle = uniform(0, width), uniform(0, height), uniform(0, torch.pi)
    long, short, alpha = uniform(*length_px), uniform(*width_px), uniform(*opacity)
    alpha = alpha * (uniform() < uniform()[:, :1]).float()  # from none to all of them
    positions = uniform(-1, 1, 2)[:, None]
    colors = F.grid_sample(image, positions, align_corners=False)[:, :, 0]  # [B, 3, count]
    colors = torch.lerp(colors, uniform(0, 1, 3).mT, 0.25)
    rows = torch.arange(height, device=image.device)[:, None] + 0.5
    columns = torch.arange(width, device=image.device) + 0.5
    for k in range(count):
        dx = columns - x[:, k, None, None]
        dy = rows - y[:, k, None, None]
        cos, sin = (f(angle[:, k])[:, None, None] for f in (torch.cos, torch.sin))
        along = (cos * dx + sin * dy) / long[:, k, None, None]
        across = (cos * dy - sin * dx) / short[:, k, None, None]
        cover = torch.exp(-0.5 * (along.square() + across.square())) * alpha[:, k, None, None]
        image = torch.lerp(image, colors[:, :, k, None, None], cover[:, None])
    return image


def _drifted(image: Tensor, generator: torch.Generator) -> Tensor:
    """Slightly wrong colours, varying over the image."""
    batch, _, height, width = image.shape
    strength = 0.08 * _sometimes(batch, 0.8, generator)[:, None, None, None]
    coarse = strength * torch.randn(batch, 3, 3, 3, generator=generator)
    return image + F.interpolate(coarse, (height, width), mode="bicubic").to(image.device)


def _sometimes(batch: int, share: float, generator: torch.Generator) -> Tensor:
    """Strengths [B]: uniform in [0, 1] for a share of the images, 0 for the others."""
    strength = torch.rand(batch, generator=generator)
    return strength * (torch.rand(batch, generator=generator) < share)


def _patches(batch: int, height: int, width: int, generator: torch.Generator) -> Tensor:
    """A smooth random mask [B, 1, H, W] in [0, 1]."""
    coarse = torch.rand(batch, 1, 4, 4, generator=generator)
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)


def _blur(image: Tensor, sigma_px: float) -> Tensor:
    offsets = torch.arange(-5, 6, device=image.device, dtype=image.dtype)
    taps = torch.exp(-0.5 * (offsets / sigma_px).square())
    kernel = (taps / taps.sum()).repeat(3, 1, 1, 1)
    padded = F.pad(image, (5, 5, 5, 5), mode="reflect")
    rows = F.conv2d(padded, kernel, groups=3)
    return F.conv2d(rows, kernel.mT, groups=3)
