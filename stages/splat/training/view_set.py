"""The views that one training runs on: cameras in its normalised frame, pixels on its device."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

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
    """V training views, by index."""

    cameras: list[Camera]  # normalised frame, as given
    images: list[Tensor]  # [H, W, 3]
    masks: list[Tensor | None]  # [H, W] bool
    weights: list[float]
    viewmats: Tensor  # [V, 4, 4] cam_from_norm
    Ks: Tensor  # [V, 3, 3] px
    stacks: dict[Shape, ShapeStack] = field(default_factory=dict)  # of `stacked` alone

    @classmethod
    def of(cls, views: Sequence[TrainView], norm_from_world: Sim3, device: str) -> "ViewSet":
        """Views of the world frame on a device."""
        cameras = [norm_from_world.apply_camera(view.camera) for view in views]
        return cls(
            cameras,
            [view.image.to(device) for view in views],
            [None if view.mask is None else view.mask.to(device) for view in views],
            [view.weight for view in views],
            _matrices([camera.cam_from_world for camera in cameras], device),
            _matrices([camera.K for camera in cameras], device),
        )

    def stacked(self) -> "ViewSet":
        """The same views with those of one shape in one tensor, of which `images` are rows.

        A recorded graph finds its image there by a row number, and none is held twice.
        """
        shapes: dict[Shape, list[int]] = {}
        for index in range(len(self)):
            shapes.setdefault(self.shape(index), []).append(index)
        stacks = {shape: self._stack(indices) for shape, indices in shapes.items()}
        images = list(self.images)
        for stack in stacks.values():
            for index, row in stack.rows.items():
                images[index] = stack.images[row]
        return replace(self, images=images, stacks=stacks)

    def __len__(self) -> int:
        return len(self.cameras)

    def shape(self, index: int) -> Shape:
        """Height and width of a view, px."""
        return self.cameras[index].height, self.cameras[index].width

    def _stack(self, indices: Sequence[int]) -> ShapeStack:
        images = torch.stack([self.images[index] for index in indices])
        masks = None
        if any(self.masks[index] is not None for index in indices):
            whole = torch.ones(images.shape[1:3], dtype=torch.bool, device=images.device)
            own = [self.masks[index] for index in indices]
            masks = torch.stack([whole if mask is None else mask for mask in own])
        return ShapeStack({index: row for row, index in enumerate(indices)}, images, masks)


def _matrices(matrices: Sequence[Array], device: str) -> Tensor:
    return torch.tensor(np.stack(matrices), dtype=torch.float32, device=device)
