"""The grid of a light field as a rig: parallel pinholes one step apart, principal points shifted.

A point at depth Z in the middle view projects, `n` columns to the right, to
    x_n = x - n * (f * step / Z - shear)
where `step` is the distance between neighbouring views and `shear` the shift of their principal
points, px; the same holds for rows. Both follow linearly from matches to the middle view.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from stages.scenes.cameras import Array, Camera, rigid
from stages.scenes.static.light_field.lightfield import Cell

_ITERATIONS, _HUBER_PX = 12, 0.5  # of the reweighted least squares


@dataclass(frozen=True, eq=False)
class Disparities:
    """Matches of the middle view with other views: offsets in the grid and in the images."""

    steps: Array  # [N, 2] columns and rows away from the middle view
    shift_px: Array  # [N, 2] pixel in the other view minus pixel in the middle view
    depth: Array  # [N] in the middle view, world units


@dataclass(frozen=True, eq=False)
class GridShape:
    """Distance between neighbouring views and shift of their principal points, in x and y."""

    step: Array  # [2], world units
    shear_px: Array  # [2]
    residual_px: float  # median

    def scaled(self, factor: float) -> "GridShape":
        """The same grid in a world of another scale."""
        return GridShape(factor * self.step, self.shear_px, self.residual_px)


def fit_grid(disparities: Disparities, focal_px: float) -> GridShape:
    """Step and shear by least squares over the matches, with Huber weights."""
    inverse = focal_px / disparities.depth
    step, shear, residuals = np.zeros(2), np.zeros(2), []
    for axis in range(2):
        n, shift = disparities.steps[:, axis], disparities.shift_px[:, axis]
        design = np.stack([-n * inverse, n], axis=1)
        weight = np.ones(len(n))
        for _ in range(_ITERATIONS):
            root = np.sqrt(weight)[:, None]
            solution = np.linalg.lstsq(root * design, root[:, 0] * shift, rcond=None)[0]
            error = np.abs(shift - design @ solution)
            weight = np.minimum(1.0, _HUBER_PX / np.maximum(error, 1e-9))
        step[axis], shear[axis] = solution
        residuals.append(error)
    return GridShape(step, shear, float(np.median(np.hypot(*residuals))))


def grid_cameras(middle: Camera, cells: Mapping[str, Cell], shape: GridShape) -> dict[str, Camera]:
    """Cameras of all views by name, from the middle one."""
    cameras, centre = {}, cells[middle.name]
    for name, (row, column) in cells.items():
        n = np.array([column - centre[1], row - centre[0]], np.float64)
        K = middle.K.copy()
        K[:2, 2] += n * shape.shear_px
        view_from_middle = rigid(np.eye(3), [*(-n * shape.step), 0.0])
        pose = view_from_middle @ middle.cam_from_world
        cameras[name] = Camera(name, K, pose, middle.width, middle.height)
    return cameras
