"""Images of a capture to a COLMAP model by pycolmap's pipeline, with or without initial poses.

While images are not registered, mapping is repeated with weaker features; the best model counts.
Every model is judged without the true poses; images that it does not place are left out, and a
model that they contradict is not taken. With one thread and fixed seeds, equal images give equal
bytes.
"""

import copy
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.run.plurals import first_few
from stages.run.process.cores import available_cores
from stages.scenes.cameras import mean_distance, rotation_angle_deg
from stages.scenes.captures import held_out, model_judgement
from stages.scenes.captures.config import CaptureCalibrateConfig
from stages.scenes.colmap import open_model
from stages.scenes.colmap_import import pycolmap
from stages.scenes.colmap_matching import Matcher, match_all_pairs, progress_logged
from stages.scenes.frames import fit_sim3_from_cameras, recentring
from stages.scenes.images import focal_35mm, focal_mm, image_size, read_image
from stages.scenes.poses import sift

_LOGGER = logging.getLogger(__name__)

_MIN_MODEL_IMAGES = 3
_ROUNDS = 3  # mappings with the same features, each without the matches that deceived the last
_LINE_EVERY_S = 10.0
# Of poses by two halves of the points: degrees, and a share of the mean distance between cameras,
# which an open focal length moves along their view; a warning tells of that.
_MAX_SPREAD_DEG, _MAX_SPREAD = 0.8, 0.05
_MAX_FOCAL_DEVIATION = 0.01  # a share of the focal length; above it a user is warned
_MAX_ASPECT = 1.1  # of a lens's two focal lengths; likewise
# Deviation of a camera's place in a model to adjust, for each unit of pose_tolerance: a share of
# the mean distance between cameras.
_PLACE = 0.02
# How much a model grows before all of it is adjusted again, and the relative decrease of an error
# at which an adjustment ends. COLMAP's 1.1 and 0 take twice as long, for poses as near the truth.
_GROWTH, _LOCAL_DECREASE, _GLOBAL_DECREASE = 1.3, 1e-4, 1e-5
_BLOCK = 10  # images whose pairs COLMAP matches before it writes them


@dataclass(frozen=True)
class Attempt:
    """Thresholds for features and matches; demands on poses are COLMAP's in each."""

    name: str
    peak_threshold: float
    max_features: int
    affine: bool  # affine features, for slanted surfaces; about ten times slower
    ratio: float
    guided: bool  # match again along epipolar lines; minutes per hundred pairs on a CPU


# Strictest first: weak thresholds admit matches that cost accuracy.
LADDER = (
    Attempt("COLMAP's thresholds", 0.0067, 8192, False, 0.8, False),
    Attempt("more and weaker features", 0.002, 8192, False, 0.85, False),
    Attempt("affine features", 0.002, 8192, True, 0.85, True),
)


@dataclass(frozen=True)
class MappingSummary:
    """Size and error of a model, and the images that it lacks."""

    registered: tuple[str, ...]
    missing: dict[str, str]  # by name: its best connection to a registered image, in words
    points: int
    reprojection_error_px: float
    attempt: str
    agreement: float | None = None  # share of the verified matches near the epipolar lines
    focal_deviation: float | None = None  # as a share of the focal length; None if not refined
    notes: tuple[str, ...] = ()


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
    faults: list[str] = []
    for number, attempt in enumerate(LADDER[: config.attempts]):
        database = scratch / f"{number}.db"
        _LOGGER.info("attempt %d of %d: %s", number + 1, config.attempts, attempt.name)
        _extract(database, root, names, attempt, config)
        _match(database, len(names), attempt, config, matcher)
        model = _best_model(database, scratch, len(names), attempt, config, faults)
        count = 0 if model is None else model.num_reg_images()
        _LOGGER.info("%s: %d of %d images registered", attempt.name, count, len(names))
        if model is not None and (best is None or count > len(best[1].registered)):
            best = model, _summary(model, names, database, attempt.name, config)
        if best is not None and not best[1].missing:
            break
    if best is None:
        wrong = f"; the only model is wrong: {faults[-1]}" if faults else ""
        raise UserError(
            source,
            f"0 of {len(names)} images registered{wrong}",
            expected="at least three images of one static scene, from different places, that "
            "overlap by more than half",
            fix="take images in between, sharp and with texture (a camera that turns on the spot "
            "shows no depth), choose capture_calibrate.camera_model by the lens, or add a COLMAP "
            "model",
        )
    _write(best[0], root, folder)
    return best[1]


def _write(model: "pycolmap.Reconstruction", root: Path, folder: Path) -> None:
    """Write a model whose points have the mean colours of the images below `root`."""
    model.extract_colors_for_all_images(root, num_threads=1)
    folder.mkdir(parents=True, exist_ok=True)
    model.write_binary(str(folder))


def _best_model(
    database: Path,
    scratch: Path,
    total: int,
    attempt: Attempt,
    config: CaptureCalibrateConfig,
    faults: list[str],
) -> "pycolmap.Reconstruction | None":
    """The largest model that is believed, without the images that are not; None without any.

    Where a model is wrong because different surfaces look alike, their matches are taken out of the
    database and mapping is repeated.
    """
    best: pycolmap.Reconstruction | None = None
    for _ in range(_ROUNDS):
        found = _map(database, scratch, total, config)
        deceptive: set[tuple[int, int]] = set()
        for model in found:
            judgement = model_judgement.judge(model, database)
            if judgement.fault:
                faults.append(f"{judgement.images} images, {judgement.fault}")
                _LOGGER.warning(
                    "%s: a model of %d images is not taken: %s",
                    attempt.name,
                    judgement.images,
                    judgement.fault,
                )
                deceptive |= set(judgement.contradictions)
                continue
            _leave_out(model, judgement.doubtful, config)
            is_larger = best is None or model.num_reg_images() > best.num_reg_images()
            if not is_larger or model.num_reg_images() < _MIN_MODEL_IMAGES:
                continue
            angle_deg, share = _spread(model, config)
            if angle_deg > _MAX_SPREAD_DEG or share > _MAX_SPREAD:
                faults.append(
                    f"{model.num_reg_images()} images, poses by one half of its points are "
                    f"{angle_deg:.2f} degrees and {share:.2%} of the mean distance between cameras "
                    "from those by the other half"
                )
                _LOGGER.warning("%s: a model is not taken: %s", attempt.name, faults[-1])
                continue
            best = model
        if not _forget(database, deceptive):
            break
    return best


def _map(
    database: Path, scratch: Path, total: int, config: CaptureCalibrateConfig
) -> "list[pycolmap.Reconstruction]":
    """COLMAP's models, the largest first."""
    begin = last = time.perf_counter()
    registered = 0

    def count(more: int, *, anew: bool = False) -> Callable[[], None]:
        def add() -> None:
            nonlocal registered, last
            registered = more if anew else registered + more
            if time.perf_counter() - last > _LINE_EVERY_S:
                last = time.perf_counter()
                _LOGGER.info("mapping: %d of %d images, %.0f s", registered, total, last - begin)

        return add

    options = _mapper_options(config)
    # COLMAP ends a model that shares 20 images with others, and a failed start is another: a few
    # images beside each other, with a lens that they do not determine.
    options.max_model_overlap = total
    by_id = pycolmap.incremental_mapping(
        database,
        scratch,
        scratch,
        options,
        initial_image_pair_callback=count(2, anew=True),
        next_image_callback=count(1),
    )
    _LOGGER.info("mapping: %.1f s", time.perf_counter() - begin)
    return sorted(by_id.values(), key=lambda m: (-m.num_reg_images(), -len(m.points3D)))


def _spread(
    model: "pycolmap.Reconstruction", config: CaptureCalibrateConfig
) -> tuple[float, float]:
    """How far poses adjusted to one half of the points are from those to the other half.

    Mean angle, degrees, and mean distance as a share of the mean distance between cameras, after
    the best similarity. Few points and wrong ones show here, without true poses: errors of sparse
    models were one to one and a half times as large.
    """
    keys = sorted(model.points3D)
    in_first = np.random.default_rng(config.seed).permutation(len(keys)) % 2 == 0
    halves = []
    for first in (True, False):
        half = copy.deepcopy(model)
        for key, belongs in zip(keys, in_first == first, strict=True):
            if not belongs:
                half.delete_point3D(key)
        _adjust(half, config)
        halves.append(held_out.pinholes(half))
    names = sorted(set(halves[0]) & set(halves[1]))
    a, b = ([half[name] for name in names] for half in halves)
    b_from_a, _ = fit_sim3_from_cameras(a, b)
    moved = [b_from_a.apply_camera(camera) for camera in a]
    angles = [
        rotation_angle_deg(x.cam_from_world[:3, :3], y.cam_from_world[:3, :3])
        for x, y in zip(moved, b, strict=True)
    ]
    shifts = [np.linalg.norm(x.centre - y.centre) for x, y in zip(moved, b, strict=True)]
    return float(np.mean(angles)), float(np.mean(shifts)) / max(mean_distance(b), 1e-12)


def _leave_out(
    model: "pycolmap.Reconstruction", doubtful: Mapping[int, str], config: CaptureCalibrateConfig
) -> None:
    """Take images out of a model and adjust the others without them."""
    if not doubtful:
        return
    for number, reason in doubtful.items():
        _LOGGER.warning("%s is left out: %s", model.images[number].name, reason)
        model.deregister_frame(model.images[number].frame_id)
    model.tear_down()  # without the images; COLMAP's covariance wants a pose of each
    if model.num_reg_images() >= _MIN_MODEL_IMAGES:
        _adjust(model, config)
        model.update_point_3d_errors()
        pycolmap.ObservationManager(model).filter_all_points3D(4.0, 1.5)


def _forget(database: Path, pairs: set[tuple[int, int]]) -> bool:
    """Take the matches of pairs out of a database; whether there were any."""
    with pycolmap.Database.open(database) as opened:
        there = [
            pair
            for pair in sorted(pairs)
            if len(opened.read_two_view_geometry(*pair).inlier_matches)
        ]
        for pair in there:
            opened.delete_two_view_geometry(*pair)
            opened.delete_matches(*pair)
    return bool(there)


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
    _match(database, len(names), attempt, config, matcher)
    held = held_out.take_out(initial, database)
    options = _mapper_options(config)
    # Rays of inaccurate poses rarely intersect within COLMAP's tolerances.
    options.triangulation.create_max_angle_error *= config.pose_tolerance
    options.triangulation.continue_max_angle_error *= config.pose_tolerance
    options.mapper.filter_max_reproj_error *= config.pose_tolerance
    start = pycolmap.triangulate_points(initial, database, root, scratch, options=options)
    if len(start.points3D) < 10 * len(names):
        raise UserError(
            model,
            f"{len(start.points3D)} points triangulated with {len(names)} images",
            expected=f"at least {10 * len(names)}",
            fix="raise capture_calibrate.pose_tolerance, or estimate the poses by method: sfm",
        )
    adjusted = copy.deepcopy(start)
    place = _PLACE * config.pose_tolerance * _mean_distance(start)
    for _ in range(2):
        _adjust(adjusted, config, _place_priors(start, place))
        adjusted.update_point_3d_errors()
        pycolmap.ObservationManager(adjusted).filter_all_points3D(4.0, 1.5)
    before, after = held.error_px(start), held.error_px(adjusted)
    _LOGGER.info("matches that took no part: %s before, %s after", _px(before), _px(after))
    taken, notes = adjusted, ()
    fault = model_judgement.judge(adjusted, database).fault
    if before is not None and (after is None or after > before):
        fault = (
            f"matches that took no part in it fit worse, {_px(before)} before, {_px(after)} after"
        )
    if fault:
        taken, notes = start, (f"poses not refined: {fault}",)
    if near_from_world is not None:
        taken.transform(near_from_world.inverse())
    _write(taken, root, folder)
    summary = _summary(taken, names, database, "bundle adjustment of initial poses", config)
    if fault:  # its lenses were not adjusted
        return replace(summary, focal_deviation=None, notes=notes)
    return summary


def _px(error: float | None) -> str:
    return "too few" if error is None else f"{error:.2f} px"


def _mean_distance(model: "pycolmap.Reconstruction") -> float:
    return mean_distance(list(held_out.pinholes(model).values()))


def _place_priors(model: "pycolmap.Reconstruction", deviation: float) -> "list[pycolmap.PosePrior]":
    """Priors of the cameras' places, with a standard deviation in units of the model."""
    found = []
    for number in sorted(model.reg_image_ids()):
        prior = pycolmap.PosePrior()
        prior.corr_data_id = model.images[number].data_id
        prior.position = model.images[number].projection_center()
        prior.position_covariance = deviation**2 * np.eye(3)
        prior.coordinate_system = pycolmap.PosePriorCoordinateSystem.CARTESIAN
        found.append(prior)
    return found


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
    if has_tracks:
        model.update_point_3d_errors()  # those of the file may be older than its poses
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
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = config.camera_model
    if not existing:
        groups = [list(names)] if config.lenses == "one" else _by_lens(root, names)
        _LOGGER.info("images: %d, lenses: %d", len(names), len(groups))
        pycolmap.Database.open(database).close()  # it must exist
        for group in groups:
            pycolmap.import_images(database, root, pycolmap.CameraMode.SINGLE, group, reader)
    begin = time.perf_counter()
    with progress_logged(database, "descriptors", len(names), "images with features"):
        if attempt.affine:
            _extract_affine(database, root, names, attempt, config)
        else:
            _detect(database, root, names, attempt, config)
    _LOGGER.info("features of %d images: %.1f s", len(names), time.perf_counter() - begin)


def _detect(
    database: Path,
    root: Path,
    names: Sequence[str],
    attempt: Attempt,
    config: CaptureCalibrateConfig,
) -> None:
    reads = [partial(read_image, root / name, upright=False) for name in names]
    found = sift.detect_all(
        reads, attempt.max_features, attempt.peak_threshold, config.max_image_px
    )
    with pycolmap.Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        for name, features in zip(names, found, strict=True):
            sift.write(opened, ids[name], features)


def _extract_affine(
    database: Path,
    root: Path,
    names: Sequence[str],
    attempt: Attempt,
    config: CaptureCalibrateConfig,
) -> None:
    """Features of slanted surfaces, which OpenCV has not."""
    options = pycolmap.FeatureExtractionOptions()
    # What is found does not depend on the number of threads.
    options.use_gpu, options.num_threads = False, available_cores()
    options.max_image_size = config.max_image_px or -1
    options.sift.peak_threshold = attempt.peak_threshold
    options.sift.max_num_features = attempt.max_features
    options.sift.estimate_affine_shape = options.sift.domain_size_pooling = True
    pycolmap.extract_features(
        database,
        root,
        list(names),
        pycolmap.CameraMode.PER_IMAGE,
        pycolmap.ImageReaderOptions(),
        options,
        device=pycolmap.Device.cpu,
    )


def _by_lens(root: Path, names: Sequence[str]) -> list[list[str]]:
    """Images by lens: those of equal size and, by their EXIF, equal focal length."""
    groups: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        path = root / name
        key = image_size(path, upright=False), focal_mm(path), focal_35mm(path)
        groups.setdefault(key, []).append(name)
    return list(groups.values())


def _match(
    database: Path,
    images: int,
    attempt: Attempt,
    config: CaptureCalibrateConfig,
    matcher: Matcher | None,
) -> None:
    options = pycolmap.FeatureMatchingOptions()
    options.use_gpu, options.num_threads = False, available_cores()
    options.guided_matching = attempt.guided
    options.sift.max_ratio = attempt.ratio
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = config.seed
    total = images * (images - 1) // 2
    begin = time.perf_counter()
    with progress_logged(database, "matches", total, "matched pairs of images"):
        if matcher is None or attempt.guided:
            pycolmap.match_exhaustive(
                database,
                options,
                pycolmap.ExhaustivePairingOptions(block_size=_BLOCK),
                verification_options=geometry,
                device=pycolmap.Device.cpu,
            )
        else:
            match_all_pairs(database, attempt.ratio, matcher)
            verifier = pycolmap.GeometricVerifierOptions(num_threads=available_cores())
            pycolmap.geometric_verification(database, verifier, two_view_geometry_options=geometry)
    _LOGGER.info("matches of %d pairs: %.1f s", total, time.perf_counter() - begin)


def _mapper_options(config: CaptureCalibrateConfig) -> "pycolmap.IncrementalPipelineOptions":
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = options.mapper.num_threads = config.threads
    options.random_seed = options.mapper.random_seed = config.seed
    options.triangulation.random_seed = config.seed
    options.ba_refine_focal_length = options.ba_refine_extra_params = config.refine_lenses
    options.mapper.abs_pose_refine_focal_length = config.refine_lenses
    options.mapper.abs_pose_refine_extra_params = config.refine_lenses
    options.min_model_size = _MIN_MODEL_IMAGES
    options.extract_colors = False  # of the model that is taken, by `_write`
    options.ba_global_frames_ratio = options.ba_global_points_ratio = _GROWTH
    options.ba_local_function_tolerance = _LOCAL_DECREASE
    options.ba_global_function_tolerance = _GLOBAL_DECREASE
    options.mapper.ba_global_ignore_redundant_points3D = True
    return options


def _adjust(
    model: "pycolmap.Reconstruction",
    config: CaptureCalibrateConfig,
    priors: "Sequence[pycolmap.PosePrior]" = (),
) -> None:
    """Adjust poses, points and lenses; `priors` hold cameras near their places."""
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
    if priors:
        held = pycolmap.PosePriorBundleAdjustmentOptions()
        held.alignment_ransac.random_seed = config.seed
        adjuster = pycolmap.create_pose_prior_bundle_adjuster(
            options, held, adjustment_config, list(priors), model
        )
    else:
        adjustment_config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        adjuster = pycolmap.create_default_bundle_adjuster(options, adjustment_config, model)
    adjuster.solve()


def _summary(
    model: "pycolmap.Reconstruction",
    names: Sequence[str],
    database: Path,
    attempt: str,
    config: CaptureCalibrateConfig,
) -> MappingSummary:
    registered = sorted(image.name for image in model.images.values() if image.has_pose)
    missing = [name for name in names if name not in registered]
    connections = _connections(database, registered) if missing else {}
    deviation = model_judgement.focal_deviation(model) if config.refine_lenses else None
    return MappingSummary(
        tuple(registered),
        {name: connections.get(name, "no verified match") for name in missing},
        len(model.points3D),
        float(model.compute_mean_reprojection_error()),
        attempt,
        model_judgement.agreement(model_judgement.verified_pairs(model, database)),
        deviation,
        _notes(model, deviation),
    )


def _notes(model: "pycolmap.Reconstruction", deviation: float | None) -> tuple[str, ...]:
    """What a user should know of a model that is taken; `deviation` is None for given lenses."""
    if deviation is None:
        return ()
    used = {model.images[number].camera_id for number in model.reg_image_ids()}
    lenses = [model.cameras[number] for number in sorted(used)]
    notes = []
    if deviation > _MAX_FOCAL_DEVIATION:
        focal = first_few([f"{lens.mean_focal_length():.0f}" for lens in lenses])
        open_by = f"open by {deviation:.1%}" if deviation < 1 else "open"
        notes.append(
            f"the images leave the focal length ({focal} px) {open_by}: they face one direction "
            "or a plane, so depths are as uncertain; images from further around determine it"
        )
    for lens in lenses:
        across, down = lens.focal_length_x, lens.focal_length_y
        if max(across, down) > _MAX_ASPECT * min(across, down):
            notes.append(
                f"focal lengths of {across:.0f} px across and {down:.0f} px down: where pixels are "
                "square the lens is wrong, and the poses with it; camera models with one focal "
                "length, such as SIMPLE_RADIAL or RADIAL, are safer here"
            )
    return tuple(notes)


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
