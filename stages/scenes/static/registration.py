"""One reconstruction of all photographs of a static scene, in one world frame.

Photographs and the middle view of the light field are registered by structure from motion with
shared lenses. The other views of the light field follow from their disparities to the middle one;
then everything is adjusted together, rigs keeping their shape.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import Camera
from stages.scenes.colmap_lenses import Lens
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import Sim3
from stages.scenes.images import Pixels
from stages.scenes.poses import sfm
from stages.scenes.poses.colmap_rigs import Slot
from stages.scenes.poses.colmap_sfm import MapperThresholds, map_images, undistorted_points
from stages.scenes.static.adjustment import Adjustment, Matches, Registration, matches_among
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.input_images import InputImage

_LADDER = ((30, 1.0), (15, 1.0), (10, 1.5))  # (least matches, error factor), strict first


def register(
    photos: Sequence[InputImage],
    pixels: Mapping[str, Pixels],
    static: StaticConfig,
    step_m: float | None = None,
    start: Mapping[str, Camera] | None = None,
    adjust: bool = True,
) -> Registration:
    """Register photographs by name; `step_m`, the light field's own step, makes the world metric.

    `start` holds poses from elsewhere, which are only adjusted, or not even that. Photographs that
    are the same picture get the same camera. Raises UserError when too few are registered.
    """
    given, twins = _unique(photos)
    config = _feature_config(static)
    seen = sfm.detect({photo.name: [pixels[photo.name]] for photo in given}, config)
    anchors = [photo for photo in given if not photo.slot.mounted]
    matches = matches_among(seen, [photo.name for photo in anchors], config)
    lenses: Mapping[str, Lens] = {}
    if start is None:
        cameras, lenses = _map(anchors, pixels, seen, matches, static)
    else:
        cameras = {photo.name: start[photo.name] for photo in anchors if photo.name in start}
    _check_registered(anchors, cameras, static)
    cameras, seen = _straight(cameras, seen, lenses)
    slots = _whole_rigs({photo.name: photo.slot for photo in given}, cameras)
    cells = {photo.name: photo.cell for photo in given if photo.cell is not None}
    work = Adjustment(seen, matches, slots, config, cells)
    found = work.run(cameras, start is not None) if adjust else work.unadjusted(cameras)
    images = {name: lens.undistort(pixels[name], whole=True)[0] for name, lens in lenses.items()}
    found = replace(found, undistorted=images)
    if step_m is not None and found.grid is not None:
        found = _in_metres(found, step_m)
    return _with_twins(found, twins)


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


def _unique(photos: Sequence[InputImage]) -> tuple[list[InputImage], dict[str, str]]:
    """Photographs without repetitions, and for each repetition the name of the first."""
    first: dict[str, InputImage] = {}
    twins = {}
    for photo in photos:
        known = first.setdefault(photo.sha256, photo)
        if known is not photo:
            twins[photo.name] = known.name
    return list(first.values()), twins


def _guess(photo: InputImage, image: Pixels, static: StaticConfig) -> Camera:
    """A camera with the focal length of the EXIF data, or `focal_guess` of the longer side."""
    height, width = image.shape[:2]
    known = None if photo.focal_px is None else photo.focal_px * width / photo.size[0]
    focal = known or static.focal_guess * max(width, height)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(photo.name, K, np.eye(4), width, height)


def _map(
    anchors: Sequence[InputImage],
    pixels: Mapping[str, Pixels],
    seen: sfm.PooledFeatures,
    matches: Matches,
    static: StaticConfig,
) -> tuple[dict[str, Camera], dict[str, Lens]]:
    """Poses from the photographs alone, by ever weaker demands until all are registered.

    Beside them the lenses whose distortion was found. Views of a light field have none: decoders
    leave them straight, and what bent them one by one would break their grid.
    """
    guesses = {photo.name: _guess(photo, pixels[photo.name], static) for photo in anchors}
    bent = static.lens_model == "radial"
    slots = {p.name: replace(p.slot, bent=bent and p.cell is None) for p in anchors}
    keypoints = {photo.name: seen.of[photo.name].keypoints for photo in anchors}
    best: tuple[dict[str, Camera], dict[str, Lens]] = ({}, {})
    with tempfile.TemporaryDirectory() as scratch:
        for least, factor in _LADDER:
            demands = MapperThresholds(
                least, factor * static.max_reprojection_error_px,
                static.min_triangulation_angle_deg, static.seed,
            )  # fmt: skip
            found = map_images(guesses, slots, keypoints, matches, Path(scratch), demands)
            best = max(best, found, key=lambda model: len(model[0]))
            if len(best[0]) == len(anchors):
                break
    return best


def _straight(
    cameras: Mapping[str, Camera], seen: sfm.PooledFeatures, lenses: Mapping[str, Lens]
) -> tuple[dict[str, Camera], sfm.PooledFeatures]:
    """Cameras and features as of the images that the lenses' undistortion makes."""
    straight, features = dict(cameras), dict(seen.of)
    for name, lens in lenses.items():
        K, width, height = lens.pinhole(whole=True)
        straight[name] = replace(cameras[name], K=K, width=width, height=height)
        keypoints = undistorted_points(seen.of[name].keypoints, lens)
        features[name] = replace(seen.of[name], keypoints=keypoints)
    return straight, replace(seen, of=features)


def _check_registered(
    anchors: Sequence[InputImage], cameras: Mapping[str, Camera], static: StaticConfig
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
    structure = replace(found.structure, tracks=tracks)
    images = dict(found.undistorted)
    images |= {twin: images[first] for twin, first in twins.items() if first in images}
    return replace(found, cameras=cameras, slots=slots, structure=structure, undistorted=images)
