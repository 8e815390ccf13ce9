"""One reconstruction of all photographs of a static scene, in one world frame.

Photographs and the middle view of the light field are registered by structure from motion with
shared lenses. The other views of the light field follow from their disparities to the middle one;
then everything is adjusted together, rigs keeping their shape.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes import sfm
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap_rigs import MapperDemands, Slot, Structure, adjust_rigs, map_images
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import Sim3
from stages.scenes.images import Pixels
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.grid import Disparities, GridShape, fit_grid, place
from stages.scenes.static.inputs import Photo

_LADDER = ((30, 1.0), (15, 1.0), (10, 1.5))  # (least matches, error factor), strict first
_ROUNDS = (1.0, 0.5, 0.35)  # of the adjustment: factors of the largest error
_LEAST_DISPARITIES = 20

Matches = dict[sfm.Pair, NDArray[np.uint32]]


@dataclass(frozen=True, eq=False)
class Registration:
    """Cameras of all registered photographs, points, and how well they agree."""

    cameras: dict[str, Camera]
    slots: dict[str, Slot]
    structure: Structure
    reprojection_error_px: float
    grid: GridShape | None = None


def register(
    photos: Sequence[Photo],
    pixels: Mapping[str, Pixels],
    static: StaticConfig,
    step_m: float | None = None,
    start: Mapping[str, Camera] | None = None,
) -> Registration:
    """Register photographs by name; `step_m`, the light field's own step, makes the world metric.

    `start` holds poses from elsewhere, which are then only adjusted. Photographs that are the same
    picture get the same camera. Raises UserError when too few are registered.
    """
    given, twins = _unique(photos)
    config = _feature_config(static)
    seen = sfm.detect({photo.name: [pixels[photo.name]] for photo in given}, config)
    anchors = [p for p in given if p.cell is None or not p.slot.mounted]
    matches = _matches(seen, [photo.name for photo in anchors], config)
    slots = {photo.name: photo.slot for photo in given}
    guesses = {photo.name: _guess(photo, pixels[photo.name], static) for photo in given}
    if start is None:
        cameras = _map(anchors, guesses, seen, matches, static)
    else:
        cameras = {photo.name: start[photo.name] for photo in anchors if photo.name in start}
    _check_registered(anchors, cameras, static)
    slots = _whole_rigs(slots, cameras)
    cells = {p.name: p.cell for p in given if p.cell is not None}
    middle = next((p for p in anchors if p.cell is not None), None)
    found = _Adjustment(seen, matches, slots, config, cells, middle).run(cameras)
    if step_m is not None and found.grid is not None:
        found = _in_metres(found, step_m)
    return _with_twins(found, twins)


@dataclass(frozen=True, eq=False)
class _Adjustment:
    """What the rounds of adjustment share."""

    seen: sfm.Photographs
    matches: Matches
    slots: dict[str, Slot]
    config: CalibrateConfig
    cells: dict[str, tuple[int, int]]
    middle: Photo | None

    def run(self, cameras: dict[str, Camera]) -> Registration:
        """Triangulate and adjust, ever stricter; the grid is fitted anew before each round."""
        grid, error_px, structure = None, 0.0, Structure.empty()
        spokes = self._spokes(cameras)
        for factor in _ROUNDS:
            if spokes and self.middle is not None:
                cameras, grid = self._with_grid(cameras, spokes, factor)
            structure = self._structure(cameras, spokes, factor)
            cameras, points, error_px = adjust_rigs(cameras, self.slots, structure)
            structure = replace(structure, points=points)
        if grid is not None and self.middle is not None:
            placed = self._place(cameras[self.middle.name], grid)
            cameras = cameras | placed
        return Registration(cameras, self.slots, structure, error_px, grid)

    def _spokes(self, cameras: Mapping[str, Camera]) -> Matches:
        """Matches of the light field's middle view with its other views."""
        if self.middle is None or self.middle.name not in cameras:
            return {}
        name = self.middle.name
        pairs = [(name, other) for other in self.cells if other != name]
        return _matches_of(self.seen, pairs, self.config)

    def _with_grid(
        self, cameras: dict[str, Camera], spokes: Matches, factor: float
    ) -> tuple[dict[str, Camera], GridShape]:
        """Cameras with all views of the light field, placed as their disparities say."""
        assert self.middle is not None, "a grid has a middle view"
        name = self.middle.name
        plain = {n: c for n, c in cameras.items() if n not in self.cells or n == name}
        depths = self._depths(plain, factor)
        grid = fit_grid(self._disparities(spokes, depths), float(plain[name].K[0, 0]))
        return plain | self._place(plain[name], grid), grid

    def _place(self, middle: Camera, grid: GridShape) -> dict[str, Camera]:
        assert self.middle is not None and self.middle.cell is not None, "a grid has a middle view"
        return place(middle, self.cells, self.middle.cell, grid)

    def _depths(self, cameras: dict[str, Camera], factor: float) -> dict[int, float]:
        """Depth by feature of the middle view, from the other photographs."""
        assert self.middle is not None, "a grid has a middle view"
        name, depths = self.middle.name, {}
        tracks, points = self._triangulated(cameras, {}, factor)
        for track, point in zip(tracks, points, strict=True):
            for camera, feature in track:
                if camera == name:
                    depths[feature] = float(cameras[name].project(point[None])[1][0])
        return depths

    def _disparities(self, spokes: Matches, depths: Mapping[int, float]) -> Disparities:
        steps, shifts, found = [], [], []
        for (middle, other), pairs in spokes.items():
            row, column = self.cells[other]
            centre = self.cells[middle]
            for a, b in pairs.tolist():
                if depths.get(a, -1.0) > 0:
                    at_a, at_b = self.seen.of[middle].keypoints[a], self.seen.of[other].keypoints[b]
                    steps.append((column - centre[1], row - centre[0]))
                    shifts.append(at_b - at_a)
                    found.append(depths[a])
        if len(found) < _LEAST_DISPARITIES:
            raise UserError(
                "static_prepare", f"{len(found)} matches tie the light field's views together",
                expected=f"at least {_LEAST_DISPARITIES}",
                fix="lower static.peak_threshold, or take lightfield out of static.cameras",
            )  # fmt: skip
        return Disparities(np.array(steps, float), np.array(shifts), np.array(found))

    def _structure(self, cameras: dict[str, Camera], spokes: Matches, factor: float) -> Structure:
        tracks, points = self._triangulated(cameras, spokes, factor)
        named = [
            [(name, self.seen.of[name].keypoints[feature]) for name, feature in track]
            for track in tracks
        ]
        colors = [np.mean([self.seen.color[n][k] for n, k in t], axis=0) for t in tracks]
        return Structure(points, named, np.rint(np.array(colors).reshape(-1, 3)).astype(np.uint8))

    def _triangulated(
        self, cameras: dict[str, Camera], spokes: Matches, factor: float
    ) -> tuple[list[sfm.Track], Array]:
        error_px = factor * self.config.max_reprojection_error_px
        both = {
            pair: found
            for pair, found in (self.matches | spokes).items()
            if set(pair) <= set(cameras)
        }
        near = sfm.near_epipolar(cameras, self.seen, both, 2 * error_px)
        return sfm.triangulate(cameras, self.seen, near, self.config, error_px)


def _feature_config(static: StaticConfig) -> CalibrateConfig:
    return CalibrateConfig(
        method="sfm",
        seed=static.seed,
        max_features=static.max_features,
        peak_threshold=static.peak_threshold,
        ratio_test=static.ratio_test,
        max_reprojection_error_px=static.max_reprojection_error_px,
        min_triangulation_angle_deg=static.min_triangulation_angle_deg,
    )


def _unique(photos: Sequence[Photo]) -> tuple[list[Photo], dict[str, str]]:
    """Photographs without repetitions, and for each repetition the name of the first."""
    first: dict[str, Photo] = {}
    twins = {}
    for photo in photos:
        known = first.setdefault(photo.sha256, photo)
        if known is not photo:
            twins[photo.name] = known.name
    return list(first.values()), twins


def _guess(photo: Photo, image: Pixels, static: StaticConfig) -> Camera:
    """A camera with the focal length of the EXIF data, or `focal_guess` of the longer side."""
    height, width = image.shape[:2]
    known = None if photo.focal_px is None else photo.focal_px * width / photo.size[0]
    focal = known or static.focal_guess * max(width, height)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(photo.name, K, np.eye(4), width, height)


def _matches(seen: sfm.Photographs, names: Sequence[str], config: CalibrateConfig) -> Matches:
    pairs = [(a, b) for k, a in enumerate(names) for b in names[k + 1 :]]
    return _matches_of(seen, pairs, config)


def _matches_of(
    seen: sfm.Photographs, pairs: Sequence[sfm.Pair], config: CalibrateConfig
) -> Matches:
    found: Matches = {}
    for pair in pairs:
        parts = ({name: part[name] for name in pair} for part in (seen.of, seen.frame, seen.color))
        found |= sfm.match(sfm.Photographs(*parts), config)
    return found


def _map(
    anchors: Sequence[Photo],
    guesses: Mapping[str, Camera],
    seen: sfm.Photographs,
    matches: Matches,
    static: StaticConfig,
) -> dict[str, Camera]:
    """Poses from the photographs alone, by ever weaker demands until all are registered."""
    names = [photo.name for photo in anchors]
    best: dict[str, Camera] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for least, factor in _LADDER:
            found = map_images(
                {name: guesses[name] for name in names},
                {photo.name: photo.slot for photo in anchors},
                {name: seen.of[name].keypoints for name in names},
                matches, Path(scratch),
                MapperDemands(
                    least, factor * static.max_reprojection_error_px,
                    static.min_triangulation_angle_deg, static.seed,
                ),
            )  # fmt: skip
            best = max(best, found, key=len)
            if len(best) == len(names):
                break
    return best


def _check_registered(
    anchors: Sequence[Photo], cameras: Mapping[str, Camera], static: StaticConfig
) -> None:
    lost = [photo.name for photo in anchors if photo.name not in cameras]
    if len(cameras) < 2 or len(cameras) < static.min_registered * len(anchors):
        raise UserError(
            "static_prepare",
            f"{len(cameras)} of {len(anchors)} photographs registered; without {', '.join(lost)}",
            expected=f"at least {static.min_registered:.0%} (static.min_registered)",
            fix="lower static.peak_threshold, raise static.ratio_test, bring photographs from in "
            "between, or lower static.min_registered",
        )  # fmt: skip


def _whole_rigs(slots: Mapping[str, Slot], cameras: Mapping[str, Camera]) -> dict[str, Slot]:
    """Slots in which a rig that lost a lens altogether stands as single lenses."""
    broken = set()
    for name in slots:
        rig = slots[name].rig
        members = [n for n in slots if slots[n].rig == rig and not slots[n].mounted]
        frames: dict[str, set[str]] = {}
        for member in members:
            if member in cameras:
                frames.setdefault(slots[member].frame, set()).add(slots[member].lens)
        lenses = {slots[member].lens for member in members}
        if not any(lenses <= found for found in frames.values()):
            broken.add(rig)
    return {
        name: replace(slot, rig=f"{slot.rig}/{slot.lens}") if slot.rig in broken else slot
        for name, slot in slots.items()
    }


def _in_metres(found: Registration, step_m: float) -> Registration:
    """The same reconstruction in a world where neighbouring views lie `step_m` apart."""
    assert found.grid is not None, "a light field makes the world metric"
    metric = Sim3(step_m / float(np.abs(found.grid.step).mean()), np.eye(3), np.zeros(3))
    return replace(
        found,
        cameras={name: metric.apply_camera(camera) for name, camera in found.cameras.items()},
        structure=replace(found.structure, points=metric.apply(found.structure.points)),
        grid=found.grid.scaled(metric.scale),
    )


def _with_twins(found: Registration, twins: Mapping[str, str]) -> Registration:
    """Repeated photographs at the cameras, and with the points, of their first."""
    cameras, slots = dict(found.cameras), dict(found.slots)
    tracks = [list(track) for track in found.structure.tracks]
    for twin, first in twins.items():
        if first not in cameras:
            continue
        cameras[twin] = replace(cameras[first], name=twin)
        slots[twin] = Slot(twin, twin, "", known_focal=slots[first].known_focal)
        for track in tracks:
            track += [(twin, pixel) for name, pixel in track if name == first]
    return replace(
        found, cameras=cameras, slots=slots, structure=replace(found.structure, tracks=tracks)
    )
