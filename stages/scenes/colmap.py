"""COLMAP models and bundle adjustment where every image has a camera of its own.

Each image has one camera, one rig and one frame, as COLMAP writes a model without rigs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.errors import UserError, raise_all
from stages.run.plurals import first_few
from stages.scenes.cameras import Array, Camera, camera_fault
from stages.scenes.colmap_import import pycolmap
from stages.scenes.formats.colmap_binary import check_files

# pycolmap logs progress of every call; stages report their own.

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
    """Places of features in one image."""

    keypoints: Array  # [N, 2], px, centre of the first pixel at 0.5


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
            f"{first_few(undecodable)}",
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
