"""Raw sequence to prepared scene: selects frames, undistorts, resizes, assigns roles."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.run.plurals import counted
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap import write_model
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.scenes.image_folder import report_alpha
from stages.scenes.images import BLACK, Color, Mask, resize, resize_mask, write_mask, write_png
from stages.scenes.lenses.distortion import ideal_intrinsics, undistort, valid_pixels
from stages.scenes.scene import VALID_MASKS, write_scene
from stages.scenes.sources.opening import open_raw
from stages.scenes.sources.raw_sequence import RawSequence
from stages.scenes.study.identity import group_of
from stages.scenes.view import Role, View

_LOGGER = logging.getLogger(__name__)


def import_scene(
    name: str,
    entry: SceneEntry,
    config: PrepareConfig,
    raw: Path,
    folder: Path,
    background: Color = BLACK,
) -> str:
    """Write a prepared scene; return a summary of one line.

    Args:
        name: of the scene.
        entry: its entry of the catalogue.
        config: section `prepare`.
        raw: folder of the raw sequence.
        folder: for the prepared scene.
        background: RGB in [0, 1] behind images with alpha.
    """
    roles: dict[str, Role] = dict.fromkeys(entry.source_cameras, "source")
    roles |= dict.fromkeys(entry.target_cameras, "target")
    sequence = replace(open_raw(entry, raw), background=background)
    common = sequence.common_frames(entry.cameras)
    frames = choose_frames(name, common, entry)
    paths = [sequence.frames[camera][frame] for camera in roles for frame in frames]
    report_alpha(name, paths, background)
    cameras = [sequence.camera(camera, frames) for camera in roles]
    valid = {camera.name: _valid_pixels(sequence, camera, config) for camera in cameras}
    views: list[View] = []
    for frame in frames:
        views += _write_frame(sequence, frame, cameras, roles, valid, config, folder)
    info = {
        "name": name,
        "group": group_of(name, entry.group),
        "source": entry.source,
        "licence": entry.licence,
        "timestamps": [f"{frame:06d}" for frame in frames],
    }
    write_scene(folder, info, views)
    first = views[0].camera
    dropped = sequence.dropped_frames(entry.cameras)
    return (
        f"{name}: {len(frames)} of {len(common)} shared frames ({dropped} not in every camera), "
        f"{counted(len(entry.source_cameras), 'source camera')}, "
        f"{counted(len(entry.target_cameras), 'target camera')}, "
        f"{first.width}x{first.height} px"
    )


def choose_frames(scene: str, frames: Sequence[int], entry: SceneEntry) -> list[int]:
    """The frames that an entry selects. Raises UserError if there are none within its limits."""
    first = frames[0] if entry.first_frame is None else entry.first_frame
    last = frames[-1] if entry.last_frame is None else entry.last_frame
    within = [frame for frame in frames if first <= frame <= last]
    if not within:
        raise UserError(
            f"params.yaml  scenes.{scene}",
            f"no frame from {first} to {last}",
            expected=f"limits within the sequence's {frames[0]} to {frames[-1]}",
            fix="change first_frame or last_frame",
        )
    return spread_evenly(within[:: entry.frame_step], entry.timestamps)


def spread_evenly(frames: Sequence[int], count: int) -> list[int]:
    """`count` frames spread evenly from first to last; all if 0 or more than there are.

    >>> spread_evenly([10, 11, 12, 13, 14], 3)
    [10, 12, 14]
    """
    if count == 0 or count >= len(frames):
        return list(frames)
    chosen = np.rint(np.linspace(0, len(frames) - 1, count)).astype(int)
    return [frames[index] for index in chosen]


def _write_frame(
    sequence: RawSequence,
    frame: int,
    cameras: Sequence[Camera],
    roles: dict[str, Role],
    valid: dict[str, Mask | None],
    config: PrepareConfig,
    folder: Path,
) -> list[View]:
    frame_folder = folder / "frames" / f"{frame:06d}"
    views = [
        _write_view(
            sequence, camera, frame, roles[camera.name], valid[camera.name], config, frame_folder
        )
        for camera in cameras
    ]
    by_image = {view.image_path.name: _named_as_image(view) for view in views}
    write_model(frame_folder / "sparse" / "0", by_image)
    return views


def _named_as_image(view: View) -> Camera:
    """The view's camera, named by its image as in COLMAP models."""
    return replace(view.camera, name=view.image_path.name)


def _distortion(sequence: RawSequence, camera: Camera, config: PrepareConfig) -> Array:
    return sequence.cameras[camera.name].distortion if config.undistort else np.zeros(5)


def _valid_pixels(sequence: RawSequence, camera: Camera, config: PrepareConfig) -> Mask | None:
    """Valid pixels of a camera's undistorted images; None if all are, else reported."""
    distortion = _distortion(sequence, camera, config)
    valid = valid_pixels(camera.K, distortion, camera.width, camera.height)
    if valid is not None:
        _LOGGER.info(
            "camera %s: %.0f%% of its undistorted images are outside the image, or where its "
            "distortion is not invertible: black and masked",
            camera.name,
            100 * (1 - valid.mean()),
        )
    return valid


def _write_view(
    sequence: RawSequence,
    camera: Camera,
    frame: int,
    role: Role,
    valid: Mask | None,
    config: PrepareConfig,
    frame_folder: Path,
) -> View:
    distortion = _distortion(sequence, camera, config)
    image = undistort(sequence.image(camera.name, frame), camera.K, distortion)
    height = min(config.height_px or camera.height, camera.height)
    width = max(1, round(camera.width * height / camera.height))
    resized = replace(camera, K=ideal_intrinsics(camera.K)).resized(width, height)
    path = frame_folder / "images" / f"{camera.name}.png"
    if valid is None:
        write_png(path, resize(image, width, height))
    else:
        resized_valid = resize_mask(valid, width, height)
        write_png(path, resize(image, width, height) * resized_valid[..., None])
        write_mask(frame_folder / VALID_MASKS / path.name, resized_valid)
    view = View(resized, path, timestamp=f"{frame:06d}", role=role)
    mask = sequence.mask(camera.name, frame, image.shape[:2]) if config.masks else None
    if mask is None:
        return view
    planes = mask[..., None].astype(np.float32)
    undistorted = undistort(planes, camera.K, distortion, order=0)[..., 0] > 0.5
    mask_path = frame_folder / "masks" / path.name
    write_mask(mask_path, resize_mask(undistorted, width, height))
    return replace(view, mask_path=mask_path)
