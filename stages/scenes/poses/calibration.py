"""Calibrated cameras of a scene on disk, in the frame that the calibration lives in.

calibration.json (method, est_from_true, sources, targets) and COLMAP models: `frames/<t>/sparse/0`
holds the source cameras and the points of a timestamp, `targets/sparse/0` the target cameras,
carried in from the true frame by the similarity that the source cameras define.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

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
    """Estimated cameras by name, and how the estimated frame lies in the true one."""

    method: str
    est_from_true: Sim3
    sources: dict[str, Camera]
    targets: dict[str, Camera]
    folder: Path | None = None

    def centres(self) -> list[Array]:
        """Positions [3] of all cameras."""
        return [
            camera.centre for group in (self.sources, self.targets) for camera in group.values()
        ]

    def moved(self, frame: Sim3) -> "Calibration":
        """The same cameras in a frame that `frame` leads to; on disk all stays."""
        sources, targets = (
            {name: frame.apply_camera(camera) for name, camera in group.items()}
            for group in (self.sources, self.targets)
        )
        carried = frame.compose(self.est_from_true)
        return replace(self, est_from_true=carried, sources=sources, targets=targets)

    def points(self, timestamp: str) -> Points:
        """Points [P, 3] and colours [P, 3] triangulated at a timestamp."""
        assert self.folder is not None, "points are read from a calibration on disk"
        model = read_model(self.folder / "frames" / timestamp / "sparse" / "0")
        return model.points, model.colors


def transfer_targets(
    method: str,
    estimated: Mapping[str, Camera],
    true_sources: Mapping[str, Camera],
    true_targets: Mapping[str, Camera],
) -> tuple[Calibration, dict[str, float]]:
    """Bring the true target cameras into the estimated frame; return also the pose errors.

    Errors are in the true frame: rotation_error_deg, centre_error_m and focal_error_percent, each
    a mean over the source cameras, and sim3_residual, the share of the cameras' spread that the
    similarity leaves.
    """
    names = [name for name in true_sources if name in estimated]
    true = [true_sources[name] for name in names]
    found = [estimated[name] for name in names]
    est_from_true, residual = fit_sim3_from_cameras(true, found)
    true_from_est = est_from_true.inverse()
    back = [true_from_est.apply_camera(camera) for camera in found]
    errors = {
        "rotation_error_deg": _mean(
            rotation_angle_deg(a.cam_from_world[:3, :3], b.cam_from_world[:3, :3])
            for a, b in zip(back, true, strict=True)
        ),
        "centre_error_m": _mean(
            np.linalg.norm(a.centre - b.centre) for a, b in zip(back, true, strict=True)
        ),
        "focal_error_percent": _mean(
            100 * abs(a.K[0, 0] / b.K[0, 0] - 1) for a, b in zip(back, true, strict=True)
        ),
        "sim3_residual": residual["centre_rmse_relative"],
    }
    targets = {name: est_from_true.apply_camera(camera) for name, camera in true_targets.items()}
    sources = {name: estimated[name] for name in names}
    return Calibration(method, est_from_true, sources, targets), errors


def write_calibration(folder: Path, calibration: Calibration, points: Mapping[str, Points]) -> None:
    """Write a calibration; `points` by timestamp."""
    sources, targets = (_as_images(group) for group in (calibration.sources, calibration.targets))
    for timestamp, (xyz, colors) in points.items():
        write_model(folder / "frames" / timestamp / "sparse" / "0", sources, xyz, colors)
    write_model(folder / "targets" / "sparse" / "0", targets)
    info = {
        "method": calibration.method,
        "est_from_true": calibration.est_from_true.to_dict(),
        "sources": {name: camera_to_dict(one) for name, one in calibration.sources.items()},
        "targets": {name: camera_to_dict(one) for name, one in calibration.targets.items()},
    }
    (folder / "calibration.json").write_text(json.dumps(info, indent=2) + "\n")


def read_calibration(folder: Path) -> Calibration:
    """Open a calibration. Raises UserError when it is missing or broken."""
    path = folder / "calibration.json"
    info, expected = read_json(path), "method, est_from_true, sources and targets"
    with shaped(path, expected, "run `dvc repro calibrate`"):
        groups = [cameras_from_dict(info[kind]) for kind in ("sources", "targets")]
        if not isinstance(info["method"], str):
            raise TypeError("method is no text")
        return Calibration(info["method"], Sim3.from_dict(info["est_from_true"]), *groups, folder)


def _as_images(cameras: Mapping[str, Camera]) -> dict[str, Camera]:
    return {f"{name}.png": replace(camera, name=f"{name}.png") for name, camera in cameras.items()}


def _mean(values: object) -> float:
    return float(np.mean(list(values)))  # type: ignore[call-overload]
