"""What the live viewer shows of a scene: Gaussians by method and timestamp, cameras and images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from stages.run.errors import UserError
from stages.run.files import read_table
from stages.scenes.cameras import Array, Camera
from stages.scenes.frames import recentring
from stages.scenes.images import Pixels
from stages.scenes.novel_views import read_novel_view
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.scenes.view import View
from stages.splat.export import in_world
from stages.splat.gaussians import Gaussians
from stages.splat.rotations import rotations_from_quats
from stages.splat.viewing.scene_folders import SceneFolders

_SH_C0 = 0.28209479177387814  # of the spherical harmonic of degree 0


@dataclass(frozen=True, eq=False)
class Cloud:
    """Gaussians as the viewer renders them: without view-dependent colour."""

    centers: Array  # [N, 3], in the world of the cameras
    covariances: Array  # [N, 3, 3]
    rgbs: Array  # [N, 3] in [0, 1]
    opacities: Array  # [N, 1]


@dataclass(frozen=True, eq=False)
class Frustum:
    """A camera with its image and, for a held-out one, the PSNR of its render."""

    camera: Camera
    role: str
    image: Pixels
    psnr_db: float | None = None


class LiveScene:
    """A trained scene with every method whose novel views exist."""

    def __init__(self, folders: SceneFolders):
        """Open a scene. Raises UserError when it is not prepared or calibrated, or has no views."""
        self.folders = folders
        self.scene = Scene.read(folders.scene)
        calibration = read_calibration(folders.calibrated)
        # A viewer holds float32, and renders nothing nearer than its own near plane.
        self.near_from_est = recentring(calibration.centres())
        is_near = self.near_from_est is None
        self.calibration = calibration if is_near else calibration.moved(self.near_from_est)
        self.methods = [name for name, folder in folders.novel_views.items() if folder.is_dir()]
        if not self.methods:
            raise UserError(
                next(iter(folders.novel_views.values())),
                "no novel views",
                fix=f"run `dvc repro novel_views@{self.scene.name}`",
            )

    @property
    def timestamps(self) -> list[str]:
        """Timestamps in order."""
        return self.scene.timestamps

    @lru_cache(maxsize=8)  # noqa: B019 - the scene lives as long as the server
    def cloud(self, method: str, timestamp: str) -> Cloud:
        """The Gaussians that a method renders: distilled ones, or the plain splat's."""
        gaussians = Gaussians.load(self.folders.gaussians(method, timestamp))
        near = self.near_from_est
        return as_cloud(gaussians if near is None else gaussians.moved(near))

    def frusta(self, method: str, timestamp: str) -> list[Frustum]:
        """Source cameras with their images, and target cameras with the method's novel views."""
        psnr = self._psnr(method)
        frusta = []
        for view in self.scene.views(timestamp=timestamp):
            camera = self._camera(view)
            if camera is None:
                continue
            if view.role == "source":
                frusta.append(Frustum(camera, view.role, view.pixels()))
            else:
                image = read_novel_view(self.folders.novel_views[method], "given", view)
                psnr_db = psnr.get((timestamp, view.name))
                frusta.append(Frustum(camera, view.role, image, psnr_db))
        return frusta

    def _camera(self, view: View) -> Camera | None:
        of_role = "sources" if view.role == "source" else "targets"
        return getattr(self.calibration, of_role).get(view.name)

    def _psnr(self, method: str) -> dict[tuple[str, str], float | None]:
        """PSNR by timestamp and camera; empty before stage `evaluate`."""
        path = self.folders.view_metrics.get(method)
        rows = read_table(path, {"timestamp", "camera"}) if path and path.is_file() else []
        return {(row["timestamp"], row["camera"]): row["psnr"] for row in rows}


def as_cloud(gaussians: Gaussians) -> Cloud:
    """Gaussians in world coordinates, as ellipsoids of one colour; non-finite ones are left out."""
    world = in_world(gaussians)
    rotations = rotations_from_quats(world.quats.double())
    variances = torch.diag_embed(torch.exp(2 * world.log_scales.double()))
    covariances = rotations @ variances @ rotations.transpose(1, 2)
    colors = (0.5 + _SH_C0 * world.sh0[:, 0]).clamp(0, 1)
    opacities = torch.sigmoid(world.opacity_logits)[:, None]
    parts = [part.numpy() for part in (world.means, covariances, colors, opacities)]
    finite = np.all([np.isfinite(part).reshape(len(world), -1).all(1) for part in parts], axis=0)
    return Cloud(*(part[finite] for part in parts))


def nearest(frusta: Sequence[Frustum], position: Array, direction: Array) -> Frustum | None:
    """The held-out camera nearest to `position` [3] that faces `direction` [3], or None."""
    held_out = [frustum for frustum in frusta if frustum.role == "target"]
    alike = [one for one in held_out if one.camera.cam_from_world[2, :3] @ direction > 0]
    return min(alike, key=lambda one: np.linalg.norm(one.camera.centre - position), default=None)
