"""Gaussians of each tile against a loop over tiles, with exact, ample and too little room."""

import pytest
import torch
from kernel_device import DEVICE

from stages.splat.gpu import bins

WIDTH, HEIGHT = 75, 53  # px; the last tiles reach over the border
COLUMNS, ROWS = 5, 4


def splats(opacity: float = 1.0, count: int = 90) -> bins.Splats:
    """Gaussians of every shape; so wide by default that none is faint anywhere in its box."""
    random = torch.Generator().manual_seed(1)
    size = torch.tensor([WIDTH + 30.0, HEIGHT + 30.0])
    means = torch.rand(count, 2, generator=random) * size - 15
    radii = torch.randint(0, 14, (count, 2), generator=random, dtype=torch.int32)
    depths = 0.1 + torch.rand(count, generator=random)
    depths[10:20] = depths[3]  # ties keep their order
    means[radii.amin(1) == 0] = float("nan")  # the mean of an invisible Gaussian is undefined
    conics = torch.tensor([[1e-6, 0.0, 1e-6]]).repeat(count, 1)
    if opacity < 1:
        axes = torch.rand(count, 2, generator=random) + 0.05
        tilt = (2 * torch.rand(count, generator=random) - 1) * axes.prod(1).sqrt()
        conics = torch.stack([axes[:, 0], 0.98 * tilt, axes[:, 1]], dim=1) / 4
    parts = (means, radii, depths, conics, torch.full((count,), opacity))
    return bins.Splats(*(part.to(DEVICE) for part in parts))


def expected(projected: bins.Splats) -> list[list[int]]:
    """Gaussians of each tile by definition: nearest first, then by number."""
    means, radii, depths = (part.cpu() for part in projected[:3])
    order = sorted(range(len(depths)), key=lambda one: (float(depths[one]), one))
    tiles = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            corner = torch.tensor([16.0 * column, 16.0 * row])
            low, high = (means - radii) < corner + 16, (means + radii) > corner
            meets = (low & high).all(1) & (radii > 0).all(1)
            tiles.append([one for one in order if meets[one]])
    return tiles


def tiles_of(filled: bins.Bins) -> list[list[int]]:
    starts = filled.offsets.flatten().tolist()
    ids = filled.ids.tolist()
    return [ids[starts[k] : starts[k + 1]] for k in range(ROWS * COLUMNS)]


@pytest.mark.parametrize("spare", [None, 0, 100])
def test_every_tile_has_its_gaussians_front_to_back(spare: int | None) -> None:
    by_definition = expected(splats())
    total = sum(map(len, by_definition))
    room = None if spare is None else total + spare
    filled = bins.fill(splats(), WIDTH, HEIGHT, room)
    assert int(filled.isects) == total
    assert tiles_of(filled) == by_definition
    assert filled.rendered[0, :ROWS].all()
    assert not filled.rendered[0, ROWS:].any()


def test_only_gaussians_too_faint_in_every_pixel_of_a_tile_are_left_out() -> None:
    projected = splats(opacity=0.02)
    means, _, _, conics, opacities = (part.cpu().double() for part in projected)
    kept = left_out = 0
    pixels = torch.stack(torch.meshgrid(torch.arange(16), torch.arange(16), indexing="xy"), -1)
    for number, (whole, filled) in enumerate(
        zip(expected(projected), tiles_of(bins.fill(projected, WIDTH, HEIGHT)), strict=True)
    ):
        corner = torch.tensor([16.0 * (number % COLUMNS), 16.0 * (number // COLUMNS)])
        dx, dy = (means[whole][:, None, None] - (corner + pixels + 0.5)).unbind(-1)
        xx, xy, yy = conics[whole][:, :, None, None].unbind(1)
        exponent = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        most = (opacities[whole][:, None, None] * torch.exp(-exponent)).amax((1, 2))
        rendered = [one for one, alpha in zip(whole, most, strict=True) if alpha >= 1 / 255]
        assert [one for one in filled if one in rendered] == rendered
        kept, left_out = kept + len(filled), left_out + len(whole) - len(filled)
        # Between pixel centres an edge may be denser than at any of them, but not by much.
        assert all(most[whole.index(one)] > 0.8 / 255 for one in filled)
    assert kept > 40
    assert left_out > 40


def test_too_little_room_loses_the_farthest_gaussians_but_counts_them() -> None:
    by_definition = expected(splats())
    filled = bins.fill(splats(), WIDTH, HEIGHT, 60)
    assert int(filled.isects) == sum(map(len, by_definition)) > 60
    parts = tiles_of(filled)
    assert sum(map(len, parts)) == 60
    assert all(part == whole[: len(part)] for part, whole in zip(parts, by_definition, strict=True))


def test_without_visible_gaussians_every_tile_is_empty() -> None:
    projected = splats()
    filled = bins.fill(projected._replace(radii=torch.zeros_like(projected.radii)), WIDTH, HEIGHT)
    assert int(filled.isects) == 0
    assert not any(tiles_of(filled))


def test_intersections_are_counted_without_filling() -> None:
    projected = splats()
    there = bins.fill(projected, WIDTH, HEIGHT)
    count = bins.count_isects(projected.means2d, projected.radii, WIDTH, HEIGHT)
    assert float(count) == int(there.isects)
    aside = projected.means2d + projected.means2d.new_tensor([400.0, 0.0])
    assert float(bins.count_isects(aside, projected.radii, WIDTH, HEIGHT)) == 0
