"""Which poses of a static scene its images support.

The test is the same throughout: matches that a pair of images verified by itself, without poses,
lie near the epipolar lines of poses that are right.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from stages.scenes.cameras import Array, Camera, mean_distance, rotation_angle_deg
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.poses import sfm
from stages.scenes.poses.colmap_pooled import Matches
from stages.scenes.poses.colmap_rigs import Slot

LEAST_AGREEMENT = 0.7  # of all verified matches with the poses
_LEAST_OF_IMAGE = 0.5  # of an image's verified matches
_MIN_FEATURES = 30  # that COLMAP's mapper demands of a new image
_MIN_VERIFIED = 40  # of a pair; fewer are verified by chance
# Initial poses are known so well: degrees, share of the mean distance between cameras.
_NEIGHBOURHOOD = (10.0, 0.25)
# Frames of a rig are alike so far: degrees, share of the distance between its lenses.
_RIGID = (2.0, 0.5)


def unsupported(
    cameras: Mapping[str, Camera],
    features: sfm.PooledFeatures,
    verified: Matches,
    config: CalibrateConfig,
    min_features: int = _MIN_FEATURES,
) -> dict[str, str]:
    """Images whose poses too few verified matches support, with the reason in words.

    The worst is taken out first, because its pairs count against all others.
    """
    pairs = {pair: rows for pair, rows in verified.items() if set(pair) <= set(cameras)}
    near = sfm.near_epipolar(cameras, features, pairs, config.max_epipolar_error_px)
    reasons: dict[str, str] = {}
    left = list(cameras)
    while left:
        worst = min((_support(name, left, pairs, near) for name in left), key=lambda one: one[0])
        (share, count), name = worst
        if share < _LEAST_OF_IMAGE:
            reasons[name] = f"{1 - share:.0%} of its verified matches contradict its pose"
        elif count < min_features:
            reasons[name] = f"{count} matched features in agreement with its pose"
        else:
            break
        left.remove(name)
    return reasons


def _support(
    name: str, others: Sequence[str], pairs: Matches, near: Matches
) -> tuple[tuple[float, int], str]:
    """Share of an image's verified matches that agree with its pose, and their features.

    Enough of both is (1.0, the number), so that a comparison finds the worst image.
    """
    total = agree = 0
    shown: list[Array] = []
    for pair, rows in pairs.items():
        if name in pair and set(pair) <= set(others):
            shown.append(near[pair][:, pair.index(name)])
            if len(rows) >= _MIN_VERIFIED:
                total, agree = total + len(rows), agree + len(near[pair])
    share = agree / total if total else 1.0
    count = len(np.unique(np.concatenate(shown))) if shown else 0
    return (share if share < _LEAST_OF_IMAGE else 1.0, count), name


def departed(start: Mapping[str, Camera], adjusted: Mapping[str, Camera]) -> dict[str, str]:
    """The image that left the neighbourhood of its initial pose most, with the reason in words."""
    names = [name for name in start if name in adjusted]
    initial = [start[name] for name in names]
    start_from_adjusted, _ = fit_sim3_from_cameras([adjusted[name] for name in names], initial)
    unit = mean_distance(initial)
    worst, reasons = 1.0, {}
    for name, camera in zip(names, initial, strict=True):
        after = start_from_adjusted.apply_camera(adjusted[name])
        angle = rotation_angle_deg(after.cam_from_world[:3, :3], camera.cam_from_world[:3, :3])
        share = float(np.linalg.norm(after.centre - camera.centre)) / max(unit, 1e-12)
        distance = max(angle / _NEIGHBOURHOOD[0], share / _NEIGHBOURHOOD[1])
        if distance > worst:
            worst = distance
            words = (
                f"adjustment moved it by {angle:.1f} degrees and {share:.0%} of the mean distance "
                "between cameras"
            )
            reasons = {name: words}
    return reasons


def loose_rigs(slots: Mapping[str, Slot], cameras: Mapping[str, Camera]) -> dict[str, str]:
    """Rigs whose frames disagree about the pose of a lens, with the reason in words."""
    reasons = {}
    for rig in dict.fromkeys(slots[name].rig for name in cameras):
        frames: dict[str, dict[str, Camera]] = {}
        for name, camera in cameras.items():
            if slots[name].rig == rig:
                frames.setdefault(slots[name].frame, {})[slots[name].lens] = camera
        reference, *others = dict.fromkeys(lens for of in frames.values() for lens in of)
        for lens in others:
            poses = [
                of[lens].cam_from_world @ of[reference].world_from_cam
                for of in frames.values()
                if lens in of and reference in of
            ]
            angle, share = _spread(poses)
            if angle > _RIGID[0] or share > _RIGID[1]:
                reasons[rig] = (
                    f"its frames disagree about the pose of {lens} by {angle:.1f} degrees and "
                    f"{share:.0%} of the distance between the lenses"
                )
    return reasons


def _spread(poses: Sequence[Array]) -> tuple[float, float]:
    """Largest difference from the first pose: degrees, share of the median distance."""
    if not poses:
        return 0.0, 0.0
    angle = max(rotation_angle_deg(pose[:3, :3], poses[0][:3, :3]) for pose in poses)
    shifts = np.array([pose[:3, 3] for pose in poses])
    apart = float(np.median(np.linalg.norm(shifts, axis=1)))
    moved = float(np.linalg.norm(shifts - shifts[0], axis=1).max())
    return angle, moved / max(apart, 1e-12)
