"""Procedural textures of many kinds, and look-ups in them that are filtered to a pixel's size.

Textures repeat without seams: patterns have whole periods, and noise comes from Fourier series. All
random numbers come from a generator on the CPU, so that textures do not depend on the device.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

SIDE_PX = 256
_LEVELS = 8  # of the mipmaps, the full texture included
_LEAVES = 70
_GLYPH_PX = 4  # of writing-like marks


class Atlas(NamedTuple):
    """T textures with their mipmaps; texel 0 of a texture is the first of its finest level."""

    texels: Tensor  # [T * N, 3] in [0, 1]
    count: int


def textures(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Random textures [count, 3, SIDE_PX, SIDE_PX] in [0, 1] on a device."""
    number = torch.arange(count)
    makers = list(_KINDS)
    made = []
    for index, kind in enumerate(makers):
        mine = len(number[index :: len(makers)])
        if mine:
            made.append(kind(mine, generator, device))
    result = torch.cat(made)
    # Some are patches of one texture in another, and all may have noise of a finer scale.
    other = result[torch.randperm(count, generator=generator).to(device)]
    where = _noise(count, generator, device, slope=(1.2, 2.0)) > 0.8
    amount = (_uniform(generator, device, count) < 0.35).float()
    result = torch.lerp(result, other, where.float() * amount)
    grain = _noise(count, generator, device, slope=(0.2, 1.0))
    result = result + 0.08 * _uniform(generator, device, count) ** 2 * grain
    # Strong colours are rare in nature.
    muted = _uniform(generator, device, count) ** 0.7
    result = torch.lerp(result, result.mean(dim=1, keepdim=True), 0.9 * muted)
    order = torch.randperm(count, generator=generator).to(device)
    return result[order].clamp(0, 1)


def atlas(images: Tensor) -> Atlas:
    """Mipmaps of textures [T, 3, SIDE_PX, SIDE_PX]."""
    levels = []
    for _ in range(_LEVELS):
        levels.append(images.flatten(2).mT)
        images = F.avg_pool2d(images, 2)
    texels = torch.cat(levels, dim=1)
    return Atlas(texels.flatten(0, 1).contiguous(), len(texels))


def look_up(source: Atlas, texture: Tensor, u: Tensor, v: Tensor, footprint: Tensor) -> Tensor:
    """Colours [..., 3] of textures at positions.

    Args:
        source: all textures.
        texture: index [...].
        u, v: positions [...], one repetition per unit.
        footprint: size of a pixel [...], in units.
    """
    level = torch.log2((footprint * SIDE_PX).clamp(min=1)).round().clamp(max=_LEVELS - 1).long()
    side = SIDE_PX >> level
    # Texels of the levels before: a geometric series.
    start = (4 * (SIDE_PX**2 - side**2)) // 3
    first = texture * (len(source.texels) // source.count) + start
    x, y = (u - u.floor()) * side - 0.5, (v - v.floor()) * side - 0.5
    left, top = x.floor(), y.floor()
    fx, fy = (x - left)[..., None], (y - top)[..., None]
    x0, y0 = left.long() % side, top.long() % side
    x1, y1 = (x0 + 1) % side, (y0 + 1) % side
    upper = torch.lerp(
        source.texels[first + y0 * side + x0], source.texels[first + y0 * side + x1], fx
    )
    lower = torch.lerp(
        source.texels[first + y1 * side + x0], source.texels[first + y1 * side + x1], fx
    )
    return torch.lerp(upper, lower, fy)


def _clouds(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Noise of power laws, in colours of a palette."""
    field = _noise(count, generator, device, slope=(0.7, 1.9), stretch=4.0)
    return _colored(torch.sigmoid(1.3 * field), generator)


def _patches(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """The same with hard edges: camouflage, stone, foliage."""
    field = _noise(count, generator, device, slope=(0.8, 1.8), stretch=2.0)
    steps = _integers(generator, device, count, 2, 5)
    return _colored(
        ((torch.sigmoid(1.5 * field) * steps).floor() / (steps - 1)).clamp(0, 1), generator
    )


def _tiles(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Bricks, tiles, planks and shelves of books: cells of their own shades, with gaps."""
    x, y = _grid(device)
    columns, rows = (_integers(generator, device, count, 1, most) for most in (24, 14))
    gap_x, gap_y = (0.02 + 0.12 * _uniform(generator, device, count) for _ in range(2))
    row = (y * rows).floor()
    offset = torch.where(row % 2 == 1, 0.5, 0.0) * (_uniform(generator, device, count) < 0.5)
    column = ((x * columns) + offset).floor() % columns
    inside_x, inside_y = (x * columns + offset) % 1, (y * rows) % 1
    is_gap = (inside_x < gap_x) | (inside_y < gap_y)
    shade = _cells(column, row, generator)
    colors = _colored(shade, generator)
    relief = 0.25 * _uniform(generator, device, count) * (inside_y - 0.5)
    relief = relief + 0.1 * _noise(count, generator, device, slope=(0.6, 1.4), stretch=4.0)
    gap = _uniform(generator, device, count, 3)
    return torch.where(is_gap, gap, colors + relief * _uniform(generator, device, count))


def _stripes(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Stripes, checks and wavy grain, of up to three colours."""
    x, y = _grid(device)
    kx, ky = (_integers(generator, device, count, 0, 20) for _ in range(2))
    bend = 0.6 * _uniform(generator, device, count) ** 3
    field = bend * _noise(count, generator, device, slope=(1.3, 2.0))
    wave = torch.sin(2 * math.pi * (kx * x + ky * y + field))
    across = torch.sin(2 * math.pi * (ky * x - kx * y + field))
    is_check = _uniform(generator, device, count) < 0.4
    value = torch.where(is_check, wave * across, wave)
    hard = 1 + 30 * _uniform(generator, device, count) ** 2
    return _colored(torch.sigmoid(hard * value), generator)


def _marks(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Lines of small marks that look like writing, of several sizes, on plain ground."""
    cells = SIDE_PX // _GLYPH_PX
    ink = torch.rand(count, 1, cells, cells, generator=generator) < 0.55
    rows, columns = torch.arange(cells)[:, None], torch.arange(cells)
    period = torch.randint(4, 9, (count, 1, 1, 1), generator=generator)
    ink = ink & (rows % period < period - 2)
    word = torch.rand(count, 1, cells, cells // 2, generator=generator) < 0.8
    ink = ink & word.repeat_interleave(2, dim=-1)
    left, right = (torch.randint(1, 9, (count, 1, 1, 1), generator=generator) for _ in range(2))
    ink = (ink & (columns >= left) & (columns < cells - right)).float().to(device)
    ink = F.interpolate(ink, scale_factor=_GLYPH_PX, mode="nearest")
    # Zoomed in by 1, 2 or 4 around the corner, which still repeats.
    zoom = 2 ** _integers(generator, device, count, 0, 2).long()
    x = torch.arange(SIDE_PX, device=device)
    index = (x // zoom.flatten()[:, None])[:, None]  # [n, 1, SIDE]
    ink = ink.gather(3, index[..., None, :].expand(-1, 1, SIDE_PX, -1))
    ink = ink.gather(2, index[..., None].expand(-1, 1, -1, SIDE_PX))
    paper, color = (_uniform(generator, device, count, 3) for _ in range(2))
    shade = 0.1 * _noise(count, generator, device, slope=(1.5, 2.0))
    return torch.lerp(paper, color, ink) + shade * _uniform(generator, device, count)


def _dots(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Dots, rings and grids of them."""
    x, y = _grid(device)
    columns, rows = (_integers(generator, device, count, 2, 18) for _ in range(2))
    shift = torch.where((y * rows).floor() % 2 == 1, 0.5, 0.0)
    column, row = (x * columns + shift).floor() % columns, (y * rows).floor()
    dx, dy = (x * columns + shift) % 1 - 0.5, (y * rows) % 1 - 0.5
    size = (0.15 + 0.35 * _uniform(generator, device, count)) * (
        0.5 + 0.5 * _cells(column, row, generator)
    )
    radius = torch.sqrt(dx * dx + dy * dy) / size
    is_ring = (_uniform(generator, device, count) < 0.3) & (radius < 0.5)
    inside = torch.sigmoid(12 * (1 - radius)) * (~is_ring)
    ground = _colored(torch.sigmoid(_noise(count, generator, device, slope=(1.2, 2.0))), generator)
    return torch.lerp(ground, _colored(_cells(column, row, generator), generator), inside)


def _leaves(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Dead leaves (Lee, Mumford and Huang 2001): shapes of all sizes that occlude each other."""
    x, y = _grid(device)
    canvas = _colored(torch.sigmoid(_noise(count, generator, device, slope=(1.3, 2.0))), generator)
    grain = _noise(count, generator, device, slope=(0.5, 1.5))
    palette = torch.rand(count, 5, 3, generator=generator)
    for step in range(_LEAVES):
        largest = 0.45 * (1 - step / _LEAVES) + 0.05
        size = largest * torch.exp(-1.5 * _uniform(generator, device, count))
        cx, cy, angle = (_uniform(generator, device, count) for _ in range(3))
        dx, dy = (x - cx + 0.5) % 1 - 0.5, (y - cy + 0.5) % 1 - 0.5
        cos, sin = torch.cos(6.28 * angle), torch.sin(6.28 * angle)
        aspect = torch.exp(1.4 * (_uniform(generator, device, count) - 0.5))
        along, across = (
            (cos * dx + sin * dy) / (size * aspect),
            (cos * dy - sin * dx) / (size / aspect),
        )
        power = torch.exp(0.3 + 2 * _uniform(generator, device, count))
        radius = along.abs() ** power + across.abs() ** power
        entry = torch.randint(5, (count,), generator=generator)
        color = palette[torch.arange(count), entry].to(device)[..., None, None]
        color = torch.lerp(color, _uniform(generator, device, count, 3), 0.3)
        slope = (_uniform(generator, device, count, 3) - 0.5) * along
        surface = color + 0.5 * slope + 0.15 * _uniform(generator, device, count) * grain
        canvas = torch.where(radius < 1, surface, canvas)
    return canvas


_KINDS: tuple[Callable[[int, torch.Generator, torch.device], Tensor], ...] = (
    _leaves,
    _clouds,
    _tiles,
    _leaves,
    _stripes,
    _marks,
    _patches,
    _dots,
    _tiles,
)


def _uniform(
    generator: torch.Generator, device: torch.device, count: int, channels: int = 1
) -> Tensor:
    """Random numbers [count, channels, 1, 1] in [0, 1)."""
    return torch.rand(count, channels, 1, 1, generator=generator).to(device)


def _integers(
    generator: torch.Generator, device: torch.device, count: int, least: int, most: int
) -> Tensor:
    """Whole numbers [count, 1, 1, 1] from `least` to `most`, as floats."""
    drawn = torch.randint(least, most + 1, (count, 1, 1, 1), generator=generator)
    return drawn.float().to(device)


def _grid(device: torch.device) -> tuple[Tensor, Tensor]:
    """Coordinates x [SIDE] and y [SIDE, 1] of texels in [0, 1)."""
    line = (torch.arange(SIDE_PX, device=device) + 0.5) / SIDE_PX
    return line, line[:, None]


def _cells(column: Tensor, row: Tensor, generator: torch.Generator) -> Tensor:
    """A random number in [0, 1) for each cell of a grid, by a hash of its position."""
    salt = _uniform(generator, column.device, len(column))
    value = torch.sin(column * 12.9898 + row * 78.233 + 40 * salt) * 43758.5453
    return value - value.floor()


def _noise(
    count: int,
    generator: torch.Generator,
    device: torch.device,
    slope: tuple[float, float],
    stretch: float = 1.0,
) -> Tensor:
    """Fields [count, 1, SIDE, SIDE] of mean 0 and deviation 1 whose spectra fall by a power law.

    `slope`: least and largest exponent. `stretch`: largest ratio of scales across and along.
    """
    white = torch.randn(count, 1, SIDE_PX, SIDE_PX, generator=generator).to(device)
    rows, columns = torch.fft.fftfreq(SIDE_PX).to(device), torch.fft.rfftfreq(SIDE_PX).to(device)
    ratio = stretch ** (2 * _uniform(generator, device, count) - 1)
    radius = torch.sqrt((ratio * rows[:, None]) ** 2 + (columns / ratio) ** 2)
    power = slope[0] + (slope[1] - slope[0]) * _uniform(generator, device, count)
    spectrum = torch.fft.rfft2(white) * radius.clamp(min=1 / SIDE_PX) ** -power
    spectrum[..., 0, 0] = 0
    field = torch.fft.irfft2(spectrum, s=(SIDE_PX, SIDE_PX))
    return field / field.std(dim=(1, 2, 3), keepdim=True)


def _colored(value: Tensor, generator: torch.Generator) -> Tensor:
    """Colours [n, 3, H, W] of values [n, 1, H, W] in [0, 1]: a path of three colours."""
    count = len(value)
    low, middle, high = (_uniform(generator, value.device, count, 3) for _ in range(3))
    grey = low.mean(dim=1, keepdim=True)
    muted = _uniform(generator, value.device, count)
    low, middle, high = (
        torch.lerp(one, one.mean(dim=1, keepdim=True), muted) for one in (low, middle, high)
    )
    contrast = 0.4 + 0.6 * _uniform(generator, value.device, count)
    middle, high = (torch.lerp(grey.expand_as(one), one, contrast) for one in (middle, high))
    return torch.where(
        value < 0.5, torch.lerp(low, middle, 2 * value), torch.lerp(middle, high, 2 * value - 1)
    )
