"""A scene's Gaussians by method and time with its cameras: what a viewer or a film shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.run import layout
from stages.run.artefacts import GAUSSIANS
from stages.run.methods import DISTILL, PLAIN, Method
from stages.scenes.camera_paths import focus_and_up, orbit, upright
from stages.scenes.cameras import Camera
from stages.scenes.frames import Sim3, recentring
from stages.scenes.poses.calibration import Calibration, read_calibration
from stages.splat.export import write_ply
from stages.splat.gaussians import Gaussians
from stages.splat.render import Rendering, render
from stages.splat.viewing.spz import write_spz
from stages.splat.viewing.video import Levels, film_camera, side_by_side

_WRITERS = {"ply": write_ply, "spz": write_spz}


@dataclass(frozen=True, eq=False)
class SceneModels:
    """Gaussians and cameras, all in one frame: that of the calibration, or one near its origin."""

    methods: tuple[str, ...]
    timestamps: tuple[str, ...]
    gaussians: Mapping[tuple[str, str], Gaussians]
    calibration: Calibration

    @classmethod
    def read(cls, scene: str, timestamps: Sequence[str], methods: Sequence[str]) -> "SceneModels":
        """Read those of the methods that have Gaussians: the plain splat's and distilled ones."""
        having = tuple(one for one in methods if one == PLAIN or Method.parse(one).form == DISTILL)
        found = {
            (method, timestamp): Gaussians.load(_place(scene, method, timestamp))
            for method in having
            for timestamp in timestamps
        }
        calibration = read_calibration(layout.calibrated(scene))
        near = recentring(calibration.centres())
        if near is not None:
            found = {key: gaussians.moved(near) for key, gaussians in found.items()}
            calibration = calibration.moved(near)
        return cls(having, tuple(timestamps), found, calibration)

    def cameras(self) -> dict[str, dict[str, Camera]]:
        """Estimated source and carried target cameras."""
        return {"source": self.calibration.sources, "target": self.calibration.targets}

    def films(self, count: int, max_side_px: int, backend: str) -> dict[str, list[Levels]]:
        """Pictures of every method along the source cameras, the timestamps in order.

        `orbit_<method>` for each and, of several, `side_by_side`.
        """
        path = orbit(list(self.calibration.sources.values()), count)
        device = "cuda" if backend == "cuda" else "cpu"
        moved = {key: one.to(device) for key, one in self.gaussians.items()}
        found: dict[str, list[Levels]] = {}
        for place, camera in enumerate(path):
            timestamp = self.timestamps[place * len(self.timestamps) // count]
            small = film_camera(camera, max_side_px)
            pictures = {
                method: _levels(render(moved[method, timestamp], small, backend))
                for method in self.methods
            }
            for method, picture in pictures.items():
                found.setdefault(f"orbit_{method}", []).append(picture)
            if len(pictures) > 1:
                found.setdefault("side_by_side", []).append(side_by_side(pictures))
        return found

    def export(self, folder: Path, kinds: Sequence[str]) -> None:
        """Write every model for other viewers: upright, its middle at the origin."""
        frame = self._upright_from_est()
        for (method, timestamp), gaussians in self.gaussians.items():
            for kind in kinds:
                path = folder / f"{method}_{timestamp}.{kind}"
                _WRITERS[kind](path, gaussians.moved(frame))

    def _upright_from_est(self) -> Sim3:
        true_from_est = self.calibration.est_from_true.inverse()
        cameras = [true_from_est.apply_camera(one) for one in self.calibration.sources.values()]
        turn = Sim3(1.0, upright(cameras), np.zeros(3))
        focus, _ = focus_and_up(cameras)
        moved = Sim3(1.0, np.eye(3), -turn.apply(focus))
        return moved.compose(turn).compose(true_from_est)


def _levels(rendering: Rendering) -> Levels:
    return (rendering.rgb * 255).round().to(torch.uint8).cpu().numpy()


def _place(scene: str, method: str, timestamp: str) -> Path:
    if method == PLAIN:
        return layout.splats(scene) / timestamp / GAUSSIANS
    return layout.novel_views(scene, method) / "gaussians" / f"{timestamp}.safetensors"
