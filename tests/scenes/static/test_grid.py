"""The grid of a light field from disparities that a known grid gives."""

import numpy as np
import pytest

from stages.scenes.cameras import Camera, look_at
from stages.scenes.static.light_field.grid import Disparities, GridShape, fit_grid, place

TRUE = GridShape(np.array([0.012, -0.011]), np.array([0.9, -0.7]), 0.0)
CELLS = {f"lf__{r:02d}_{c:02d}": (r, c) for r in range(5) for c in range(5)}


def middle() -> Camera:
    K = np.array([[300.0, 0, 128], [0, 300, 96], [0, 0, 1]])
    return Camera("lf__02_02", K, look_at([1, 2, 3], [0, 0, 0], [0, 1, 0]), 256, 192)


def disparities(noise_px: float = 0.0, wrong: float = 0.0) -> Disparities:
    """What points at depths of 1 to 5 show in views that `place` puts there."""
    rng = np.random.default_rng(0)
    camera, views = middle(), place(middle(), CELLS, TRUE)
    rays = np.concatenate([rng.uniform(-0.3, 0.3, (60, 2)), np.ones((60, 1))], axis=1)
    depth = rng.uniform(1, 5, 60)
    world = (rays * depth[:, None]) @ camera.cam_from_world[:3, :3] + camera.centre
    at = camera.project(world)[0]
    steps, shifts, depths = [], [], []
    for name, (row, column) in CELLS.items():
        shift = views[name].project(world)[0] - at + noise_px * rng.standard_normal((60, 2))
        outlier = rng.random(60) < wrong
        shift[outlier] += rng.uniform(-20, 20, (outlier.sum(), 2))
        steps += [(column - 2, row - 2)] * 60
        shifts.append(shift)
        depths.append(depth)
    return Disparities(np.array(steps, float), np.concatenate(shifts), np.concatenate(depths))


def test_exact_disparities_give_the_grid_back() -> None:
    found = fit_grid(disparities(), 300.0)
    assert found.step == pytest.approx(TRUE.step, abs=1e-9)
    assert found.shear_px == pytest.approx(TRUE.shear_px, abs=1e-6)


def test_wrong_matches_are_held_down() -> None:
    found = fit_grid(disparities(noise_px=0.2, wrong=0.15), 300.0)
    assert found.step == pytest.approx(TRUE.step, rel=0.03)
    assert found.residual_px < 0.5


def test_middle_view_stays_and_focused_points_have_no_disparity() -> None:
    views = place(middle(), CELLS, TRUE)
    assert np.array_equal(views["lf__02_02"].cam_from_world, middle().cam_from_world)
    focus = 300 * TRUE.step[0] / TRUE.shear_px[0]
    point = (np.array([[0.1, 0, 1]]) * focus) @ middle().cam_from_world[:3, :3] + middle().centre
    columns = [views[f"lf__02_0{c}"].project(point)[0][0, 0] for c in range(5)]
    assert np.ptp(columns) < 1e-9
