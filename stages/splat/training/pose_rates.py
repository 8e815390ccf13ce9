"""How fast corrections of camera poses are learnt, in which units, and how they are held.

With covariances of the poses a correction is learnt in standard deviations: `bases` turn its
numbers into a transform, and weight decay of these numbers is a Gaussian prior by the covariance.
Without, they are radians and units of the normalised frame, as in gsplat's trainer.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stages.scenes.cameras import Array
from stages.splat.config import TrainConfig
from stages.splat.training.schedule import FINAL_SHARE
from stages.splat.training.view_set import TrainView

# Of the full-size recipe; for poses of COLMAP and others of unknown accuracy.
_RECIPE_LR, _RECIPE_REG = 1e-5, 1e-6
# Standard deviations by which a camera can move in a training: covariances that were tested
# against true poses understate errors by factors of 1.3 to 3.4.
_REACH = 3.0
# Of half the sum of squared deviations of all cameras, beside the mean loss of an image.
_PRIOR_WEIGHT = 1e-5
_DEVIATIONS = "standard deviations of the calibration"
_FRAME = "radians and units of the normalised frame"
_LEAST_VARIANCE = 1e-14  # radians, and normalised units


@dataclass(frozen=True)
class PoseRates:
    """Learning rate and weight decay of the corrections of a training, and their unit."""

    config: TrainConfig
    lr: float
    reg: float
    unit: str

    @classmethod
    def of(cls, config: TrainConfig, views: Sequence[TrainView]) -> "PoseRates":
        """Those of training on `views`: numbers as set, `auto` by what is known of the poses."""
        lr, reg, unit = _RECIPE_LR, _RECIPE_REG, _FRAME
        if all(view.pose_covariance is not None for view in views):
            # Adam moves by the rate where each step has a gradient; a view has one in every V-th.
            mean_share = (1 - FINAL_SHARE) / -math.log(FINAL_SHARE)
            lr = float(f"{_REACH * math.sqrt(len(views)) / (mean_share * config.steps):.3g}")
            reg, unit = float(f"{_PRIOR_WEIGHT / len(views):.3g}"), _DEVIATIONS
        lr = lr if config.pose_opt_lr == "auto" else config.pose_opt_lr
        reg = reg if config.pose_opt_reg == "auto" else config.pose_opt_reg
        return cls(config, lr, reg, unit)

    def applied(self) -> TrainConfig:
        """The recipe with these numbers."""
        return self.config.model_copy(update={"pose_opt_lr": self.lr, "pose_opt_reg": self.reg})

    def __str__(self) -> str:
        if not self.config.pose_opt:
            return "poses are held"
        numbers = [
            f"{key} {value:g}{' (auto)' if getattr(self.config, key) == 'auto' else ''}"
            for key, value in (("pose_opt_lr", self.lr), ("pose_opt_reg", self.reg))
        ]
        return f"poses are learnt in {self.unit}: {', '.join(numbers)}"


def bases(covariances: Sequence[Array], norm_scale: float) -> Tensor:  # [6, 6] each
    """Matrices [V, 9, 9] from deviations to the corrections that `splat.poses` applies.

    The first six columns are used.

    Args:
        covariances: of rotation vectors (from the pose to the true one) and centres, along the
            cameras' axes.
        norm_scale: size of a world unit in the normalised frame.
    """
    size = np.repeat([1.0, norm_scale], 3)
    values, axes = np.linalg.eigh(np.stack(covariances) * np.outer(size, size))
    roots = axes * np.sqrt(np.maximum(values, _LEAST_VARIANCE))[:, None] @ axes.transpose(0, 2, 1)
    basis = np.zeros((len(roots), 9, 9))
    basis[..., :6] = _correction_from_motion() @ roots
    return torch.tensor(basis, dtype=torch.float32)


def _correction_from_motion() -> Array:
    """Matrix [9, 6]: a correction from a small rotation vector and motion of the centre."""
    matrix = np.zeros((9, 6))
    matrix[:3, 3:] = np.eye(3)
    # The camera-local rotation is the inverse; these are its first two columns.
    matrix[4, 2], matrix[5, 1] = -1, 1
    matrix[6, 2], matrix[8, 0] = 1, -1
    return matrix
