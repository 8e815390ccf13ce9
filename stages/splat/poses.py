"""Small corrections of camera poses: learnt with the Gaussians, or fitted to frozen ones.

A correction is camera-local: world_from_cam times a transform of three translations and a 6D
rotation (Zhou et al. 2019), zero meaning none.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.scenes.cameras import Array


def corrected(cam_from_world: Tensor, correction: Tensor) -> Tensor:
    """cam_from_world [..., 4, 4] after corrections [..., 9]."""
    rotation = _rotation_from_6d(correction[..., 3:])
    # The inverse of [R t; 0 1] applied from the left is the camera-local transform's inverse.
    top = torch.cat(
        [
            rotation.transpose(-1, -2),
            -rotation.transpose(-1, -2) @ correction[..., :3, None],
        ],
        dim=-1,
    )
    bottom = torch.zeros_like(top[..., :1, :])
    bottom[..., 3] = 1
    return torch.cat([top, bottom], dim=-2) @ cam_from_world


def align(
    render: Callable[[Tensor], Tensor],
    cam_from_world: Array,
    target: Tensor,  # [H, W, 3]
    steps: int,
    lr: float,
    device: str = "cpu",
    mask: Tensor | None = None,  # [H, W] bool
) -> Array:
    """The pose [4, 4] near `cam_from_world` whose render is closest to the target in L1.

    Adam with a cosine decay; the best pose of all steps is returned, so it is never worse than the
    start.

    Args:
        render: maps cam_from_world [4, 4] to an image [H, W, 3].
        cam_from_world: the pose to start from.
        target: the image to match.
        steps: of Adam; 0 returns the start.
        lr: learning rate at the first step.
        device: of the target and the render.
        mask: pixels that count; None for all.
    """
    start = torch.tensor(cam_from_world, dtype=torch.float32, device=device)
    correction = torch.zeros(9, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([correction], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(steps, 1), 0.05 * lr)
    best, least = start, float("inf")
    for step in range(steps + 1):
        pose = corrected(start, correction)
        error = (render(pose) - target).abs()
        loss = (error if mask is None else error[mask]).mean()
        if loss.item() < least:
            best, least = pose.detach(), loss.item()
        if step == steps:
            break
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return orthonormal(best.cpu().double().numpy())


def _rotation_from_6d(values: Tensor) -> Tensor:
    identity = values.new_tensor([1.0, 0, 0, 0, 1, 0])
    a, b = (values + identity).split(3, dim=-1)
    x = F.normalize(a, dim=-1)
    y = F.normalize(b - (x * b).sum(-1, keepdim=True) * x, dim=-1)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def orthonormal(pose: Array) -> Array:
    """The pose [4, 4] with the nearest rotation matrix; float32 leaves an error of some 1e-7."""
    u, _, vt = np.linalg.svd(pose[:3, :3])
    pose[:3, :3] = u @ vt
    return pose
