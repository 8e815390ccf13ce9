"""Eval frames of a static scene, rendered from one kind of camera's Gaussians and measured.

Masks and alignments are kept in the scene's shared folder while they are valid.
"""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stages.quality.evaluation import COLUMNS as MEASURED
from stages.quality.evaluation import MeasuredView, Measures, Meter, evaluate
from stages.run.artefacts import GAUSSIANS
from stages.run.files import file_hash, read_json, text_hash, whole_folder, write_json
from stages.run.process.locks import alone
from stages.run.user_paths import check_replaceable, make_target
from stages.scenes.cameras import Camera
from stages.scenes.dataset import Dataset
from stages.scenes.frames import normalisation
from stages.scenes.images import read_image, read_mask, write_mask, write_png
from stages.scenes.scene import camera_to_dict
from stages.scenes.static.alignment import FrameAlignment, read_alignment, write_alignment
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.shared_folder import SharedFolder
from stages.scenes.view import View
from stages.splat.captures.record import CaptureRecord
from stages.splat.captures.static_training import CHECKPOINTS, check_trained
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.views.covisible import CovisibleRule, backend_of, covisible

EVAL = "iphone_eval"
_MASKS_JSON = "masks.json"
COLUMNS = ["image", "covisible", *MEASURED[2:]]
_LOCK_WAIT_S = 3600.0


def evaluate_static(
    shared: SharedFolder, camera: str, static: StaticConfig, result: Path, meter: Meter
) -> tuple[list[Measures], Measures]:
    """Render and measure the eval frames; return the rows of the views and that of the scene.

    Renders are written to `result`/eval_on_iphone_eval/renders and measured as stored, in 8 bits.

    Args:
        shared: the prepared scene.
        camera: the kind of camera that was trained on.
        static: section `static` of params.yaml.
        result: folder of the camera's results.
        meter: measures PSNR, SSIM and LPIPS.
    """
    check_trained(result)
    check_replaceable(result / f"eval_on_{EVAL}", "metrics.json")
    check_replaceable(shared.masks(camera), _MASKS_JSON)
    for folder in (result, shared.folder):
        make_target(folder)
    record = CaptureRecord.read(result / CHECKPOINTS)
    gaussians = Gaussians.load(result / CHECKPOINTS / GAUSSIANS)
    held_out = Dataset.read(shared.subset(EVAL))
    views = held_out.views[:: static.eval_test_every]
    sizes = {view.name: (view.camera.width, view.camera.height) for view in views}
    meter.require_sizes(sizes, "raise static.max_px, or use larger images", masked=True)
    backend, training = backend_of(static.covi_device), list(record.train.values())
    # Evaluations of other results may share this folder.
    with alone(shared.masks(camera), wait_s=_LOCK_WAIT_S):
        update_alignment(shared.alignment(camera), gaussians, held_out)
        masks = update_masks(shared, camera, static, result, training, held_out, views)
    gaussians = gaussians.to("cuda" if backend == "cuda" else "cpu")
    with whole_folder(result / f"eval_on_{EVAL}") as folder:
        rendered = _rendered(gaussians, views, masks, folder / "renders", backend)
        rows, means = evaluate(rendered, meter, record.mean_color, protocol_of(static))
        shares = {name: round(float(mask.mean()), 5) for name, mask in masks.items()}
        rows = [{**row, "image": row["camera"], "covisible": shares[row["camera"]]} for row in rows]
        means["covisible"] = round(float(np.mean(list(shares.values()))), 5)
        means["train_views"] = len(record.train)
        write_json(folder / "metrics.json", means)
    return rows, means


def summary(means: Measures) -> str:
    """A scene's means in one line."""
    mpsnr = "none" if means["mpsnr"] is None else f"{means['mpsnr']:.2f} dB"
    return (
        f"{means['views']} eval frames, {means['covisible']:.0%} covisible, mPSNR {mpsnr}, "
        f"PSNR {means['psnr']:.2f} dB (an image of the mean colour: "
        f"{means['mean_color_psnr']:.2f} dB)"
    )


def protocol_of(static: StaticConfig) -> str:
    """How masks are made, as a part of the protocol that comparable numbers share.

    >>> protocol_of(StaticConfig())
    'covisible by depth within 5%, in 5% of the views and at least 1, DyCheck means, 8 bits'
    """
    return (
        f"covisible by depth within {static.covi_depth_tolerance:.0%}, in "
        f"{static.covi_min_share:.0%} of the views and at least {static.covi_min_views}, "
        "DyCheck means, 8 bits"
    )


def update_alignment(path: Path, gaussians: Gaussians, held_out: Dataset) -> FrameAlignment:
    """Write the alignment when it is missing or of other frames."""
    support, _ = normalisation([view.camera for view in held_out.views], held_out.points)
    wanted = FrameAlignment.between(gaussians.world_from_norm.inverse(), support)
    if path.is_file() and read_alignment(path).is_like(wanted):
        return wanted
    write_alignment(path, wanted)
    return wanted


def update_masks(
    shared: SharedFolder,
    camera: str,
    static: StaticConfig,
    result: Path,
    training: Sequence[Camera],
    held_out: Dataset,
    views: Sequence[View],
) -> dict[str, NDArray[np.bool_]]:
    """Covisibility masks [H, W] of eval frames by name; missing ones are computed.

    masks.json beside them holds a hash of their inputs; when that changes, all are recomputed.

    Args:
        shared: the prepared scene, which has the masks.
        camera: the kind of camera that was trained on.
        static: section `static` of params.yaml.
        result: folder of the camera's results.
        training: cameras that were trained on.
        held_out: dataset of all eval frames.
        views: the eval frames whose masks are needed.
    """
    rule = CovisibleRule(static.covi_min_views, static.covi_min_share, static.covi_depth_tolerance)
    gaussians = result / CHECKPOINTS / GAUSSIANS
    cameras = [
        str(camera_to_dict(item)) for item in (*training, *(v.camera for v in held_out.views))
    ]
    key = text_hash(file_hash(gaussians), str(rule), *cameras)
    inputs = shared.masks(camera) / _MASKS_JSON
    if not inputs.is_file() or read_json(inputs).get("key") != key:
        shutil.rmtree(shared.masks(camera), ignore_errors=True)
        write_json(inputs, {"key": key, "needed_views": rule.needed(len(training))})
    missing = [view for view in views if not shared.mask(camera, view.name).is_file()]
    if missing:
        backend = backend_of(static.covi_device)
        loaded = Gaussians.load(gaussians, "cuda" if backend == "cuda" else "cpu")
        computed = covisible(
            loaded,
            [view.camera for view in missing],
            training,
            rule,
            backend,
            static.runtime.covi_chunk,
            static.runtime.covi_micro_chunk,
        )
        for view, mask in zip(missing, computed, strict=True):
            write_mask(shared.mask(camera, view.name), mask.cpu().numpy())
    return {view.name: read_mask(shared.mask(camera, view.name)) for view in views}


def _rendered(
    gaussians: Gaussians,
    views: Sequence[View],
    masks: dict[str, NDArray[np.bool_]],
    folder: Path,
    backend: str,
) -> Iterator[MeasuredView]:
    for view in views:
        path = folder / PurePosixPath(view.name).with_suffix(".png")
        write_png(path, render(gaussians, view.camera, backend).rgb.cpu().numpy())
        image, valid = view.image()
        yield MeasuredView(
            "",
            view.name,
            image,
            view.sha256,
            given=read_image(path),
            mask=masks[view.name] if valid is None else masks[view.name] & valid,
            valid=valid,
        )
