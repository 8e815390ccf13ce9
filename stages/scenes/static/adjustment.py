"""Bundle adjustment of a static scene's images together with its light field's grid."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera
from stages.scenes.config import CalibrateConfig
from stages.scenes.images import Pixels
from stages.scenes.poses import sfm
from stages.scenes.poses.colmap_rigs import Slot, Structure, adjust_rigs
from stages.scenes.static.light_field.grid import Disparities, GridShape, fit_grid, grid_cameras
from stages.scenes.static.light_field.lightfield import Cell

_ROUNDS = (1.0, 0.5, 0.35)  # factors of the largest error
_ROUGH = 3.0  # of a first round for predicted poses
_MIN_DISPARITIES = 20

Matches = dict[sfm.Pair, NDArray[np.uint32]]


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
    matches: Matches
    slots: dict[str, Slot]
    config: CalibrateConfig
    cells: Mapping[str, Cell]  # of the light field's views, the middle one first

    @property
    def middle(self) -> str:
        """Name of the light field's middle view; empty without a light field."""
        return next(iter(self.cells), "")

    def run(self, cameras: dict[str, Camera], rough: bool = False) -> Registration:
        """Triangulate and adjust in rounds of decreasing error; each fits the grid anew first."""
        grid, error_px, structure = None, 0.0, Structure.empty()
        spokes = self._spokes() if self.middle in cameras else {}
        for factor in (_ROUGH, *_ROUNDS) if rough else _ROUNDS:
            if spokes:
                cameras, grid = self._with_grid(cameras, spokes, factor)
            structure = self._structure(cameras, spokes, factor)
            cameras, points, error_px = adjust_rigs(cameras, self.slots, structure)
            structure = replace(structure, points=points)
        if grid is not None:
            cameras |= grid_cameras(cameras[self.middle], self.cells, grid)
        return Registration(cameras, self.slots, structure, error_px, grid)

    def unadjusted(self, cameras: dict[str, Camera]) -> Registration:
        """Triangulate and fit the grid at fixed poses."""
        grid, spokes = None, self._spokes() if self.middle in cameras else {}
        if spokes:
            cameras, grid = self._with_grid(cameras, spokes, _ROUGH)
        structure = self._structure(cameras, spokes, _ROUGH)
        return Registration(cameras, self.slots, structure, None, grid)

    def _spokes(self) -> Matches:
        """Matches of the light field's middle view with its other views."""
        pairs = [(self.middle, other) for other in self.cells if other != self.middle]
        return matches_of(self.features, pairs, self.config)

    def _with_grid(
        self, cameras: dict[str, Camera], spokes: Matches, factor: float
    ) -> tuple[dict[str, Camera], GridShape]:
        """Cameras with all views of the light field, placed by their disparities."""
        without = {n: c for n, c in cameras.items() if n not in self.cells or n == self.middle}
        disparities = self._disparities(spokes, self._depths(without, factor))
        grid = fit_grid(disparities, float(without[self.middle].K[0, 0]))
        return without | grid_cameras(without[self.middle], self.cells, grid), grid

    def _depths(self, cameras: dict[str, Camera], factor: float) -> dict[int, float]:
        """Depth by feature of the middle view, from the other images."""
        tracks, points = self._triangulated(cameras, {}, factor)
        return {
            feature: float(cameras[name].project(point[None])[1][0])
            for track, point in zip(tracks, points, strict=True)
            for name, feature in track
            if name == self.middle
        }

    def _disparities(self, spokes: Matches, depths: Mapping[int, float]) -> Disparities:
        steps, shifts, used = [], [], []
        for (middle, other), pairs in spokes.items():
            offset = np.subtract(self.cells[other], self.cells[middle])[::-1]
            of_middle = self.features.of[middle].keypoints
            of_other = self.features.of[other].keypoints
            for a, b in pairs.tolist():
                if depths.get(a, -1.0) > 0:
                    steps.append(offset)
                    shifts.append(of_other[b] - of_middle[a])
                    used.append(depths[a])
        if len(used) < _MIN_DISPARITIES:
            raise UserError(
                "static_prepare",
                f"{len(used)} matches with depth between the light field's views",
                expected=f"at least {_MIN_DISPARITIES}",
                fix="lower static.peak_threshold, or take lightfield out of static.cameras",
            )
        return Disparities(np.array(steps, float), np.array(shifts), np.array(used))

    def _structure(self, cameras: dict[str, Camera], spokes: Matches, factor: float) -> Structure:
        tracks, points = self._triangulated(cameras, spokes, factor)
        named = [
            [(name, self.features.of[name].keypoints[feature]) for name, feature in track]
            for track in tracks
        ]
        colors = [np.mean([self.features.color[n][k] for n, k in t], axis=0) for t in tracks]
        return Structure(points, named, np.rint(np.array(colors).reshape(-1, 3)).astype(np.uint8))

    def _triangulated(
        self, cameras: dict[str, Camera], spokes: Matches, factor: float
    ) -> tuple[list[sfm.Track], Array]:
        error_px = factor * self.config.max_reprojection_error_px
        posed = set(cameras)
        matches = {p: m for p, m in (self.matches | spokes).items() if set(p) <= posed}
        near = sfm.near_epipolar(cameras, self.features, matches, 2 * error_px)
        return sfm.triangulate(cameras, self.features, near, self.config, error_px)


def matches_among(
    features: sfm.PooledFeatures, names: Sequence[str], config: CalibrateConfig
) -> Matches:
    """Matches of every pair of the named images."""
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    return matches_of(features, pairs, config)


def matches_of(
    features: sfm.PooledFeatures, pairs: Sequence[sfm.Pair], config: CalibrateConfig
) -> Matches:
    """Matches of these pairs of images alone."""
    matches: Matches = {}
    for pair in pairs:
        parts = (features.of, features.frame, features.color)
        of_pair = ({name: part[name] for name in pair} for part in parts)
        matches |= sfm.match(sfm.PooledFeatures(*of_pair), config)
    return matches
