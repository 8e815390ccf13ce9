"""What verified matches say about poses, without the true ones.

Matches that pairs of images verified, each by a geometry of its own, join to tracks. Tracks that
took no part in estimating the poses test them: their points are triangulated, and their
reprojection error says how far the poses are from what the images show. Two cameras alone would
not notice a camera that moved along its baseline; tracks of three and more do.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from stages.scenes.cameras import Array, Camera, mean_distance, rotation_angle_deg
from stages.scenes.poses.colmap_pooled import Matches, Pair
from stages.scenes.poses.prior_adjustment import Observations, PoseSigma, adjust_to_priors

_HELD_OUT = 10  # one of so many tracks
_MOST, _FEWEST = 2000, 5  # tracks of a test
_FEW = 20  # features of a camera, so that their median says something of its pose
_ONE_PLACE, _ONE_DEG = 1e-3, 0.1  # of two cameras with one pose: share of the mean distance


@dataclass(frozen=True, eq=False)
class VerifiedTracks:
    """Features joined by verified matches, at most one of each camera."""

    observed: Observations
    feature: NDArray[np.int64]  # [O], row of the camera's features

    @property
    def count(self) -> int:
        """The number of tracks."""
        return int(self.observed.point.max(initial=-1)) + 1

    def every(self, step: int) -> "VerifiedTracks":
        """One of `step` tracks."""
        return self.only(np.arange(self.count) % step == 0)

    def only(self, kept: NDArray[np.bool_]) -> "VerifiedTracks":
        """Those of a mask [count], numbered anew."""
        of = self.observed
        rows = kept[of.point]
        point = (np.cumsum(kept) - 1)[of.point[rows]]
        return VerifiedTracks(
            Observations(point, of.camera[rows], of.pixel[rows]), self.feature[rows]
        )


@dataclass(frozen=True)
class TrackErrors:
    """Reprojection errors of tracks at poses that they did not estimate, px."""

    median_px: float  # over tracks, of the root mean square over a track's cameras
    by_camera: dict[str, float]  # median over a camera's features in tracks of three and more


def verified_tracks(keypoints: Mapping[str, Array], verified: Matches) -> VerifiedTracks:
    """Tracks of the verified matches; those with two features of one camera are left out.

    Args:
        keypoints: [N, 2] of each camera, px.
        verified: rows [M, 2] of features, by pair of cameras.
    """
    numbers = {name: number for number, name in enumerate(keypoints)}
    starts = np.cumsum([0, *(len(points) for points in keypoints.values())])
    ends = [
        rows.astype(np.int64) + starts[[numbers[a], numbers[b]]]
        for (a, b), rows in verified.items()
    ]
    joined = np.concatenate([np.zeros((0, 2), np.int64), *ends])
    label = _components(int(starts[-1]), joined)
    used = np.unique(joined)
    camera = np.searchsorted(starts, used, side="right") - 1
    label = label[used]
    key, first, count = np.unique(
        np.stack([label, camera], axis=1), axis=0, return_index=True, return_counts=True
    )
    doubtful = np.unique(key[count > 1, 0])
    rows = first[~np.isin(key[:, 0], doubtful)]
    _, point = np.unique(label[rows], return_inverse=True)
    pixel = np.concatenate([np.zeros((0, 2)), *keypoints.values()])[used[rows]]
    feature = used[rows] - starts[camera[rows]]
    return VerifiedTracks(Observations(point, camera[rows], pixel), feature)


def hold_out(
    keypoints: Mapping[str, Array], verified: Matches
) -> tuple[VerifiedTracks, dict[Pair, NDArray[np.uint32]]]:
    """Every tenth track, and the matches without those of these tracks."""
    tracks = verified_tracks(keypoints, verified)
    held = tracks.every(max(_HELD_OUT, tracks.count // _MOST))
    out = {
        name: np.isin(np.arange(len(points)), held.feature[held.observed.camera == number])
        for number, (name, points) in enumerate(keypoints.items())
    }
    rest = {
        (a, b): rows[~(out[a][rows[:, 0]] | out[b][rows[:, 1]])]
        for (a, b), rows in verified.items()
    }
    return held, rest


def track_errors(
    cameras: Mapping[str, Camera], tracks: VerifiedTracks, scale_px: float
) -> TrackErrors | None:
    """Reprojection errors of tracks, whose points are triangulated; None of fewer than five.

    Args:
        cameras: with poses, in the order of the tracks' cameras.
        tracks: at most 2000 are measured; one with a pixel that is NaN has an infinite error.
        scale_px: errors above it count less in their own point's place.
    """
    if tracks.count < _FEWEST:
        return None
    some = tracks.every(max(1, tracks.count // _MOST))
    observed = some.observed
    points, by_camera = _triangulated(cameras, some, scale_px), {}
    squared = np.zeros(len(observed.point))
    views = np.bincount(observed.point)
    many = views[observed.point] >= 3  # two cameras do not see a shift along their baseline
    for number, (name, camera) in enumerate(cameras.items()):
        own = observed.camera == number
        projected, depth = camera.project(points[observed.point[own]])
        of = np.square(projected - observed.pixel[own]).sum(axis=1)
        squared[own] = np.where((depth > 0) & np.isfinite(of), of, np.inf)
        if (own & many).sum() >= _FEW:
            by_camera[name] = float(np.sqrt(np.median(squared[own & many])))
    of_tracks = np.sqrt(np.bincount(observed.point, squared) / views)
    return TrackErrors(float(np.median(of_tracks)), by_camera)


def _triangulated(cameras: Mapping[str, Camera], tracks: VerifiedTracks, scale_px: float) -> Array:
    """Points [count, 3] of tracks at fixed poses; NaN of those with a pixel that is NaN."""
    points, whole = np.full((tracks.count, 3), np.nan), np.ones(tracks.count, bool)
    whole[tracks.observed.point[~np.isfinite(tracks.observed.pixel).all(axis=1)]] = False
    if whole.any():
        rest = tracks.only(whole).observed
        start, fixed = _nearest_to_rays(list(cameras.values()), rest), PoseSigma(0.0, 0.0, 0.0)
        points[whole] = adjust_to_priors(cameras, cameras, start, rest, fixed, scale_px).points
    return points


def in_one_place(cameras: Mapping[str, Camera]) -> list[Pair]:
    """Pairs of cameras with one pose."""
    unit = mean_distance(list(cameras.values()))
    return [
        (a, b)
        for a, b in combinations(cameras, 2)
        if np.linalg.norm(cameras[a].centre - cameras[b].centre) <= _ONE_PLACE * unit
        and rotation_angle_deg(cameras[a].cam_from_world[:3, :3], cameras[b].cam_from_world[:3, :3])
        < _ONE_DEG
    ]


def _components(size: int, joined: NDArray[np.int64]) -> NDArray[np.int64]:
    """The smallest member [size] of each one's connected component."""
    label = np.arange(size)
    while len(joined):
        least = label[joined].min(axis=1)
        before = label.copy()
        np.minimum.at(label, label[joined[:, 0]], least)
        np.minimum.at(label, label[joined[:, 1]], least)
        np.minimum.at(label, joined.ravel(), np.repeat(least, 2))
        label = label[label]
        if np.array_equal(label, before):
            break
    return label


def _nearest_to_rays(cameras: list[Camera], observed: Observations) -> Array:
    """Points [P, 3] with the least squared distance to the rays of their pixels."""
    count = int(observed.point.max()) + 1
    sums, right = np.zeros((count, 3, 3)), np.zeros((count, 3))
    for number, camera in enumerate(cameras):
        own = observed.camera == number
        pixel = np.hstack([observed.pixel[own], np.ones((int(own.sum()), 1))])
        rays = pixel @ np.linalg.inv(camera.K).T @ camera.cam_from_world[:3, :3]
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        across = np.eye(3) - rays[:, :, None] * rays[:, None, :]
        np.add.at(sums, observed.point[own], across)
        np.add.at(right, observed.point[own], across @ camera.centre)
    sums[:, np.arange(3), np.arange(3)] += 1e-9
    return np.linalg.solve(sums, right[..., None])[..., 0]
