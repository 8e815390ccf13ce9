"""Structure from motion of images that share lenses; rigs are formed afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap_import import pycolmap
from stages.scenes.colmap_lenses import Lens
from stages.scenes.poses.colmap_rigs import Slot, ids_of, lens_of, posed_cameras, sensor_id


@dataclass(frozen=True)
class MapperThresholds:
    """Thresholds and seed of the mapper."""

    min_matches: int
    max_error_px: float
    min_angle_deg: float
    seed: int


def map_images(
    cameras: Mapping[str, Camera],
    slots: Mapping[str, Slot],
    keypoints: Mapping[str, Array],
    matches: Mapping[tuple[str, str], NDArray[np.uint32]],
    folder: Path,
    thresholds: MapperThresholds,
) -> tuple[dict[str, Camera], dict[str, Lens]]:
    """Structure from motion with shared lenses, without rigs.

    Args:
        cameras: initial intrinsics by image name; their poses are not used.
        slots: the lens of each image.
        keypoints: [N, 2] of each image, px.
        matches: indices [M, 2] of keypoints for pairs of images.
        folder: scratch folder for COLMAP's database.
        thresholds: of the mapper.

    Returns the cameras of the largest model, and its lenses with distortion, both by image name.
    """
    path = folder / "database.db"
    path.unlink(missing_ok=True)
    images = {name: number for number, name in enumerate(cameras, start=1)}
    lenses = ids_of(slots[name].lens for name in cameras)
    with pycolmap.Database.open(path) as database:
        for name, camera in cameras.items():
            number = lenses[slots[name].lens]
            if not database.exists_camera(number):
                colmap_camera = _initial_lens(camera, number, slots[name])
                database.write_camera(colmap_camera, use_camera_id=True)
                database.write_rig(_trivial_rig(number), use_rig_id=True)
            image = pycolmap.Image(name=name, camera_id=number, image_id=images[name])
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=images[name], rig_id=number)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(images[name], keypoints[name].astype(np.float32))
        for (a, b), pairs in matches.items():
            geometry = _two_views(cameras, slots, keypoints, (a, b), pairs, thresholds)
            database.write_matches(images[a], images[b], pairs)
            database.write_two_view_geometry(images[a], images[b], geometry)
    models = pycolmap.incremental_mapping(path, folder, folder, _pipeline(thresholds))
    if not models:
        return {}, {}
    largest = max(models.values(), key=lambda model: (model.num_reg_images(), len(model.points3D)))
    return posed_cameras(largest), _distorted_lenses(largest)


def undistorted_points(points: Array, lens: Lens) -> Array:
    """Pixels [N, 2] of an image in its undistorted image, `lens.undistort(..., crop=True)`."""
    camera = pycolmap.Camera(
        camera_id=1,
        model=lens.model,
        width=lens.width,
        height=lens.height,
        params=list(lens.params),
    )
    K, _, _ = lens.pinhole(crop=True)
    rays = camera.cam_from_img(points)
    return rays * K[[0, 1], [0, 1]] + K[:2, 2]


def _trivial_rig(number: int) -> "pycolmap.Rig":
    rig = pycolmap.Rig(rig_id=number)
    rig.add_ref_sensor(sensor_id(number))
    return rig


def _initial_lens(camera: Camera, number: int, slot: Slot) -> "pycolmap.Camera":
    """The lens that the mapper starts from, with radial distortion if it is `distorted`."""
    lens = lens_of(camera, number, slot.known_focal)
    if slot.distorted:
        (focal, _, cx), (_, _, cy), _ = camera.K
        lens.model, lens.params = pycolmap.CameraModelId.SIMPLE_RADIAL, [focal, cx, cy, 0.0]
    return lens


def _distorted_lenses(model: "pycolmap.Reconstruction") -> dict[str, Lens]:
    lenses = {}
    for image in model.images.values():
        lens = model.cameras[image.camera_id]
        if image.has_pose and lens.model_name == "SIMPLE_RADIAL":
            params = tuple(map(float, lens.params))
            lenses[image.name] = Lens(lens.model_name, params, lens.width, lens.height)
    return lenses


def _two_views(
    cameras: Mapping[str, Camera],
    slots: Mapping[str, Slot],
    keypoints: Mapping[str, Array],
    pair: tuple[str, str],
    pairs: NDArray[np.uint32],
    thresholds: MapperThresholds,
) -> "pycolmap.TwoViewGeometry":
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.max_error = thresholds.max_error_px
    options.ransac.random_seed = thresholds.seed
    a, b = pair
    lens_a, lens_b = (_initial_lens(cameras[n], k, slots[n]) for k, n in ((1, a), (2, b)))
    return pycolmap.estimate_two_view_geometry(
        lens_a, keypoints[a], lens_b, keypoints[b], pairs, options
    )


def _pipeline(thresholds: MapperThresholds) -> "pycolmap.IncrementalPipelineOptions":
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.random_seed = thresholds.seed
    options.min_model_size = 2
    options.min_num_matches = thresholds.min_matches
    options.extract_colors = False
    options.multiple_models = False
    options.ba_refine_focal_length = True
    options.ba_refine_extra_params = True  # of lenses with distortion; pinholes have none
    options.mapper.init_min_tri_angle = 4 * thresholds.min_angle_deg
    options.mapper.init_min_num_inliers = 2 * thresholds.min_matches
    options.mapper.abs_pose_min_num_inliers = thresholds.min_matches
    options.mapper.abs_pose_max_error = 2 * thresholds.max_error_px
    options.mapper.filter_max_reproj_error = thresholds.max_error_px
    options.mapper.num_threads = 1
    return options
