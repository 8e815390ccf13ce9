"""Raw sequence to prepared scene: choose frames, undistort, resize, write with roles."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import Array, Camera
from stages.scenes.colmap import write_model
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.scenes.hi4d import Sequence4D, open_sequence
from stages.scenes.image_folder import report_alpha
from stages.scenes.images import BLACK, Color, Mask, resize, resize_mask, write_mask, write_png
from stages.scenes.lenses.distortion import ideal_intrinsics, seen, undistort
from stages.scenes.scene import VALID_MASKS, Role, View, write_scene
from stages.scenes.study.identity import group_of


def import_scene(
    name: str, entry: SceneEntry, config: PrepareConfig, raw: Path, folder: Path,
    background: Color = BLACK,
) -> str:  # fmt: skip
    """Write a prepared scene into `folder`; return one line that says what it holds.

    Photographs with alpha are laid over `background`.
    """
    roles: dict[str, Role] = dict.fromkeys(entry.source_cameras, "source")
    roles |= dict.fromkeys(entry.target_cameras, "target")
    sequence = replace(open_sequence(raw, entry.cameras), background=background)
    common = sequence.common_frames(entry.cameras)
    frames = choose_frames(name, common, entry)
    taken = [sequence.frames[camera][frame] for camera in roles for frame in frames]
    report_alpha(name, taken, background)
    photographed = [sequence.camera(camera, frames) for camera in roles]
    shown = {camera.name: _seen(sequence, camera, config) for camera in photographed}
    views: list[View] = []
    for frame in frames:
        views += _write_frame(sequence, frame, photographed, roles, shown, config, folder)
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
        f"{len(entry.source_cameras)} source and {len(entry.target_cameras)} target cameras, "
        f"{first.width}x{first.height} px"
    )


def choose_frames(scene: str, frames: Sequence[int], entry: SceneEntry) -> list[int]:
    """The frames that an entry asks for. Raises UserError when its limits leave none."""
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
    return sample(within[:: entry.frame_step], entry.timestamps)


def sample(frames: Sequence[int], count: int) -> list[int]:
    """`count` frames spread evenly from first to last; 0 or too many means all.

    >>> sample([10, 11, 12, 13, 14], 3)
    [10, 12, 14]
    """
    if count == 0 or count >= len(frames):
        return list(frames)
    chosen = np.rint(np.linspace(0, len(frames) - 1, count)).astype(int)
    return [frames[index] for index in chosen]


def _write_frame(
    sequence: Sequence4D,
    frame: int,
    cameras: Sequence[Camera],
    roles: dict[str, Role],
    shown: dict[str, Mask | None],
    config: PrepareConfig,
    folder: Path,
) -> list[View]:
    here = folder / "frames" / f"{frame:06d}"
    views = [
        _write_view(sequence, camera, frame, roles[camera.name], shown[camera.name], config, here)
        for camera in cameras
    ]
    by_image = {view.image_path.name: _named_as_image(view) for view in views}
    write_model(here / "sparse" / "0", by_image)
    return views


def _named_as_image(view: View) -> Camera:
    """The view's camera under its image's name, as COLMAP has it."""
    return replace(view.camera, name=view.image_path.name)


def _bends(sequence: Sequence4D, camera: Camera, config: PrepareConfig) -> Array:
    return sequence.cameras[camera.name].distortion if config.undistort else np.zeros(5)


def _seen(sequence: Sequence4D, camera: Camera, config: PrepareConfig) -> Mask | None:
    """The pixels of a camera's pictures that its photographs show, if some are not; then said."""
    found = seen(camera.K, _bends(sequence, camera, config), camera.width, camera.height)
    if found is not None:
        print(
            f"camera {camera.name}: {1 - found.mean():.0%} of its undistorted pictures lie outside "
            "the photograph, or where its distortion turns back: black, and not counted",
            flush=True,
        )  # fmt: skip
    return found


def _write_view(
    sequence: Sequence4D,
    camera: Camera,
    frame: int,
    role: Role,
    shown: Mask | None,
    config: PrepareConfig,
    here: Path,
) -> View:
    bends = _bends(sequence, camera, config)
    image = undistort(sequence.image(camera.name, frame), camera.K, bends)
    height = min(config.height_px or camera.height, camera.height)
    width = max(1, round(camera.width * height / camera.height))
    small = replace(camera, K=ideal_intrinsics(camera.K)).resized(width, height)
    path = here / "images" / f"{camera.name}.png"
    if shown is None:
        write_png(path, resize(image, width, height))
    else:
        small_shown = resize_mask(shown, width, height)
        write_png(path, resize(image, width, height) * small_shown[..., None])
        write_mask(here / VALID_MASKS / path.name, small_shown)
    view = View(small, f"{frame:06d}", role, path, None)
    mask = sequence.mask(camera.name, frame, image.shape[:2]) if config.masks else None
    if mask is None:
        return view
    planes = mask[..., None].astype(np.float32)
    straight = undistort(planes, camera.K, bends, order=0)[..., 0] > 0.5
    mask_path = here / "masks" / path.name
    write_mask(mask_path, resize_mask(straight, width, height))
    return replace(view, mask_path=mask_path)
