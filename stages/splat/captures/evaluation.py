"""A trained result measured on another dataset, into one `eval_on_<set>/` per evaluation set."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.quality.evaluation import Measures, Meter
from stages.quality.keys import MEASURED, further_in
from stages.run.errors import UserError
from stages.run.files import set_hash, whole_folder, write_json, write_tsv
from stages.run.plurals import first_few
from stages.run.user_paths import check_apart, make_target
from stages.scenes.cameras import Camera
from stages.scenes.captures.config import CaptureEvaluateConfig, ForeignConfig
from stages.scenes.captures.eval_registration import Placement, nearest, place
from stages.scenes.dataset import Dataset
from stages.scenes.images import Mask, write_mask
from stages.scenes.view import View
from stages.splat.captures.claims import EVALUATED, FRAME, claim_evaluated
from stages.splat.captures.gsplat_stats import write_stats
from stages.splat.captures.measuring import (
    MASKS,
    PoseAlignment,
    mask_file,
    measure,
    require_sizes,
)
from stages.splat.captures.record import CaptureRecord
from stages.splat.captures.trained import open_result
from stages.splat.captures.training import matching_views, shrunk_camera
from stages.splat.gaussians import Gaussians
from stages.splat.raster import choose_backend
from stages.splat.views.covisible import Covisibility, covisible

_LOGGER = logging.getLogger(__name__)


def evaluate_result(
    result: Path,
    eval_set: Dataset,
    config: CaptureEvaluateConfig,
    meter: Meter,
    *,
    trained_on: Path | None = None,
    output: Path | None = None,
    covisibility: Covisibility | None = None,
) -> dict[str, Any]:
    """Measure a trained result on another dataset, into eval_on_<its name> beside it.

    Args:
        result: a folder of ours or gsplat's, or a file of Gaussians.
        eval_set: the dataset.
        config: section `capture_evaluate` of params.yaml.
        meter: measures the views.
        trained_on: the dataset of a result that does not record it; None for `eval_set`.
        output: the folder to write instead.
        covisibility: how masks of covisible pixels are computed; None measures without.

    Raises UserError when the dataset's frame cannot be determined, and when no image is left.
    """
    source = Dataset.read(trained_on) if trained_on is not None else eval_set
    trained = open_result(result, source, config.foreign)
    for name, is_set in (
        ("--trained-on", trained_on is not None),
        ("capture_evaluate.foreign", config.foreign != ForeignConfig()),
    ):
        if is_set and not trained.is_foreign:
            _LOGGER.info("%s: %s has no effect: the result has a record", result, name)
    record, folder = trained.record, output or trained.folder / f"{EVALUATED}{eval_set.name}"
    if output is not None:
        check_apart(eval_set.folder, output)
    claim_evaluated(folder, eval_set.folder, lambda: eval_set.image_hashes, trained.file)
    make_target(folder.parent)
    eval_set.log_notes()
    placement = _placement(record, eval_set, config.frame)
    views = _chosen(eval_set, record, placement, config)
    require_sizes(meter, views, record.data_factor, masked=covisibility is not None)
    backend, _ = choose_backend(config.backend, "capture_evaluate.backend")
    gaussians = trained.gaussians.to("cuda" if backend == "cuda" else "cpu")
    with whole_folder(folder) as scratch:
        masks = None
        if covisibility is not None:
            masks = _masks(gaussians, views, placement, record, covisibility, backend)
            for name, mask in masks.items():
                write_mask(scratch / MASKS / mask_file(name), mask)
        rows, means = measure(
            gaussians,
            views,
            placement.train_from_eval,
            scratch,
            meter=meter,
            color=record.mean_color,
            data_factor=record.data_factor,
            alignment=PoseAlignment(config.align_steps, config.align_lr),
            backend=backend,
            masks=masks,
            protocol="lens" if covisibility is None else covisibility.rule.protocol(),
        )
        columns = _add_columns(rows, _trained_among(record, views, folder), masks)
        columns = ["image", *columns, *MEASURED, *further_in(rows)]
        write_tsv(scratch / "views.tsv", rows, columns)
        scalars = {
            "frame": placement.how,
            "shared_images": placement.shared_images,
            "frame_residual": round(placement.residual, 6),
        }
        if meter.gsplat_stats:
            cameras = _placed(views, placement, record.data_factor)
            write_stats(scratch, trained.steps, means, gaussians, cameras, backend)
        if masks is not None:
            scalars["covisible"] = round(float(np.mean([m.mean() for m in masks.values()])), 5)
        write_json(scratch / "metrics.json", scalars | means)
        frame = {"train_from_eval": placement.train_from_eval.to_dict()}
        frame["photographs"] = set_hash(eval_set.image_hashes)
        write_json(scratch / FRAME, frame | ({"gaussians": trained.file} if trained.file else {}))
    return scalars | means


def _placement(record: CaptureRecord, eval_set: Dataset, frame: str) -> Placement:
    return place(
        record.train | record.held_out,
        record.sha256,
        record.points,
        {view.name: view.camera for view in eval_set.views},
        {view.name: view.sha256 for view in eval_set.views},
        eval_set.points,
        frame,
        eval_set.folder,
    )


def _chosen(
    eval_set: Dataset, record: CaptureRecord, placement: Placement, config: CaptureEvaluateConfig
) -> list[View]:
    """The views to measure, by name. Raises UserError when none is left."""
    views = matching_views(eval_set.views, config.match_string)
    if config.skip_trained:
        trained = _trained_hashes(record)
        views = tuple(view for view in views if view.sha256 not in trained)
    if not views:
        raise UserError(
            "capture_evaluate.skip_trained",
            f"all images of {eval_set.folder} are training images",
            expected="some others to measure",
        )
    placed = {view.name: placement.train_from_eval.apply_camera(view.camera) for view in views}
    chosen = nearest(list(record.train.values()), placed, config.nearest)
    return [view for view in views if view.name in chosen]


def _trained_hashes(record: CaptureRecord) -> set[str]:
    return {record.sha256[name] for name in record.train}


def _trained_among(record: CaptureRecord, views: Sequence[View], folder: Path) -> set[str]:
    """Names of views whose images were trained on, by content; logged if there are any."""
    trained = _trained_hashes(record)
    names = [view.name for view in views if view.sha256 in trained]
    if names:
        _LOGGER.warning(
            "%s: %d of %d images are training images of the result: %s; "
            "capture_evaluate.skip_trained: true leaves them out",
            folder,
            len(names),
            len(views),
            first_few(names),
        )
    return set(names)


def _placed(views: Sequence[View], placement: Placement, data_factor: int) -> list[Camera]:
    """Cameras of views in the world frame of the result, of images shrunk by `data_factor`."""
    frame = placement.train_from_eval
    return [frame.apply_camera(shrunk_camera(view.camera, data_factor)) for view in views]


def _masks(
    gaussians: Gaussians,
    views: Sequence[View],
    placement: Placement,
    record: CaptureRecord,
    covisibility: Covisibility,
    backend: str,
) -> dict[str, Mask]:
    """Masks [H, W] of the pixels that are covisible in the training images, by view."""
    targets = _placed(views, placement, record.data_factor)
    training = [shrunk_camera(camera, record.data_factor) for camera in record.train.values()]
    masks = covisible(
        gaussians,
        targets,
        training,
        covisibility.rule,
        backend,
        covisibility.chunk,
        covisibility.micro_chunk,
    )
    return {view.name: mask.cpu().numpy() for view, mask in zip(views, masks, strict=True)}


def _add_columns(
    rows: list[Measures], trained: set[str], masks: Mapping[str, Mask] | None
) -> list[str]:
    """Add whether a view was trained on, and its covisible share; return the columns' names."""
    for row in rows:
        row["trained"] = int(row["image"] in trained)
        if masks is not None:
            row["covisible"] = round(float(masks[row["image"]].mean()), 5)
    return ["trained", "covisible"] if masks is not None else ["trained"]
