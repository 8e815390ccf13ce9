"""Structure from motion for static cameras.

The cameras do not move, so the features of all timestamps of a camera are pooled into one virtual
image: only features of equal timestamps are matched, and all timestamps estimate the same pose.
Points are triangulated afterwards, for each timestamp separately, with fixed poses.
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

_MIN_TRACKS = 30  # fewer do not constrain a bundle adjustment
_RETRIES = ((30, 1.0), (15, 1.0), (10, 1.5))  # (min_matches, error factor), strictest first


@dataclass(frozen=True, eq=False)
class PooledFeatures:
    """Features of all timestamps by camera; row i of `of[camera]` is of frame `frame[camera][i]`.

    A frame is the index of a timestamp.
    """

    of: dict[str, colmap.Features]
    frame: dict[str, NDArray[np.int64]]
    color: dict[str, NDArray[np.uint8]]  # [N, 3] at each feature


@dataclass(frozen=True, eq=False)
class Estimate:
    """Estimated cameras and their reprojection error."""

    cameras: dict[str, Camera]
    reprojection_error_px: float | None
    refined: bool
    note: str = ""


def detect(images: Mapping[str, Sequence[Pixels]], config: CalibrateConfig) -> PooledFeatures:
    """Features of every image; `images[camera]` has one image [H, W, 3] per timestamp."""
    pooled, frames, colors = {}, {}, {}
    for camera, camera_images in images.items():
        features = [_features(image, config) for image in camera_images]
        pooled[camera] = colmap.Features(
            np.concatenate([each.keypoints for each in features]),
            np.concatenate([each.descriptors for each in features]),
        )
        frames[camera] = np.repeat(
            np.arange(len(features)), [len(each.keypoints) for each in features]
        )
        colors[camera] = np.concatenate(
            [_sample(*each) for each in zip(camera_images, features, strict=True)]
        )
    return PooledFeatures(pooled, frames, colors)


def match(features: PooledFeatures, config: CalibrateConfig) -> dict[Pair, NDArray[np.uint32]]:
    """Indices [M, 2] of mutual nearest descriptors for every pair of cameras, by timestamp."""
    return {
        (a, b): _match_pair(features, a, b, config.ratio_test)
        for a, b in combinations(features.of, 2)
    }


def perturb(cameras: Mapping[str, Camera], config: CalibrateConfig) -> dict[str, Camera]:
    """Cameras with seeded noise on rotation, centre and focal length."""
    rng = np.random.default_rng(config.seed)
    centres = np.stack([camera.centre for camera in cameras.values()])
    spread = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    mean_distance = spread.sum() / max(len(centres) * (len(centres) - 1), 1)
    noisy = {}
    for name, camera in cameras.items():
        angles = np.radians(config.rotation_noise_deg) * rng.standard_normal(3)
        rotation = rotation_from_vector(angles) @ camera.cam_from_world[:3, :3]
        centre = camera.centre + config.translation_noise * mean_distance * rng.standard_normal(3)
        K = camera.K.copy()
        K[[0, 1], [0, 1]] *= 1 + config.focal_noise * rng.standard_normal()
        cam_from_world = np.eye(4)
        cam_from_world[:3, :3], cam_from_world[:3, 3] = rotation, -rotation @ centre
        noisy[name] = Camera(name, K, cam_from_world, camera.width, camera.height)
    return noisy


def refine(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> Estimate:
    """Bundle adjustment from approximate poses, which are returned if there are too few matches."""
    current = dict(cameras)
    error_px = None
    # The poses of each round allow a stricter tolerance in the next one.
    for factor in (1.0, 0.5, 0.25):
        near = near_epipolar(current, features, matches, factor * config.max_epipolar_error_px)
        tracks, points = triangulate(
            current, features, near, config, 2 * factor * config.max_reprojection_error_px
        )
        connected = {camera for track in tracks for camera, _ in track}
        if len(tracks) < _MIN_TRACKS or connected != set(cameras):
            in_cameras = f"{len(connected)} of {len(cameras)} cameras"
            note = f"{len(tracks)} points in {in_cameras}: poses not refined"
            return Estimate(dict(cameras), None, False, note)
        pixels = [
            [(camera, features.of[camera].keypoints[index]) for camera, index in track]
            for track in tracks
        ]
        adjusted = colmap.adjust(current, points, pixels, config.refine_focal)
        current, error_px = adjusted.cameras, adjusted.reprojection_error_px
    return Estimate(current, error_px, True)


def reconstruct(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
    scratch: Path,
) -> Estimate:
    """Structure from motion without poses; intrinsics start at those of `cameras`.

    Thresholds are relaxed until a model has all cameras; otherwise the best model is returned.

    Args:
        cameras: initial intrinsics by name; their poses are not used.
        features: of all cameras.
        matches: rows [M, 2] of features for pairs of cameras.
        config: section `calibrate`.
        scratch: folder for COLMAP's database.

    Raises UserError that names the weakest pairs when too few cameras are registered.
    """
    keypoints = {name: pooled.keypoints for name, pooled in features.of.items()}
    best: colmap.Adjusted | None = None
    for min_matches, factor in _RETRIES:
        model = colmap.map_incrementally(
            cameras,
            keypoints,
            matches,
            scratch,
            refine_focal=config.refine_focal,
            min_matches=min_matches,
            min_angle_deg=config.min_triangulation_angle_deg,
            max_error_px=factor * config.max_reprojection_error_px,
            seed=config.seed,
        )
        if model and (best is None or len(model.cameras) > len(best.cameras)):
            best = model
        if best and len(best.cameras) == len(cameras):
            break
    registered = best.cameras if best else {}
    if len(registered) < max(2, config.min_registered * len(cameras)):
        raise _too_few(cameras, registered, features, matches, config)
    assert best is not None, "a sufficient registration comes from a model"
    return Estimate(best.cameras, best.reprojection_error_px, True)


def near_epipolar(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    tolerance_px: float,
) -> dict[Pair, NDArray[np.uint32]]:
    """The matches within `tolerance_px` of the epipolar lines of these poses."""
    near = {}
    for (a, b), pairs in matches.items():
        pixels_a = features.of[a].keypoints[pairs[:, 0]]
        pixels_b = features.of[b].keypoints[pairs[:, 1]]
        distance = sampson_px(cameras[a], cameras[b], pixels_a, pixels_b)
        near[a, b] = pairs[distance < tolerance_px]
    return near


def triangulate(
    cameras: Mapping[str, Camera],
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
    max_error_px: float,
) -> tuple[list[Track], Array]:
    """Consistent tracks over all cameras, and their points [P, 3].

    Args:
        cameras: with fixed poses, by name.
        features: of these cameras.
        matches: rows [M, 2] of features for pairs of cameras.
        config: section `calibrate`.
        max_error_px: largest reprojection error of a consistent track.
    """
    tracks, points = [], []
    for track in _tracks(matches):
        views = [cameras[camera] for camera, _ in track]
        pixels = np.stack([features.of[camera].keypoints[index] for camera, index in track])
        point = colmap.triangulate(views, pixels, max_error_px, config.min_triangulation_angle_deg)
        if point is not None:
            tracks.append(track)
            points.append(point)
    return tracks, np.array(points).reshape(-1, 3)


def points_of_frame(
    frame: int, tracks: Sequence[Track], points: Array, features: PooledFeatures
) -> tuple[Array, NDArray[np.uint8]]:
    """Points [P, 3] and colours [P, 3] of the tracks that belong to one timestamp."""
    chosen = [
        k for k, track in enumerate(tracks) if features.frame[track[0][0]][track[0][1]] == frame
    ]
    colors = [
        np.mean([features.color[camera][index] for camera, index in tracks[k]], axis=0)
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


def _sample(image: Pixels, features: colmap.Features) -> NDArray[np.uint8]:
    """Colours [N, 3] of the pixels at the features."""
    keypoints = features.keypoints
    height, width = image.shape[:2]
    columns = np.clip(keypoints[:, 0].astype(int), 0, width - 1)
    rows = np.clip(keypoints[:, 1].astype(int), 0, height - 1)
    return np.rint(255 * image[rows, columns]).astype(np.uint8)


def _match_pair(features: PooledFeatures, a: str, b: str, ratio: float) -> NDArray[np.uint32]:
    matches = []
    for frame in np.intersect1d(features.frame[a], features.frame[b]):
        in_a = np.flatnonzero(features.frame[a] == frame)
        in_b = np.flatnonzero(features.frame[b] == frame)
        similarity = features.of[a].descriptors[in_a] @ features.of[b].descriptors[in_b].T
        matches += [(in_a[i], in_b[j]) for i, j in _mutual(similarity, ratio)]
    return np.array(matches, np.uint32).reshape(-1, 2)


def _mutual(similarity: NDArray[np.float32], ratio: float) -> Iterator[tuple[int, int]]:
    """Entries (row, column) that are largest in both, and pass Lowe's ratio test in the row."""
    if min(similarity.shape) < 2:
        return
    norm = np.maximum(similarity.max(), 1e-9)
    distance = np.arccos(np.clip(similarity / norm, -1, 1))
    best = similarity.argmax(axis=1)
    best_row = similarity.argmax(axis=0)
    second = np.partition(distance, 1, axis=1)[:, 1]
    for row, column in enumerate(best):
        if best_row[column] == row and distance[row, column] < ratio * second[row]:
            yield row, int(column)


def _tracks(matches: Mapping[Pair, NDArray[np.uint32]]) -> list[Track]:
    """Connected features; tracks with several features in one camera are dropped."""
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
    features: PooledFeatures,
    matches: Mapping[Pair, NDArray[np.uint32]],
    config: CalibrateConfig,
) -> UserError:
    verified = {}
    for (a, b), pairs in matches.items():
        at_a, at_b = (
            features.of[a].keypoints[pairs[:, 0]],
            features.of[b].keypoints[pairs[:, 1]],
        )
        error_px = config.max_epipolar_error_px
        inlier = (
            colmap.verify(cameras[a], at_a, cameras[b], at_b, error_px) if len(pairs) > 7 else []
        )
        verified[a, b] = int(np.sum(inlier))
    # The best neighbour of each camera; cameras with a weak one cannot be registered.
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
