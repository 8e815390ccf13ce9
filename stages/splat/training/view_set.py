"""The views that one training runs on: cameras in its normalised frame, pixels on its device."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.scenes.cameras import Array, Camera
from stages.scenes.frames import Sim3

Shape = tuple[int, int]  # height, width


@dataclass(frozen=True, eq=False)
class TrainView:
    """One image to train on or to measure."""

    camera: Camera  # world frame
    image: Tensor  # [H, W, 3]
    mask: Tensor | None = None  # [H, W] bool, pixels to count
    weight: float = 1.0  # of its photometric loss
    # [6, 6] of its pose, as a Calibration has it; its correction is then learnt in deviations.
    pose_covariance: Array | None = None


@dataclass(frozen=True, eq=False)
class ShapeStack:
    """All views whose images have one shape."""

    rows: dict[int, int]  # row in the stacks, by the view's index
    images: Tensor  # [V, H, W, 3]
    masks: Tensor | None  # [V, H, W] bool; None where no view has a mask


@dataclass(frozen=True, eq=False)
class ViewSet:
    """V training views, by index.

    Images of one shape are rows of one tensor, where a recorded graph finds them by number.
    """

    cameras: list[Camera]  # normalised frame, as given
    images: list[Tensor]  # [H, W, 3], rows of the stacks
    masks: list[Tensor | None]  # [H, W] bool
    weights: list[float]
    viewmats: Tensor  # [V, 4, 4] cam_from_norm
    Ks: Tensor  # [V, 3, 3] px
    stacks: dict[Shape, ShapeStack]

    @classmethod
    def of(cls, views: Sequence[TrainView], norm_from_world: Sim3, device: str) -> "ViewSet":
        """Views of the world frame on a device."""
        cameras = [norm_from_world.apply_camera(view.camera) for view in views]
        shapes: dict[Shape, list[int]] = {}
        for index, camera in enumerate(cameras):
            shapes.setdefault((camera.height, camera.width), []).append(index)
        stacks = {shape: _stack(views, indices, device) for shape, indices in shapes.items()}
        rows = {i: stack.images[row] for stack in stacks.values() for i, row in stack.rows.items()}
        return cls(
            cameras,
            [rows[index] for index in range(len(views))],
            [None if view.mask is None else view.mask.to(device) for view in views],
            [view.weight for view in views],
            _matrices([camera.cam_from_world for camera in cameras], device),
            _matrices([camera.K for camera in cameras], device),
            stacks,
        )

    def __len__(self) -> int:
        return len(self.cameras)

    def shape(self, index: int) -> Shape:
        """Height and width of a view, px."""
        return self.cameras[index].height, self.cameras[index].width


def _stack(views: Sequence[TrainView], indices: Sequence[int], device: str) -> ShapeStack:
    images, masks = [views[index].image for index in indices], None
    # Image by image: all of them beside the stack would take its memory again.
    stack = torch.empty(len(images), *images[0].shape, dtype=images[0].dtype, device=device)
    for row, image in zip(stack, images, strict=True):
        row.copy_(image)
    if any(views[index].mask is not None for index in indices):
        masks = torch.ones(stack.shape[:3], dtype=torch.bool, device=device)
        for row, index in zip(masks, indices, strict=True):
            if (mask := views[index].mask) is not None:
                row.copy_(mask)
    return ShapeStack({index: row for row, index in enumerate(indices)}, stack, masks)


def _matrices(matrices: Sequence[Array], device: str) -> Tensor:
    return torch.tensor(np.stack(matrices), dtype=torch.float32, device=device)
