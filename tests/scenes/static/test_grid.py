"""The grid of a light field, fitted to disparities of a known grid."""

import numpy as np
import pytest

from stages.scenes.cameras import Camera, look_at
from stages.scenes.static.light_field.grid import Disparities, GridShape, fit_grid, grid_cameras

TRUE = GridShape(np.array([0.012, -0.011]), np.array([0.9, -0.7]), 0.0)
CELLS = {f"lf__{r:02d}_{c:02d}": (r, c) for r in range(5) for c in range(5)}


def middle() -> Camera:
    K = np.array([[300.0, 0, 128], [0, 300, 96], [0, 0, 1]])
    return Camera("lf__02_02", K, look_at([1, 2, 3], [0, 0, 0], [0, 1, 0]), 256, 192)


def disparities(noise_px: float = 0.0, wrong: float = 0.0) -> Disparities:
    """Disparities of points at depths of 1 to 5, in the views of the true grid."""
    rng = np.random.default_rng(0)
    camera, views = middle(), grid_cameras(middle(), CELLS, TRUE)
    rays = np.concatenate([rng.uniform(-0.3, 0.3, (60, 2)), np.ones((60, 1))], axis=1)
    depth = rng.uniform(1, 5, 60)
    world = (rays * depth[:, None]) @ camera.cam_from_world[:3, :3] + camera.centre
    in_middle = camera.project(world)[0]
    steps, shifts, depths = [], [], []
    for name, (row, column) in CELLS.items():
        shift = views[name].project(world)[0] - in_middle + noise_px * rng.standard_normal((60, 2))
        outlier = rng.random(60) < wrong
        shift[outlier] += rng.uniform(-20, 20, (outlier.sum(), 2))
        steps += [(column - 2, row - 2)] * 60
        shifts.append(shift)
        depths.append(depth)
    return Disparities(np.array(steps, float), np.concatenate(shifts), np.concatenate(depths))


def test_exact_disparities_recover_the_grid() -> None:
    fitted = fit_grid(disparities(), 300.0)
    assert fitted.step == pytest.approx(TRUE.step, abs=1e-9)
    assert fitted.shear_px == pytest.approx(TRUE.shear_px, abs=1e-6)


def test_outliers_are_downweighted() -> None:
    fitted = fit_grid(disparities(noise_px=0.2, wrong=0.15), 300.0)
    assert fitted.step == pytest.approx(TRUE.step, rel=0.03)
    assert fitted.residual_px < 0.5


def test_middle_view_stays_and_focused_points_have_no_disparity() -> None:
    views = grid_cameras(middle(), CELLS, TRUE)
    assert np.array_equal(views["lf__02_02"].cam_from_world, middle().cam_from_world)
    focus = 300 * TRUE.step[0] / TRUE.shear_px[0]
    point = (np.array([[0.1, 0, 1]]) * focus) @ middle().cam_from_world[:3, :3] + middle().centre
    columns = [views[f"lf__02_0{c}"].project(point)[0][0, 0] for c in range(5)]
    assert np.ptp(columns) < 1e-9
