"""Order from near to far, and the cells of each splat."""

import numpy as np
import pytest

from stages.splat.cpu.bins import (
    COLUMNS,
    LIMIT,
    ROWS,
    bin_splats,
    depth_order,
    pack_splats,
)
from stages.splat.cpu.compiling import f32


def random_ellipses(count: int, width: int, height: int) -> tuple[np.ndarray, ...]:
    """Centres inside and around the image, conics of all shapes, opacities."""
    random = np.random.default_rng(0)
    centres = random.uniform(-30, [width + 30, height + 30], (count, 2)).astype(f32)
    axes = np.exp(random.uniform(-1, 3.5, (count, 2)))
    angles = random.uniform(0, np.pi, count)
    cos, sin = np.cos(angles), np.sin(angles)
    xx, yy = cos**2 / axes[:, 0] + sin**2 / axes[:, 1], sin**2 / axes[:, 0] + cos**2 / axes[:, 1]
    xy = cos * sin * (1 / axes[:, 0] - 1 / axes[:, 1])
    conics = np.stack([xx, xy, yy], axis=1).astype(f32)
    return centres, conics, random.uniform(1.01 / 255, 1, count).astype(f32)


def test_depth_order_is_a_stable_sort_of_the_visible() -> None:
    random = np.random.default_rng(0)
    depths = random.choice(np.exp(random.uniform(-4, 20, 300)), 2000).astype(f32)
    radii = random.integers(0, 3, (2000, 2)).astype(np.int32)
    visible = np.flatnonzero((radii > 0).all(1))
    expected = visible[np.argsort(depths[visible], kind="stable")]
    assert np.array_equal(depth_order(depths.view(np.uint32), radii), expected)


@pytest.mark.parametrize(("width", "height"), [(300, 50), (20, 9), (128, 16)])
def test_every_cell_lists_all_that_reach_it_in_order(width: int, height: int) -> None:
    centres, conics, opacities = random_ellipses(60, width, height)
    order = np.arange(60, dtype=np.int32)
    splats = pack_splats(order, centres, conics, opacities, np.ones((60, 3), f32))
    across, down = -(-width // COLUMNS), -(-height // ROWS)
    offsets, ids = bin_splats(splats, across, down)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    dx, dy = centres[:, 0, None, None] - x, centres[:, 1, None, None] - y
    xx, xy, yy = conics.astype(float).T[..., None, None]
    sigma = (xx * dx**2 + yy * dy**2) / 2 + xy * dx * dy
    covered = opacities[:, None, None] * np.exp(-sigma) > 1.0001 / 255
    for cell in range(across * down):
        top, side = cell // across * ROWS, cell % across * COLUMNS
        touching = covered[:, top : top + ROWS, side : side + COLUMNS].any((1, 2))
        listed = ids[offsets[cell] : offsets[cell + 1]]
        assert np.all(np.diff(listed) > 0)
        assert set(np.flatnonzero(touching)) <= set(listed)
    assert covered.any()


def test_packed_form_is_the_same_ellipse() -> None:
    centres, conics, opacities = random_ellipses(50, 100, 40)
    order = np.arange(50, dtype=np.int32)[::-1].copy()
    splats = pack_splats(order, centres, conics, opacities, np.ones((50, 3), f32)).astype(float)
    x, y, shear, along_x, along_y, faintness, reach_x, reach_y = splats.T[:8]
    dx, dy = 3.7, -2.1
    across = dx + shear * dy
    alpha = np.exp(-8 * (faintness + along_x * across**2 + along_y * dy**2))
    xx, xy, yy = conics[order].astype(float).T
    sigma = (xx * dx**2 + yy * dy**2) / 2 + xy * dx * dy
    np.testing.assert_allclose(alpha, opacities[order] * np.exp(-sigma), rtol=1e-4)
    np.testing.assert_array_equal(np.stack([x, y], axis=1), centres[order])
    # The highest and the rightmost point of sigma / 8 + faintness = LIMIT.
    rest = LIMIT - faintness
    np.testing.assert_allclose(along_y * reach_y**2, rest, rtol=1e-4)
    np.testing.assert_allclose((xx - xy**2 / yy) * reach_x**2 / 16, rest, rtol=1e-4)
    np.testing.assert_array_equal(splats[:, 8:], [[1, 1, 1, 0]] * 50)
