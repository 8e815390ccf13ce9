"""Pictures of a scene's target cameras from its trained Gaussians: the method `none`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.quality.config import NovelViewsConfig
from stages.run.errors import UserError
from stages.run.progress import Progress
from stages.scenes.calibration import Calibration
from stages.scenes.cameras import Camera, rotation_angle_deg
from stages.scenes.images import Pixels
from stages.scenes.novel_views import KINDS, write_info, write_picture
from stages.scenes.scene import Scene, View
from stages.splat.gaussians import Gaussians
from stages.splat.render import align_camera, render

_ALIGNED_NOTE = (
    "aligned: with the Gaussians frozen, each target pose was fitted to its own photograph; "
    "the photograph decides the pose and no pixel"
)


def draw_targets(
    scene: Scene,
    calibration: Calibration,
    splats: Path,
    folder: Path,
    config: NovelViewsConfig,
    backend: str,
) -> dict[str, Any]:
    """Draw every target view into `folder`; return what novel_views.json holds.

    Raises UserError when a target camera is not calibrated or Gaussians are missing.
    """
    moves: dict[str, dict[str, dict[str, float]]] = {}
    views = scene.views("target")
    with Progress(f"{scene.name}: novel views", len(views)) as progress:
        for done, (view, gaussians) in enumerate(_with_gaussians(scene, splats, backend), 1):
            camera = _camera(view, calibration)
            write_picture(folder, "given", view, _picture(gaussians, camera, backend))
            if config.align:
                aligned = _aligned(gaussians, camera, view, config, backend)
                write_picture(folder, "aligned", view, _picture(gaussians, aligned, backend))
                moves.setdefault(view.timestamp, {})[view.name] = _move(camera, aligned)
            progress.report(done)
    info: dict[str, Any] = {"scene": scene.name, "method": "none", "views": len(views)}
    info["kinds"] = list(KINDS) if config.align else ["given"]
    if config.align:
        info |= {"note": _ALIGNED_NOTE, "moves": moves}
    write_info(folder, info)
    return info


def _with_gaussians(scene: Scene, splats: Path, backend: str) -> Iterator[tuple[View, Gaussians]]:
    """Target views with the Gaussians of their timestamp, each set loaded once."""
    device = "cuda" if backend == "cuda" else "cpu"
    for timestamp in scene.timestamps:
        gaussians = Gaussians.load(splats / timestamp / "gaussians.safetensors", device)
        for view in scene.views("target", timestamp):
            yield view, gaussians


def _camera(view: View, calibration: Calibration) -> Camera:
    """The target camera in the estimated frame, which the Gaussians live in."""
    if view.name not in calibration.targets:
        raise UserError(
            calibration.folder,
            f"no target camera {view.name}",
            expected=f"{view.name} among {', '.join(calibration.targets)}",
            fix="run `dvc repro calibrate`",
        )
    return calibration.targets[view.name]


def _picture(gaussians: Gaussians, camera: Camera, backend: str) -> Pixels:
    return render(gaussians, camera, backend).rgb.cpu().numpy()


def _aligned(
    gaussians: Gaussians, camera: Camera, view: View, config: NovelViewsConfig, backend: str
) -> Camera:
    photograph = torch.from_numpy(view.image())
    steps, lr = config.align_steps, config.align_lr
    return align_camera(gaussians, camera, photograph, backend, steps=steps, lr=lr)


def _move(before: Camera, after: Camera) -> dict[str, float]:
    """How far alignment moved a camera, in degrees and in units of the estimated frame."""
    angle = rotation_angle_deg(before.cam_from_world[:3, :3], after.cam_from_world[:3, :3])
    distance = float(np.linalg.norm(before.centre - after.centre))
    return {"rotation_deg": round(angle, 4), "centre": round(distance, 6)}
