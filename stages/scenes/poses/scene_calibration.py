"""Calibration of a prepared scene from its source images, by the method in params."""

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

# Approximate pinhole cameras by name, from one image [H, W, 3] of each.
Predict = Callable[[Mapping[str, Pixels]], Mapping[str, Camera]]


def calibrate(
    scene: Scene, config: CalibrateConfig, folder: Path, predict: Predict | None = None
) -> dict[str, Any]:
    """Write the calibration into `folder`; return its metrics, scalars by name.

    Method vggt needs `predict`, whose poses are then refined by bundle adjustment.
    """
    true_sources, true_targets = scene.cameras("source"), scene.cameras("target")
    sizes = [
        (camera.width, camera.height) for camera in true_sources.values() for _ in scene.timestamps
    ]
    require_for(
        sizes,
        1,
        "prepare.height_px",
        f"lower it, or take fewer timestamps (scenes.{scene.name}.timestamps)",
    )
    initial, near = true_sources, recentring([camera.centre for camera in true_sources.values()])
    if near is not None:  # map coordinates leave an adjustment no digits
        initial = {name: near.apply_camera(camera) for name, camera in true_sources.items()}
    images = {
        name: [_image(scene, name, timestamp) for timestamp in scene.timestamps]
        for name in true_sources
    }
    features = sfm.detect(images, config)
    matches = sfm.match(features, config)
    if config.method == "vggt":
        assert predict is not None, "method vggt needs a predictor of poses"
        predicted = dict(predict({name: frames[0] for name, frames in images.items()}))
        estimate = sfm.refine(predicted, features, matches, config)
    else:
        estimate = _estimate(initial, features, matches, config)
    calibration, errors = transfer_targets(
        config.method, estimate.cameras, true_sources, true_targets
    )
    kept = {pair: rows for pair, rows in matches.items() if set(pair) <= set(estimate.cameras)}
    kept = sfm.near_epipolar(estimate.cameras, features, kept, config.max_epipolar_error_px)
    tracks, points = sfm.triangulate(
        estimate.cameras, features, kept, config, config.max_reprojection_error_px
    )
    by_time = {
        timestamp: sfm.points_of_frame(index, tracks, points, features)
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
    cameras: dict[str, Any], features: sfm.PooledFeatures, matches: dict, config: CalibrateConfig
) -> sfm.Estimate:
    if config.method == "given":
        return sfm.Estimate(dict(cameras), None, False)
    if config.method == "perturbed":
        return sfm.refine(sfm.perturb(cameras, config), features, matches, config)
    with tempfile.TemporaryDirectory() as scratch:
        return sfm.reconstruct(cameras, features, matches, config, Path(scratch))


def _image(scene: Scene, camera: str, timestamp: str) -> Any:
    views = scene.views("source", timestamp)
    return next(view for view in views if view.name == camera).pixels()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
