"""Calibrates a prepared scene by the method that params name, from source photographs alone."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.run.process.memory import require_for
from stages.scenes.cameras import Camera
from stages.scenes.config import CalibrateConfig
from stages.scenes.frames import recentring
from stages.scenes.images import Pixels
from stages.scenes.poses import sfm
from stages.scenes.poses.calibration import transfer_targets, write_calibration
from stages.scenes.scene import Scene

# Approximate pinhole cameras by name, from one photograph [H, W, 3] of each.
Predict = Callable[[Mapping[str, Pixels]], Mapping[str, Camera]]


def calibrate(
    scene: Scene, config: CalibrateConfig, folder: Path, predict: Predict | None = None
) -> dict[str, Any]:
    """Write the calibration into `folder`; return its metrics, scalars by name.

    Method vggt needs `predict`, whose poses bundle adjustment then refines.
    """
    true_sources, true_targets = scene.cameras("source"), scene.cameras("target")
    held = [(one.width, one.height) for one in true_sources.values() for _ in scene.timestamps]
    require_for(
        held, 1, "prepare.height_px",
        f"lower it, or take fewer timestamps (scenes.{scene.name}.timestamps)",
    )  # fmt: skip
    started, near = true_sources, recentring([one.centre for one in true_sources.values()])
    if near is not None:  # coordinates of a map leave an adjustment no digits
        started = {name: near.apply_camera(camera) for name, camera in true_sources.items()}
    shots = {
        name: [_photograph(scene, name, timestamp) for timestamp in scene.timestamps]
        for name in true_sources
    }
    photographs = sfm.detect(shots, config)
    matches = sfm.match(photographs, config)
    if config.method == "vggt":
        assert predict is not None, "method vggt needs something that predicts poses"
        predicted = dict(predict({name: one[0] for name, one in shots.items()}))
        estimate = sfm.refine(predicted, photographs, matches, config)
    else:
        estimate = _estimate(started, photographs, matches, config)
    calibration, errors = transfer_targets(
        config.method, estimate.cameras, true_sources, true_targets
    )
    kept = {pair: found for pair, found in matches.items() if set(pair) <= set(estimate.cameras)}
    kept = sfm.near_epipolar(estimate.cameras, photographs, kept, config.max_epipolar_error_px)
    tracks, points = sfm.triangulate(
        estimate.cameras, photographs, kept, config, config.max_reprojection_error_px
    )
    by_time = {
        timestamp: sfm.points_of_frame(index, tracks, points, photographs)
        for index, timestamp in enumerate(scene.timestamps)
    }
    write_calibration(folder, calibration, by_time)
    return {
        "method": config.method,
        "refined": estimate.refined,
        "registered": len(estimate.cameras),
        "total": len(true_sources),
        "points": float(np.mean([len(xyz) for xyz, _ in by_time.values()])),
        "reprojection_error_px": _rounded(estimate.reprojection_error_px),
        **{name: _rounded(value) for name, value in errors.items()},
        "note": estimate.note,
    }


def _estimate(
    cameras: dict[str, Any], photographs: sfm.PooledFeatures, matches: dict, config: CalibrateConfig
) -> sfm.Estimate:
    if config.method == "given":
        return sfm.Estimate(dict(cameras), None, False)
    if config.method == "perturbed":
        return sfm.refine(sfm.perturb(cameras, config), photographs, matches, config)
    with tempfile.TemporaryDirectory() as scratch:
        return sfm.reconstruct(cameras, photographs, matches, config, Path(scratch))


def _photograph(scene: Scene, camera: str, timestamp: str) -> Any:
    views = scene.views("source", timestamp)
    return next(view for view in views if view.name == camera).image()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
