"""Poses and points of static cameras from their photographs.

The cameras do not move, so the features of all timestamps of a camera are pooled into one virtual
image: matches only join equal timestamps, but every timestamp votes for the same pose. Points are
triangulated afterwards, for each timestamp by itself, with the poses held.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError
from stages.scenes import colmap
from stages.scenes.cameras import Array, Camera, rotation_from_vector
from stages.scenes.config import CalibrateConfig
from stages.scenes.images import Pixels

Pair = tuple[str, str]
Track = list[tuple[str, int]]  # (camera, feature)

MIN_PAIR_MATCHES = 12  # fewer between two cameras are as good as none
_MIN_TRACKS = 30  # fewer cannot hold up a bundle adjustment
_RETRIES = ((30, 1.0), (15, 1.0), (10, 1.5))  # (least matches, error factor), strict first


@dataclass(frozen=True, eq=False)
class PooledFeatures:
    """Pooled features: `of[camera]` rows belong to `frame[camera]`, the index of a timestamp."""

    of: dict[str, colmap.Features]
    frame: dict[str, NDArray[np.int64]]
    color: dict[str, NDArray[np.uint8]]  # [N, 3] at each feature


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimated cameras, and how well they explain the matches."""

    cameras: dict[str, Camera]
    reprojection_error_px: float | None
    refined: bool
    note: str = ""


def detect(images: Mapping[str, Sequence[Pixels]], config: CalibrateConfig) -> PooledFeatures:
    """Features of every photograph; `images[camera]` lists one [H, W, 3] a timestamp."""
    pooled, frames, colors = {}, {}, {}
    for camera, shots in images.items():
        found = [_features(shot, config) for shot in shots]
        pooled[camera] = colmap.Features(
            np.concatenate([features.keypoints for features in found]),
            np.concatenate([features.descriptors for features in found]),
        )
        frames[camera] = np.repeat(np.arange(len(found)), [len(f.keypoints) for f in found])
        colors[camera] = np.concatenate(
            [_sample(shot, f.keypoints) for shot, f in zip(shots, found, strict=True)]
        )
    return PooledFeatures(pooled, frames, colors)


def match(photographs: PooledFeatures, config: CalibrateConfig) -> dict[Pair, NDArray[np.uint32]]:
    """Mutual nearest descriptors [M, 2] of every pair of cameras, within equal timestamps."""
    return {
        (a, b): _match_pair(photographs, a, b, config.ratio_test)
        for a, b in combinations(photographs.of, 2)
    }


def perturb(cameras: Mapping[str, Camera], config: CalibrateConfig) -> dict[str, Camera]:
    """Cameras with seeded noise on rotation, centre and focal length."""
    rng = np.random.default_rng(config.seed)
    centres = np.stack([camera.centre for camera in cameras.values()])
    spread = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    unit = spread.sum() / max(len(centres) * (len(centres) - 1), 1)
    noisy = {}
    for name, camera in cameras.items():
        angles = np.radians(config.rotation_noise_deg) * rng.standard_normal(3)
        rotation = rotation_from_vector(angles) @ camera.cam_from_world[:3, :3]
        centre = camera.centre + config.translation_noise * unit * rng.standard_normal(3)
        K = camera.K.copy()
        K[[0, 1], [0, 1]] *= 1 + config.focal_noise * rng.standard_normal()
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, -rotation @ centre
        noisy[name] = Camera(name, K, pose, camera.width, camera.height)
    return noisy


def refine(
    cameras: Mapping[str, Camera],
    photographs: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> Estimate:
    """Bundle adjustment from approximate poses; too few matches leave the poses as they are."""
    current = dict(cameras)
    error_px = None
    # Each round's poses let the next one demand more of a match.
    for factor in (1.0, 0.5, 0.25):
        kept = near_epipolar(current, photographs, matches, factor * config.max_epipolar_error_px)
        tracks, points = triangulate(
            current, photographs, kept, config, 2 * factor * config.max_reprojection_error_px
        )
        seen = {camera for track in tracks for camera, _ in track}
        if len(tracks) < _MIN_TRACKS or seen != set(cameras):
            note = (
                f"{len(tracks)} points in {len(seen)} of {len(cameras)} cameras: poses not refined"
            )
            return Estimate(dict(cameras), None, False, note)
        pixels = [
            [(camera, photographs.of[camera].keypoints[index]) for camera, index in track]
            for track in tracks
        ]
        adjusted = colmap.adjust(current, points, pixels, config.refine_focal)
        current, error_px = adjusted.cameras, adjusted.reprojection_error_px
    return Estimate(current, error_px, True)


def reconstruct(
    cameras: Mapping[str, Camera],
    photographs: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
    scratch: Path,
) -> Estimate:
    """Structure from motion without poses; intrinsics start at the given ones.

    A ladder of ever weaker demands stops at the first model with all cameras, and keeps the best.
    Raises UserError naming the weakest pairs when too few cameras are registered.
    """
    keypoints = {name: features.keypoints for name, features in photographs.of.items()}
    best: colmap.Adjusted | None = None
    for least, factor in _RETRIES:
        model = colmap.map_incrementally(
            cameras, keypoints, matches, scratch,
            refine_focal=config.refine_focal, min_matches=least,
            min_angle_deg=config.min_triangulation_angle_deg,
            max_error_px=factor * config.max_reprojection_error_px, seed=config.seed,
        )  # fmt: skip
        if model and (best is None or len(model.cameras) > len(best.cameras)):
            best = model
        if best and len(best.cameras) == len(cameras):
            break
    registered = best.cameras if best else {}
    if len(registered) < max(2, config.min_registered * len(cameras)):
        raise _too_few(cameras, registered, photographs, matches, config)
    assert best is not None, "a sufficient registration comes from a model"
    return Estimate(best.cameras, best.reprojection_error_px, True)


def near_epipolar(
    cameras: Mapping[str, Camera],
    photographs: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    tolerance_px: float,
) -> dict[Pair, NDArray[np.uint32]]:
    """The matches that lie within `tolerance_px` of the epipolar lines of these poses."""
    kept = {}
    for (a, b), pairs in matches.items():
        pixels_a = photographs.of[a].keypoints[pairs[:, 0]]
        pixels_b = photographs.of[b].keypoints[pairs[:, 1]]
        distance = sampson_px(cameras[a], cameras[b], pixels_a, pixels_b)
        kept[a, b] = pairs[distance < tolerance_px]
    return kept


def triangulate(
    cameras: Mapping[str, Camera],
    photographs: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
    max_error_px: float,
) -> tuple[list[Track], Array]:
    """Tracks over all cameras and their points [P, 3]; tracks that disagree are left out."""
    tracks, points = [], []
    for track in _tracks(matches):
        views = [cameras[camera] for camera, _ in track]
        pixels = np.stack([photographs.of[camera].keypoints[index] for camera, index in track])
        point = colmap.triangulate(views, pixels, max_error_px, config.min_triangulation_angle_deg)
        if point is not None:
            tracks.append(track)
            points.append(point)
    return tracks, np.array(points).reshape(-1, 3)


def points_of_frame(
    frame: int, tracks: Sequence[Track], points: Array, photographs: PooledFeatures
) -> tuple[Array, NDArray[np.uint8]]:
    """Points [P, 3] and colours [P, 3] of the tracks that belong to one timestamp."""
    chosen = [
        k for k, track in enumerate(tracks) if photographs.frame[track[0][0]][track[0][1]] == frame
    ]
    colors = [
        np.mean([photographs.color[camera][index] for camera, index in tracks[k]], axis=0)
        for k in chosen
    ]
    return points[chosen], np.rint(np.array(colors).reshape(-1, 3)).astype(np.uint8)


def sampson_px(camera_a: Camera, camera_b: Camera, pixels_a: Array, pixels_b: Array) -> Array:
    """Sampson distance [N] of matches to the epipolar geometry of two cameras, px."""
    b_from_a = camera_b.cam_from_world @ camera_a.world_from_cam
    x, y, z = b_from_a[:3, 3]
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    fundamental = np.linalg.inv(camera_b.K).T @ cross @ b_from_a[:3, :3] @ np.linalg.inv(camera_a.K)
    ones = np.ones((len(pixels_a), 1))
    a, b = np.hstack([pixels_a, ones]), np.hstack([pixels_b, ones])
    line_b, line_a = a @ fundamental.T, b @ fundamental
    residual = (b * line_b).sum(1)
    slope = np.square(line_b[:, :2]).sum(1) + np.square(line_a[:, :2]).sum(1)
    return np.abs(residual) / np.sqrt(np.maximum(slope, 1e-30))


def _features(image: Pixels, config: CalibrateConfig) -> colmap.Features:
    grey = np.rint(255 * image @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)
    return colmap.extract_features(grey, config.max_features, config.peak_threshold)


def _sample(image: Pixels, keypoints: Array) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    columns = np.clip(keypoints[:, 0].astype(int), 0, width - 1)
    rows = np.clip(keypoints[:, 1].astype(int), 0, height - 1)
    return np.rint(255 * image[rows, columns]).astype(np.uint8)


def _match_pair(photographs: PooledFeatures, a: str, b: str, ratio: float) -> NDArray[np.uint32]:
    found = []
    for frame in np.intersect1d(photographs.frame[a], photographs.frame[b]):
        in_a = np.flatnonzero(photographs.frame[a] == frame)
        in_b = np.flatnonzero(photographs.frame[b] == frame)
        likeness = photographs.of[a].descriptors[in_a] @ photographs.of[b].descriptors[in_b].T
        found += [(in_a[i], in_b[j]) for i, j in _mutual(likeness, ratio)]
    return np.array(found, np.uint32).reshape(-1, 2)


def _mutual(likeness: NDArray[np.float32], ratio: float) -> Iterator[tuple[int, int]]:
    """Row and column of entries that win both and beat the row's second by Lowe's ratio."""
    if min(likeness.shape) < 2:
        return
    norm = np.maximum(likeness.max(), 1e-9)
    distance = np.arccos(np.clip(likeness / norm, -1, 1))
    best = likeness.argmax(axis=1)
    back = likeness.argmax(axis=0)
    second = np.partition(distance, 1, axis=1)[:, 1]
    for row, column in enumerate(best):
        if back[column] == row and distance[row, column] < ratio * second[row]:
            yield row, int(column)


def _tracks(matches: Mapping[Pair, NDArray[np.uint32]]) -> list[Track]:
    """Connected features; a track that meets one camera twice is dropped as contradictory."""
    parent: dict[tuple[str, int], tuple[str, int]] = {}

    def root(node: tuple[str, int]) -> tuple[str, int]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for (a, b), pairs in matches.items():
        for i, j in pairs.tolist():
            parent[root((a, i))] = root((b, j))
    groups: dict[tuple[str, int], Track] = {}
    for node in parent:
        groups.setdefault(root(node), []).append(node)
    return [
        sorted(track)
        for track in groups.values()
        if len({camera for camera, _ in track}) == len(track) > 1
    ]


def _too_few(
    cameras: Mapping[str, Camera],
    registered: Mapping[str, Camera],
    photographs: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> UserError:
    verified = {}
    for (a, b), pairs in matches.items():
        at_a, at_b = (
            photographs.of[a].keypoints[pairs[:, 0]],
            photographs.of[b].keypoints[pairs[:, 1]],
        )
        error_px = config.max_epipolar_error_px
        inlier = (
            colmap.verify(cameras[a], at_a, cameras[b], at_b, error_px) if len(pairs) > 7 else []
        )
        verified[a, b] = int(np.sum(inlier))
    # Each camera's best neighbour: where even that is weak, the chain is broken.
    strongest = {
        name: max((count, pair) for pair, count in verified.items() if name in pair)
        for name in cameras
    }
    weakest = sorted(strongest[name] for name in cameras if name not in registered)[:3]
    pairs = ", ".join(f"{a}-{b} with {count} verified matches" for count, (a, b) in weakest)
    return UserError(
        "calibrate",
        f"{len(registered)} of {len(cameras)} cameras registered; weakest: {pairs}",
        expected=f"at least {config.min_registered:.0%} registered (calibrate.min_registered)",
        fix="lower calibrate.peak_threshold, raise calibrate.ratio_test or prepare.height_px, "
        "or start from poses with calibrate.method=perturbed",
    )
