"""Errors of estimated cameras against true ones, where a scene comes with these."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from stages.run.files import read_json, shaped
from stages.scenes.cameras import Camera, rotation_angle_deg
from stages.scenes.frames import fit_sim3_from_cameras
from stages.scenes.scene import cameras_from_dict


def read_true_cameras(path: Path) -> dict[str, Camera]:
    """True cameras by the image names of a prepared scene; empty when there is no such file."""
    if not path.is_file():
        return {}
    with shaped(path, "by image name K, rotation_wxyz, translation, width, height", "delete it"):
        return cameras_from_dict(read_json(path))


def pose_errors(
    cameras: Mapping[str, Camera], truth: Mapping[str, Camera], kinds: Mapping[str, str]
) -> dict[str, float | None]:
    """Median errors per kind of camera, after a similarity fitted to all cameras.

    `<kind>_rotation_deg`, and `<kind>_centre_percent` of the largest distance between two true
    cameras; None where no true camera is known. `kinds` maps names to kinds.
    """
    names = [name for name in cameras if name in truth]
    all_kinds = list(dict.fromkeys(kinds.values()))
    if len(names) < 2:
        return {f"{kind}_{what}": None for kind in all_kinds for what in _NAMES}
    true_from_est, _ = fit_sim3_from_cameras(
        [cameras[name] for name in names], [truth[name] for name in names]
    )
    centres = np.stack([truth[name].centre for name in names])
    extent = float(np.linalg.norm(centres[:, None] - centres[None], axis=-1).max())
    errors: dict[str, list[tuple[float, float]]] = {kind: [] for kind in all_kinds}
    for name in names:
        estimated, true = true_from_est.apply_camera(cameras[name]), truth[name]
        angle = rotation_angle_deg(estimated.cam_from_world[:3, :3], true.cam_from_world[:3, :3])
        distance = float(np.linalg.norm(estimated.centre - true.centre))
        errors[kinds[name]].append((angle, 100 * distance / extent))
    return {
        f"{kind}_{what}": round(float(np.median(values, axis=0)[column]), 5) if values else None
        for kind, values in errors.items()
        for column, what in enumerate(_NAMES)
    }


_NAMES = ("rotation_deg", "centre_percent")
