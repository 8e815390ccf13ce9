"""Images of a capture to a COLMAP model by pycolmap's pipeline, with or without initial poses.

While images are not registered, mapping is repeated with weaker thresholds; the best model counts.
With one thread and fixed seeds, equal images give equal bytes.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.run.process.cores import available_cores
from stages.scenes.captures.config import CaptureCalibrateConfig
from stages.scenes.colmap import open_model
from stages.scenes.colmap_import import pycolmap
from stages.scenes.colmap_matching import Matcher, match_all_pairs
from stages.scenes.frames import recentring
from stages.scenes.images import focal_35mm, focal_mm, image_size

_LOGGER = logging.getLogger(__name__)

_MIN_MODEL_IMAGES = 3
# Verified matches that make a pair count, their largest error, and the least share that agrees.
_MIN_VERIFIED, _VERIFIED_PX, _LEAST_AGREEMENT = 40, 4.0, 0.7


@dataclass(frozen=True)
class Attempt:
    """Thresholds for features, matches and poses."""

    name: str
    peak_threshold: float
    max_features: int
    affine: bool  # affine features, for slanted surfaces; about ten times slower
    ratio: float
    guided: bool  # match again along epipolar lines; minutes per hundred pairs on a CPU
    min_matches: int
    min_inliers: int  # of a new pose
    initial_inliers: int  # of the first pair
    initial_angle_deg: float


# Strictest first: weak thresholds admit matches that cost accuracy.
LADDER = (
    Attempt("COLMAP's defaults", 0.0067, 8192, False, 0.8, False, 15, 30, 100, 16.0),
    Attempt("more and weaker features", 0.002, 8192, False, 0.85, False, 12, 15, 50, 8.0),
    Attempt("affine features, few matches", 0.002, 8192, True, 0.9, True, 10, 12, 40, 4.0),
)


@dataclass(frozen=True)
class MappingSummary:
    """Size and error of a model, and the images that it lacks."""

    registered: tuple[str, ...]
    missing: dict[str, str]  # by name: its best connection to a registered image, in words
    points: int
    reprojection_error_px: float
    attempt: str


def map_capture(
    source: Path,
    root: Path,
    names: Sequence[str],
    folder: Path,
    scratch: Path,
    config: CaptureCalibrateConfig,
    matcher: Matcher | None = None,
) -> MappingSummary:
    """Structure from motion; writes the best model to `folder`.

    Args:
        source: the user's folder, for messages.
        root: folder of the images for COLMAP.
        names: of the images below `root`.
        folder: for the model.
        scratch: folder for databases.
        config: section `capture_calibrate`.
        matcher: instead of COLMAP's.

    Raises UserError when no attempt gives a model.
    """
    best: tuple[pycolmap.Reconstruction, MappingSummary] | None = None
    for number, attempt in enumerate(LADDER[: config.attempts]):
        database = scratch / f"{number}.db"
        _extract(database, root, names, attempt, config)
        _match(database, attempt, config, matcher)
        by_id = pycolmap.incremental_mapping(
            database, root, scratch, _mapper_options(attempt, config)
        )
        models = sorted(by_id.values(), key=lambda m: (m.num_reg_images(), len(m.points3D)))
        models = [model for model in models if _agrees(model, database, attempt)]
        if models and (best is None or models[-1].num_reg_images() > len(best[1].registered)):
            best = models[-1], _summary(models[-1], names, database, attempt.name)
        registered = ", ".join(str(model.num_reg_images()) for model in models[::-1]) or "0"
        _LOGGER.info("%s: %s of %d images registered", attempt.name, registered, len(names))
        if best is not None and not best[1].missing:
            break
    if best is None:
        raise UserError(
            source,
            f"0 of {len(names)} images registered",
            expected="images of one static scene that overlap by more than half",
            fix="take more images in between, sharp and with texture, or add a COLMAP model",
        )
    folder.mkdir(parents=True, exist_ok=True)
    best[0].write_binary(str(folder))
    return best[1]


def adjust_posed(
    root: Path,
    model: Path,
    folder: Path,
    scratch: Path,
    config: CaptureCalibrateConfig,
    matcher: Matcher | None = None,
) -> MappingSummary:
    """Triangulate points at a model's poses, then adjust poses, lenses and points.

    Args:
        root: folder of the images.
        model: folder of the initial model; its points are not used, so it needs no tracks.
        folder: for the adjusted model.
        scratch: folder for the database.
        config: section `capture_calibrate`.
        matcher: instead of COLMAP's.

    Raises UserError when too few points are triangulated for an adjustment.
    """
    initial = open_model(model)
    near_from_world = _recentring(initial)
    if near_from_world is not None:
        initial.transform(near_from_world)
    names = sorted(image.name for image in initial.images.values() if image.has_pose)
    attempt, database = LADDER[0], scratch / "adjust.db"
    _write_database(database, initial)
    _extract(database, root, names, attempt, config, existing=True)
    _match(database, attempt, config, matcher)
    options = _mapper_options(attempt, config)
    # Rays of inaccurate poses rarely intersect within COLMAP's tolerances.
    options.triangulation.create_max_angle_error *= config.pose_tolerance
    options.triangulation.continue_max_angle_error *= config.pose_tolerance
    options.mapper.filter_max_reproj_error *= config.pose_tolerance
    adjusted = pycolmap.triangulate_points(initial, database, root, scratch, options=options)
    if len(adjusted.points3D) < 10 * len(names):
        raise UserError(
            model,
            f"{len(adjusted.points3D)} points triangulated with {len(names)} images",
            expected=f"at least {10 * len(names)}",
            fix="raise capture_calibrate.pose_tolerance, or estimate the poses by method: sfm",
        )
    for _ in range(2):
        _adjust(adjusted, config)
        adjusted.update_point_3d_errors()
        pycolmap.ObservationManager(adjusted).filter_all_points3D(4.0, 1.5)
    if near_from_world is not None:
        adjusted.transform(near_from_world.inverse())
    folder.mkdir(parents=True, exist_ok=True)
    adjusted.write_binary(str(folder))
    return _summary(adjusted, names, database, "bundle adjustment of initial poses")


def _recentring(model: "pycolmap.Reconstruction") -> "pycolmap.Sim3d | None":
    """near_from_world if the coordinates are too large for an adjustment, else None."""
    posed = [image for image in model.images.values() if image.has_pose]
    near = recentring([image.projection_center() for image in posed])
    return None if near is None else pycolmap.Sim3d(near.matrix[:3])


def summarise(folder: Path) -> MappingSummary:
    """Summary of a model on disk."""
    model = open_model(folder)
    registered = sorted(image.name for image in model.images.values() if image.has_pose)
    # Points without tracks, as we write them, have no error.
    has_tracks = any(len(point.track.elements) for point in model.points3D.values())
    error_px = float(model.compute_mean_reprojection_error()) if has_tracks else 0.0
    return MappingSummary(tuple(registered), {}, len(model.points3D), error_px, "the user's model")


def _extract(
    database: Path,
    root: Path,
    names: Sequence[str],
    attempt: Attempt,
    config: CaptureCalibrateConfig,
    *,
    existing: bool = False,
) -> None:
    options = pycolmap.FeatureExtractionOptions()
    # What is found does not depend on the number of threads.
    options.use_gpu, options.num_threads = False, available_cores()
    options.max_image_size = config.max_image_px or -1
    options.sift.peak_threshold = attempt.peak_threshold
    options.sift.max_num_features = attempt.max_features
    options.sift.estimate_affine_shape = attempt.affine
    options.sift.domain_size_pooling = attempt.affine
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = config.camera_model
    modes = pycolmap.CameraMode
    if existing:
        groups = [list(names)]
    else:
        groups = [list(names)] if config.lenses == "one" else _by_lens(root, names)
        _LOGGER.info("%d images share %d lenses", len(names), len(groups))
    begin = time.perf_counter()
    for group in groups:
        pycolmap.extract_features(
            database,
            root,
            group,
            modes.PER_IMAGE if existing else modes.SINGLE,
            reader,
            options,
            device=pycolmap.Device.cpu,
        )
    _LOGGER.info("features of %d images: %.1f s", len(names), time.perf_counter() - begin)


def _by_lens(root: Path, names: Sequence[str]) -> list[list[str]]:
    """Images by lens: those of equal size and, by their EXIF, equal focal length."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        path = root / name
        key = image_size(path, upright=False), focal_mm(path), focal_35mm(path)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _match(
    database: Path, attempt: Attempt, config: CaptureCalibrateConfig, matcher: Matcher | None
) -> None:
    options = pycolmap.FeatureMatchingOptions()
    options.use_gpu, options.num_threads = False, available_cores()
    options.guided_matching = attempt.guided
    options.sift.max_ratio = attempt.ratio
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = config.seed
    geometry.min_num_inliers = attempt.min_matches
    begin = time.perf_counter()
    if matcher is None or attempt.guided:
        pycolmap.match_exhaustive(
            database, options, verification_options=geometry, device=pycolmap.Device.cpu
        )
    else:
        match_all_pairs(database, attempt.ratio, matcher)
        verifier = pycolmap.GeometricVerifierOptions(num_threads=available_cores())
        pycolmap.geometric_verification(database, verifier, two_view_geometry_options=geometry)
    _LOGGER.info("matches of all pairs: %.1f s", time.perf_counter() - begin)


def _mapper_options(
    attempt: Attempt, config: CaptureCalibrateConfig
) -> "pycolmap.IncrementalPipelineOptions":
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = options.mapper.num_threads = config.threads
    options.random_seed = options.mapper.random_seed = config.seed
    options.triangulation.random_seed = config.seed
    options.ba_refine_focal_length = options.ba_refine_extra_params = config.refine_lenses
    options.mapper.abs_pose_refine_focal_length = config.refine_lenses
    options.mapper.abs_pose_refine_extra_params = config.refine_lenses
    options.min_model_size = _MIN_MODEL_IMAGES
    options.min_num_matches = attempt.min_matches
    options.mapper.init_min_num_inliers = attempt.initial_inliers
    options.mapper.init_min_tri_angle = attempt.initial_angle_deg
    options.mapper.abs_pose_min_num_inliers = attempt.min_inliers
    return options


def _agrees(model: "pycolmap.Reconstruction", database: Path, attempt: Attempt) -> bool:
    """Whether the matches that pairs of images verified by themselves agree with the model."""
    share = agreement(model, database)
    if share is None or share >= _LEAST_AGREEMENT:
        return True
    _LOGGER.warning(
        "%s: a model of %d images is not taken, because %.0f%% of the verified matches contradict "
        "its poses",
        attempt.name,
        model.num_reg_images(),
        100 * (1 - share),
    )
    return False


def agreement(model: "pycolmap.Reconstruction", database: Path) -> float | None:
    """Share of the verified matches near the epipolar lines of the model's poses.

    Pairs with few matches do not count, since those agree by chance; None without any other pair.
    """
    with pycolmap.Database.open(database) as opened:
        pairs, geometries = opened.read_two_view_geometries()
        pixels = {number: opened.read_keypoints(number)[:, :2] for number in model.reg_image_ids()}
    near = total = 0
    for pair, geometry in zip(pairs, geometries, strict=True):
        rows = np.asarray(geometry.inlier_matches, np.int64).reshape(-1, 2)
        numbers = pycolmap.pair_id_to_image_pair(pair)
        if len(rows) < _MIN_VERIFIED or not set(numbers) <= set(pixels):
            continue
        a, b = (model.images[number] for number in numbers)
        lenses = [model.cameras[image.camera_id] for image in (a, b)]
        on_plane = [
            lens.cam_from_img(pixels[number][rows[:, side]].astype(np.float64))
            for side, (lens, number) in enumerate(zip(lenses, numbers, strict=True))
        ]
        b_from_a = b.cam_from_world() * a.cam_from_world().inverse()
        essential = pycolmap.essential_matrix_from_pose(b_from_a)
        squared = np.array(pycolmap.compute_squared_sampson_error(*on_plane, essential))
        focal_px = np.mean([lens.mean_focal_length() for lens in lenses])
        near += int((np.sqrt(squared) * focal_px < _VERIFIED_PX).sum())
        total += len(rows)
    return near / total if total else None


def _adjust(model: "pycolmap.Reconstruction", config: CaptureCalibrateConfig) -> None:
    # pycolmap.bundle_adjustment would turn COLMAP's log back on.
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = options.refine_extra_params = config.refine_lenses
    options.refine_principal_point = False
    options.ceres.solver_options.num_threads = config.threads
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    adjustment_config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        adjustment_config.add_image(image_id)
    adjustment_config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, adjustment_config, model).solve()


def _summary(
    model: "pycolmap.Reconstruction", names: Sequence[str], database: Path, attempt: str
) -> MappingSummary:
    registered = sorted(image.name for image in model.images.values() if image.has_pose)
    missing = [name for name in names if name not in registered]
    connections = _connections(database, registered) if missing else {}
    return MappingSummary(
        tuple(registered),
        {name: connections.get(name, "no verified match") for name in missing},
        len(model.points3D),
        float(model.compute_mean_reprojection_error()),
        attempt,
    )


def _connections(database: Path, registered: Sequence[str]) -> Mapping[str, str]:
    """For each image, the registered image with which it shares most verified matches."""
    with pycolmap.Database.open(database) as opened:
        names = {image.image_id: image.name for image in opened.read_all_images()}
        pairs, geometries = opened.read_two_view_geometries()
    best: dict[str, tuple[int, str]] = {}
    for pair, geometry in zip(pairs, geometries, strict=True):
        a, b = (names[number] for number in pycolmap.pair_id_to_image_pair(pair))
        count = len(geometry.inlier_matches)
        for name, other in ((a, b), (b, a)):
            if other in registered and count:
                best[name] = max(best.get(name, (0, "")), (count, other))
    return {name: f"{count} verified matches with {other}" for name, (count, other) in best.items()}


def _write_database(database: Path, model: "pycolmap.Reconstruction") -> None:
    """Write a database with the model's cameras, images and ids."""
    database.unlink(missing_ok=True)
    with pycolmap.Database.open(database) as opened:
        for camera in model.cameras.values():
            opened.write_camera(camera, use_camera_id=True)
        for rig in model.rigs.values():
            opened.write_rig(rig, use_rig_id=True)
        for frame in model.frames.values():
            opened.write_frame(frame, use_frame_id=True)
        for image in model.images.values():
            opened.write_image(image, use_image_id=True)
