"""COLMAP models, features and bundle adjustment where every image has a camera of its own.

Each image has one camera, one rig and one frame, as COLMAP writes a model without rigs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError, raise_all
from stages.scenes.cameras import Array, Camera, camera_fault
from stages.scenes.colmap_import import pycolmap
from stages.scenes.formats.colmap_binary import check_files

# pycolmap logs progress of every call; stages report their own.
pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value

_MAX_PARAMETER = 1e12  # of camera parameters, as in cameras.py
_MAX_SIDE_PX = 1_000_000  # px per side; COLMAP iterates over it, for hours with damaged files


@dataclass(frozen=True, eq=False)
class SparseModel:
    """Cameras by image name, and coloured points."""

    cameras: dict[str, Camera]
    points: Array  # [P, 3]
    colors: NDArray[np.uint8]  # [P, 3]


@dataclass(frozen=True, eq=False)
class Features:
    """SIFT features of one image."""

    keypoints: Array  # [N, 2], px, centre of the first pixel at 0.5
    descriptors: NDArray[np.float32]  # [N, 128], unit length


@dataclass(frozen=True, eq=False)
class AdjustedModel:
    """Result of a bundle adjustment or of incremental mapping."""

    cameras: dict[str, Camera]
    points: Array  # [P, 3]
    reprojection_error_px: float


def open_model(folder: Path) -> "pycolmap.Reconstruction":
    """A model as pycolmap reads it, with complete image names.

    Raises UserError when there is none, when a file of it is damaged, for names that are not
    UTF-8, and for invalid cameras and poses.
    """
    check_files(folder)
    try:
        model = pycolmap.Reconstruction(folder)
        _complete_names(folder, model)
        raise_all(_faults(model, folder))
    # References to missing cameras or images raise IndexError, damaged text ValueError.
    except (ValueError, RuntimeError, OSError, LookupError, OverflowError) as error:
        reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise UserError(
            folder,
            f"no COLMAP model ({reason[0]})",
            expected="cameras, images, points3D",
            fix="copy the model again from its source",
        ) from error
    return model


def points_and_colors(
    model: "pycolmap.Reconstruction", where: object
) -> tuple[Array, NDArray[np.uint8]]:
    """Points [P, 3] in the order of their ids, and their colours [P, 3].

    Raises UserError for points that are not finite.
    """
    points = [model.points3D[key] for key in sorted(model.points3D)]
    xyz = np.array([point.xyz for point in points], np.float64).reshape(-1, 3)
    invalid = len(xyz) - int(np.isfinite(xyz).all(axis=1).sum())
    if invalid:
        raise UserError(
            where,
            f"{invalid} of {len(xyz)} points are not finite",
            expected="finite coordinates",
            fix="remove them from the model, or triangulate again",
        )
    return xyz, np.array([point.color for point in points], np.uint8).reshape(-1, 3)


def _faults(model: "pycolmap.Reconstruction", folder: Path) -> list[UserError]:
    """Errors for invalid cameras and poses."""
    faults = []
    for number, camera in model.cameras.items():
        focal = [camera.params[k] for k in camera.focal_length_idxs()]
        if not np.isfinite(camera.params).all():
            fault = "NaN or infinity in its parameters"
        elif (
            min(camera.width, camera.height) < 1 or max(camera.width, camera.height) > _MAX_SIDE_PX
        ):
            fault = f"{camera.width}x{camera.height} px"
        elif np.abs(camera.params).max() > _MAX_PARAMETER:
            fault = f"parameters up to {np.abs(camera.params).max():g}"
        elif focal and min(focal) <= 0:
            fault = f"a focal length of {min(focal):g} px"
        else:
            continue
        faults.append((f"camera {number}", fault, "a size and a focal length above 0, in px"))
    for image in model.images.values():
        model.cameras[image.camera_id]
        fault = _pose_fault(image.cam_from_world()) if image.has_pose else ""
        if fault:
            faults.append((f"image {image.name}", fault, "a unit quaternion and a translation"))
    fix = "remove it from the model, or copy the model again from its source"
    return [
        UserError(f"{folder}  {at}", fault, expected=expected, fix=fix)
        for at, fault, expected in faults[:5]
    ]


def _pose_fault(cam_from_world: "pycolmap.Rigid3d") -> str:
    numbers = [*cam_from_world.rotation.quat, *cam_from_world.translation]
    if not np.isfinite(numbers).all():
        return "a pose with NaN or infinity"
    # COLMAP silently takes zeros for the identity.
    if cam_from_world.rotation.norm() < 0.5:
        return "a pose whose quaternion is zero"
    return camera_fault(np.eye(3), np.concatenate([cam_from_world.matrix(), np.eye(4)[3:]]))


def read_model(folder: Path) -> SparseModel:
    """Read a COLMAP model of pinhole cameras.

    Raises UserError when it is missing, damaged or has cameras with distortion.
    """
    model = open_model(folder)
    cameras = {
        image.name: _camera_from_colmap(model.cameras[image.camera_id], image, folder)
        for image in sorted(model.images.values(), key=lambda image: image.image_id)
        if image.has_pose
    }
    return SparseModel(cameras, *points_and_colors(model, folder))


def write_model(
    folder: Path,
    cameras: Mapping[str, Camera],
    points: Array | None = None,
    colors: NDArray[np.uint8] | None = None,
) -> None:
    """Write a binary COLMAP model: cameras by image name, and points without tracks."""
    model = _reconstruction(cameras)
    if points is not None and colors is not None:
        for xyz, color in zip(points, colors, strict=True):
            model.add_point3D(xyz, pycolmap.Track(), color)
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(str(folder))


def extract_features(grey: NDArray[np.uint8], limit: int, peak_threshold: float) -> Features:
    """SIFT features of a grey image [H, W], strongest scales first, on the CPU."""
    options = pycolmap.FeatureExtractionOptions()
    options.use_gpu = False
    options.num_threads = 1
    options.sift.max_num_features = limit
    options.sift.peak_threshold = peak_threshold
    sift = pycolmap.Sift(options, device=pycolmap.Device.cpu)
    keypoints, descriptors = sift.extract(np.ascontiguousarray(grey))
    return Features(keypoints[:, :2].astype(np.float64), descriptors.astype(np.float32))


def verify(
    camera_a: Camera, points_a: Array, camera_b: Camera, points_b: Array, error_px: float
) -> NDArray[np.bool_]:
    """Which matches, pixels [N, 2] in each camera, agree with one relative pose (RANSAC): [N]."""
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.max_error = error_px
    options.ransac.random_seed = 0
    index = np.arange(len(points_a), dtype=np.uint32)
    geometry = pycolmap.estimate_two_view_geometry(
        _colmap_camera(camera_a, 1),
        points_a,
        _colmap_camera(camera_b, 2),
        points_b,
        np.stack([index, index], axis=1),
        options,
    )
    inlier = np.zeros(len(points_a), np.bool_)
    inlier[np.asarray(geometry.inlier_matches, np.int64).reshape(-1, 2)[:, 0]] = True
    return inlier


def triangulate(
    cameras: Sequence[Camera], pixels: Array, max_error_px: float, min_angle_deg: float
) -> Array | None:
    """One point [3] from its pixels [V, 2] in V cameras, or None if they are inconsistent."""
    options = pycolmap.EstimateTriangulationOptions()
    options.min_tri_angle = np.radians(min_angle_deg)
    options.residual_type = pycolmap.TriangulationResidualType.REPROJECTION_ERROR
    options.ransac.max_error = max_error_px
    options.ransac.random_seed = 0
    estimate = pycolmap.estimate_triangulation(
        pixels,
        [_rigid(camera) for camera in cameras],
        [_colmap_camera(camera, 1) for camera in cameras],
        options,
    )
    # A track with an outlier is dropped as a whole: it contains a wrong match.
    return estimate["xyz"] if estimate is not None and all(estimate["inliers"]) else None


def adjust(
    cameras: Mapping[str, Camera],
    points: Array,
    tracks: Sequence[Sequence[tuple[str, Array]]],
    refine_focal: bool,
) -> AdjustedModel:
    """Bundle adjustment of poses, points and, if `refine_focal`, focal lengths.

    `tracks[i]` lists (image name, pixel [2]) of point i. The first two cameras fix the gauge.
    """
    model = _reconstruction(cameras)
    ids = {image.name: image.image_id for image in model.images.values()}
    observed: dict[str, list[Array]] = {name: [] for name in cameras}
    elements = []
    for track in tracks:
        elements.append([])
        for name, pixel in track:
            elements[-1].append(pycolmap.TrackElement(ids[name], len(observed[name])))
            observed[name].append(pixel)
    for name, pixels in observed.items():
        model.images[ids[name]].points2D = pycolmap.Point2DList(
            [pycolmap.Point2D(pixel) for pixel in pixels]
        )
    for xyz, track in zip(points, elements, strict=True):
        model.add_point3D(xyz, pycolmap.Track(track), np.zeros(3, np.uint8))
    _run_adjustment(model, refine_focal)
    return _adjusted(model)


def map_incrementally(
    cameras: Mapping[str, Camera],
    keypoints: Mapping[str, Array],
    matches: Mapping[tuple[str, str], NDArray[np.uint32]],
    folder: Path,
    *,
    refine_focal: bool,
    min_matches: int,
    min_angle_deg: float,
    max_error_px: float,
    seed: int,
) -> AdjustedModel | None:
    """Structure from motion on known matches; the largest model, or None.

    Args:
        cameras: intrinsics by image name; their poses are not used.
        keypoints: [N, 2] of each image, px.
        matches: indices [M, 2] of keypoints for pairs of images.
        folder: scratch folder for COLMAP's database.
        refine_focal: whether bundle adjustment changes focal lengths.
        min_matches: inlier matches that a pair, and a new image, needs.
        min_angle_deg: least triangulation angle; the initial pair needs four times as much.
        max_error_px: reprojection error of an inlier.
        seed: of RANSAC and the mapper.
    """
    database_path = folder / "database.db"
    database_path.unlink(missing_ok=True)
    ids = {name: number for number, name in enumerate(cameras, start=1)}
    with pycolmap.Database.open(database_path) as database:
        for name, camera in cameras.items():
            _write_image(database, camera, name, ids[name], keypoints[name])
        for (name_a, name_b), pairs in matches.items():
            geometry = pycolmap.estimate_two_view_geometry(
                _colmap_camera(cameras[name_a], 1),
                keypoints[name_a],
                _colmap_camera(cameras[name_b], 2),
                keypoints[name_b],
                pairs,
                _two_view_options(max_error_px, seed),
            )
            database.write_matches(ids[name_a], ids[name_b], pairs)
            database.write_two_view_geometry(ids[name_a], ids[name_b], geometry)
    options = _mapper_options(refine_focal, min_matches, min_angle_deg, max_error_px, seed)
    models = pycolmap.incremental_mapping(database_path, folder, folder, options)
    if not models:
        return None
    largest = max(models.values(), key=lambda model: (model.num_reg_images(), len(model.points3D)))
    return _adjusted(largest)


def _complete_names(folder: Path, model: "pycolmap.Reconstruction") -> None:
    """Restore image names that COLMAP's text reader cuts at a space."""
    is_text = not (folder / "images.bin").is_file()
    complete = dict(_names_with_spaces(folder / "images.txt")) if is_text else {}
    undecodable = []
    for number, image in model.images.items():
        try:
            if number in complete:
                image.name = complete[number].decode()
            _ = image.name  # decodes it
        except UnicodeDecodeError as error:
            undecodable.append(repr(error.object)[1:])
    if undecodable:
        raise UserError(
            folder,
            f"{len(undecodable)} of {len(model.images)} image names are not UTF-8: "
            f"{', '.join(undecodable[:3])}",
            expected="names in UTF-8, in the model and below images/",
            fix="give the images ASCII names and make the model again",
        )


def _names_with_spaces(path: Path) -> Iterator[tuple[int, bytes]]:
    """Ids and names of the images in a text model whose names contain a space.

    Each image has a line IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME and a line of points.
    """
    with path.open("rb") as lines:
        for line in map(bytes.strip, lines):
            if not line or line.startswith(b"#"):
                continue
            number, *_, name = line.split(maxsplit=9)
            if b" " in name and number.isdigit():
                yield int(number), name
            next(lines, None)


def _write_image(
    database: "pycolmap.Database", camera: Camera, name: str, number: int, keypoints: Array
) -> None:
    database.write_camera(_colmap_camera(camera, number), use_camera_id=True)
    rig = pycolmap.Rig(rig_id=number)
    rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number))
    database.write_rig(rig, use_rig_id=True)
    image = pycolmap.Image(name=name, camera_id=number, image_id=number)
    database.write_image(image, use_image_id=True)
    frame = pycolmap.Frame(frame_id=number, rig_id=number)
    frame.add_data_id(image.data_id)
    database.write_frame(frame, use_frame_id=True)
    database.write_keypoints(number, keypoints.astype(np.float32))


def _two_view_options(error_px: float, seed: int) -> "pycolmap.TwoViewGeometryOptions":
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.max_error = error_px
    options.ransac.random_seed = seed
    return options


def _mapper_options(
    refine_focal: bool, min_matches: int, min_angle_deg: float, max_error_px: float, seed: int
) -> "pycolmap.IncrementalPipelineOptions":
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.random_seed = seed
    options.min_model_size = 3
    options.min_num_matches = min_matches
    options.extract_colors = False
    options.multiple_models = False
    options.ba_refine_focal_length = refine_focal
    options.ba_refine_extra_params = False
    options.mapper.init_min_tri_angle = 4 * min_angle_deg
    options.mapper.init_min_num_inliers = 2 * min_matches
    options.mapper.abs_pose_min_num_inliers = min_matches
    options.mapper.abs_pose_max_error = 2 * max_error_px
    options.mapper.filter_max_reproj_error = max_error_px
    options.mapper.num_threads = 1
    return options


def bundle_adjustment(
    model: "pycolmap.Reconstruction", *, refine_focal: bool, iterations: int
) -> "tuple[pycolmap.BundleAdjustmentOptions, pycolmap.BundleAdjustmentConfig]":
    """Options and config for all registered images; a robust loss, two cameras fix the gauge.

    One thread, so that equal inputs give equal bytes.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = refine_focal
    options.refine_principal_point = False
    options.refine_extra_params = False
    options.print_summary = False
    options.ceres.solver_options.num_threads = 1
    options.ceres.solver_options.max_num_iterations = iterations
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    options.ceres.loss_function_scale = 0.5  # px
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    return options, config


def _run_adjustment(model: "pycolmap.Reconstruction", refine_focal: bool) -> None:
    options, config = bundle_adjustment(model, refine_focal=refine_focal, iterations=100)
    pycolmap.create_default_bundle_adjuster(options, config, model).solve()
    model.update_point_3d_errors()


def _adjusted(model: "pycolmap.Reconstruction") -> AdjustedModel:
    cameras = {
        image.name: _camera_from_colmap(model.cameras[image.camera_id], image, "model")
        for image in sorted(model.images.values(), key=lambda image: image.image_id)
        if image.has_pose
    }
    points = np.array([model.points3D[key].xyz for key in sorted(model.points3D)]).reshape(-1, 3)
    return AdjustedModel(cameras, points, float(model.compute_mean_reprojection_error()))


def _reconstruction(cameras: Mapping[str, Camera]) -> "pycolmap.Reconstruction":
    model = pycolmap.Reconstruction()
    for number, (name, camera) in enumerate(cameras.items(), start=1):
        model.add_camera_with_trivial_rig(_colmap_camera(camera, number))
        image = pycolmap.Image(name=name, camera_id=number, image_id=number)
        model.add_image_with_trivial_frame(image, _rigid(camera))
    return model


def _colmap_camera(camera: Camera, number: int) -> "pycolmap.Camera":
    K = camera.K
    colmap_camera = pycolmap.Camera(
        camera_id=number,
        model="PINHOLE",
        width=camera.width,
        height=camera.height,
        params=[K[0, 0], K[1, 1], K[0, 2], K[1, 2]],
    )
    colmap_camera.has_prior_focal_length = True
    return colmap_camera


def _rigid(camera: Camera) -> "pycolmap.Rigid3d":
    return pycolmap.Rigid3d(camera.cam_from_world[:3])


def _camera_from_colmap(
    camera: "pycolmap.Camera", image: "pycolmap.Image", where: object
) -> Camera:
    if camera.model_name not in ("PINHOLE", "SIMPLE_PINHOLE"):
        raise UserError(where, f"a {camera.model_name} camera", expected="undistorted images")
    pose = np.eye(4)
    pose[:3] = image.cam_from_world().matrix()
    return Camera(image.name, camera.calibration_matrix(), pose, camera.width, camera.height)
