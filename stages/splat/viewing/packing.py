"""Gaussians packed for a web viewer, in the world frame.

First the means, float32 [N, 3]. Then bytes [N, C], each column quantised over its own range:
opacity, 3 log-scales, 4 of the unit quaternion wxyz, 3 of spherical harmonics of degree 0 and,
where there are any, 9 of degree 1 (coefficient, then channel). Higher degrees are dropped.
"""

import gzip
from dataclasses import dataclass

import numpy as np
import torch

from stages.splat.export import in_world
from stages.splat.gaussians import Gaussians

# Quantiles that bound a column: outliers would make its steps coarse for all other values.
_TAILS = (0.0005, 0.9995)


@dataclass(frozen=True, eq=False)
class Packed:
    """Gaussians as gzipped bytes; `low` and `high` bound each column."""

    count: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    data: bytes


def pack(gaussians: Gaussians, most: int) -> Packed:
    """Pack the finite Gaussians; of more than `most`, those with the largest opacity times area."""
    world = in_world(gaussians)
    degree_1 = world.shN[:, :3].flatten(1)  # [N, 0] without
    table = torch.cat(
        [
            world.means,
            torch.sigmoid(world.opacity_logits)[:, None],
            world.log_scales,
            torch.nn.functional.normalize(world.quats, dim=-1),
            world.sh0[:, 0],
            degree_1,
        ],
        dim=1,
    ).numpy()
    table = table[np.isfinite(table).all(axis=1)]
    table = table[_largest(table, most)]
    means, others = table[:, :3], table[:, 3:]
    low, high = np.quantile(others, _TAILS, axis=0) if len(table) else np.zeros((2, 1))
    levels = np.rint(255 * (others - low) / np.maximum(high - low, 1e-12))
    body = means.astype("<f4").tobytes() + np.clip(levels, 0, 255).astype(np.uint8).tobytes()
    # Without a modification time, so that the same Gaussians give the same bytes.
    packed = gzip.compress(body, 9, mtime=0)
    return Packed(len(table), tuple(low.tolist()), tuple(high.tolist()), packed)


def _largest(table: np.ndarray, most: int) -> np.ndarray:
    """Indices of the rows with the largest opacity times area, ascending."""
    if len(table) <= most:
        return np.arange(len(table))
    area = np.sort(table[:, 4:7], axis=1)[:, 1:].sum(axis=1)
    return np.sort(np.argsort(-(np.log(table[:, 3] + 1e-9) + area), kind="stable")[:most])
