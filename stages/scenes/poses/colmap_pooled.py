"""COLMAP's verification, mapper and triangulation for cameras with pooled features.

Each camera is one image with the features of all timestamps. Seeds are fixed, and what runs on
several cores does not depend on their number: equal inputs give equal bytes.
"""

import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.run.process.cores import available_cores
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap_import import pycolmap
from stages.scenes.formats.colmap_binary import read_tracks
from stages.scenes.poses.colmap_rigs import lens_of, posed_cameras, sensor_id

Pair = tuple[str, str]
Matches = Mapping[Pair, NDArray[np.uint32]]  # rows [M, 2] of features, by pair of cameras

_MIN_MATCHES = 15  # of a pair


@dataclass(frozen=True)
class Thresholds:
    """What matches, points and cameras need, and the seed of random choices."""

    max_error_px: float
    min_angle_deg: float
    seed: int
    threads: int = 1  # of the verification, whose results do not depend on it


@dataclass(frozen=True, eq=False)
class Tracks:
    """Triangulated points and the features that show them, at most one in each camera."""

    points: Array  # [P, 3]
    point: NDArray[np.int64]  # [O], index into `points`
    camera: NDArray[np.int64]  # [O], number of the camera in the order that was given
    feature: NDArray[np.int64]  # [O], row of its features

    def observed(self, of_cameras: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Values [O, ...] of the observations, from those of each camera's features."""
        starts = np.cumsum([0, *map(len, of_cameras)])
        return np.concatenate(of_cameras)[starts[self.camera] + self.feature]

    def mean_colors(self, of_cameras: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
        """Mean colour [P, 3] of the features that show each point."""
        size = len(self.points)
        sums = [np.bincount(self.point, part, size) for part in self.observed(of_cameras).T]
        count = np.maximum(np.bincount(self.point, minlength=size), 1)
        return np.rint(np.stack(sums, axis=1) / count[:, None]).astype(np.uint8)

    def thinned(self, most: int) -> "Tracks":
        """At most `most` of the points, spread evenly."""
        if len(self.points) <= most:
            return self
        chosen = np.unique(np.linspace(0, len(self.points) - 1, most).astype(np.int64))
        return self.of_points(np.isin(np.arange(len(self.points)), chosen))

    def of_points(self, kept: NDArray[np.bool_]) -> "Tracks":
        """The points of a mask [P]."""
        number = np.cumsum(kept) - 1
        rows = kept[self.point]
        parts = (self.camera[rows], self.feature[rows])
        return Tracks(self.points[kept], number[self.point[rows]], *parts)


def verify(
    cameras: Mapping[str, Camera],
    keypoints: Mapping[str, Array],
    matches: Matches,
    thresholds: Thresholds,
) -> dict[Pair, NDArray[np.uint32]]:
    """The matches of each pair that agree with one two-view geometry; a pair may have none.

    Those of keypoints that are NaN, which have no ray, take no part.
    """
    ids = _ids(cameras)
    has_ray = {name: np.isfinite(points).all(axis=1) for name, points in keypoints.items()}
    matches = {
        (a, b): rows[has_ray[a][rows[:, 0]] & has_ray[b][rows[:, 1]]]
        for (a, b), rows in matches.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "database.db")
        write_images(path, _lenses(cameras), keypoints)
        verify_in_database(path, ids, matches, thresholds)
        with pycolmap.Database.open(path) as database:
            return {
                (a, b): np.asarray(
                    database.read_two_view_geometry(ids[a], ids[b]).inlier_matches, np.uint32
                ).reshape(-1, 2)
                for a, b in matches
            }


def verify_in_database(
    path: Path, ids: Mapping[str, int], matches: Matches, thresholds: Thresholds
) -> None:
    """Write matches between a database's images and verify each pair's."""
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.max_error = thresholds.max_error_px
    options.ransac.random_seed = thresholds.seed
    verifier = pycolmap.GeometricVerifierOptions(num_threads=thresholds.threads)
    with pycolmap.Database.open(path) as database:
        for (a, b), pairs in matches.items():
            database.write_matches(ids[a], ids[b], pairs)
    pycolmap.geometric_verification(path, verifier, two_view_geometry_options=options)


def triangulate(
    cameras: Mapping[str, Camera],
    keypoints: Mapping[str, Array],
    matches: Matches,
    thresholds: Thresholds,
    pose_error_deg: float = 0.0,
    frames: Mapping[str, NDArray[np.int64]] | None = None,
) -> Tracks:
    """Points at fixed poses from verified matches; pairs with fewer than 15 do not count.

    Points of different timestamps do not depend on each other, so that all cores share them.

    Args:
        cameras: with poses, by name.
        keypoints: [N, 2] of each camera, px.
        matches: verified ones.
        thresholds: their `max_error_px` is that of an observation.
        pose_error_deg: by how much rays may miss their point beyond that.
        frames: timestamp [N] of each feature, equal for those that match; by default one.

    Points are in the order of their timestamps.
    """
    options = _triangulation(cameras, thresholds, pose_error_deg)
    counted = {pair: rows for pair, rows in matches.items() if len(rows) >= _MIN_MATCHES}

    def found(part: Matches) -> Tracks:
        return _triangulated(cameras, keypoints, part, options)

    with ThreadPoolExecutor(available_cores()) as pool:
        parts = list(pool.map(found, _by_frame(counted, frames)))
    if not parts:
        none = np.zeros(0, np.int64)
        return Tracks(np.zeros((0, 3)), none, none, none)
    starts = np.cumsum([0, *(len(part.points) for part in parts[:-1])])
    return Tracks(
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.point + start for part, start in zip(parts, starts, strict=True)]),
        np.concatenate([part.camera for part in parts]),
        np.concatenate([part.feature for part in parts]),
    )


def _by_frame(matches: Matches, frames: Mapping[str, NDArray[np.int64]] | None) -> list[Matches]:
    """The matches of each timestamp that has any."""
    if frames is None:
        return [matches] if matches else []
    parts: dict[int, dict[Pair, NDArray[np.uint32]]] = {}
    for pair, rows in matches.items():
        of_row = frames[pair[0]][rows[:, 0]]
        rows = rows[np.argsort(of_row, kind="stable")]
        which, starts = np.unique(np.sort(of_row), return_index=True)
        for frame, own in zip(which.tolist(), np.split(rows, starts[1:]), strict=True):
            parts.setdefault(frame, {})[pair] = own
    return [parts[frame] for frame in sorted(parts)]


def _triangulation(
    cameras: Mapping[str, Camera], thresholds: Thresholds, pose_error_deg: float
) -> "pycolmap.IncrementalPipelineOptions":
    options = mapper_options(thresholds)
    focal = np.median([camera.K[0, 0] for camera in cameras.values()])
    angle = float(np.degrees(thresholds.max_error_px / focal)) + pose_error_deg
    error_px = thresholds.max_error_px + float(focal * np.radians(pose_error_deg))
    triangulation = options.triangulation
    triangulation.create_max_angle_error = triangulation.continue_max_angle_error = angle
    # COLMAP tries pairs with few points again, by default with 5 degrees, and keeps wrong matches.
    triangulation.re_max_angle_error = angle
    triangulation.merge_max_reproj_error = triangulation.complete_max_reproj_error = error_px
    triangulation.min_angle = thresholds.min_angle_deg
    triangulation.ignore_two_view_tracks = False
    options.mapper.filter_max_reproj_error = error_px
    options.mapper.filter_min_tri_angle = thresholds.min_angle_deg
    options.min_num_matches = 1  # a timestamp of a pair may have few of its matches
    return options


def _triangulated(
    cameras: Mapping[str, Camera],
    keypoints: Mapping[str, Array],
    matches: Matches,
    options: "pycolmap.IncrementalPipelineOptions",
) -> Tracks:
    """Points from these matches; COLMAP is given only the features that have any."""
    rows: dict[str, list[NDArray[np.uint32]]] = {name: [] for name in cameras}
    for pair, found in matches.items():
        for side, name in enumerate(pair):
            rows[name].append(found[:, side])
    none = np.zeros(0, np.uint32)
    used = {name: np.unique(np.concatenate([none, *found])) for name, found in rows.items()}
    own = {name: keypoints[name][used[name]] for name in cameras}
    renumbered = {
        pair: np.stack(
            [np.searchsorted(used[name], found[:, side]) for side, name in enumerate(pair)], axis=1
        ).astype(np.uint32)
        for pair, found in matches.items()
    }
    with tempfile.TemporaryDirectory() as scratch:
        path, folder = Path(scratch, "database.db"), Path(scratch, "model")
        write_images(path, _lenses(cameras), own)
        _write_verified(path, cameras, renumbered)
        folder.mkdir()
        pycolmap.triangulate_points(
            _model(cameras, own), path, scratch, folder, options=options
        ).write_binary(str(folder))
        points, point, image, feature = read_tracks(folder)
    # COLMAP may join two features of a camera; the first one counts.
    first = np.ones(len(point), bool)
    first[1:] = (np.diff(point) != 0) | (np.diff(image) != 0)
    point, camera, feature = point[first], image[first] - 1, feature[first]
    starts = np.cumsum([0, *map(len, used.values())])
    feature = np.concatenate([none, *used.values()])[starts[camera] + feature].astype(np.int64)
    return Tracks(points, point, camera, feature)


def map_incrementally(
    cameras: Mapping[str, Camera],
    keypoints: Mapping[str, Array],
    matches: Matches,
    thresholds: Thresholds,
) -> dict[str, Camera]:
    """Cameras of the largest model by structure from motion, with COLMAP's default demands.

    Intrinsics are those of `cameras`; their poses are not used. Empty when there is no model.
    """
    options = mapper_options(thresholds)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "database.db")
        write_images(path, _lenses(cameras), keypoints)
        _write_verified(path, cameras, matches)
        models = pycolmap.incremental_mapping(path, scratch, scratch, options)
    if not models:
        return {}
    largest = max(models.values(), key=lambda model: (model.num_reg_images(), len(model.points3D)))
    return posed_cameras(largest)


def _ids(cameras: Mapping[str, Camera]) -> dict[str, int]:
    return {name: number for number, name in enumerate(cameras, start=1)}


def _lenses(cameras: Mapping[str, Camera]) -> "dict[str, pycolmap.Camera]":
    return {name: lens_of(cameras[name], number, True) for name, number in _ids(cameras).items()}


def write_images(
    path: Path, lenses: Mapping[str, "pycolmap.Camera"], keypoints: Mapping[str, Array]
) -> None:
    """Write images numbered from 1, each a frame of its own; images of equal lens ids share it."""
    with pycolmap.Database.open(path) as database:
        for number, (name, lens) in enumerate(lenses.items(), start=1):
            if not database.exists_camera(lens.camera_id):
                database.write_camera(lens, use_camera_id=True)
                rig = pycolmap.Rig(rig_id=lens.camera_id)
                rig.add_ref_sensor(sensor_id(lens.camera_id))
                database.write_rig(rig, use_rig_id=True)
            image = pycolmap.Image(name=name, camera_id=lens.camera_id, image_id=number)
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=number, rig_id=lens.camera_id)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(number, keypoints[name].astype(np.float32))


def _write_verified(path: Path, cameras: Mapping[str, Camera], matches: Matches) -> None:
    ids = _ids(cameras)
    calibrated = int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
    with pycolmap.Database.open(path) as database:
        for (a, b), pairs in matches.items():
            geometry = pycolmap.TwoViewGeometry()
            geometry.config = calibrated
            geometry.inlier_matches = pairs
            database.write_matches(ids[a], ids[b], pairs)
            database.write_two_view_geometry(ids[a], ids[b], geometry)


def mapper_options(thresholds: Thresholds) -> "pycolmap.IncrementalPipelineOptions":
    """COLMAP's demands, with these thresholds and one thread; intrinsics are fixed."""
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = options.mapper.num_threads = 1
    options.random_seed = options.mapper.random_seed = thresholds.seed
    options.triangulation.random_seed = thresholds.seed
    options.extract_colors = False
    options.min_model_size = 3
    options.multiple_models = False
    options.ba_refine_focal_length = options.ba_refine_extra_params = False
    options.mapper.filter_max_reproj_error = thresholds.max_error_px
    options.mapper.filter_min_tri_angle = thresholds.min_angle_deg
    return options


def _model(
    cameras: Mapping[str, Camera], keypoints: Mapping[str, Array]
) -> "pycolmap.Reconstruction":
    model = pycolmap.Reconstruction()
    for name, number in _ids(cameras).items():
        camera = cameras[name]
        model.add_camera_with_trivial_rig(lens_of(camera, number, True))
        image = pycolmap.Image(
            name, keypoints[name].reshape(-1, 2), camera_id=number, image_id=number
        )
        pose = pycolmap.Rigid3d(camera.cam_from_world[:3])
        model.add_image_with_trivial_frame(image, pose)
    return model
