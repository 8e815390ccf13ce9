"""The frame of Gaussians that come without one, by the sparse points of their dataset.

Trained Gaussians lie on the surfaces that the sparse points sample, so that in the right frame the
points have Gaussians nearby.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from stages.run.errors import UserError
from stages.scenes.cameras import Array
from stages.scenes.dataset import Dataset
from stages.scenes.frames import Sim3, gsplat_normalisations
from stages.splat.gaussians import Gaussians

_MIN_POINTS = 30  # fewer do not sample a surface
_MOST_POINTS, _MOST_GAUSSIANS = 2000, 200_000
# Median distance from a point to a Gaussian, in spacings of the points, where frames differ.
_MAX_SPACINGS = 5.0
_EQUAL = 1.1  # distances whose ratio is smaller decide nothing


@dataclass(frozen=True, eq=False)
class ForeignFrame:
    """The transform from the dataset's world to the frame of the Gaussians, and how it is known."""

    norm_from_world: Sim3
    is_world: bool
    how: str


def find_frame(
    gaussians: Gaussians, dataset: Dataset, wanted: str, is_normalised: bool
) -> ForeignFrame:
    """The frame of Gaussians that were trained on a dataset.

    Args:
        gaussians: whose means are compared.
        dataset: that they were trained on.
        wanted: `world`, `gsplat` or `gsplat_unflipped`; `auto` compares them with its points.
        is_normalised: whether they are in gsplat's frame as far as their file says; decides for
            `auto` where the points do not.

    Raises UserError when `auto` finds no Gaussians near the points in any frame.
    """
    cameras = [view.camera for view in dataset.views]
    normed = gsplat_normalisations(cameras, dataset.points)
    frame = f"gsplat's normalised frame of {dataset.name}"
    frames = [ForeignFrame(Sim3.identity(), True, f"the world frame of {dataset.name}")]
    rotated = ", rotated by 180 degrees about z"
    notes = ("", ", without its flip", rotated, f", without its flip{rotated}")
    for norm_from_world, note in zip(normed, notes, strict=False):
        frames.append(ForeignFrame(norm_from_world, False, f"{frame}{note}"))
    by_name = {"world": 0, "gsplat": 1, "gsplat_unflipped": min(2, len(frames) - 1)}
    if wanted != "auto":
        return frames[by_name[wanted]]
    default = frames[by_name["gsplat" if is_normalised else "world"]]
    points = dataset.points[:: max(1, len(dataset.points) // _MOST_POINTS)]
    if len(points) < _MIN_POINTS:
        return default
    distances = [_distance(gaussians, points, each.norm_from_world) for each in frames]
    best = int(np.argmin(distances))
    _check(dataset, distances[best], points)
    is_equal = distances[frames.index(default)] <= _EQUAL * distances[best]
    return default if is_equal else frames[best]


def _distance(gaussians: Gaussians, points: Array, norm_from_world: Sim3) -> float:
    """Median distance from the points to the nearest Gaussian, in units of the world."""
    means = gaussians.world_from_norm.apply(gaussians.means.double().numpy())
    means = means[:: max(1, len(means) // _MOST_GAUSSIANS)]
    nearest = cKDTree(means).query(norm_from_world.apply(points))[0]
    return float(np.median(nearest)) / norm_from_world.scale


def _check(dataset: Dataset, distance: float, points: Array) -> None:
    spacing = float(np.median(cKDTree(points).query(points, k=2)[0][:, 1]))
    if distance > _MAX_SPACINGS * spacing > 0:
        raise UserError(
            dataset.folder,
            f"the Gaussians lie {distance / spacing:.0f} spacings away from its sparse points, in "
            "the world frame and in gsplat's",
            expected="the dataset that they were trained on",
            fix="name that one with --trained-on, or set capture_evaluate.foreign.frame",
        )
