"""Calibration of a prepared scene from its source images, by the method in params."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.run.files import write_tsv
from stages.run.process.cores import available_cores
from stages.run.process.memory import require_for
from stages.scenes.cameras import Camera, mean_distance
from stages.scenes.colmap_matching import Matcher
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import recentring
from stages.scenes.images import Pixels
from stages.scenes.poses import colmap_pooled, sfm
from stages.scenes.poses.calibration import (
    Calibration,
    Points,
    transfer_targets,
    write_calibration,
)
from stages.scenes.poses.colmap_features import detect_and_match
from stages.scenes.poses.evidence import in_one_place
from stages.scenes.poses.prior_adjustment import PoseSigma
from stages.scenes.scene import Scene
from stages.scenes.view import View

_LOGGER = logging.getLogger(__name__)

# Approximate pinhole cameras by name, from one image [H, W, 3] of each.
Predict = Callable[[Mapping[str, Pixels]], Mapping[str, Camera]]

# Of a network's cameras: degrees, share of the mean distance, share of the focal length.
_PREDICTED = (2.0, 0.05, 0.05)
# Poses that contradict more of the verified matches than this are worth a warning.
_LEAST_AGREEMENT = 0.5
_TOO_FAR = "more than calibrate.max_rotation_error_deg and max_centre_error allow sfm"
_PAIRS = ["a", "b", "matches", "verified", "near"]


def calibrate(
    scene: Scene,
    config: CalibrateConfig,
    folder: Path,
    predict: Predict | None = None,
    matcher: Matcher | None = None,
) -> dict[str, Any]:
    """Write the calibration into `folder`; return its metrics, scalars by name.

    Method vggt needs `predict`, whose poses are then refined by bundle adjustment. Without a
    `matcher`, COLMAP matches features. Raises UserError when estimated poses are farther from the
    true ones than the params allow.
    """
    true_sources, true_targets = scene.cameras("source"), scene.cameras("target")
    initial, near = true_sources, recentring([camera.centre for camera in true_sources.values()])
    if near is not None:  # map coordinates leave an adjustment no digits
        initial = {name: near.apply_camera(camera) for name, camera in true_sources.items()}
    views = _views(scene, list(true_sources))
    features, matches = _features(scene, views, config, matcher)
    estimate = _estimate(initial, features, matches, config, views, predict)
    calibration, errors = transfer_targets(
        config.method, estimate.cameras, true_sources, true_targets
    )
    if config.method == "perturbed" and estimate.refined:
        start = sfm.perturb(initial, config)
        kept, before = transfer_targets(config.method, start, true_sources, true_targets)
        if _farther(errors, before):
            estimate = _kept_by_truth(estimate, start, features, config)
            calibration, errors = kept, before
    beyond = _beyond_limits(errors, true_sources, config)
    if beyond and config.method in ("sfm", "vggt"):
        raise _too_far(f"{scene.name}: poses by {config.method} are {beyond}", config)
    by_time, error_px = _points(scene, views, calibration, features, matches, config)
    calibration = replace(calibration, pose_covariance=estimate.pose_covariance)
    write_calibration(folder, calibration, by_time)
    pairs = _pairs(estimate, features, matches, config)
    write_tsv(folder / "pairs.tsv", pairs, _PAIRS)
    found, before = estimate.errors, estimate.errors_before
    return {
        "method": config.method,
        "refined": estimate.refined,
        "registered": len(estimate.cameras),
        "total": len(true_sources),
        "points": float(np.mean([len(xyz) for xyz, _ in by_time.values()])),
        "reprojection_error_px": _rounded(error_px),
        "fewest_verified": min(_strongest(list(true_sources), pairs).values()),
        "agreement": _rounded(estimate.agreement),
        "track_error_px": _rounded(None if found is None else found.median_px),
        "track_error_before_px": _rounded(None if before is None else before.median_px),
        "focal_share": _rounded(estimate.focal_share),
        **{name: _rounded(value) for name, value in errors.items()},
        "note": "; ".join(
            [
                *estimate.notes,
                *([f"the poses are {beyond}, {_TOO_FAR}"] if beyond else []),
                *_contradictions(initial, estimate, features, pairs, config),
                *_without_points(by_time),
            ]
        ),
    }


def _kept_by_truth(
    estimate: sfm.Estimate,
    start: Mapping[str, Camera],
    features: sfm.PooledFeatures,
    config: CalibrateConfig,
) -> sfm.Estimate:
    """The start instead of a result that is farther from the true poses."""
    note = (
        "poses not refined: bundle adjustment ended farther from the true poses, which neither "
        "the priors nor the held-out matches noticed"
    )
    return replace(
        estimate,
        cameras=dict(start),
        refined=False,
        agreement=sfm.agreement(start, features, estimate.verified, config),
        errors=estimate.errors_before,
        focal_share=None,
        notes=(note,),
        pose_covariance=sfm.covariance_of(sfm.noise_sigma(start, config), start),
    )


def _pairs(
    estimate: sfm.Estimate,
    features: sfm.PooledFeatures,
    matches: Mapping[sfm.Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> list[dict[str, Any]]:
    """Counts of matches by pair of cameras; `near` the epipolar lines of the estimated poses."""
    rows = []
    for (a, b), verified in estimate.verified.items():
        near = None
        if {a, b} <= set(estimate.cameras):
            one = {(a, b): verified}
            of_pair = sfm.near_epipolar(
                estimate.cameras, features, one, config.max_epipolar_error_px
            )
            near = len(of_pair[a, b])
        values = (a, b, len(matches[a, b]), len(verified), near)
        rows.append(dict(zip(_PAIRS, values, strict=True)))
    return rows


def _strongest(cameras: Sequence[str], pairs: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The most verified matches of each camera with another one."""
    return {
        name: max((row["verified"] for row in pairs if name in (row["a"], row["b"])), default=0)
        for name in cameras
    }


def _contradictions(
    initial: Mapping[str, Camera],
    estimate: sfm.Estimate,
    features: sfm.PooledFeatures,
    pairs: Sequence[Mapping[str, Any]],
    config: CalibrateConfig,
) -> Iterator[str]:
    """What the images and the cameras say against the poses that were taken."""
    share = estimate.agreement
    if share is not None and share < _LEAST_AGREEMENT:
        yield f"{1 - share:.0%} of the verified matches contradict the poses"
    errors = sfm.errors_of(estimate.cameras, features, estimate.verified, config)
    by_camera = {} if errors is None else errors.by_camera
    if by_camera and (estimate.refined or config.method == "given"):
        worst = max(by_camera, key=lambda name: by_camera[name])
        if by_camera[worst] > config.max_epipolar_error_px:
            yield (
                f"verified matches are {by_camera[worst]:.1f} px from the pose of camera {worst} "
                f"(limit calibrate.max_epipolar_error_px: {config.max_epipolar_error_px:g} px)"
            )
    for of, cameras in (("raw data", initial), ("estimated poses", estimate.cameras)):
        for a, b in in_one_place(cameras):
            yield f"cameras {a} and {b} have one pose in the {of}"
    few = [
        name for name, count in _strongest(list(initial), pairs).items() if count < sfm.MIN_VERIFIED
    ]
    if few:
        yield (
            f"fewer than {sfm.MIN_VERIFIED} verified matches with any other camera, so that "
            f"nothing tests their poses: {', '.join(few)}"
        )


def _estimate(
    cameras: Mapping[str, Camera],
    features: sfm.PooledFeatures,
    matches: Mapping[sfm.Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
    views: Mapping[str, Sequence[View]],
    predict: Predict | None,
) -> sfm.Estimate:
    if config.method == "given":
        verified = sfm.verify(cameras, features, matches, config)
        agreement = sfm.agreement(cameras, features, verified, config)
        errors = sfm.errors_of(cameras, features, verified, config)
        return sfm.Estimate(dict(cameras), False, verified, agreement, errors)
    if config.method == "perturbed":
        return sfm.refine(sfm.perturb(cameras, config), features, matches, config)
    if config.method == "sfm":
        return sfm.reconstruct(cameras, features, matches, config)
    assert predict is not None, "method vggt needs a predictor of poses"
    predicted = dict(predict({name: of[0].pixels() for name, of in views.items()}))
    rotation_deg, centre, focal = _PREDICTED
    centre *= mean_distance(list(predicted.values()))
    sigma = PoseSigma(rotation_deg, centre, focal if config.refine_focal else 0.0)
    return sfm.refine(predicted, features, matches, config, sigma)


def _views(scene: Scene, cameras: Sequence[str]) -> dict[str, list[View]]:
    """The source views of each camera, one per timestamp."""
    views: dict[str, list[View]] = {name: [] for name in cameras}
    for view in sorted(scene.views("source"), key=lambda view: view.timestamp):
        views[view.name].append(view)
    return views


def _features(
    scene: Scene,
    views: Mapping[str, Sequence[View]],
    config: CalibrateConfig,
    matcher: Matcher | None,
) -> tuple[sfm.PooledFeatures, dict[sfm.Pair, NDArray[np.uint32]]]:
    """Features and matches; raises UserError for images that are broken or of another size."""
    every = [view for of in views.values() for view in of]
    sizes = [(view.camera.width, view.camera.height) for view in every]
    # As many images are held as there are cores.
    require_for(
        sizes[: available_cores()],
        1,
        "prepare.height_px",
        f"lower it, or take fewer timestamps (scenes.{scene.name}.timestamps)",
    )
    reads = {name: [view.pixels for view in of] for name, of in views.items()}
    return detect_and_match(reads, config, matcher=matcher)


def _farther(errors: Mapping[str, float], before: Mapping[str, float]) -> bool:
    return any(errors[key] > before[key] for key in ("rotation_error_deg", "centre_error_m"))


def _beyond_limits(
    errors: Mapping[str, float], true: Mapping[str, Camera], config: CalibrateConfig
) -> str:
    """How far the poses are from the true ones where it is too far; empty if not."""
    share = errors["centre_error_m"] / max(mean_distance(list(true.values())), 1e-12)
    angle_deg = errors["rotation_error_deg"]
    if angle_deg <= config.max_rotation_error_deg and share <= config.max_centre_error:
        return ""
    return (
        f"{angle_deg:.2f} degrees and {100 * share:.3g} % of the mean distance between cameras "
        "from the true ones"
    )


def _too_far(what: str, config: CalibrateConfig) -> UserError:
    return UserError(
        "calibrate",
        what,
        expected=f"at most {config.max_rotation_error_deg:g} degrees "
        f"(calibrate.max_rotation_error_deg) and {100 * config.max_centre_error:g} % "
        "(calibrate.max_centre_error)",
        fix="add cameras between these, raise prepare.height_px, or start from poses with "
        "calibrate.method=perturbed; larger limits accept the poses as they are",
    )


def _without_points(by_time: Mapping[str, Points]) -> Iterator[str]:
    empty = [timestamp for timestamp, (xyz, _) in by_time.items() if not len(xyz)]
    if empty:
        yield f"no points to start training from at {len(empty)} of {len(by_time)} timestamps"


def _points(
    scene: Scene,
    views: Mapping[str, Sequence[View]],
    calibration: Calibration,
    features: sfm.PooledFeatures,
    matches: Mapping[sfm.Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> tuple[dict[str, Points], float | None]:
    """Points of each timestamp with their colours, and their median reprojection error, px."""
    cameras = calibration.sources
    kept = {pair: rows for pair, rows in matches.items() if set(pair) <= set(cameras)}
    near = sfm.near_epipolar(cameras, features, kept, config.max_epipolar_error_px)
    keypoints = {name: features.of[name].keypoints for name in cameras}
    tracks = colmap_pooled.triangulate(
        cameras, keypoints, near, sfm.thresholds(config), frames=features.frame
    )
    _LOGGER.info("%d points of %d timestamps", len(tracks.points), len(scene.timestamps))
    pixels = sfm.pixels_of(tracks, keypoints)
    names = list(cameras)
    frames = np.zeros(len(pixels), np.int64)
    for number, name in enumerate(names):
        own = tracks.camera == number
        frames[own] = features.frame[name][tracks.feature[own]]
    colors = tracks.mean_colors([features.color[name] for name in names])
    _, first = np.unique(tracks.point, return_index=True)
    by_time = {}
    for index, timestamp in enumerate(scene.timestamps):
        chosen = frames[first] == index
        by_time[timestamp] = (tracks.points[chosen], colors[chosen])
    errors = sfm.reprojection_errors_px(list(cameras.values()), tracks, pixels)
    return by_time, float(np.median(errors)) if len(errors) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
