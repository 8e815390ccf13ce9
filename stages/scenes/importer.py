"""Raw sequence to prepared scene: choose frames, undistort, resize, write with roles."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from stages.run.errors import UserError
from stages.scenes.cameras import Camera
from stages.scenes.colmap import write_model
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.scenes.hi4d import Sequence4D, open_sequence
from stages.scenes.images import resize, resize_mask, write_mask, write_png
from stages.scenes.scene import Role, View, camera_to_dict, write_split
from stages.scenes.undistort import ideal_intrinsics, undistort


def import_scene(
    name: str, entry: SceneEntry, config: PrepareConfig, raw: Path, folder: Path
) -> str:
    """Write a prepared scene into `folder`; return one line that says what it holds."""
    roles = _roles(name, entry)
    sequence = open_sequence(raw, list(roles))
    common = sequence.common_frames(list(roles))
    frames = sample(common, entry.timestamps)
    views: list[View] = []
    for frame in frames:
        views += _write_frame(sequence, frame, roles, config, folder)
    write_split(folder / "split.csv", views, folder)
    cameras = {view.name: view.camera for view in views}
    first = next(iter(cameras.values()))
    info = {
        "name": name,
        "group": entry.group_of(name),
        "source": entry.source,
        "licence": entry.licence,
        "timestamps": [f"{frame:06d}" for frame in frames],
        "cameras": {camera: camera_to_dict(value) for camera, value in cameras.items()},
    }
    (folder / "scene.json").write_text(json.dumps(info, indent=2) + "\n")
    dropped = max(len(sequence.frames[camera]) for camera in roles) - len(common)
    return (
        f"{name}: {len(frames)} of {len(common)} shared frames ({dropped} not in every camera), "
        f"{len(entry.source_cameras)} source and {len(entry.target_cameras)} target cameras, "
        f"{first.width}x{first.height} px"
    )


def sample(frames: Sequence[int], count: int) -> list[int]:
    """`count` frames spread evenly from first to last; 0 or too many means all.

    >>> sample([10, 11, 12, 13, 14], 3)
    [10, 12, 14]
    """
    if count == 0 or count >= len(frames):
        return list(frames)
    chosen = np.rint(np.linspace(0, len(frames) - 1, count)).astype(int)
    return [frames[index] for index in chosen]


def _roles(name: str, entry: SceneEntry) -> dict[str, Role]:
    where = f"params.yaml  scenes.{name}"
    roles: dict[str, Role] = dict.fromkeys(entry.source_cameras, "source")
    for camera in entry.target_cameras:
        if camera in roles:
            raise UserError(where, f"camera {camera} is source and target", fix="keep one role")
        roles[camera] = "target"
    for role, cameras in (("source", entry.source_cameras), ("target", entry.target_cameras)):
        if not cameras:
            raise UserError(f"{where}.{role}_cameras", "empty", expected="at least one camera")
    return roles


def _write_frame(
    sequence: Sequence4D,
    frame: int,
    roles: dict[str, Role],
    config: PrepareConfig,
    folder: Path,
) -> list[View]:
    timestamp = f"{frame:06d}"
    here = folder / "frames" / timestamp
    views = [
        _write_view(sequence, camera, frame, role, config, here) for camera, role in roles.items()
    ]
    by_image = {view.image_path.name: _named_as_image(view) for view in views}
    write_model(here / "sparse" / "0", by_image)
    return views


def _named_as_image(view: View) -> Camera:
    """The view's camera under its image's name, as COLMAP has it."""
    return replace(view.camera, name=view.image_path.name)


def _write_view(
    sequence: Sequence4D, camera: str, frame: int, role: Role, config: PrepareConfig, here: Path
) -> View:
    raw = sequence.cameras[camera]
    image = sequence.image(camera, frame)
    sized = sequence.checked_size(camera, image)
    coefficients = raw.distortion if config.undistort else np.zeros(5)
    image = undistort(image, raw.K, coefficients)
    height = min(config.height_px or sized.height, sized.height)
    width = round(sized.width * height / sized.height)
    small = replace(sized, K=ideal_intrinsics(sized.K)).resized(width, height)
    path = here / "images" / f"{camera}.png"
    write_png(path, resize(image, width, height))
    mask_path = here / "masks" / path.name
    mask = sequence.mask(camera, frame) if config.masks else None
    if mask is not None:
        planes = mask[..., None].astype(np.float32)
        straight = undistort(planes, raw.K, coefficients, order=0)[..., 0] > 0.5
        write_mask(mask_path, resize_mask(straight, width, height))
    return View(small, f"{frame:06d}", role, path, mask_path if mask is not None else None)
