"""Covisible pixels of held-out views, by the depth of the trained Gaussians.

A pixel's surface point is visible to a training view when it projects into the image of that camera
and the depth rendered there agrees with its own.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.run.process.gpus import expect_gpu
from stages.scenes.cameras import Camera
from stages.scenes.static.config import StaticConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import render

_MIN_ALPHA = 0.5  # below it a pixel has no surface


@dataclass(frozen=True)
class CovisibleRule:
    """When a pixel counts as covisible."""

    min_views: int
    min_share: float
    depth_tolerance: float  # share of the depth

    def needed(self, views: int) -> int:
        """The number of training views, of `views`, that a covisible pixel must be visible to.

        >>> rule = CovisibleRule(min_views=1, min_share=0.05, depth_tolerance=0.05)
        >>> rule.needed(1), rule.needed(3), rule.needed(81)
        (1, 1, 5)
        """
        return min(views, max(self.min_views, math.ceil(self.min_share * views)))

    def protocol(self) -> str:
        """How masks are made and applied, as a part of the protocol of comparable numbers."""
        return (
            f"covisible by depth within {self.depth_tolerance:.0%}, in {self.min_share:.0%} of the "
            f"views and at least {self.min_views}, DyCheck means"
        )


@dataclass(frozen=True)
class Covisibility:
    """How masks are computed; the chunks, as of `covisible`, change none."""

    rule: CovisibleRule
    chunk: int
    micro_chunk: int


def rule_of(static: StaticConfig) -> CovisibleRule:
    """The rule of section `static`."""
    return CovisibleRule(static.covi_min_views, static.covi_min_share, static.covi_depth_tolerance)


def covisibility_of(static: StaticConfig) -> Covisibility:
    """What section `static` says, for evaluation sets of captures too."""
    return Covisibility(rule_of(static), static.runtime.covi_chunk, static.runtime.covi_micro_chunk)


@dataclass(frozen=True, eq=False)
class DepthView:
    """A camera in the world frame with the depth that the Gaussians render there."""

    camera: Camera
    depth: Tensor  # [H, W] along z, world units; 0 where there is no surface


def backend_of(device: str) -> str:
    """`cpu` or `cuda` for `auto`, `cpu` or `cuda`. Raises UserError when there is no GPU."""
    is_available = torch.cuda.is_available()
    if device == "cuda" and not is_available:
        raise UserError("static.covi_device", "cuda, but torch sees no GPU", fix="set it to cpu")
    if device == "auto" and not is_available:
        expect_gpu("static.covi_device")
    return "cuda" if is_available and device != "cpu" else "cpu"


def depth_view(gaussians: Gaussians, camera: Camera, backend: str) -> DepthView:
    """Render the depth of the Gaussians at a camera."""
    rendering = render(gaussians, camera, backend)
    depth = torch.where(rendering.alpha >= _MIN_ALPHA, rendering.depth, 0.0)
    return DepthView(camera, depth)


def covisible(
    gaussians: Gaussians,
    held_out: Sequence[Camera],
    training: Sequence[Camera],
    rule: CovisibleRule,
    backend: str,
    chunk: int,
    micro_chunk: int,
) -> list[Tensor]:
    """Masks [H, W] of the covisible pixels of held-out views.

    Args:
        gaussians: trained on the training views.
        held_out: cameras of the held-out views.
        training: cameras of the training views.
        rule: when a pixel is covisible.
        backend: cuda or cpu.
        chunk: number of training views whose depths are in memory at once.
        micro_chunk: number of these that are compared in one operation; neither changes a mask.
    """
    targets = [depth_view(gaussians, camera, backend) for camera in held_out]
    counts = [torch.zeros_like(target.depth, dtype=torch.int32) for target in targets]
    for start in range(0, len(training), chunk):
        views = [depth_view(gaussians, c, backend) for c in training[start : start + chunk]]
        for target, count in zip(targets, counts, strict=True):
            for first in range(0, len(views), micro_chunk):
                count += visible_counts(
                    target, views[first : first + micro_chunk], rule.depth_tolerance
                )
    needed = rule.needed(len(training))
    return [(count >= needed) & (t.depth > 0) for t, count in zip(targets, counts, strict=True)]


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
