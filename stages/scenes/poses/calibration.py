"""Calibrated cameras of a scene on disk, in the estimated frame of the calibration.

calibration.json (method, est_from_true, sources, targets) and COLMAP models: `frames/<t>/sparse/0`
holds the source cameras and the points of a timestamp, `targets/sparse/0` the target cameras,
transferred from the true frame by the similarity that the source cameras define. `pose_covariance`
is that of the source cameras' errors after their best similarity, along each camera's own axes: the
rotation vector from the estimated to the true rotation of cam_from_world, radians, then the centre,
in units of the estimated frame. Poses that were not estimated have none.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.run.files import read_json, shaped
from stages.scenes.cameras import Array, Camera, rotation_angle_deg
from stages.scenes.colmap import read_model, write_model
from stages.scenes.frames import Sim3, fit_sim3_from_cameras
from stages.scenes.scene import camera_to_dict, cameras_from_dict

Points = tuple[Array, NDArray[np.uint8]]


@dataclass(frozen=True, eq=False)
class Calibration:
    """Estimated cameras by name, and the similarity between the true and the estimated frame."""

    method: str
    est_from_true: Sim3
    sources: dict[str, Camera]
    targets: dict[str, Camera]
    folder: Path | None = None
    pose_covariance: Mapping[str, Array] = field(default_factory=dict)  # [6, 6], of the sources

    def centres(self) -> list[Array]:
        """Positions [3] of all cameras."""
        return [
            camera.centre for group in (self.sources, self.targets) for camera in group.values()
        ]

    def moved(self, frame: Sim3) -> "Calibration":
        """The cameras moved by `frame`, a similarity from the estimated frame; files stay."""
        sources, targets = (
            {name: frame.apply_camera(camera) for name, camera in group.items()}
            for group in (self.sources, self.targets)
        )
        size = np.repeat([1.0, frame.scale], 3)
        return replace(
            self,
            est_from_true=frame.compose(self.est_from_true),
            sources=sources,
            targets=targets,
            pose_covariance={
                name: covariance * np.outer(size, size)
                for name, covariance in self.pose_covariance.items()
            },
        )

    def points(self, timestamp: str) -> Points:
        """Points [P, 3] and colours [P, 3] of a timestamp."""
        assert self.folder is not None, "points are read from a calibration on disk"
        model = read_model(self.folder / "frames" / timestamp / "sparse" / "0")
        return model.points, model.colors


def transfer_targets(
    method: str,
    estimated: Mapping[str, Camera],
    true_sources: Mapping[str, Camera],
    true_targets: Mapping[str, Camera],
) -> tuple[Calibration, dict[str, float]]:
    """Transfer the true target cameras to the estimated frame; return the pose errors as well.

    Errors are in the true frame: rotation_error_deg, centre_error_m and focal_error_percent, each
    a mean over the source cameras, and sim3_residual, the similarity's residual as a share of the
    cameras' spread.
    """
    names = [name for name in true_sources if name in estimated]
    true = [true_sources[name] for name in names]
    est = [estimated[name] for name in names]
    est_from_true, residual = fit_sim3_from_cameras(true, est)
    true_from_est = est_from_true.inverse()
    est_in_true = [true_from_est.apply_camera(camera) for camera in est]
    errors = {
        "rotation_error_deg": _mean(
            rotation_angle_deg(a.cam_from_world[:3, :3], b.cam_from_world[:3, :3])
            for a, b in zip(est_in_true, true, strict=True)
        ),
        "centre_error_m": _mean(
            np.linalg.norm(a.centre - b.centre) for a, b in zip(est_in_true, true, strict=True)
        ),
        "focal_error_percent": _mean(
            100 * abs(a.K[0, 0] / b.K[0, 0] - 1) for a, b in zip(est_in_true, true, strict=True)
        ),
        "sim3_residual": residual["centre_rmse_relative"],
    }
    targets = {name: est_from_true.apply_camera(camera) for name, camera in true_targets.items()}
    sources = {name: estimated[name] for name in names}
    return Calibration(method, est_from_true, sources, targets), errors


def write_calibration(folder: Path, calibration: Calibration, points: Mapping[str, Points]) -> None:
    """Write a calibration; `points` are by timestamp."""
    sources, targets = (_as_images(group) for group in (calibration.sources, calibration.targets))
    for timestamp, (xyz, colors) in points.items():
        write_model(folder / "frames" / timestamp / "sparse" / "0", sources, xyz, colors)
    write_model(folder / "targets" / "sparse" / "0", targets)
    info = {
        "method": calibration.method,
        "est_from_true": calibration.est_from_true.to_dict(),
        "sources": {name: camera_to_dict(camera) for name, camera in calibration.sources.items()},
        "targets": {name: camera_to_dict(camera) for name, camera in calibration.targets.items()},
    }
    if calibration.pose_covariance:
        info["pose_covariance"] = {
            name: calibration.pose_covariance[name].tolist() for name in calibration.sources
        }
    (folder / "calibration.json").write_text(json.dumps(info, indent=2) + "\n")


def read_calibration(folder: Path) -> Calibration:
    """Read a calibration. Raises UserError when it is missing or damaged."""
    path = folder / "calibration.json"
    info, expected = read_json(path), "method, est_from_true, sources and targets"
    with shaped(path, expected, "run `dvc repro calibrate`"):
        groups = [cameras_from_dict(info[kind]) for kind in ("sources", "targets")]
        if not isinstance(info["method"], str):
            raise TypeError("method is not a text")
        covariance = _pose_covariance(info.get("pose_covariance"), groups[0])
        est_from_true = Sim3.from_dict(info["est_from_true"])
        return Calibration(info["method"], est_from_true, *groups, folder, covariance)


def _pose_covariance(value: Any, sources: Mapping[str, Camera]) -> dict[str, Array]:
    if value is None:
        return {}
    found = {name: np.array(value[name], np.float64) for name in sources}
    for name, covariance in found.items():
        if covariance.shape != (6, 6) or not np.isfinite(covariance).all():
            raise ValueError(f"pose_covariance of camera {name} is not a matrix of 6")
        least = np.linalg.eigvalsh(covariance + covariance.T).min()
        if not np.allclose(covariance, covariance.T) or least < -1e-9 * np.trace(covariance):
            raise ValueError(f"pose_covariance of camera {name} is not a covariance")
    return found


def _as_images(cameras: Mapping[str, Camera]) -> dict[str, Camera]:
    return {f"{name}.png": replace(camera, name=f"{name}.png") for name, camera in cameras.items()}


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]
