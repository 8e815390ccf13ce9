"""One reconstruction of all images of a static scene, in one world frame.

Images and the middle view of the light field are registered by structure from motion with shared
lenses. The other views of the light field are placed by their disparities to the middle one; then
all are bundle adjusted together, with rigid rigs.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, product

import numpy as np

from stages.run.errors import UserError
from stages.run.process.cores import available_cores
from stages.scenes.cameras import Camera
from stages.scenes.colmap_lenses import Lens
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import Sim3
from stages.scenes.images import Pixels
from stages.scenes.poses import sfm
from stages.scenes.poses.colmap_features import detect_and_match
from stages.scenes.poses.colmap_pooled import Matches, verify
from stages.scenes.poses.colmap_rigs import Slot
from stages.scenes.poses.colmap_sfm import map_images, undistorted_points
from stages.scenes.static.adjustment import Adjustment, Registration
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.input_images import InputImage
from stages.scenes.static.judgement import LEAST_AGREEMENT, departed, loose_rigs, unsupported

_LOGGER = logging.getLogger(__name__)


def register(
    images: Sequence[InputImage],
    pixels: Mapping[str, Pixels],
    static: StaticConfig,
    step_m: float | None = None,
    start: Mapping[str, Camera] | None = None,
    adjust: bool = True,
) -> Registration:
    """Register the images of a static scene.

    Args:
        images: all images; those with equal files get equal cameras.
        pixels: their pixels by name, [H, W, 3].
        static: params of matching and mapping.
        step_m: distance between neighbouring views of the light field, which makes the world
            metric; None where it is unknown.
        start: initial poses by name, in the place of structure from motion.
        adjust: whether poses are bundle adjusted.

    Raises UserError when too few images are registered.
    """
    unique, duplicates = _unique(images)
    config = _feature_config(static)
    anchors = [image for image in unique if not image.slot.mounted]
    features, matches = _features(unique, pixels, config)
    lenses: Mapping[str, Lens] = {}
    if start is None:
        cameras, lenses = _map(anchors, pixels, features, matches, static, config)
    else:
        cameras = {image.name: start[image.name] for image in anchors if image.name in start}
    cameras, features = _undistorted(cameras, features, lenses)
    cells = {image.name: image.cell for image in unique if image.cell is not None}
    verified = _verified(cameras, features, matches, list(cells), config)
    reasons: dict[str, str] = {}
    loose: dict[str, str] = {}
    slots = {image.name: image.slot for image in unique}
    if start is None:
        reasons = unsupported(cameras, features, verified, config)
        cameras = _without(cameras, reasons)
        loose = loose_rigs(slots, cameras)
    for rig, reason in loose.items():
        _LOGGER.warning("rig %s is taken apart: %s", rig, reason)
    _check_registered(anchors, cameras, static, reasons)
    adjustment = Adjustment(features, verified, _whole_rigs(slots, cameras, loose), config, cells)
    if adjust:
        registration = adjustment.run(cameras, start is not None)
        while reasons := _doubtful(adjustment, registration, cameras, start is not None):
            cameras = _without(cameras, reasons)
            _check_registered(anchors, cameras, static, reasons)
            adjustment = replace(adjustment, slots=_whole_rigs(slots, cameras, loose))
            registration = adjustment.run(cameras, start is not None)
    if not adjust or not _is_trusted(adjustment, registration, cameras):
        registration = adjustment.unadjusted(cameras)
    straight = {name: lens.undistort(pixels[name], crop=True)[0] for name, lens in lenses.items()}
    registration = replace(registration, undistorted=straight)
    if step_m is not None and registration.grid is not None:
        registration = _in_metres(registration, step_m)
    return _with_duplicates(registration, duplicates)


def _feature_config(static: StaticConfig) -> CalibrateConfig:
    return CalibrateConfig(
        method="sfm",
        seed=static.seed,
        max_features=static.max_features,
        peak_threshold=static.peak_threshold,
        ratio_test=static.ratio_test,
        max_epipolar_error_px=2 * static.max_reprojection_error_px,
        max_reprojection_error_px=static.max_reprojection_error_px,
        min_triangulation_angle_deg=static.min_triangulation_angle_deg,
    )


def _features(
    images: Sequence[InputImage], pixels: Mapping[str, Pixels], config: CalibrateConfig
) -> tuple[sfm.PooledFeatures, Matches]:
    """Features with colours, and the matches of anchors and of the light field's middle view.

    Anchors are matched with each other, the other views of the light field with the middle one.
    """
    anchors = [image.name for image in images if not image.slot.mounted]
    middle = [image.name for image in images if image.cell is not None and not image.slot.mounted]
    mounted = [image.name for image in images if image.slot.mounted]
    pairs = [*combinations(anchors, 2), *product(middle, mounted)]
    reads = {image.name: [partial(pixels.__getitem__, image.name)] for image in images}
    return detect_and_match(reads, config, pairs)


def _unique(images: Sequence[InputImage]) -> tuple[list[InputImage], dict[str, str]]:
    """Images with different files, and the name of the first for the name of each duplicate."""
    first: dict[str, InputImage] = {}
    duplicates = {}
    for image in images:
        original = first.setdefault(image.sha256, image)
        if original is not image:
            duplicates[image.name] = original.name
    return list(first.values()), duplicates


def _guess(image: InputImage, pixels: Pixels, static: StaticConfig) -> Camera:
    """A camera with the focal length of the EXIF data, or `focal_guess` of the longer side."""
    height, width = pixels.shape[:2]
    from_exif = None if image.focal_px is None else image.focal_px * width / image.size[0]
    focal = from_exif or static.focal_guess * max(width, height)
    K = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
    return Camera(image.name, K, np.eye(4), width, height)


def _map(
    anchors: Sequence[InputImage],
    pixels: Mapping[str, Pixels],
    features: sfm.PooledFeatures,
    matches: Matches,
    static: StaticConfig,
    config: CalibrateConfig,
) -> tuple[dict[str, Camera], dict[str, Lens]]:
    """Poses by structure from motion, and the lenses whose distortion was estimated.

    Views of a light field have none: decoders undistort them, and a distortion per view would break
    their grid.
    """
    guesses = {image.name: _guess(image, pixels[image.name], static) for image in anchors}
    radial = static.lens_model == "radial"
    slots = {p.name: replace(p.slot, distorted=radial and p.cell is None) for p in anchors}
    keypoints = {image.name: features.of[image.name].keypoints for image in anchors}
    matches = {pair: rows for pair, rows in matches.items() if set(pair) <= set(keypoints)}
    limits = replace(sfm.thresholds(config), threads=available_cores())
    return map_images(guesses, slots, keypoints, matches, limits)


def _undistorted(
    cameras: Mapping[str, Camera], features: sfm.PooledFeatures, lenses: Mapping[str, Lens]
) -> tuple[dict[str, Camera], sfm.PooledFeatures]:
    """Cameras and features of the undistorted images."""
    pinholes, by_name = dict(cameras), dict(features.of)
    for name, lens in lenses.items():
        K, width, height = lens.pinhole(crop=True)
        pinholes[name] = replace(cameras[name], K=K, width=width, height=height)
        keypoints = undistorted_points(features.of[name].keypoints, lens)
        by_name[name] = replace(features.of[name], keypoints=keypoints)
    return pinholes, replace(features, of=by_name)


def _verified(
    cameras: Mapping[str, Camera],
    features: sfm.PooledFeatures,
    matches: Matches,
    views: Sequence[str],
    config: CalibrateConfig,
) -> Matches:
    """Verified matches of images without distortion, with the light field's `views`.

    The first of them is its middle view, whose intrinsics are those of the others.
    """
    known = dict(cameras)
    if views and views[0] in cameras:
        known |= {name: replace(cameras[views[0]], name=name) for name in views[1:]}
    keypoints = {name: features.of[name].keypoints for name in known}
    own = {pair: rows for pair, rows in matches.items() if set(pair) <= set(known)}
    limits = replace(sfm.thresholds(config), threads=available_cores())
    return verify(known, keypoints, own, limits)


def _doubtful(
    adjustment: Adjustment, registration: Registration, cameras: Mapping[str, Camera], rough: bool
) -> dict[str, str]:
    """Images whose adjusted poses are not to be trusted, where most poses are right.

    They are those that verified matches contradict, and one that left the neighbourhood of initial
    poses that matches agree with. Without matches an initial pose of other origin is kept.
    """
    adjusted = {name: registration.cameras[name] for name in cameras}
    matched = adjustment.features, adjustment.matches, adjustment.config
    before, after = (sfm.agreement(poses, *matched) for poses in (cameras, adjusted))
    if after is None or after < LEAST_AGREEMENT:
        return {}
    reasons = unsupported(adjusted, *matched)
    doubtful = unsupported(adjusted, *matched, min_features=0) if rough else reasons
    for name in [name for name in reasons if name not in doubtful]:
        _LOGGER.warning("%s: its pose was not adjusted: %s", name, reasons[name])
    if doubtful or before is None or before < LEAST_AGREEMENT:
        return doubtful
    return departed(cameras, adjusted)


def _is_trusted(
    adjustment: Adjustment, registration: Registration, cameras: Mapping[str, Camera]
) -> bool:
    """Whether verified matches agree with the adjusted poses; messages say how they moved."""
    adjusted = {name: registration.cameras[name] for name in cameras}
    before, after = (
        sfm.agreement(poses, adjustment.features, adjustment.matches, adjustment.config)
        for poses in (cameras, adjusted)
    )
    words = [
        "no pair has enough" if share is None else f"{share:.0%} agree" for share in (before, after)
    ]
    _LOGGER.info("verified matches: %s with the initial poses, %s with the adjusted ones", *words)
    if after is None or after < LEAST_AGREEMENT:
        _LOGGER.warning("too few matches agree with the adjusted poses: the initial ones are kept")
        return False
    for name, reason in departed(cameras, adjusted).items():
        _LOGGER.warning("%s: %s, because matches contradict the initial poses", name, reason)
    return True


def _without(cameras: Mapping[str, Camera], reasons: Mapping[str, str]) -> dict[str, Camera]:
    """The cameras that nothing speaks against; the others are named."""
    for name, reason in reasons.items():
        _LOGGER.warning("%s is left out: %s", name, reason)
    return {name: camera for name, camera in cameras.items() if name not in reasons}


def _check_registered(
    anchors: Sequence[InputImage],
    cameras: Mapping[str, Camera],
    static: StaticConfig,
    reasons: Mapping[str, str],
) -> None:
    missing = [
        f"{image.name} ({reasons[image.name]})" if image.name in reasons else image.name
        for image in anchors
        if image.name not in cameras
    ]
    if len(cameras) < 2 or len(cameras) < static.min_registered * len(anchors):
        raise UserError(
            "static_prepare",
            f"{len(cameras)} of {len(anchors)} images registered; not {', '.join(missing)}",
            expected=f"at least {static.min_registered:.0%} (static.min_registered)",
            fix="lower static.peak_threshold, raise static.ratio_test, add images from in between, "
            "or lower static.min_registered",
        )


def _whole_rigs(
    slots: Mapping[str, Slot], cameras: Mapping[str, Camera], loose: Collection[str]
) -> dict[str, Slot]:
    """Slots in which every lens of a rig that is loose or lacks a complete frame is its own rig."""
    broken = set(loose)
    for name in slots:
        rig = slots[name].rig
        members = [n for n in slots if slots[n].rig == rig and not slots[n].mounted]
        frames: dict[str, set[str]] = {}
        for member in members:
            if member in cameras:
                frames.setdefault(slots[member].frame, set()).add(slots[member].lens)
        lenses = {slots[member].lens for member in members}
        if not any(lenses <= registered for registered in frames.values()):
            broken.add(rig)
    return {
        name: replace(slot, rig=f"{slot.rig}/{slot.lens}") if slot.rig in broken else slot
        for name, slot in slots.items()
    }


def _in_metres(registration: Registration, step_m: float) -> Registration:
    """The same reconstruction in a world where neighbouring views are `step_m` apart."""
    assert registration.grid is not None, "a light field makes the world metric"
    scale = step_m / float(np.abs(registration.grid.step).mean())
    metric = Sim3(scale, np.eye(3), np.zeros(3))
    points = metric.apply(registration.structure.points)
    return replace(
        registration,
        cameras={name: metric.apply_camera(one) for name, one in registration.cameras.items()},
        structure=replace(registration.structure, points=points),
        grid=registration.grid.scaled(metric.scale),
    )


def _with_duplicates(registration: Registration, duplicates: Mapping[str, str]) -> Registration:
    """Add duplicate images, with the camera and the points of their originals."""
    cameras, slots = dict(registration.cameras), dict(registration.slots)
    undistorted = dict(registration.undistorted)
    copies = {name: original for name, original in duplicates.items() if original in cameras}
    for name, original in copies.items():
        cameras[name] = replace(cameras[original], name=name)
        slots[name] = Slot(name, name, "", known_focal=slots[original].known_focal)
    undistorted |= {n: undistorted[o] for n, o in duplicates.items() if o in undistorted}
    structure = registration.structure.with_copies(copies)
    return replace(
        registration, cameras=cameras, slots=slots, structure=structure, undistorted=undistorted
    )
