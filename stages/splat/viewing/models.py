"""A scene's Gaussians by method and timestamp with its cameras: what a page or a film shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.scenes.cameras import Camera
from stages.scenes.frames import Sim3, recentring
from stages.scenes.poses.calibration import Calibration, read_calibration
from stages.scenes.poses.camera_paths import focus_and_up, orbit, upright_rotation
from stages.splat.export import write_ply
from stages.splat.gaussians import Gaussians
from stages.splat.render import Rendering, render
from stages.splat.viewing.scene_folders import SceneFolders
from stages.splat.viewing.spz import write_spz
from stages.splat.viewing.video import Levels, film_camera, side_by_side

_WRITERS = {"ply": write_ply, "spz": write_spz}


@dataclass(frozen=True, eq=False)
class SceneModels:
    """Gaussians and cameras, all in one frame: that of the calibration, or one near its origin."""

    methods: tuple[str, ...]
    timestamps: tuple[str, ...]
    gaussians: Mapping[tuple[str, str], Gaussians]  # by method and timestamp
    calibration: Calibration

    @classmethod
    def read(cls, folders: SceneFolders, timestamps: Sequence[str]) -> "SceneModels":
        """Read the methods that have Gaussians of their own: the plain splat and distilled ones."""
        methods = folders.with_gaussians()
        gaussians = {
            (method, timestamp): Gaussians.load(folders.gaussians(method, timestamp))
            for method in methods
            for timestamp in timestamps
        }
        calibration = read_calibration(folders.calibrated)
        near_from_est = recentring(calibration.centres())
        if near_from_est is not None:
            gaussians = {key: one.moved(near_from_est) for key, one in gaussians.items()}
            calibration = calibration.moved(near_from_est)
        return cls(methods, tuple(timestamps), gaussians, calibration)

    def cameras(self) -> dict[str, dict[str, Camera]]:
        """Cameras by role and name: estimated sources, and targets carried into their frame."""
        return {"source": self.calibration.sources, "target": self.calibration.targets}

    def films(self, count: int, max_side_px: int, backend: str) -> dict[str, list[Levels]]:
        """`count` frames of every method along the source cameras, the timestamps in order.

        `orbit_<method>` for each and, of several, `side_by_side`.
        """
        path = orbit(list(self.calibration.sources.values()), count)
        device = "cuda" if backend == "cuda" else "cpu"
        gaussians = {key: one.to(device) for key, one in self.gaussians.items()}
        films: dict[str, list[Levels]] = {}
        for index, camera in enumerate(path):
            timestamp = self.timestamps[index * len(self.timestamps) // count]
            small = film_camera(camera, max_side_px)
            frames = {
                method: _levels(render(gaussians[method, timestamp], small, backend))
                for method in self.methods
            }
            for method, frame in frames.items():
                films.setdefault(f"orbit_{method}", []).append(frame)
            if len(frames) > 1:
                films.setdefault("side_by_side", []).append(side_by_side(frames))
        return films

    def export(self, folder: Path, kinds: Sequence[str]) -> None:
        """Write every model for other viewers: upright, its middle at the origin."""
        upright_from_est = self._upright_from_est()
        for (method, timestamp), gaussians in self.gaussians.items():
            for kind in kinds:
                path = folder / f"{method}_{timestamp}.{kind}"
                _WRITERS[kind](path, gaussians.moved(upright_from_est))

    def _upright_from_est(self) -> Sim3:
        true_from_est = self.calibration.est_from_true.inverse()
        cameras = [true_from_est.apply_camera(one) for one in self.calibration.sources.values()]
        rotation = Sim3(1.0, upright_rotation(cameras), np.zeros(3))
        focus, _ = focus_and_up(cameras)
        translation = Sim3(1.0, np.eye(3), -rotation.apply(focus))
        return translation.compose(rotation).compose(true_from_est)


def _levels(rendering: Rendering) -> Levels:
    return (rendering.rgb * 255).round().to(torch.uint8).cpu().numpy()
