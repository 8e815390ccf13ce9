"""What other cameras see of a view's pixels, by the depth of the Gaussians.

A pixel's surface point is visible to a camera when it projects into its image and the depth
rendered there agrees with its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.scenes.cameras import Camera
from stages.splat.gaussians import Gaussians
from stages.splat.render import Rendering, render

SAME_SURFACE = 0.05  # share of the depth by which two depths of one point may differ
_MIN_ALPHA = 0.5  # below it a pixel has no surface


@dataclass(frozen=True, eq=False)
class DepthView:
    """A camera in the world frame with the depth that the Gaussians render there."""

    camera: Camera
    depth: Tensor  # [H, W] along z, world units; 0 where there is no surface


def depth_view(gaussians: Gaussians, camera: Camera, backend: str) -> DepthView:
    """Render the depth of the Gaussians at a camera."""
    return surface_of(render(gaussians, camera, backend), camera)


def surface_of(rendering: Rendering, camera: Camera) -> DepthView:
    """The depth of a rendering at a camera, where there is a surface."""
    depth = torch.where(rendering.alpha >= _MIN_ALPHA, rendering.depth, 0.0)
    return DepthView(camera, depth)


def visible_counts(target: DepthView, views: Sequence[DepthView], tolerance: float) -> Tensor:
    """Number of views that each pixel's point of the target is visible to, int32 [H, W].

    Views of one size are compared in one operation.
    """
    points = _points(target)
    total = torch.zeros_like(target.depth, dtype=torch.int32)
    sizes = {(view.camera.width, view.camera.height) for view in views}
    for size in sorted(sizes):
        group = [v for v in views if (v.camera.width, v.camera.height) == size]
        total += _visible(points, group, tolerance).sum(dim=0, dtype=torch.int32)
    return torch.where(target.depth > 0, total, 0)


def _points(target: DepthView) -> Tensor:
    """World points [H, W, 3] of the target's pixels, float64: millimetres at metres of distance."""
    camera, depth = target.camera, target.depth.double()
    rows, columns = (
        torch.arange(size, device=depth.device, dtype=torch.float64) + 0.5
        for size in (camera.height, camera.width)
    )
    y = (rows - camera.K[1, 2]) / camera.K[1, 1]
    x = (columns - camera.K[0, 2]) / camera.K[0, 0]
    y, x = torch.meshgrid(y, x, indexing="ij")
    in_camera = torch.stack([x, y, torch.ones_like(x)], dim=-1) * depth[..., None]
    world_from_cam = torch.tensor(camera.world_from_cam, device=depth.device)
    return in_camera @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]


def _visible(points: Tensor, views: Sequence[DepthView], tolerance: float) -> Tensor:
    """Whether each point [H, W, 3] is visible to each view, all of one size; bool [V, H, W]."""
    poses = torch.stack([torch.tensor(v.camera.cam_from_world) for v in views]).to(points)
    Ks = torch.stack([torch.tensor(view.camera.K) for view in views]).to(points)
    depths = torch.stack([view.depth for view in views]).double()
    in_camera = torch.einsum("vij,hwj->vhwi", poses[:, :3, :3], points)
    in_camera = in_camera + poses[:, None, None, :3, 3]
    z = in_camera[..., 2]
    pixels = torch.einsum("vij,vhwj->vhwi", Ks[:, :2, :2], in_camera[..., :2])
    pixels = pixels / z.clamp(min=1e-12)[..., None] + Ks[:, None, None, :2, 2]
    column, row = pixels.floor().unbind(dim=-1)
    height, width = depths.shape[1:]
    inside = (z > 0) & (column >= 0) & (column < width) & (row >= 0) & (row < height)
    index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
    surface = depths.flatten(1).gather(1, index.long().flatten(1)).view_as(z)
    return inside & (surface > 0) & ((z - surface).abs() <= tolerance * surface)
