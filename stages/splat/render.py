"""Renders of trained Gaussians from cameras of the world frame."""

from dataclasses import dataclass

import torch
from torch import Tensor

from stages.scenes.cameras import Camera
from stages.splat import color, poses
from stages.splat.gaussians import Gaussians, colors
from stages.splat.raster import rasterization


@dataclass(frozen=True, eq=False)
class Rendering:
    """One render; depth is expected depth along z, in world units."""

    rgb: Tensor  # [H, W, 3] in [0, 1]
    alpha: Tensor  # [H, W]
    depth: Tensor  # [H, W]


@torch.no_grad()
def render(gaussians: Gaussians, camera: Camera, backend: str) -> Rendering:
    """Render Gaussians from a camera of the world frame."""
    in_norm = gaussians.world_from_norm.inverse().apply_camera(camera)
    pose = torch.tensor(in_norm.cam_from_world, dtype=torch.float32, device=gaussians.means.device)
    image, alpha = _rasterise(gaussians, in_norm, pose, backend)
    rgb = _as_taken_by(camera, gaussians, image[..., :3])
    depth = image[..., 3] * gaussians.world_from_norm.scale
    return Rendering(rgb.clamp(0, 1), alpha, depth)


def align_camera(
    gaussians: Gaussians,
    camera: Camera,
    target: Tensor,
    backend: str,
    *,
    steps: int,
    lr: float,
    mask: Tensor | None = None,
) -> Camera:
    """The camera near `camera` from which the frozen Gaussians best match an image.

    For measuring only: it separates errors of the calibration from errors of the render.

    Args:
        gaussians: frozen.
        camera: to start from, in the world frame.
        target: the image [H, W, 3].
        backend: `cpu` or `cuda`.
        steps: of Adam; 0 leaves the camera as it is.
        lr: learning rate.
        mask: pixels of the image that count [H, W] bool; None for all.
    """
    in_norm = gaussians.world_from_norm.inverse().apply_camera(camera)
    device = str(gaussians.means.device)

    def render_pose(pose: Tensor) -> Tensor:
        image, _ = _rasterise(gaussians, in_norm, pose, backend)
        return _as_taken_by(camera, gaussians, image[..., :3])

    mask = None if mask is None else mask.to(device)
    aligned = poses.align(
        render_pose, in_norm.cam_from_world, target.to(device), steps, lr, device, mask
    )
    return gaussians.world_from_norm.apply_camera(in_norm.moved(aligned))


def _rasterise(
    gaussians: Gaussians, camera: Camera, pose: Tensor, backend: str
) -> tuple[Tensor, Tensor]:
    """Colour and expected depth [H, W, 4], and alpha [H, W]."""
    device, trained = gaussians.means.device, gaussians.metadata
    background = torch.tensor([trained.get("background", [0, 0, 0])], device=device)
    image, alpha, _ = rasterization(
        gaussians.means,
        gaussians.quats,
        torch.exp(gaussians.log_scales),
        torch.sigmoid(gaussians.opacity_logits),
        colors(gaussians),
        pose[None],
        torch.tensor(camera.K, dtype=torch.float32, device=device)[None],
        camera.width,
        camera.height,
        backend=backend,
        sh_degree=gaussians.sh_degree,
        near_plane=trained.get("near_plane", 0.01),
        far_plane=trained.get("far_plane", 1e10),
        backgrounds=background.float(),
        render_mode="RGB+ED",
        rasterize_mode="antialiased" if gaussians.antialiased else "classic",
    )
    return image[0], alpha[0, ..., 0]


def _as_taken_by(camera: Camera, gaussians: Gaussians, image: Tensor) -> Tensor:
    """An image [H, W, 3] of Gaussians in the colours of a camera of the world frame."""
    if gaussians.colors is None:
        return image
    own = color.map_at(gaussians.colors, camera)
    return color.applied(image, torch.tensor(own, dtype=image.dtype, device=image.device))
