"""Procedural images: textured shapes that occlude each other, from several viewpoints.

Dead leaves (Lee, Mumford and Huang 2001) have the edges, occlusions and scale statistics of natural
images. They show no scene of any study, so training on them leaks nothing. Each leaf has a depth of
its own here: another view of the same leaves has true parallax.

An image's shorter side extends from -1 to 1, x right and y down. B images of K leaves, painted from
far to near; the first leaf is a background that covers everything.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

_TEXTURES, _TEXTURE_PX = 24, 64


@dataclass(frozen=True, eq=False)
class Leaves:
    """Leaves of B images, generated on the CPU; every field is [B, K, ...]."""

    centre: Tensor  # 2
    half_size: Tensor  # 2
    angle: Tensor
    exponent: Tensor  # 1 a diamond, 2 an ellipse, above a rectangle with round corners
    nearness: Tensor  # 1 / depth: the share of a view's shift by which a leaf moves
    color: Tensor  # 3
    contrast: Tensor  # of the texture
    shading: Tensor  # 2; change of brightness across the leaf
    texture: Tensor  # index
    frequency: Tensor  # texture tiles per unit
    textures: Tensor  # [B, T, 3, h, w], around 0: the textures to choose from

    def to(self, device: str | torch.device) -> "Leaves":
        """The same leaves on a device."""
        return Leaves(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


class Viewpoints(NamedTuple):
    """Viewpoints of B images."""

    shift: Tensor  # [B, 2]; of leaves at nearness 1
    bend: Tensor  # [B, 2, 2]; zoom, roll and foreshortening

    def to(self, device: str | torch.device) -> "Viewpoints":
        """The same viewpoints on a device."""
        return Viewpoints(self.shift.to(device), self.bend.to(device))


def scatter(batch: int, count: int, generator: torch.Generator) -> Leaves:
    """Random leaves; their sizes follow the inverse cube law of natural images."""

    def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return low + (high - low) * torch.rand(batch, count, *shape, generator=generator)

    smallest, largest = 0.08, 0.9
    size = (smallest**-2 + uniform() * (largest**-2 - smallest**-2)) ** -0.5
    half_size = size[..., None] * torch.exp(uniform(2, low=-0.8, high=0.8))
    half_size[:, 0] = 50.0
    nearness, _ = uniform(low=0.15).sort(dim=1)
    palette = torch.rand(batch, 6, 3, generator=generator)
    entry = torch.randint(6, (batch, count), generator=generator)
    color = 0.7 * palette.gather(1, entry[..., None].expand(-1, -1, 3)) + 0.3 * uniform(3)
    grey = color.mean(dim=-1, keepdim=True)
    color = torch.lerp(grey, color, uniform(1))
    return Leaves(
        centre=uniform(2, low=-1.5, high=1.5),
        half_size=half_size,
        angle=uniform(high=torch.pi),
        exponent=torch.exp(uniform(low=0.2, high=2.3)),
        nearness=nearness,
        color=color,
        contrast=uniform(high=0.3) * uniform(),
        shading=uniform(2, low=-0.25, high=0.25),
        texture=torch.randint(_TEXTURES, (batch, count), generator=generator),
        frequency=torch.exp(uniform(low=-0.5, high=1.2)),
        textures=_textures(generator).expand(batch, -1, -1, -1, -1),
    )


def viewpoints(batch: int, baseline: float, generator: torch.Generator) -> Viewpoints:
    """Random viewpoints up to `baseline` from the origin; the bend grows with `baseline`."""

    def uniform(*shape: int) -> Tensor:
        return 2 * torch.rand(batch, *shape, generator=generator) - 1

    bend = torch.eye(2) + 0.35 * baseline * uniform(2, 2)
    return Viewpoints(baseline * uniform(2), bend)


def paint(
    leaves: Leaves,
    views: Viewpoints,
    width: int,
    height: int,
    jitter: Tensor | None = None,  # [B, K, 2]
) -> Tensor:
    """Images [B, 3, height, width] in [0, 1], with edges smooth over a pixel.

    Args:
        leaves: of B images, far to near.
        views: one viewpoint per image.
        width, height: of the images, px.
        jitter: displacement of each leaf, in units of the image plane.
    """
    grid = _grid(width, height, leaves.centre.device)  # [H, W, 2]
    positions = torch.einsum("bij,hwj->bhwi", views.bend, grid)
    moved = leaves.centre + leaves.nearness[..., None] * views.shift[:, None]
    if jitter is not None:
        moved = moved + jitter
    canvas = positions.new_zeros(len(positions), 3, height, width)
    for index in range(moved.shape[1]):
        local = _rotated(positions - moved[:, index, None, None], leaves.angle[:, index])
        cover = _cover(local, leaves, index, min(width, height) / 2)
        canvas = torch.lerp(canvas, _surface(local, leaves, index), cover)
    return canvas.clamp(0, 1)


def _grid(width: int, height: int, device: torch.device) -> Tensor:
    """Pixel centres [H, W, 2] as (x, y)."""
    scale = 2 / min(width, height)
    x = (torch.arange(width, device=device) + 0.5 - width / 2) * scale
    y = (torch.arange(height, device=device) + 0.5 - height / 2) * scale
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _rotated(points: Tensor, angle: Tensor) -> Tensor:  # [B, H, W, 2], [B]
    cos, sin = (f(angle)[:, None, None] for f in (torch.cos, torch.sin))
    x, y = points.unbind(-1)
    return torch.stack([cos * x + sin * y, cos * y - sin * x], dim=-1)


def _cover(local: Tensor, leaves: Leaves, index: int, unit_px: float) -> Tensor:
    """Share of each pixel that a leaf covers, [B, 1, H, W]."""
    half_size = leaves.half_size[:, index, None, None]  # [B, 1, 1, 2]
    power = leaves.exponent[:, index, None, None]
    ratio = (local.abs() / half_size + 1e-6) ** power[..., None]
    radius = ratio.sum(dim=-1) ** (1 / power)
    inside_px = (1 - radius) * half_size.amin(dim=-1) * unit_px
    return (inside_px + 0.5).clamp(0, 1)[:, None]


def _surface(local: Tensor, leaves: Leaves, index: int) -> Tensor:
    """Colour of a leaf at every pixel, covered or not, [B, 3, H, W]."""
    batch = torch.arange(len(local), device=local.device)
    texture = leaves.textures[batch, leaves.texture[:, index]]
    coordinates = local * leaves.frequency[:, index, None, None, None]
    # Reflection tiles without seams; bilinear samples of a coarse texture stay smooth.
    grain = F.grid_sample(texture, coordinates, padding_mode="reflection", align_corners=False)
    extent = leaves.half_size[:, index, None, None].clamp(max=1)
    slope = (leaves.shading[:, index, None, None] * local / extent).sum(dim=-1)[:, None]
    color = leaves.color[:, index, :, None, None]
    return color + leaves.contrast[:, index, None, None, None] * grain + slope


def _textures(generator: torch.Generator) -> Tensor:
    """Random textures [1, T, 3, h, w] with unit deviation: noise of power laws, nearly grey."""
    shape = (_TEXTURES, 3, _TEXTURE_PX, _TEXTURE_PX)
    noise = torch.randn(shape, generator=generator)
    noise = torch.lerp(noise, noise[:, :1], 0.8)
    rows, columns = torch.fft.fftfreq(_TEXTURE_PX), torch.fft.rfftfreq(_TEXTURE_PX)
    stretch = torch.exp(1.5 * torch.rand(_TEXTURES, 1, 1, generator=generator))
    radius = torch.sqrt((stretch * rows[:, None]) ** 2 + columns**2).clamp(min=1 / _TEXTURE_PX)
    slope = 0.4 + 1.2 * torch.rand(_TEXTURES, 1, 1, generator=generator)
    spectrum = torch.fft.rfft2(noise) * (radius**-slope)[:, None]
    field = torch.fft.irfft2(spectrum, s=shape[-2:])
    field = field - field.mean(dim=(1, 2, 3), keepdim=True)
    field = field / field.std(dim=(1, 2, 3), keepdim=True)
    field[::3] = torch.tanh(4 * field[::3])  # patterns with edges
    return field[None]
