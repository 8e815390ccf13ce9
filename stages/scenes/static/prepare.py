"""Makes the shared form of a static scene from the photographs that came home."""

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, read_json, shaped, write_json
from stages.run.user_paths import check_apart, make_target
from stages.scenes.cameras import Camera
from stages.scenes.image_folder import walk_folder
from stages.scenes.images import BLACK, Color, Pixels, resize
from stages.scenes.poses.colmap_rigs import Slot, Structure, read_rig_model
from stages.scenes.static.adjustment import Registration
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.input_images import (
    EVAL,
    PREFIXES,
    lightfield_images,
    lightfield_path,
    photographs,
)
from stages.scenes.static.light_field.lightfield import LightField, read_lightfield
from stages.scenes.static.light_field.lytro import (
    LytroCalibration,
    geometry_reference,
    read_calibration_archive,
    step_of,
)
from stages.scenes.static.pose_errors import read_true_cameras
from stages.scenes.static.registration import register
from stages.scenes.static.shared_folder import SCRATCH, SharedFolder
from stages.scenes.static.writers import Capture, facts_of, metrics_of, write_parts

# What a prepared scene follows from, beside its photographs.
_PARAMS = (
    "cameras", "max_px", "lf_inner", "vggt_stage", "skip_vggt", "lens_model", "focal_guess",
    "max_features", "peak_threshold", "ratio_test", "max_reprojection_error_px",
    "min_triangulation_angle_deg", "min_registered", "seed",
)  # fmt: skip
_VERSION = 1


# Approximate cameras of photographs by name, or None where nothing can predict them.
Predict = Callable[[Mapping[str, Pixels]], Mapping[str, Camera] | None]


def prepare(
    raw: Path,
    folder: Path,
    static: StaticConfig,
    predict: Predict = lambda images: None,
    background: Color = BLACK,
) -> tuple[dict[str, Any], bool]:
    """Prepare `raw`, a scene's `static/`, into `folder`; its metrics, and whether it was rebuilt.

    What was made from the same content is left as it is, unless `static.force`. Until the new one
    is whole the old one stays. Photographs with alpha are laid over `background`. Raises UserError
    for missing or unfit photographs.
    """
    if not raw.is_dir():
        raise UserError(raw, "no such folder", expected="monocular/, iphone/, stereo/, ...")
    shared = SharedFolder(folder)
    for kind in PREFIXES:
        check_apart(raw / kind, folder)
    shared.check_ours()
    make_target(folder)
    origin = _origin(raw, folder, static, background)
    if not static.force and shared.is_made_from(origin):
        again = "run static_prepare with static.force"
        with shaped(shared.summary, "metrics: counts of photographs", again):
            metrics = read_json(shared.summary)["metrics"]
            return {
                **metrics,
                **{key: int(metrics[key]) for key in ("registered", "images")},
            }, False
    scratch = folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        capture = _capture(raw, scratch / "decoded", static, background)
        found, method = _registration(raw, shared, capture, static, predict, origin["files"])
        metrics = metrics_of(found, capture.photos, read_true_cameras(raw / "truth.json"))
        write_parts(scratch, found, capture)
        summary = {"method": method, "metrics": metrics, **facts_of(found, capture, static)}
        write_json(scratch / "metadata" / "summary.json", summary)
        shared.replace_parts(scratch, origin)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    return metrics, True


def _origin(raw: Path, folder: Path, static: StaticConfig, background: Color) -> dict[str, Any]:
    """Hashes of all photographs and outside files, and the params that count."""
    files = (
        path
        for path in sorted(walk_folder(raw).files)
        if not path.is_relative_to(folder) and raw / "shared" not in path.parents
    )
    outside = {
        key: (folder_hash if Path(path).is_dir() else file_hash)(Path(path))
        for key, path in (("lf_calib", static.lf_calib), ("lf_to_colmap", static.lf_to_colmap))
        if path and Path(path).exists()
    }
    return {
        "version": _VERSION,
        "files": {path.relative_to(raw).as_posix(): file_hash(path) for path in files},
        "outside": outside,
        "params": static.model_dump(mode="json", include=set(_PARAMS)),
        # Black is what was always there: a scene that was prepared before stays prepared.
        **({"background": list(background)} if any(background) else {}),
    }


def _capture(raw: Path, scratch: Path, static: StaticConfig, background: Color) -> Capture:
    photos = photographs(raw, (*static.cameras, EVAL), background)
    calibration = None
    if "lightfield" in static.cameras:
        field = read_lightfield(
            lightfield_path(raw), static.lf_inner, scratch, static.lf_to_colmap, static.lf_calib
        )
        calibration = _calibration(field, static)
        photos += lightfield_images(field)
    pixels = {photo.name: _within(photo.read(), static.max_px) for photo in photos}
    return Capture(photos, pixels, calibration)


def _calibration(field: LightField, static: StaticConfig) -> LytroCalibration | None:
    """The archive's facts; the picture's own metadata tell the step where the archive doesn't."""
    step_m = step_of(field.metadata)
    if not static.lf_calib:
        return None
    reference = geometry_reference(field.metadata)
    found = read_calibration_archive(Path(static.lf_calib), reference)
    return replace(found, step_m=step_m) if step_m is not None else found


def _within(image: Pixels, longest: int) -> Pixels:
    """The image, shrunk when its longer side is more than `longest` px (0: never)."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if not longest or factor >= 1:
        return image
    return resize(image, round(factor * width), round(factor * height))


def _registration(
    raw: Path, shared: SharedFolder, capture: Capture, static: StaticConfig, predict: Predict,
    files: Mapping[str, str],
) -> tuple[Registration, str]:  # fmt: skip
    """The reconstruction and how it came about; `files` are the photographs' hashes by name."""
    if static.skip_vggt:
        return _reused(_existing(raw, shared, files), capture), "existing sparse model, as it is"
    step_m = capture.calibration.step_m if capture.calibration else None
    if static.vggt_stage == "ba":
        start: Mapping[str, Camera] | None = read_rig_model(_existing(raw, shared, files))[0]
        method = "existing sparse model, bundle adjustment"
    else:
        images = {p.name: capture.pixels[p.name] for p in capture.photos if not p.slot.mounted}
        start, method = predict(images), "VGGT"
        if start is None:
            method = "structure from motion, bundle adjustment"
        elif static.vggt_stage == "both":
            method = "VGGT, bundle adjustment"
    adjust = start is None or static.vggt_stage != "vggt"
    return register(capture.photos, capture.pixels, static, step_m, start, adjust), method


def _existing(raw: Path, shared: SharedFolder, files: Mapping[str, str]) -> Path:
    """The sparse model that is there already, beside the photographs or of an older preparation.

    It is told when the latter is of other photographs, as equal names do not say so.
    """
    for place in (raw / "sparse" / "0", raw / "sparse"):
        if any(place.glob("cameras.*")):
            return place
    older = shared.folder / "sparse" / "0"
    if any(older.glob("cameras.*")):
        others = shared.replaced_since(files)
        if others:
            print(
                f"WARNING: {older}: its poses are of other photographs: {', '.join(others[:3])} "
                f"{'were other files' if len(others) > 1 else 'was another file'} then",
                file=sys.stderr,
            )  # fmt: skip
        return older
    raise UserError(
        raw / "sparse", "no sparse model to start from",
        expected="cameras, images and points3D in sparse/ or sparse/0/",
        fix="set static.skip_vggt: false and static.vggt_stage: both",
    )  # fmt: skip


def _reused(folder: Path, capture: Capture) -> Registration:
    """An existing model, whose images have the names of the combined set."""
    cameras, structure = read_rig_model(folder)
    named = {photo.name for photo in capture.photos}
    kept = {name: camera for name, camera in cameras.items() if name in named}
    if not kept:
        raise UserError(
            folder, f"none of the {len(named)} photographs is in it",
            expected=f"images that are called like {min(named)}",
        )  # fmt: skip
    fitted = {}
    for name, camera in kept.items():
        height, width = capture.pixels[name].shape[:2]
        fitted[name] = camera.resized(width, height)
    tracks = [
        [(n, _scaled(pixel, kept[n], fitted[n])) for n, pixel in track if n in kept]
        for track in structure.tracks
    ]
    whole = Structure(structure.points, tracks, structure.colors).visible_in(list(kept))
    return Registration(fitted, {name: Slot(name, name, "") for name in fitted}, whole, None)


def _scaled(pixel: Any, before: Camera, after: Camera) -> Any:
    return pixel * [after.width / before.width, after.height / before.height]
