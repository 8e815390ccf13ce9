"""A scene's Gaussians by method and timestamp with its cameras: what a page or a film shows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.scenes.cameras import Camera
from stages.scenes.formats.video import Levels
from stages.scenes.frames import Sim3, recentring
from stages.scenes.novel_views import novel_view_path
from stages.scenes.poses.calibration import Calibration, read_calibration
from stages.scenes.poses.camera_paths import focus_and_up, orbit, upright_rotation
from stages.scenes.scene import Scene
from stages.splat.export import write_ply
from stages.splat.gaussians import Gaussians
from stages.splat.render import Rendering, render
from stages.splat.viewing.packing import pack
from stages.splat.viewing.recording import Recording, write_recording
from stages.splat.viewing.scene_folders import SceneFolders
from stages.splat.viewing.spz import write_spz
from stages.splat.viewing.video import film_camera, side_by_side

_WRITERS = {"ply": write_ply, "spz": write_spz}
# Below a folder for each method; SuperSplat plays the files of a folder by their numbers.
SEQUENCE, SEQUENCE_FRAME = "ply_sequence", "frame{:04d}.ply"


# Cameras of the frames of a film, and their timestamps.
FilmPath = Sequence[tuple[Camera, str]]


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

    def orbit(self, count: int) -> FilmPath:
        """`count` frames along the source cameras, the timestamps in order."""
        path = orbit(list(self.calibration.sources.values()), count)
        times = (self.timestamps[k * len(self.timestamps) // count] for k in range(count))
        return list(zip(path, times, strict=True))

    def films(self, path: FilmPath, max_side_px: int, backend: str) -> dict[str, list[Levels]]:
        """The frames of every method along a path.

        `orbit_<method>` for each and, of several, `side_by_side`.
        """
        device = "cuda" if backend == "cuda" else "cpu"
        gaussians = {key: one.to(device) for key, one in self.gaussians.items()}
        films: dict[str, list[Levels]] = {}
        for camera, timestamp in path:
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

    def packed(self, most: int) -> Iterator[tuple]:
        """Models as the page's viewer takes them, with at most so many Gaussians each.

        Method, timestamp, count, bounds low and high, data, whether antialiased, background.
        """
        for (method, timestamp), gaussians in self.gaussians.items():
            one = pack(gaussians, most)
            background = gaussians.metadata.get("background", [0.0, 0.0, 0.0])
            content = one.count, one.low, one.high, one.data
            yield method, timestamp, *content, gaussians.antialiased, background

    def export(self, folder: Path, kinds: Sequence[str]) -> None:
        """Write every model for other viewers: upright, its middle at the origin.

        `ply` and `spz` are a file per method and timestamp, `ply_sequence` a folder per method.
        """
        upright_from_est = self._upright_from_est()
        for (method, timestamp), gaussians in self.gaussians.items():
            upright = gaussians.moved(upright_from_est)
            for kind in (kind for kind in kinds if kind in _WRITERS):
                _WRITERS[kind](folder / f"{method}_{timestamp}.{kind}", upright)
            if SEQUENCE in kinds:
                number = self.timestamps.index(timestamp) + 1
                write_ply(folder / SEQUENCE / method / SEQUENCE_FRAME.format(number), upright)

    def record(self, path: Path, scene: Scene, folders: SceneFolders) -> None:
        """Write a recording of Gaussians, cameras, images and renders by method over time."""
        upright_from_est = self._upright_from_est()
        cameras = {
            role: {name: upright_from_est.apply_camera(one) for name, one in named.items()}
            for role, named in self.cameras().items()
        }

        def fill(recording: Recording) -> None:
            recording.cameras(cameras)
            for timestamp in self.timestamps:
                recording.at(int(timestamp))
                for method in self.methods:
                    gaussians = self.gaussians[method, timestamp].moved(upright_from_est)
                    recording.splats(method, gaussians)
                for role, named in cameras.items():
                    views = [v for v in scene.views(role, timestamp) if v.name in named]
                    recording.photographs(role, {view.name: view.image_path for view in views})
                for method, folder in folders.novel_views.items():
                    views = scene.views("target", timestamp) if folder.is_dir() else []
                    paths = {v.name: novel_view_path(folder, "given", v) for v in views}
                    recording.renders(method, paths)

        write_recording(path, scene.name, fill)

    def _upright_from_est(self) -> Sim3:
        true_from_est = self.calibration.est_from_true.inverse()
        cameras = [true_from_est.apply_camera(one) for one in self.calibration.sources.values()]
        rotation = Sim3(1.0, upright_rotation(cameras), np.zeros(3))
        focus, _ = focus_and_up(cameras)
        translation = Sim3(1.0, np.eye(3), -rotation.apply(focus))
        return translation.compose(rotation).compose(true_from_est)


def _levels(rendering: Rendering) -> Levels:
    return (rendering.rgb * 255).round().to(torch.uint8).cpu().numpy()
