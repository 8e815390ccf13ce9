"""Prepares a static scene: registers its images and writes its shared folder."""

import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, read_json, shaped, write_json
from stages.run.plurals import first_few
from stages.run.user_paths import check_apart, make_target
from stages.scenes.cameras import Camera
from stages.scenes.image_folder import walk_folder
from stages.scenes.images import BLACK, Color, Pixels, resize
from stages.scenes.poses.colmap_rigs import Slot, read_rig_model
from stages.scenes.static.adjustment import Registration
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.foreign_folder import (
    adopt,
    adopt_masks,
    backups_of,
    is_foreign,
    moved_aside,
    origin_of,
    refusal,
)
from stages.scenes.static.image_placement import CopyMode
from stages.scenes.static.input_folders import (
    EVAL,
    find_lightfield,
    input_folders,
    relative_source,
)
from stages.scenes.static.input_images import lightfield_images, list_input_images
from stages.scenes.static.light_field.lightfield import (
    LightField,
    check_decoder,
    read_lightfield,
)
from stages.scenes.static.light_field.lytro import (
    LytroCalibration,
    geometry_reference,
    read_calibration_archive,
    step_of,
)
from stages.scenes.static.pose_errors import read_true_cameras
from stages.scenes.static.registration import register
from stages.scenes.static.shared_folder import ADOPTED, SCRATCH, SharedFolder
from stages.scenes.static.writers import (
    SceneInputs,
    registration_metrics,
    scene_facts,
    write_parts,
)

_LOGGER = logging.getLogger(__name__)

# The params that a prepared scene depends on.
_PARAMS = (
    "cameras",
    "max_px",
    "lf_inner",
    "vggt_stage",
    "skip_vggt",
    "lens_model",
    "focal_guess",
    "max_features",
    "peak_threshold",
    "ratio_test",
    "max_reprojection_error_px",
    "min_triangulation_angle_deg",
    "min_registered",
    "seed",
)
_VERSION = 1


# Approximate cameras by name for images by name, or None where nothing can predict them.
Predict = Callable[[Mapping[str, Pixels]], Mapping[str, Camera] | None]


def prepare(
    raw: Path,
    folder: Path,
    static: StaticConfig,
    predict: Predict = lambda images: None,
    background: Color = BLACK,
    copy_mode: CopyMode = "copy",
    in_graph: bool = False,
) -> tuple[dict[str, Any], bool]:
    """Prepare a static scene; return its metrics, and whether it was rebuilt.

    A folder made from the same inputs is kept, unless `runtime.static.force`; an older one stays
    until the new one is complete. A folder of another program is used as it is with
    `static.skip_vggt`, moved aside with `runtime.static.force` and else refused.

    Args:
        raw: the scene's `static/`.
        folder: the shared folder.
        static: section `static` of params.yaml.
        predict: gives initial poses.
        background: RGB in [0, 1] under images with alpha.
        copy_mode: how images whose pixels are unchanged get into the folder.
        in_graph: whether DVC keeps the folder, for this scene alone.

    Raises UserError for missing or unusable images, and for a folder with other files.
    """
    if not raw.is_dir():
        raise UserError(
            raw, "no such folder", expected=f"{raw.name}/ with the scene's images in {raw.parent}"
        )
    for kind_folder in input_folders(raw, (*static.cameras, EVAL)):
        check_apart(kind_folder, folder)
    _check_outside(static)
    foreign = _foreign(raw, folder, static)
    if foreign == folder and not static.skip_vggt:
        if not static.runtime.force:
            raise refusal(folder)
        with moved_aside(folder):
            return _prepare(raw, folder, None, static, predict, background, copy_mode, in_graph)
    target = folder / ADOPTED if foreign == folder else folder
    return _prepare(raw, target, foreign, static, predict, background, copy_mode, in_graph)


def _prepare(
    raw: Path,
    folder: Path,
    foreign: Path | None,
    static: StaticConfig,
    predict: Predict,
    background: Color,
    copy_mode: CopyMode,
    in_graph: bool,
) -> tuple[dict[str, Any], bool]:
    """Prepare a scene in a folder of ours, from another program's where it is given."""
    shared = SharedFolder(folder)
    shared.check_replaceable()
    make_target(folder)
    if foreign is not None:
        _LOGGER.info("%s: prepared by another program and used as it is, in %s", foreign, folder)
        origin = origin_of(foreign, static.cameras)
    else:
        origin = _origin(raw, folder, static, background)
    is_own = folder == raw / "shared" or (foreign is not None and folder == foreign / ADOPTED)
    if not (static.runtime.force or in_graph or is_own):
        shared.check_same_scene(foreign or raw, origin)
    if not static.runtime.force and shared.is_made_from(origin):
        return _kept(shared), False
    scratch = folder / SCRATCH
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        if foreign is not None:
            metrics = adopt(foreign, scratch, static.cameras, copy_mode)
        else:
            inputs = _read_inputs(raw, scratch / "decoded", static, background)
            registration, method = _register(raw, shared, inputs, static, predict, origin["files"])
            truth = read_true_cameras(raw / "truth.json")
            metrics = registration_metrics(registration, inputs.images, truth)
            write_parts(scratch, registration, inputs, copy_mode)
            facts = scene_facts(registration, inputs, static)
            summary = {"method": method, "metrics": metrics, **facts}
            write_json(scratch / "metadata" / "summary.json", summary)
        if foreign is not None:
            adopt_masks(foreign, shared, static.cameras, copy_mode)
        shared.replace_parts(scratch, origin)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    return metrics, True


def _foreign(raw: Path, folder: Path, static: StaticConfig) -> Path | None:
    """Another program's prepared scene: the target itself, or what static.skip_vggt would use.

    The latter is the scene's own shared folder, where no model lies at the places of `_existing`.
    """
    if is_foreign(folder):
        return folder
    default = raw / "shared"
    own = [*_models_beside(raw), folder / "sparse" / "0"]
    has_model = any(any(model.glob("cameras.*")) for model in own)
    return default if static.skip_vggt and not has_model and is_foreign(default) else None


def _check_outside(static: StaticConfig) -> None:
    """Raise UserError for a wrong calibration archive or decoder, before long work."""
    check_decoder(static.lf_to_colmap)
    if not static.lf_calib:
        return
    try:
        read_calibration_archive(Path(static.lf_calib))
    except UserError as error:
        raise UserError(
            f"static.lf_calib (LF_CALIB): {error.where}",
            error.got,
            expected=error.expected,
            hint=error.hint,
            fix=error.fix
            or "name the camera's caldata-<serial>.tar or its folder, or leave it empty",
        ) from error


def _kept(shared: SharedFolder) -> dict[str, Any]:
    """The metrics of a prepared scene that is kept."""
    again = "run static_prepare with runtime.static.force"
    with shaped(shared.summary, "metrics: counts of images", again):
        metrics = read_json(shared.summary)["metrics"]
        return {**metrics, **{key: int(metrics[key]) for key in ("registered", "images")}}


def _origin(raw: Path, folder: Path, static: StaticConfig, background: Color) -> dict[str, Any]:
    """Hashes of all images and of files elsewhere, and the params that change results."""
    prepared = [folder, raw / "shared", *backups_of(folder)]
    folders = [raw, *(f for f in input_folders(raw, (EVAL,)) if not f.is_relative_to(raw))]
    files = (
        path
        for root in folders
        for path in sorted(walk_folder(root).files)
        if not any(path.is_relative_to(other) for other in prepared)
    )
    outside = {
        key: (folder_hash if Path(path).is_dir() else file_hash)(Path(path))
        for key, path in (("lf_calib", static.lf_calib), ("lf_to_colmap", static.lf_to_colmap))
        if path and Path(path).exists()
    }
    return {
        "version": _VERSION,
        "files": {relative_source(raw, path): file_hash(path) for path in files},
        "outside": outside,
        "params": static.model_dump(mode="json", include=set(_PARAMS)),
        **({"lf_downscale": static.lf_downscale} if static.lf_downscale > 1 else {}),
        # Scenes prepared before there was a background are of black and stay prepared.
        **({"background": list(background)} if any(background) else {}),
    }


def _read_inputs(raw: Path, scratch: Path, static: StaticConfig, background: Color) -> SceneInputs:
    images = list_input_images(raw, (*static.cameras, EVAL), background)
    calibration = None
    if "lightfield" in static.cameras:
        source = find_lightfield(raw, static.lf_inner, static.lf_to_colmap)
        field = read_lightfield(
            source.path,
            source.inner,
            scratch,
            static.lf_to_colmap,
            static.lf_calib,
            static.lf_downscale,
        )
        calibration = _calibration(field, static)
        images += lightfield_images(field)
    pixels = {image.name: _within(image.read(), static.max_px) for image in images}
    return SceneInputs(images, pixels, calibration)


def _calibration(field: LightField, static: StaticConfig) -> LytroCalibration | None:
    """The archive's facts, with the step of the light field's own metadata where they have one."""
    step_m = step_of(field.metadata)
    if not static.lf_calib:
        return None
    reference = geometry_reference(field.metadata)
    calibration = read_calibration_archive(Path(static.lf_calib), reference)
    return replace(calibration, step_m=step_m) if step_m is not None else calibration


def _within(image: Pixels, longest: int) -> Pixels:
    """The image, shrunk to a longer side of at most `longest` px; 0 never shrinks."""
    height, width = image.shape[:2]
    factor = longest / max(height, width)
    if not longest or factor >= 1:
        return image
    return resize(image, round(factor * width), round(factor * height))


def _register(
    raw: Path,
    shared: SharedFolder,
    inputs: SceneInputs,
    static: StaticConfig,
    predict: Predict,
    files: Mapping[str, str],
) -> tuple[Registration, str]:
    """The reconstruction and its method; `files` are hashes of input files by name."""
    if static.skip_vggt:
        return _reuse(_existing(raw, shared, files), inputs), "existing sparse model, as it is"
    step_m = inputs.calibration.step_m if inputs.calibration else None
    if static.vggt_stage == "ba":
        start: Mapping[str, Camera] | None = read_rig_model(_existing(raw, shared, files))[0]
        method = "existing sparse model, bundle adjustment"
    else:
        images = {i.name: inputs.pixels[i.name] for i in inputs.images if not i.slot.mounted}
        start, method = predict(images), "VGGT"
        if start is None and static.vggt_stage == "vggt":
            raise UserError(
                "static.vggt_stage: vggt (VGGT_STAGE)",
                "VGGT is not installed, and its poses are in no cache (runtime.static.vggt_cache)",
                expected="VGGT's poses",
                fix="install it, or set static.vggt_stage: both, which takes structure from motion "
                "without it",
            )
        if start is None:
            method = "structure from motion, bundle adjustment"
        elif static.vggt_stage == "both":
            method = "VGGT, bundle adjustment"
    adjust = start is None or static.vggt_stage != "vggt"
    return register(inputs.images, inputs.pixels, static, step_m, start, adjust), method


def _existing(raw: Path, shared: SharedFolder, files: Mapping[str, str]) -> Path:
    """The existing sparse model, beside the images or of an older preparation.

    Warns when the latter is of images with other contents.
    """
    for folder in _models_beside(raw):
        if any(folder.glob("cameras.*")):
            return folder
    older = shared.folder / "sparse" / "0"
    if any(older.glob("cameras.*")):
        others = shared.replaced_since(files)
        if others:
            _LOGGER.warning(
                "%s: its poses are of other images: %s %s changed since",
                older,
                first_few(others),
                "have" if len(others) > 1 else "has",
            )
        return older
    aside = ", ".join(str(path) for path in backups_of(shared.folder))
    raise UserError(
        raw / "sparse",
        "no sparse model to start from",
        expected="cameras, images and points3D in "
        + ", ".join(f"{folder}/" for folder in (*_models_beside(raw), older)),
        fix="set static.skip_vggt: false and static.vggt_stage: both"
        + (
            f"; or, to use what runtime.static.force moved to {aside}, remove {shared.folder} if "
            "it is there, and rename that back"
            if aside
            else ""
        ),
    )


def _models_beside(raw: Path) -> tuple[Path, Path]:
    """Where a model beside the images may lie."""
    return raw / "sparse" / "0", raw / "sparse"


def _reuse(folder: Path, inputs: SceneInputs) -> Registration:
    """The registration of an existing model, whose images have the names of the combined set."""
    cameras, structure = read_rig_model(folder)
    names = {image.name for image in inputs.images}
    kept = {name: camera for name, camera in cameras.items() if name in names}
    if not kept:
        raise UserError(
            folder,
            f"has none of the {len(names)} images",
            expected=f"images with names such as {min(names)}",
        )
    resized = {}
    for name, camera in kept.items():
        height, width = inputs.pixels[name].shape[:2]
        resized[name] = camera.resized(width, height)
    seen = structure.visible_in(kept)
    before, after = (
        np.array([(of[name].width, of[name].height) for name in seen.images])
        for of in (kept, resized)
    )
    observed = replace(seen, pixel=seen.pixel * (after / before)[seen.image])
    slots = {name: Slot(name, name, "") for name in resized}
    return Registration(resized, slots, observed, None)
