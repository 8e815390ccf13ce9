"""Pictures of a scene's target cameras from Gaussians, as they are or mended by a fixer."""

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
from stages.scenes.images import Pixels
from stages.scenes.novel_views import KINDS, Pose, write_info, write_novel_view
from stages.scenes.poses.calibration import Calibration
from stages.scenes.scene import Scene
from stages.scenes.view import View
from stages.splat.gaussians import Gaussians
from stages.splat.render import align_camera, render

# Pictures [H, W, 3] of target views, to mended ones of the same sizes.
Mend = Callable[[Sequence[View], Sequence[Pixels]], Sequence[Pixels]]

_ALIGNED_NOTE = (
    "aligned: with the plain Gaussians frozen, each target pose was fitted to its own photograph; "
    "the photograph decides the pose and no pixel, and all methods share the pose"
)


@dataclass(frozen=True, eq=False)
class TargetRenderer:
    """The target views of a scene, and how they are drawn."""

    scene: Scene
    calibration: Calibration
    config: NovelViewsConfig
    backend: str
    # cam_from_world [4, 4] of aligned target cameras by timestamp and name; fitted here without.
    aligned: Mapping[str, Mapping[str, Pose]] | None = None

    def draw(
        self, folder: Path, method: str, gaussians_of: Callable[[str], Gaussians],
        mend: Mend | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Draw every target view into `folder`; return what novel_views.json holds.

        `gaussians_of` gives those of a timestamp. Raises UserError when a target camera is not
        calibrated or Gaussians are missing.
        """

        def drawn(timestamp: str) -> dict[str, Any]:
            return self._drawn(folder, timestamp, gaussians_of(timestamp), mend)

        moves: dict[str, dict[str, Any]] = {}
        views, timestamps = self.scene.views("target"), self.scene.timestamps
        with (
            Progress(f"{self.scene.name}: novel views by {method}", len(timestamps)) as progress,
            ThreadPoolExecutor(1 if self.backend == "cuda" else self.config.workers) as pool,
        ):
            for timestamp, found in zip(timestamps, pool.map(drawn, timestamps), strict=True):
                moves[timestamp] = found
                progress.report(len(moves))
        info: dict[str, Any] = {"scene": self.scene.name, "method": method, "views": len(views)}
        info["kinds"] = list(KINDS) if self.config.align else ["given"]
        if self.config.align:
            info |= {"note": _ALIGNED_NOTE, "moves": moves}
        write_info(folder, info)
        return info

    def _drawn(
        self, folder: Path, timestamp: str, gaussians: Gaussians, mend: Mend | None
    ) -> dict[str, Any]:
        """Draw a timestamp; return how alignment moved its cameras, by name."""
        placed = list(self._placed(timestamp, gaussians))
        pictures = [one.picture for one in placed]
        if mend is not None:
            pictures = mend([one.view for one in placed], pictures)
        for one, picture in zip(placed, pictures, strict=True):
            write_novel_view(folder, one.kind, one.view, picture)
        return {one.view.name: one.move for one in placed if one.move}

    def _placed(self, timestamp: str, gaussians: Gaussians) -> Iterator["_Placed"]:
        """Every picture of a timestamp, as the Gaussians show it."""
        for view in self.scene.views("target", timestamp):
            camera = self._camera(view)
            yield _Placed(view, "given", {}, _picture(gaussians, camera, self.backend))
            if self.config.align:
                aligned = self._aligned(gaussians, camera, view)
                picture = _picture(gaussians, aligned, self.backend)
                yield _Placed(view, "aligned", _move(camera, aligned), picture)

    def _camera(self, view: View) -> Camera:
        """The target camera in the estimated frame, which the Gaussians live in."""
        found = self.calibration.targets
        if view.name not in found:
            raise UserError(
                self.calibration.folder,
                f"no target camera {view.name}",
                expected=f"{view.name} among {', '.join(found)}",
                fix="run `dvc repro calibrate`",
            )
        return found[view.name]

    def _aligned(self, gaussians: Gaussians, camera: Camera, view: View) -> Camera:
        if self.aligned is not None:
            return camera.moved(self.aligned[view.timestamp][view.name])
        image, valid = view.image()
        steps, lr = self.config.align_steps, self.config.align_lr
        return align_camera(
            gaussians, camera, torch.from_numpy(image), self.backend,
            steps=steps, lr=lr, mask=None if valid is None else torch.from_numpy(valid),
        )  # fmt: skip


class _Placed(NamedTuple):
    """One picture: how alignment moved its camera, and pixels [H, W, 3]."""

    view: View
    kind: str
    move: dict[str, Any]
    picture: Pixels


def load_gaussians(splats: Path, timestamp: str, backend: str) -> Gaussians:
    """What stage `train` left of a timestamp."""
    device = "cuda" if backend == "cuda" else "cpu"
    return Gaussians.load(splats / timestamp / GAUSSIANS, device)


def _picture(gaussians: Gaussians, camera: Camera, backend: str) -> Pixels:
    return render(gaussians, camera, backend).rgb.cpu().numpy()


def _move(before: Camera, after: Camera) -> dict[str, Any]:
    """How far alignment moved a camera, in degrees and in units of the estimated frame, and where.

    Other methods are drawn from the same pose.
    """
    angle = rotation_angle_deg(before.cam_from_world[:3, :3], after.cam_from_world[:3, :3])
    distance = float(np.linalg.norm(before.centre - after.centre))
    return {
        "rotation_deg": round(angle, 4),
        "centre": round(distance, 6),
        "cam_from_world": after.cam_from_world.tolist(),
    }
