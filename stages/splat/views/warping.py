"""Source images warped into another view by the depth of the Gaussians.

Backward warping: each target pixel's surface point is projected into a source image, whose colour
there is a second measurement of what the render shows. How far to trust it, the depth that the
Gaussians have in the source's view says: a point that is hidden there, or whose depth is wrong in
either view, lies at another depth.

Depths of Gaussians that few images trained are rough, and a pixel's colour is then taken from the
wrong place. So the depth is first refined by a small plane sweep: of some depths around it, each
pixel takes the one at which the sources agree best, with each other and with the render.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from stages.scenes.cameras import Camera
from stages.scenes.config import WARPED_CHANNELS
from stages.scenes.images import Mask, Pixels
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.views.visibility import SAME_SURFACE, DepthView, depth_view, surface_of

_LEAST_DEPTH = 1e-12
_LEAST_AGREEMENT = 0.5 / 255
# Of the sweep: its depths, as changes of inverse depth by a share, and the cost of such a change.
_SWEEP = tuple(step / 40 for step in range(-4, 5))
_CHANGE_COST = 0.05
_WINDOW_PX = 5  # side of the squares in which colours are compared
_MOST = 0.25  # difference of colours that counts at most, for occlusions
_ANY_DEPTH = 1e9  # as a tolerance
_KEPT_DEPTHS = 32  # cameras whose depth is in memory at once


@dataclass(frozen=True, eq=False)
class Warper:
    """Warps images between cameras by the depth of one set of Gaussians."""

    gaussians: Gaussians
    backend: str
    _depths: dict[Camera, DepthView] = field(default_factory=dict)

    def __call__(
        self,
        camera: Camera,
        sources: Sequence[Camera],
        images: Sequence[Pixels],
        valid: Sequence[Mask | None] = (),
    ) -> list[Pixels]:
        """The images of the sources in the view of a camera, each [H, W, 4]; see `warp`."""
        views = [self._depth(source) for source in sources]
        rendering = render(self.gaussians, camera, self.backend)
        target = surface_of(rendering, camera)
        warped = warp(target, views, images, valid, render=rendering.rgb).permute(0, 2, 3, 1)
        return list(warped.contiguous().cpu().numpy())

    def _depth(self, camera: Camera) -> DepthView:
        if camera not in self._depths:
            if len(self._depths) == _KEPT_DEPTHS:
                del self._depths[next(iter(self._depths))]
            self._depths[camera] = depth_view(self.gaussians, camera, self.backend)
        return self._depths[camera]


def warp(
    target: DepthView,
    sources: Sequence[DepthView],
    images: Sequence[Pixels],
    valid: Sequence[Mask | None] = (),
    count: int = 0,
    render: Tensor | None = None,
) -> Tensor:
    """Warp source images into the target view.

    Args:
        target: camera and depth [H, W] of the view.
        sources: camera and depth [h, w] of each source, the best first; sizes may differ.
        images: of the sources, [h, w, 3] in [0, 1].
        valid: pixels [h, w] of these that count; None, or no entry, for all.
        count: number of warped images, absent ones are 0; 0 for one per source.
        render: of the target [H, W, 3], by which the depth is refined; None leaves it.

    Returns the warped images [K, 4, H, W] in [0, 1], see `warped_images`, on the target's device.
    """
    device = target.depth.device
    count = count or len(sources)
    masks = [*valid, *[None] * (len(sources) - len(valid))]
    cameras = []
    for source, pixels, mask in zip(sources, images, masks, strict=True):
        depth = source.depth
        if mask is not None:
            depth = torch.where(torch.as_tensor(mask, device=device), depth, 0.0)
        image = torch.as_tensor(pixels, device=device).permute(2, 0, 1)
        K, pose = (_matrix(one, device) for one in (source.camera.K, source.camera.cam_from_world))
        cameras.append(tuple(one[None] for one in (image, depth, K, pose)))
    at = _matrix(target.camera.K, device), _matrix(target.camera.cam_from_world, device)
    depth, used = target.depth, cameras[:count]
    if render is not None and used:
        depth = refined_depth(depth, *at, render.to(device).permute(2, 0, 1), used)
    warped = torch.zeros(count, WARPED_CHANNELS, *depth.shape, device=device)
    for index, camera in enumerate(used):
        warped[index] = warped_images(target.depth, *at, *camera)[0]
        if depth is not target.depth:
            # How far two rough depths agree is known before they are refined.
            refined = warped_images(depth, *at, *camera, _ANY_DEPTH)[0]
            known = (refined[3] > 0) & (warped[index, 3] > 0)
            both = torch.cat([refined[:3], warped[index, 3:]])
            warped[index] = torch.where(known, both, 0.0)
    return warped


Source = tuple[Tensor, Tensor, Tensor, Tensor]


def refined_depth(
    depth: Tensor, K: Tensor, cam_from_world: Tensor, render: Tensor, sources: Sequence[Source]
) -> Tensor:
    """The depth [..., H, W] of targets by a plane sweep around the Gaussians' depth.

    It stays where fewer than two sources see the point: a render alone, which may be blurred, says
    too little.

    Args:
        depth: of the targets [..., H, W]; 0 stays 0.
        K: of the targets [..., 3, 3], px.
        cam_from_world: of the targets [..., 4, 4].
        render: of the targets [..., 3, H, W] in [0, 1].
        sources: of each source images, depths, K and pose as `warped_images` takes them, of one or
            several sources each.
    """
    inverse = 1 / depth.clamp(min=_LEAST_DEPTH)
    best, least = depth, torch.full_like(depth, torch.inf)
    is_compared = torch.zeros_like(depth, dtype=torch.bool)
    for change in _SWEEP:
        moved = torch.where(depth > 0, 1 / (inverse * (1 + change)), 0.0) if change else depth
        warped = torch.cat(
            [warped_images(moved, K, cam_from_world, *one, _ANY_DEPTH) for one in sources], dim=-4
        )
        if not change:
            is_compared = (warped[..., 3, :, :] > 0).sum(-3) > 1
        cost = _disagreement(warped, render) + _CHANGE_COST * abs(change)
        best, least = torch.where(cost < least, moved, best), torch.minimum(cost, least)
    return torch.where(is_compared, best, depth)


def _disagreement(warped: Tensor, render: Tensor) -> Tensor:
    """How far the colours of warped images differ from the render and from each other [..., H, W].

    Means over the pairs that are known, in windows; most where no source sees the point.
    """
    colors, known = warped[..., :3, :, :], (warped[..., 3, :, :] > 0).to(warped.dtype)
    from_render = (colors - render[..., None, :, :, :]).abs().mean(-3).clamp(max=_MOST) * known
    number = known.sum(-3)
    total = torch.where(number > 0, from_render.sum(-3) / number.clamp(min=1), _MOST)
    pairs, number = torch.zeros_like(total), torch.zeros_like(total)
    for one, other in combinations(range(warped.shape[-4]), 2):
        both = known[..., one, :, :] * known[..., other, :, :]
        difference = colors[..., one, :, :, :] - colors[..., other, :, :, :]
        pairs += difference.abs().mean(-3).clamp(max=_MOST) * both
        number += both
    total = total + pairs / number.clamp(min=1)
    flat = total.reshape(-1, 1, *total.shape[-2:])
    mean = avg_pool2d(flat, _WINDOW_PX, 1, _WINDOW_PX // 2, count_include_pad=False)
    return mean.reshape(total.shape)


def warped_images(
    depth: Tensor,
    K: Tensor,
    cam_from_world: Tensor,
    images: Tensor,
    depths: Tensor,
    Ks: Tensor,
    cams_from_world: Tensor,
    tolerance: float = SAME_SURFACE,
) -> Tensor:
    """Warp K source images into each of a batch of target views; all on one device.

    Args:
        depth: of the targets [..., H, W], world units along z; 0 where there is no surface.
        K: of the targets [..., 3, 3], px.
        cam_from_world: of the targets [..., 4, 4]; float64 where the world is large.
        images: of each target's sources [..., K, 3, h, w] in [0, 1].
        depths: of the sources [..., K, h, w].
        Ks: of the sources [..., K, 3, 3].
        cams_from_world: of the sources [..., K, 4, 4].
        tolerance: share of the depth, see below.

    Returns [..., K, 4, H, W]: RGB by bilinear interpolation, and agreement, 1 where the point's
    depth in the source is the one that the source has there, 1/e where they differ by `tolerance`.
    All are 0 where the pixel or its place in the source has no surface, where its point is behind
    the source camera or outside its image, and where eight bits would round the agreement to 0.
    """
    *batch, count = depths.shape[:-2]
    (height, width), (source_height, source_width) = depth.shape[-2:], depths.shape[-2:]
    # Relative poses in their own precision, pixels in float32: no origin of the world enters.
    rotation, translation = _relative(cam_from_world[..., None, :, :], cams_from_world)
    rays = _rays(K, height, width)[..., None, :, :]  # [..., 1, 3, H * W]
    # Points of the target in each source camera [..., K, 3, H * W].
    surface = depth.float().flatten(-2)[..., None, None, :]
    points = rotation.float() @ (rays * surface) + translation.float()[..., None]
    z = points[..., 2, :]
    is_before = z > 0
    xy = (Ks[..., :2, :2].float() @ points[..., :2, :]) / torch.where(is_before, z, 1.0)[
        ..., None, :
    ] + Ks[..., :2, 2:].float()
    x, y = xy.unbind(-2)  # [..., K, H * W] px
    is_inside = is_before & (x >= 0) & (x < source_width) & (y >= 0) & (y < source_height)
    column = x.clamp(0, source_width - 1).long()
    row = y.clamp(0, source_height - 1).long()
    seen = depths.float().flatten(-2).gather(-1, row * source_width + column)
    is_known = (is_inside & (seen > 0) & (surface[..., 0, :] > 0)).unflatten(-1, (height, width))
    difference = (z - seen).abs() / (tolerance * seen.clamp(min=_LEAST_DEPTH))
    agreement = torch.exp(-difference).unflatten(-1, (height, width))
    is_known = is_known & (agreement >= _LEAST_AGREEMENT)

    scale = torch.tensor([2 / source_width, 2 / source_height], device=xy.device)
    grid = (xy.movedim(-2, -1) * scale - 1).clamp(-2, 2)
    sampled = grid_sample(
        images.float().reshape(-1, 3, source_height, source_width),
        grid.reshape(-1, height, width, 2),
        padding_mode="border",
        align_corners=False,
    ).reshape(*batch, count, 3, height, width)
    both = torch.cat([sampled, agreement[..., None, :, :]], dim=-3)
    return torch.where(is_known[..., None, :, :], both, 0.0)


def _relative(cam_from_world: Tensor, cams_from_world: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation [..., 3, 3] and translation [..., 3] from the target camera to the others."""
    rotation = cams_from_world[..., :3, :3] @ cam_from_world[..., :3, :3].transpose(-1, -2)
    moved = (rotation @ cam_from_world[..., :3, 3:])[..., 0]
    return rotation, cams_from_world[..., :3, 3] - moved


def _rays(K: Tensor, height: int, width: int) -> Tensor:
    """Directions [..., 3, H * W] of pixels at depth 1, in the camera's frame."""
    entries = K.float()[..., None, None]
    rows = torch.arange(height, dtype=torch.float32, device=K.device)[:, None] + 0.5
    columns = torch.arange(width, dtype=torch.float32, device=K.device) + 0.5
    y = ((rows - entries[..., 1, 2, :, :]) / entries[..., 1, 1, :, :]).expand(
        *K.shape[:-2], height, width
    )
    x = columns - entries[..., 0, 2, :, :] - entries[..., 0, 1, :, :] * y
    return torch.stack([x / entries[..., 0, 0, :, :], y, torch.ones_like(y)], dim=-3).flatten(-2)


def _matrix(array: object, device: torch.device) -> Tensor:
    return torch.as_tensor(array, dtype=torch.float64, device=device)
