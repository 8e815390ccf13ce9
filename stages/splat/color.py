"""Colour of training cameras: an affine map [3, 4] of a render's RGB per camera, learnt beside it.

Images determine colours only up to a map that all cameras share, so the mean over the cameras is
the identity. A camera that was not trained on gets the mean of its two nearest neighbours' maps,
weighted by inverse distance; at a training camera that is its own.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.scenes.cameras import Array, Camera
from stages.scenes.frames import Sim3

NEIGHBOURS = 2
_SAME_PLACE = 1e-6  # of the distance to the farthest training camera

# What a file of Gaussians keeps: `centres` [V, 3] in the world frame, and `maps` [V, 3, 4].
ColorTable = dict[str, Any]


def identity(count: int, device: str) -> Tensor:
    """Maps [count, 3, 4] that change nothing."""
    return torch.eye(3, 4, device=device).repeat(count, 1, 1)


def balanced(offsets: Tensor) -> Tensor:
    """Offsets [V, 3, 4] of maps from the identity, without what all cameras share."""
    return offsets - offsets.mean(0)


def distance(offsets: Tensor) -> Tensor:
    """Mean square [] of balanced offsets [V, 3, 4], which training keeps small."""
    return balanced(offsets).square().mean()


def applied(image: Tensor, color_map: Tensor) -> Tensor:
    """An image [H, W, 3] through a map [3, 4].

    >>> bool((applied(torch.ones(2, 2, 3), 2 * identity(1, "cpu")[0]) == 2).all())
    True
    """
    return image @ color_map[:, :3].T + color_map[:, 3]


def table(cameras: Sequence[Camera], maps: Tensor) -> ColorTable:
    """The table of cameras of the world frame and their maps [V, 3, 4]."""
    return {
        "centres": [camera.centre.tolist() for camera in cameras],
        "maps": maps.detach().double().cpu().tolist(),
    }


def check(colors: ColorTable) -> None:
    """Raise ValueError for what is no table."""
    centres, maps = np.array(colors["centres"], float), np.array(colors["maps"], float)
    count = len(maps)
    if count == 0 or maps.shape != (count, 3, 4) or centres.shape != (count, 3):
        raise ValueError(f"colours of shapes {centres.shape} and {maps.shape}")
    if not (np.isfinite(centres).all() and np.isfinite(maps).all()):
        raise ValueError("colours that are not finite")


def moved(colors: ColorTable, frame: Sim3) -> ColorTable:
    """The table of the same cameras when their world frame is moved."""
    return {**colors, "centres": frame.apply(np.array(colors["centres"], float)).tolist()}


def map_at(colors: ColorTable, camera: Camera) -> Array:
    """The map [3, 4] of a camera of the world frame, from the table of its neighbours."""
    centres, maps = np.array(colors["centres"], float), np.array(colors["maps"], float)
    distances = np.linalg.norm(centres - camera.centre, axis=1)
    nearest = np.argsort(distances, kind="stable")[:NEIGHBOURS]
    near = distances[nearest]
    same = near <= _SAME_PLACE * max(float(distances.max()), 1e-12)
    weights = same.astype(float) if same.any() else 1 / near
    return np.tensordot(weights / weights.sum(), maps[nearest], 1)
