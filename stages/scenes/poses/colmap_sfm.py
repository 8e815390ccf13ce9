"""Structure from motion of images that share lenses; rigs are formed afterwards."""

import tempfile
from collections.abc import Mapping
from pathlib import Path

from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap_import import pycolmap
from stages.scenes.colmap_lenses import Lens, plane_points
from stages.scenes.poses.colmap_pooled import (
    Matches,
    Thresholds,
    mapper_options,
    verify_in_database,
    write_images,
)
from stages.scenes.poses.colmap_rigs import Slot, ids_of, lens_of, posed_cameras


def map_images(
    cameras: Mapping[str, Camera],
    slots: Mapping[str, Slot],
    keypoints: Mapping[str, Array],
    matches: Matches,
    thresholds: Thresholds,
) -> tuple[dict[str, Camera], dict[str, Lens]]:
    """Structure from motion with shared lenses, without rigs, with COLMAP's demands.

    Args:
        cameras: initial intrinsics by image name; their poses are not used.
        slots: the lens of each image.
        keypoints: [N, 2] of each image, px.
        matches: indices [M, 2] of keypoints for pairs of images; verified here.
        thresholds: of matches and points.

    Returns the cameras of the largest model, and its lenses with distortion, both by image name.
    """
    lenses = ids_of(slots[name].lens for name in cameras)
    options = mapper_options(thresholds)
    options.min_model_size = 2
    options.ba_refine_focal_length = True
    options.ba_refine_extra_params = True  # of lenses with distortion; pinholes have none
    options.mapper.abs_pose_max_error = 2 * thresholds.max_error_px
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "database.db")
        initial = {
            name: _initial_lens(camera, lenses[slots[name].lens], slots[name])
            for name, camera in cameras.items()
        }
        write_images(path, initial, keypoints)
        verify_in_database(path, ids_of(cameras), matches, thresholds)
        models = pycolmap.incremental_mapping(path, scratch, scratch, options)
    if not models:
        return {}, {}
    largest = max(models.values(), key=lambda model: (model.num_reg_images(), len(model.points3D)))
    return posed_cameras(largest), _distorted_lenses(largest)


def undistorted_points(points: Array, lens: Lens) -> Array:
    """Pixels [N, 2] of an image in its undistorted image, `lens.undistort(..., crop=True)`.

    NaN for pixels that no point in view of the lens has.
    """
    camera = pycolmap.Camera(
        camera_id=1,
        model=lens.model,
        width=lens.width,
        height=lens.height,
        params=list(lens.params),
    )
    K, _, _ = lens.pinhole(crop=True)
    return plane_points(camera, points) * K[[0, 1], [0, 1]] + K[:2, 2]


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
