"""What a prepared static scene is made of: images, models, splits, and what is known of them."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.files import set_hash, write_json
from stages.scenes.cameras import Camera
from stages.scenes.images import Pixels, write_png
from stages.scenes.poses.colmap_rigs import write_rig_model
from stages.scenes.static.adjustment import Registration
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.input_images import InputImage
from stages.scenes.static.light_field.lytro import LytroCalibration
from stages.scenes.static.pose_errors import pose_errors
from stages.scenes.static.shared_folder import PHOTOGRAPHS


@dataclass(frozen=True, eq=False)
class Capture:
    """Everything that came home."""

    photos: list[InputImage]
    pixels: dict[str, Pixels]
    calibration: LytroCalibration | None


def write_parts(folder: Path, found: Registration, capture: Capture) -> None:
    """Images, models, splits and mapping; unregistered photographs are left out and told."""
    registered = [photo for photo in capture.photos if photo.name in found.cameras]
    lost = [photo for photo in capture.photos if photo.name not in found.cameras]
    if lost:
        print(
            f"not registered, left out: {', '.join(photo.name for photo in lost)}", file=sys.stderr
        )
    for photo in registered:
        image = found.undistorted.get(photo.name, capture.pixels[photo.name])
        write_png(folder / "images" / photo.name, image)
    _write_model(folder, [photo.name for photo in registered], found)
    for kind in dict.fromkeys(photo.subset for photo in capture.photos):
        names = [photo.name for photo in registered if photo.subset == kind]
        if not names:
            raise UserError(
                "static_prepare", f"no photograph of {kind} is registered",
                expected="at least one",
                fix="see what static_prepare says of the others, or drop it from static.cameras",
            )  # fmt: skip
        subset = folder / "subsets" / kind
        (subset / "images").mkdir(parents=True)
        for name in names:
            shutil.copyfile(folder / "images" / name, subset / "images" / name)
        _write_model(subset, names, found)
        taken = [_content(photo) for photo in capture.photos if photo.subset == kind]
        write_json(subset / PHOTOGRAPHS, {"photographs": set_hash(taken)})
        split = folder / "splits" / f"{kind}.txt"
        split.parent.mkdir(exist_ok=True)
        split.write_text("".join(f"{name}\n" for name in names))
    mapping = {photo.name: _mapping(photo, found) for photo in capture.photos}
    write_json(folder / "metadata" / "mapping.json", mapping)


def _content(photo: InputImage) -> str:
    """Hash of a photograph's file, or of the pixels of a view that has none."""
    if photo.sha256 != photo.name:
        return photo.sha256
    return sha256(photo.read().tobytes()).hexdigest()


def _write_model(folder: Path, names: Sequence[str], found: Registration) -> None:
    """The model of some photographs: their cameras, and the points that they see."""
    cameras = {name: found.cameras[name] for name in names}
    write_rig_model(
        folder / "sparse" / "0", cameras, found.slots, found.structure.visible_in(names)
    )


def _mapping(photo: InputImage, found: Registration) -> dict[str, Any]:
    slot = found.slots.get(photo.name, photo.slot)
    return {
        "subset": photo.subset,
        "source": photo.source,
        "lens": slot.lens,
        "rig": slot.rig,
        "frame": slot.frame,
        "registered": photo.name in found.cameras,
    }


def metrics_of(
    found: Registration, photos: Sequence[InputImage], truth: Mapping[str, Camera]
) -> dict[str, Any]:
    """Scalars of the preparation."""
    kinds = {photo.name: photo.subset for photo in photos}
    error = found.reprojection_error_px
    counts = {
        f"{kind}_registered": sum(kinds[name] == kind for name in found.cameras)
        for kind in dict.fromkeys(kinds.values())
    }
    return {
        "images": len(photos),
        "registered": len(found.cameras),
        **counts,
        "points": len(found.structure.points),
        "reprojection_error_px": None if error is None else round(error, 5),
        **pose_errors(found.cameras, truth, kinds),
    }


def facts_of(found: Registration, capture: Capture, static: StaticConfig) -> dict[str, Any]:
    """Lenses, and the light field's shape."""
    lenses = {
        found.slots[name].lens: {
            "focal_px": round(float(camera.K[0, 0]), 4),
            "principal_point_px": [round(float(at), 4) for at in camera.K[:2, 2]],
            "size_px": [camera.width, camera.height],
        }
        for name, camera in found.cameras.items()
    }
    facts: dict[str, Any] = {"lenses": lenses}
    if found.grid is not None:
        calibration = capture.calibration
        facts["lightfield"] = {
            "inner": static.lf_inner,
            "views": sum(photo.subset == "lightfield" for photo in capture.photos),
            "step": found.grid.step.round(8).tolist(),
            "step_unit": "m" if calibration and calibration.step_m else "world",
            "shear_px": found.grid.shear_px.round(5).tolist(),
            "residual_px": round(found.grid.residual_px, 5),
            "serial": calibration.serial if calibration else None,
        }
    return facts
