"""Eval frames of a static scene, rendered from one kind of camera's Gaussians and measured."""

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from stages.quality.evaluation import COLUMNS as MEASURED
from stages.quality.evaluation import MeasuredView, Measures, Meter, evaluate
from stages.quality.keys import further_in
from stages.run.artefacts import GAUSSIANS
from stages.run.files import target_of, whole_folder, write_json, write_tsv
from stages.run.plurals import counted
from stages.run.process.locks import alone
from stages.run.user_paths import check_replaceable, make_target
from stages.scenes.captures.eval_registration import nearest
from stages.scenes.dataset import Dataset
from stages.scenes.images import png_writer, stored, write_mask
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.input_folders import EVAL
from stages.scenes.static.shared_folder import SharedFolder
from stages.scenes.view import View
from stages.splat.captures.claims import CHECKPOINTS
from stages.splat.captures.gsplat_stats import write_stats
from stages.splat.captures.measuring import MASKS, mask_file
from stages.splat.captures.record import CaptureRecord
from stages.splat.captures.static_masks import (
    MASKS_JSON,
    has_foreign_masks,
    update_alignment,
    update_masks,
)
from stages.splat.captures.static_training import check_trained
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.views.covisible import backend_of, rule_of

COLUMNS = ["image", "covisible", *MEASURED[2:]]
_LOCK_WAIT_S = 3600.0
_FOREIGN = "covisible by masks of another program"


def evaluate_static(
    shared: SharedFolder, camera: str, static: StaticConfig, result: Path, meter: Meter
) -> tuple[list[Measures], Measures]:
    """Render and measure the eval frames; return the rows of the views and that of the scene.

    Renders are written to `result`/eval_on_iphone_eval/renders and measured as stored, in 8 bits;
    rows are in views.tsv beside them.

    Args:
        shared: the prepared scene.
        camera: the kind of camera that was trained on.
        static: section `static` of params.yaml.
        result: folder of the camera's results.
        meter: measures PSNR, SSIM and LPIPS.
    """
    check_trained(result)
    check_replaceable(result / f"eval_on_{EVAL}", "metrics.json")
    for folder in (result, shared.folder):
        make_target(folder)
    record = CaptureRecord.read(result / CHECKPOINTS)
    gaussians = Gaussians.load(result / CHECKPOINTS / GAUSSIANS)
    held_out = Dataset.read(shared.subset(EVAL))
    views = _chosen(held_out.views[:: static.eval_test_every], record, static.nearest_eval)
    if not has_foreign_masks(shared, camera):
        check_replaceable(shared.masks(camera), MASKS_JSON)
    anew = static.runtime.rebuild_covisible
    sizes = {view.name: (view.camera.width, view.camera.height) for view in views}
    meter.require_sizes(sizes, "raise static.max_px, or use larger images", masked=True)
    backend, training = backend_of(static.covi_device), list(record.train.values())
    # Evaluations of other results may share this folder.
    with alone(shared.masks(camera), wait_s=_LOCK_WAIT_S):
        is_ours = (shared.masks(camera) / MASKS_JSON).is_file()
        update_alignment(shared.alignment(camera), gaussians, held_out, replace=anew or is_ours)
        masks, foreign = update_masks(shared, camera, static, result, training, held_out, views)
    gaussians = gaussians.to("cuda" if backend == "cuda" else "cpu")
    with whole_folder(result / f"eval_on_{EVAL}") as folder:
        rendered = _rendered(gaussians, views, masks, folder / "renders", backend)
        rows, means = evaluate(
            rendered,
            meter,
            record.mean_color,
            protocol_of(static, foreign, len(views)),
            name=str(target_of(folder)),
        )
        shares = {name: round(float(mask.mean()), 5) for name, mask in masks.items()}
        rows = [{**row, "image": row["camera"], "covisible": shares[row["camera"]]} for row in rows]
        means["covisible"] = round(float(np.mean(list(shares.values()))), 5)
        means["train_views"] = len(record.train)
        if meter.gsplat_stats:
            step = int(gaussians.metadata.get("step", 0))
            write_stats(folder, step, means, gaussians, [v.camera for v in views], backend)
        if 0 < foreign < len(views):  # the shared folder has not all of them
            for name, mask in masks.items():
                write_mask(folder / MASKS / mask_file(name), mask)
        write_tsv(folder / "views.tsv", rows, [*COLUMNS, *further_in(rows)])
        write_json(folder / "metrics.json", means)
    return rows, means


def _chosen(views: Sequence[View], record: CaptureRecord, count: int) -> list[View]:
    """The `count` views nearest to the training cameras, by centre; 0 takes all."""
    names = nearest(list(record.train.values()), {v.name: v.camera for v in views}, count)
    return [view for view in views if view.name in names]


def summary(means: Measures) -> str:
    """A scene's means in one line."""
    mpsnr = "none" if means["mpsnr"] is None else f"{means['mpsnr']:.2f} dB"
    return (
        f"{counted(means['views'], 'eval frame')}, {means['covisible']:.0%} covisible, "
        f"mPSNR {mpsnr}, PSNR {means['psnr']:.2f} dB (an image of the mean colour: "
        f"{means['mean_color_psnr']:.2f} dB)"
    )


def protocol_of(static: StaticConfig, foreign: int = 0, views: int = 0) -> str:
    """How masks are made, as a part of the protocol that comparable numbers share.

    Those of `foreign` of the `views` were another program's.

    >>> protocol_of(StaticConfig())
    'covisible by depth within 5%, in 5% of the views and at least 1, DyCheck means, 8 bits'
    >>> protocol_of(StaticConfig(), 2, 2)
    'covisible by masks of another program, DyCheck means, 8 bits'
    >>> protocol_of(StaticConfig(), 1, 4).partition(" in 5%")[0]
    'covisible by masks of another program for 1 of 4 views, else by depth within 5%,'
    """
    rule = rule_of(static).protocol()
    if foreign == views and foreign:
        rule = f"{_FOREIGN}, DyCheck means"
    elif foreign:
        rule = f"{_FOREIGN} for {foreign} of {views} views, else {rule.removeprefix('covisible ')}"
    return f"{rule}, 8 bits"


def _rendered(
    gaussians: Gaussians,
    views: Sequence[View],
    masks: dict[str, NDArray[np.bool_]],
    folder: Path,
    backend: str,
) -> Iterator[MeasuredView]:
    with png_writer() as write:
        for view in views:
            rendered = render(gaussians, view.camera, backend).rgb.cpu().numpy()
            write(folder / PurePosixPath(view.name).with_suffix(".png"), rendered)
            image, valid = view.image()
            yield MeasuredView(
                "",
                view.name,
                image,
                view.sha256,
                given=stored(rendered),
                mask=masks[view.name] if valid is None else masks[view.name] & valid,
                valid=valid,
            )
