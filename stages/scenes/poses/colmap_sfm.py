"""Structure from motion of photographs that share lenses; rigs are put together afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from numpy.typing import NDArray

from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap_lenses import Lens
from stages.scenes.poses.colmap_rigs import Slot, lens_of, numbers_of, posed_cameras, sensor_of


@dataclass(frozen=True)
class MapperThresholds:
    """What the mapper asks of images and points."""

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
    demands: MapperThresholds,
) -> tuple[dict[str, Camera], dict[str, Lens]]:
    """Structure from motion with shared lenses, rigs left aside; cameras of the largest model.

    Beside it the lenses, by image, of which a distortion was found. Poses of `cameras` are not
    used; intrinsics start at theirs. `folder` takes the database.
    """
    path = folder / "database.db"
    path.unlink(missing_ok=True)
    images = {name: number for number, name in enumerate(cameras, start=1)}
    lenses = numbers_of(slots[name].lens for name in cameras)
    with pycolmap.Database.open(path) as database:
        for name, camera in cameras.items():
            number = lenses[slots[name].lens]
            if not database.exists_camera(number):
                made = _mapped_lens(camera, number, slots[name])
                database.write_camera(made, use_camera_id=True)
                database.write_rig(_trivial_rig(number), use_rig_id=True)
            image = pycolmap.Image(name=name, camera_id=number, image_id=images[name])
            database.write_image(image, use_image_id=True)
            frame = pycolmap.Frame(frame_id=images[name], rig_id=number)
            frame.add_data_id(image.data_id)
            database.write_frame(frame, use_frame_id=True)
            database.write_keypoints(images[name], keypoints[name].astype(np.float32))
        for (a, b), pairs in matches.items():
            geometry = _two_views(cameras, slots, keypoints, (a, b), pairs, demands)
            database.write_matches(images[a], images[b], pairs)
            database.write_two_view_geometry(images[a], images[b], geometry)
    models = pycolmap.incremental_mapping(path, folder, folder, _pipeline(demands))
    if not models:
        return {}, {}
    largest = max(models.values(), key=lambda model: (model.num_reg_images(), len(model.points3D)))
    return posed_cameras(largest), _bent_lenses(largest)


def undistorted_points(points: Array, lens: Lens) -> Array:
    """Pixels [N, 2] of a photograph in the whole image that `lens.undistort` makes of it."""
    camera = pycolmap.Camera(
        camera_id=1, model=lens.model, width=lens.width, height=lens.height,
        params=list(lens.params),
    )  # fmt: skip
    K, _, _ = lens.pinhole(whole=True)
    rays = camera.cam_from_img(points)
    return rays * K[[0, 1], [0, 1]] + K[:2, 2]


def _trivial_rig(number: int) -> "pycolmap.Rig":
    rig = pycolmap.Rig(rig_id=number)
    rig.add_ref_sensor(sensor_of(number))
    return rig


def _mapped_lens(camera: Camera, number: int, slot: Slot) -> "pycolmap.Camera":
    """The lens that the mapper starts from, with a distortion to be found if it is `bent`."""
    made = lens_of(camera, number, slot.known_focal)
    if slot.bent:
        (focal, _, cx), (_, _, cy), _ = camera.K
        made.model, made.params = pycolmap.CameraModelId.SIMPLE_RADIAL, [focal, cx, cy, 0.0]
    return made


def _bent_lenses(model: "pycolmap.Reconstruction") -> dict[str, Lens]:
    found = {}
    for image in model.images.values():
        lens = model.cameras[image.camera_id]
        if image.has_pose and lens.model_name == "SIMPLE_RADIAL":
            params = tuple(map(float, lens.params))
            found[image.name] = Lens(lens.model_name, params, lens.width, lens.height)
    return found


def _two_views(
    cameras: Mapping[str, Camera],
    slots: Mapping[str, Slot],
    keypoints: Mapping[str, Array],
    pair: tuple[str, str],
    pairs: NDArray[np.uint32],
    demands: MapperThresholds,
) -> "pycolmap.TwoViewGeometry":
    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.max_error = demands.max_error_px
    options.ransac.random_seed = demands.seed
    a, b = pair
    lens_a, lens_b = (_mapped_lens(cameras[n], k, slots[n]) for k, n in ((1, a), (2, b)))
    return pycolmap.estimate_two_view_geometry(
        lens_a, keypoints[a], lens_b, keypoints[b], pairs, options
    )


def _pipeline(demands: MapperThresholds) -> "pycolmap.IncrementalPipelineOptions":
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = 1
    options.random_seed = demands.seed
    options.min_model_size = 2
    options.min_num_matches = demands.min_matches
    options.extract_colors = False
    options.multiple_models = False
    options.ba_refine_focal_length = True
    options.ba_refine_extra_params = True  # of bent lenses; pinholes have none
    options.mapper.init_min_tri_angle = 4 * demands.min_angle_deg
    options.mapper.init_min_num_inliers = 2 * demands.min_matches
    options.mapper.abs_pose_min_num_inliers = demands.min_matches
    options.mapper.abs_pose_max_error = 2 * demands.max_error_px
    options.mapper.filter_max_reproj_error = demands.max_error_px
    options.mapper.num_threads = 1
    return options
