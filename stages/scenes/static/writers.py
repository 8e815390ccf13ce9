"""Writers of a prepared static scene: images, models, splits, mapping, metrics and facts."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.files import set_hash, write_json
from stages.scenes.cameras import Camera
from stages.scenes.images import Pixels, image_size, is_plain_png, write_png
from stages.scenes.poses.colmap_rigs import write_rig_model
from stages.scenes.static.adjustment import Registration
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.image_placement import CopyMode, place
from stages.scenes.static.input_images import InputImage
from stages.scenes.static.light_field.lytro import LytroCalibration
from stages.scenes.static.pose_errors import pose_errors
from stages.scenes.static.shared_folder import IMAGES_HASH

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class SceneInputs:
    """All images of a scene, and its light field's calibration."""

    images: list[InputImage]
    pixels: dict[str, Pixels]  # by name
    calibration: LytroCalibration | None


def write_parts(
    folder: Path, registration: Registration, inputs: SceneInputs, mode: CopyMode = "copy"
) -> None:
    """Write images, models, splits and mapping; unregistered images are named and left out.

    With another `mode` than copy, images whose pixels are unchanged are links to the user's files.
    """
    registered = [image for image in inputs.images if image.name in registration.cameras]
    missing = [image.name for image in inputs.images if image.name not in registration.cameras]
    if missing:
        _LOGGER.warning("not registered, left out: %s", ", ".join(missing))
    linked: dict[str, Path] = {}  # the user's files by name
    for image in registered:
        target = folder / "images" / image.name
        source = None if mode == "copy" else _unchanged(image, registration, inputs)
        if source is not None and place(source, target, mode):
            linked[image.name] = source
        else:
            pixels = registration.undistorted.get(image.name, inputs.pixels[image.name])
            write_png(target, pixels)
    if mode != "copy":
        _LOGGER.info(
            "%d of %d images are %ss; the others are written: undistorted or resized, no upright "
            "PNG of 8-bit RGB, or on another file system",
            len(linked),
            len(registered),
            mode,
        )
    _write_model(folder, [image.name for image in registered], registration)
    for kind in dict.fromkeys(image.subset for image in inputs.images):
        names = [image.name for image in registered if image.subset == kind]
        if not names:
            raise UserError(
                "static_prepare",
                f"no image of {kind} is registered",
                expected="at least one",
                fix="see the messages about the others, or remove it from static.cameras",
            )
        subset = folder / "subsets" / kind
        for name in names:
            if name in linked:
                place(linked[name], subset / "images" / name, mode)
            else:
                # A symbolic link would break when the folder is moved to its place.
                of_written: CopyMode = "copy" if mode == "copy" else "hardlink"
                place(folder / "images" / name, subset / "images" / name, of_written)
        _write_model(subset, names, registration)
        hashes = [_content_hash(image) for image in inputs.images if image.subset == kind]
        write_json(subset / IMAGES_HASH, {"photographs": set_hash(hashes)})
        split = folder / "splits" / f"{kind}.txt"
        split.parent.mkdir(exist_ok=True)
        split.write_text("".join(f"{name}\n" for name in names))
    mapping = {image.name: _mapping(image, registration) for image in inputs.images}
    write_json(folder / "metadata" / "mapping.json", mapping)


def _unchanged(image: InputImage, registration: Registration, inputs: SceneInputs) -> Path | None:
    """The file of an image that would be written with the pixels that it has; else None."""
    height, width = inputs.pixels[image.name].shape[:2]
    if image.path is None or image.name in registration.undistorted:
        return None
    is_whole = image_size(image.path) == (width, height)
    return image.path if is_whole and is_plain_png(image.path) else None


def _content_hash(image: InputImage) -> str:
    """Hash of an image's file, or of the pixels of a decoded view."""
    if image.sha256 != image.name:
        return image.sha256
    return sha256(image.read().tobytes()).hexdigest()


def _write_model(folder: Path, names: Sequence[str], registration: Registration) -> None:
    """Write the model of some images: their cameras, and the points observed by them."""
    cameras = {name: registration.cameras[name] for name in names}
    structure = registration.structure.visible_in(names)
    write_rig_model(folder / "sparse" / "0", cameras, registration.slots, structure)


def _mapping(image: InputImage, registration: Registration) -> dict[str, Any]:
    slot = registration.slots.get(image.name, image.slot)
    return {
        "subset": image.subset,
        "source": image.source,
        "lens": slot.lens,
        "rig": slot.rig,
        "frame": slot.frame,
        "registered": image.name in registration.cameras,
    }


def registration_metrics(
    registration: Registration, images: Sequence[InputImage], truth: Mapping[str, Camera]
) -> dict[str, Any]:
    """Counts of images and points, reprojection error, and pose errors against true cameras."""
    kinds = {image.name: image.subset for image in images}
    error = registration.reprojection_error_px
    counts = {
        f"{kind}_registered": sum(kinds[name] == kind for name in registration.cameras)
        for kind in dict.fromkeys(kinds.values())
    }
    return {
        "images": len(images),
        "registered": len(registration.cameras),
        **counts,
        "points": len(registration.structure.points),
        "reprojection_error_px": None if error is None else round(error, 5),
        **pose_errors(registration.cameras, truth, kinds),
    }


def scene_facts(
    registration: Registration, inputs: SceneInputs, static: StaticConfig
) -> dict[str, Any]:
    """Lenses, and the light field's shape."""
    lenses = {
        registration.slots[name].lens: {
            "focal_px": round(float(camera.K[0, 0]), 4),
            "principal_point_px": [round(float(px), 4) for px in camera.K[:2, 2]],
            "size_px": [camera.width, camera.height],
        }
        for name, camera in registration.cameras.items()
    }
    facts: dict[str, Any] = {"lenses": lenses}
    grid = registration.grid
    if grid is not None:
        calibration = inputs.calibration
        facts["lightfield"] = {
            "inner": static.lf_inner,
            "views": sum(image.subset == "lightfield" for image in inputs.images),
            "step": grid.step.round(8).tolist(),
            "step_unit": "m" if calibration and calibration.step_m else "world",
            "shear_px": grid.shear_px.round(5).tolist(),
            "residual_px": round(grid.residual_px, 5),
            "serial": calibration.serial if calibration else None,
        }
    return facts
