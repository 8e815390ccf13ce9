"""Bundle adjustment of a static scene's images together with its light field's grid."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera
from stages.scenes.config import CalibrateConfig
from stages.scenes.images import Pixels
from stages.scenes.poses import sfm
from stages.scenes.poses.colmap_pooled import Matches, Tracks, triangulate
from stages.scenes.poses.colmap_rigs import Slot, Structure, adjust_rigs
from stages.scenes.static.light_field.grid import Disparities, GridShape, fit_grid, grid_cameras
from stages.scenes.static.light_field.lightfield import Cell

_ROUNDS = (1.0, 0.5, 0.35)  # factors of the largest error
_ROUGH_ROUNDS = (3.0, 1.0)  # of the first rounds for predicted poses
_MIN_DISPARITIES = 20


@dataclass(frozen=True, eq=False)
class Registration:
    """Cameras of all registered images, points, and their reprojection error."""

    cameras: dict[str, Camera]
    slots: dict[str, Slot]
    structure: Structure
    reprojection_error_px: float | None  # None: not measured
    grid: GridShape | None = None
    undistorted: Mapping[str, Pixels] = field(default_factory=dict)  # of lenses with distortion


@dataclass(frozen=True, eq=False)
class Adjustment:
    """The inputs that all rounds of adjustment share."""

    features: sfm.PooledFeatures
    matches: Matches  # verified ones
    slots: dict[str, Slot]
    config: CalibrateConfig
    cells: Mapping[str, Cell]  # of the light field's views, the middle one first

    @property
    def middle(self) -> str:
        """Name of the light field's middle view; empty without a light field."""
        return next(iter(self.cells), "")

    def run(self, cameras: dict[str, Camera], rough: bool = False) -> Registration:
        """Triangulate and adjust in rounds of decreasing error; each fits the grid anew first.

        Rough poses are adjusted without the grid at first: its views would hold their errors.
        """
        for factor in _ROUGH_ROUNDS if rough else ():
            cameras, _, _ = adjust_rigs(cameras, self.slots, self._structure(cameras, factor))
        grid, error_px, structure = None, 0.0, None
        spokes = self._spokes() if self.middle in cameras else {}
        for factor in _ROUNDS:
            if spokes:
                cameras, grid = self._with_grid(cameras, spokes, factor)
            structure = self._structure(cameras, factor)
            cameras, points, error_px = adjust_rigs(cameras, self.slots, structure)
            structure = replace(structure, points=points)
        assert structure is not None, "there is at least one round"
        if grid is not None:
            cameras |= grid_cameras(cameras[self.middle], self.cells, grid)
        return Registration(cameras, self.slots, structure, error_px, grid)

    def unadjusted(self, cameras: dict[str, Camera]) -> Registration:
        """Triangulate and fit the grid at fixed poses."""
        grid, spokes = None, self._spokes() if self.middle in cameras else {}
        if spokes:
            cameras, grid = self._with_grid(cameras, spokes, _ROUGH_ROUNDS[0])
        structure = self._structure(cameras, _ROUGH_ROUNDS[0])
        return Registration(cameras, self.slots, structure, None, grid)

    def _spokes(self) -> Matches:
        """Matches of the light field's middle view with its other views."""
        return {p: m for p, m in self.matches.items() if p[0] == self.middle and p[1] in self.cells}

    def _with_grid(
        self, cameras: dict[str, Camera], spokes: Matches, factor: float
    ) -> tuple[dict[str, Camera], GridShape]:
        """Cameras with all views of the light field, placed by their disparities."""
        without = {n: c for n, c in cameras.items() if n not in self.cells or n == self.middle}
        disparities = self._disparities(spokes, self._depths(without, factor))
        grid = fit_grid(disparities, float(without[self.middle].K[0, 0]))
        return without | grid_cameras(without[self.middle], self.cells, grid), grid

    def _depths(self, cameras: dict[str, Camera], factor: float) -> Array:
        """Depth of each feature of the middle view, from the other images; NaN if unknown."""
        tracks = self._triangulated(cameras, factor)
        own = tracks.camera == list(cameras).index(self.middle)
        depths = np.full(len(self.features.of[self.middle].keypoints), np.nan)
        points = tracks.points[tracks.point[own]]
        depths[tracks.feature[own]] = cameras[self.middle].project(points)[1]
        return depths

    def _disparities(self, spokes: Matches, depths: Array) -> Disparities:
        steps, shifts, used = [], [], []
        of_middle = self.features.of[self.middle].keypoints
        for (_, other), pairs in spokes.items():
            a, b = pairs[depths[pairs[:, 0]] > 0].T
            offset = np.subtract(self.cells[other], self.cells[self.middle])[::-1]
            steps.append(np.tile(offset.astype(float), (len(a), 1)))
            shifts.append(self.features.of[other].keypoints[b] - of_middle[a])
            used.append(depths[a])
        found = Disparities(*map(np.concatenate, (steps, shifts, used)))
        if len(found.depth) < _MIN_DISPARITIES:
            raise UserError(
                "static_prepare",
                f"{len(found.depth)} matches with depth between the light field's views",
                expected=f"at least {_MIN_DISPARITIES}",
                fix="lower static.peak_threshold, or take lightfield out of static.cameras",
            )
        return found

    def _structure(self, cameras: dict[str, Camera], factor: float) -> Structure:
        tracks = self._triangulated(cameras, factor)
        of_cameras = [self.features.of[name].keypoints for name in cameras]
        return Structure(
            tracks.points,
            tracks.mean_colors([self.features.color[name] for name in cameras]),
            tuple(cameras),
            tracks.point,
            tracks.camera,
            tracks.observed(of_cameras),
        )

    def _triangulated(self, cameras: dict[str, Camera], factor: float) -> Tracks:
        limits = sfm.thresholds(self.config)
        limits = replace(limits, max_error_px=factor * limits.max_error_px)
        matches = {pair: rows for pair, rows in self.matches.items() if set(pair) <= set(cameras)}
        near = sfm.near_epipolar(cameras, self.features, matches, 2 * limits.max_error_px)
        keypoints = {name: self.features.of[name].keypoints for name in cameras}
        return triangulate(cameras, keypoints, near, limits)
