"""Novel views of a scene's target cameras: renders of Gaussians, fixed where there is a fixer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from stages.quality.config import NovelViewsConfig
from stages.run.artefacts import GAUSSIANS
from stages.run.errors import UserError
from stages.run.progress import Progress
from stages.scenes.cameras import Camera, rotation_angle_deg
from stages.scenes.images import Pixels, png_writer
from stages.scenes.novel_views import KINDS, Pose, novel_view_path, write_info
from stages.scenes.poses.calibration import Calibration
from stages.scenes.scene import Scene
from stages.scenes.view import View
from stages.splat.gaussians import Gaussians
from stages.splat.render import align_camera, render

# Renders [H, W, 3] of target views from cameras, to fixed views of the same sizes.
FixViews = Callable[[Sequence[View], Sequence[Camera], Sequence[Pixels]], Sequence[Pixels]]

_ALIGNED_NOTE = (
    "aligned: with the plain Gaussians frozen, each target pose was fitted to its own photograph; "
    "the photograph decides the pose and no pixel, and all methods share the pose"
)


@dataclass(frozen=True, eq=False)
class TargetRenderer:
    """Renders the target views of a scene."""

    scene: Scene
    calibration: Calibration
    config: NovelViewsConfig
    backend: str
    # cam_from_world [4, 4] of aligned target cameras by timestamp and name; None fits them here.
    aligned: Mapping[str, Mapping[str, Pose]] | None = None

    def render(
        self,
        folder: Path,
        method: str,
        gaussians_of: Callable[[str], Gaussians],
        fix: FixViews | None = None,
    ) -> dict[str, Any]:
        """Render every target view into `folder`; return the contents of novel_views.json.

        Args:
            folder: of the method's novel views.
            method: its name.
            gaussians_of: gives the Gaussians of a timestamp.
            fix: fixes the renders; None leaves them as they are.

        Raises UserError when a target camera is not calibrated or Gaussians are missing.
        """

        def write(timestamp: str) -> dict[str, Any]:
            return self._write(folder, timestamp, gaussians_of(timestamp), fix)

        moves: dict[str, dict[str, Any]] = {}
        views, timestamps = self.scene.views("target"), self.scene.timestamps
        with (
            Progress(f"{self.scene.name}: novel views by {method}", len(timestamps)) as progress,
            ThreadPoolExecutor(
                1 if self.backend == "cuda" else self.config.runtime.workers
            ) as pool,
        ):
            for timestamp, moved in zip(timestamps, pool.map(write, timestamps), strict=True):
                moves[timestamp] = moved
                progress.report(len(moves))
        info: dict[str, Any] = {"scene": self.scene.name, "method": method, "views": len(views)}
        info["kinds"] = list(KINDS) if self.config.align else ["given"]
        if self.config.align:
            info |= {"note": _ALIGNED_NOTE, "moves": moves}
        write_info(folder, info)
        return info

    def _write(
        self, folder: Path, timestamp: str, gaussians: Gaussians, fix: FixViews | None
    ) -> dict[str, Any]:
        """Write the novel views of a timestamp; return the moves of aligned cameras by name."""
        renders = list(self._renders(timestamp, gaussians))
        images = [item.image for item in renders]
        if fix is not None:
            views, cameras = zip(*((item.view, item.camera) for item in renders), strict=True)
            images = fix(views, cameras, images)
        with png_writer() as write:
            for item, image in zip(renders, images, strict=True):
                write(novel_view_path(folder, item.kind, item.view), image)
        return {item.view.name: item.move for item in renders if item.move}

    def _renders(self, timestamp: str, gaussians: Gaussians) -> Iterator["_Render"]:
        """All renders of a timestamp."""
        for view in self.scene.views("target", timestamp):
            camera = self._camera(view)
            yield _Render(view, "given", camera, {}, _image(gaussians, camera, self.backend))
            if self.config.align:
                aligned = self._aligned(gaussians, camera, view)
                image = _image(gaussians, aligned, self.backend)
                yield _Render(view, "aligned", aligned, _move(camera, aligned), image)

    def _camera(self, view: View) -> Camera:
        """The target camera in the estimated frame, that of the Gaussians."""
        targets = self.calibration.targets
        if view.name not in targets:
            raise UserError(
                self.calibration.folder,
                f"no target camera {view.name}",
                expected=f"{view.name} among {', '.join(targets)}",
                fix="run `dvc repro calibrate`",
            )
        return targets[view.name]

    def _aligned(self, gaussians: Gaussians, camera: Camera, view: View) -> Camera:
        if self.aligned is not None:
            return camera.moved(self.aligned[view.timestamp][view.name])
        image, valid = view.image()
        steps, lr = self.config.align_steps, self.config.align_lr
        return align_camera(
            gaussians,
            camera,
            torch.from_numpy(image),
            self.backend,
            steps=steps,
            lr=lr,
            mask=None if valid is None else torch.from_numpy(valid),
        )


class _Render(NamedTuple):
    """One render: how alignment moved its camera, and the image [H, W, 3]."""

    view: View
    kind: str
    camera: Camera
    move: dict[str, Any]
    image: Pixels


def load_gaussians(splats: Path, timestamp: str, backend: str) -> Gaussians:
    """The Gaussians of a timestamp, as stage `train` wrote them."""
    device = "cuda" if backend == "cuda" else "cpu"
    return Gaussians.load(splats / timestamp / GAUSSIANS, device)


def _image(gaussians: Gaussians, camera: Camera, backend: str) -> Pixels:
    return render(gaussians, camera, backend).rgb.cpu().numpy()


def _move(before: Camera, after: Camera) -> dict[str, Any]:
    """How far alignment moved a camera, in degrees and units of the estimated frame, and its pose.

    Other methods are rendered from that pose.
    """
    angle = rotation_angle_deg(before.cam_from_world[:3, :3], after.cam_from_world[:3, :3])
    distance = float(np.linalg.norm(before.centre - after.centre))
    return {
        "rotation_deg": round(angle, 4),
        "centre": round(distance, 6),
        "cam_from_world": after.cam_from_world.tolist(),
    }
