"""What there is to show of a scene: Gaussians by method and time, cameras, pictures, numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from stages.run import layout
from stages.run.artefacts import GAUSSIANS
from stages.run.errors import UserError
from stages.run.files import read_table
from stages.scenes.cameras import Array, Camera
from stages.scenes.frames import recentring
from stages.scenes.images import Pixels
from stages.scenes.novel_views import read_novel_view
from stages.scenes.poses.calibration import Calibration, read_calibration
from stages.scenes.scene import Scene
from stages.scenes.view import View
from stages.splat.export import in_world
from stages.splat.gaussians import Gaussians

_BAND_0 = 0.28209479177387814  # of the harmonics


@dataclass(frozen=True, eq=False)
class Cloud:
    """Gaussians as a viewer draws them: without what depends on the direction of view."""

    centers: Array  # [N, 3], in the world of the cameras
    covariances: Array  # [N, 3, 3]
    rgbs: Array  # [N, 3] in [0, 1]
    opacities: Array  # [N, 1]


@dataclass(frozen=True, eq=False)
class Shot:
    """A camera with what belongs beside it: its picture and, for a held-out one, its PSNR."""

    camera: Camera
    role: str
    picture: Pixels
    psnr_db: float | None = None


class LiveScene:
    """A scene whose Gaussians are trained, by every method that was drawn."""

    def __init__(self, scene: Scene, calibration: Calibration, methods: Sequence[str]):
        # A viewer holds float32, and draws nothing nearer than its own least depth.
        self.near = recentring(calibration.centres())
        self.scene = scene
        self.calibration = calibration if self.near is None else calibration.moved(self.near)
        self.methods = [method for method in methods if _folder(scene, method).is_dir()]
        if not self.methods:
            raise UserError(
                layout.novel_views(scene.name, "none"), "no novel views",
                fix=f"run `dvc repro novel_views@{scene.name}`",
            )  # fmt: skip

    @classmethod
    def read(cls, name: str, methods: Sequence[str]) -> "LiveScene":
        """Open a scene. Raises UserError when it is not prepared, calibrated or drawn."""
        scene = Scene.read(layout.scene(name))
        return cls(scene, read_calibration(layout.calibrated(name)), methods)

    @property
    def timestamps(self) -> list[str]:
        """Timestamps in order."""
        return self.scene.timestamps

    @lru_cache(maxsize=8)  # noqa: B019 - one lives as long as the server
    def cloud(self, method: str, timestamp: str) -> Cloud:
        """The Gaussians that a method draws from: distilled ones, or the plain splat's."""
        distilled = _folder(self.scene, method) / "gaussians" / f"{timestamp}.safetensors"
        plain = layout.splats(self.scene.name) / timestamp / GAUSSIANS
        gaussians = Gaussians.load(distilled if distilled.is_file() else plain)
        return as_cloud(gaussians if self.near is None else gaussians.moved(self.near))

    def shots(self, method: str, timestamp: str) -> list[Shot]:
        """Source cameras with photographs, and targets with what a method shows in their place."""
        psnr = self._psnr(method)
        shots = []
        for view in self.scene.views(timestamp=timestamp):
            camera = self._camera(view)
            if camera is None:
                continue
            if view.role == "source":
                shots.append(Shot(camera, view.role, view.pixels()))
            else:
                picture = read_novel_view(_folder(self.scene, method), "given", view)
                found = psnr.get((timestamp, view.name))
                shots.append(Shot(camera, view.role, picture, found))
        return shots

    def _camera(self, view: View) -> Camera | None:
        of_role = "sources" if view.role == "source" else "targets"
        return getattr(self.calibration, of_role).get(view.name)

    def _psnr(self, method: str) -> dict[tuple[str, str], float | None]:
        """PSNR by timestamp and camera; empty before stage `evaluate`."""
        path = layout.view_metrics(self.scene.name, method)
        rows = read_table(path, {"timestamp", "camera"}) if path.is_file() else []
        return {(row["timestamp"], row["camera"]): row["psnr"] for row in rows}


def as_cloud(gaussians: Gaussians) -> Cloud:
    """Gaussians in world coordinates, as ellipsoids of one colour; broken ones are left out."""
    world = in_world(gaussians)
    turns = _rotations(world.quats.double())
    sizes = torch.diag_embed(torch.exp(2 * world.log_scales.double()))
    covariances = turns @ sizes @ turns.transpose(1, 2)
    colors = (0.5 + _BAND_0 * world.sh0[:, 0]).clamp(0, 1)
    opacities = torch.sigmoid(world.opacity_logits)[:, None]
    parts = [one.numpy() for one in (world.means, covariances, colors, opacities)]
    whole = np.all([np.isfinite(one).reshape(len(world), -1).all(1) for one in parts], axis=0)
    return Cloud(*(one[whole] for one in parts))


def nearest(shots: Sequence[Shot], position: Array, looking: Array) -> Shot | None:
    """The held-out camera nearest to a place [3], of those that look the same way, if any does."""
    held_out = [shot for shot in shots if shot.role == "target"]
    alike = [shot for shot in held_out if shot.camera.cam_from_world[2, :3] @ looking > 0]
    return min(alike, key=lambda shot: np.linalg.norm(shot.camera.centre - position), default=None)


def _folder(scene: Scene, method: str) -> Path:
    return layout.novel_views(scene.name, method)


def _rotations(quats: torch.Tensor) -> torch.Tensor:
    """Rotations [N, 3, 3] of quaternions [N, 4] wxyz of any length."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=-1).unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).reshape(-1, 3, 3)
