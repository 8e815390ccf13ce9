"""Gaussians of one static capture, trained on the views of a COLMAP dataset.

A result folder holds gaussians.safetensors, point_cloud.ply, cameras/sparse/0 (learnt poses),
fit.json (curve, evaluations, how poses were learnt), flags.tsv (hyperparameters as used) and
capture.json.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from stages.quality.evaluation import mean_color
from stages.run.artefacts import FIT, FLAGS
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, set_hash, text_hash, write_json, write_tsv
from stages.run.notes import unshown
from stages.run.plurals import counted, first_few
from stages.run.process.memory import require_for
from stages.scenes.cameras import Camera
from stages.scenes.dataset import Dataset
from stages.scenes.image_folder import report_alpha
from stages.scenes.images import Color, Mask, Pixels, resize, resize_mask
from stages.scenes.sources.name_filter import matching
from stages.scenes.view import View
from stages.splat.captures.flags import COLUMNS, flag_lines, flag_rows, limit_effect
from stages.splat.captures.record import CaptureRecord, sample
from stages.splat.config import TrainConfig, mask_notes, notes
from stages.splat.raster import choose_backend
from stages.splat.training.fit import Fitted, fit
from stages.splat.training.initial import left_out
from stages.splat.training.trainer import Trainer, TrainView

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class CaptureSplit:
    """Views to train on, and held-out views that are only measured."""

    train: tuple[View, ...]
    held_out: tuple[View, ...]


def split(views: Sequence[View], test_every: int, match_string: str) -> CaptureSplit:
    """Hold out every `test_every`-th view by name (0 and 1: none), then select by `match_string`.

    It selects among the others alone, so that all variants of a capture are measured on the same
    views. Raises UserError when nothing is left to train on.
    """
    held_out = tuple(views[::test_every]) if test_every > 1 else ()
    rest = [view for view in views if view not in held_out]
    if not rest:
        raise UserError(
            "test_every",
            f"{test_every} leaves none of {len(views)} views to train on",
            expected="0 for no held-out views, or a larger step",
        )
    return CaptureSplit(matching_views(rest, match_string), held_out)


def matching_views(views: Sequence[View], match_string: str) -> tuple[View, ...]:
    """The views with the whole word `match_string` in their names; all for an empty one.

    Raises UserError when there is none.
    """
    matched = tuple(view for view in views if matching(view.name, match_string))
    if not matched:
        raise UserError(
            "match_string",
            f"{match_string!r} matches none of {len(views)} images",
            expected=f"a whole word in one of {first_few([view.name for view in views])}",
        )
    return matched


def capture_notes(
    dataset: Dataset,
    views: CaptureSplit,
    config: TrainConfig,
    entry: str,
    overridden: Collection[str],
) -> list[str]:
    """Messages about parameters without effect on these views.

    Args:
        dataset: the capture.
        views: its split.
        config: params of the training.
        entry: the command's name.
        overridden: keys of `config` that the command line sets.
    """
    masks = [view.mask_path for view in views.train]
    return notes(config, entry, overridden, mask_notes(config, masks, dataset.name))


def train_capture(
    dataset: Dataset,
    views: CaptureSplit,
    config: TrainConfig,
    folder: Path,
    *,
    match_string: str,
    resume_as: str,
    images_hash: str = "",
) -> Fitted:
    """Train one set of Gaussians on a capture's views; write its results into `folder`.

    A killed run that is started again with the same inputs resumes.

    Args:
        dataset: the capture.
        views: its split.
        config: params of the training.
        folder: for the results.
        match_string: recorded in capture.json.
        resume_as: name of the resume state.
        images_hash: of all images of the capture, recorded; empty for that of the dataset.
    """
    all_views = (*views.train, *views.held_out)
    require_for(
        [(view.camera.width, view.camera.height) for view in all_views],
        config.data_factor,
        "train.data_factor",
        "set train.data_factor: {factor}",
    )
    images_hash = images_hash or set_hash(dataset.image_hashes)
    backend, reason = choose_backend(config.backend)
    sha256 = {view.name: view.sha256 for view in all_views}
    key = text_hash(*(part for item in sha256.items() for part in item), folder_hash(dataset.model))
    names = [view.name for view in views.train]
    if config.masks:
        names += [file_hash(view.mask_path) if view.mask_path else "" for view in all_views]
    report_alpha(dataset.name, [view.image_path for view in all_views], config.background)
    train_views = [train_view(view, config) for view in views.train]
    trainer = Trainer(train_views, dataset.points, dataset.colors, config, backend)
    checkpoint = Checkpoint("captures", resume_as, key, *names, trainer.fingerprint())
    start = f"{counted(len(train_views), 'view')}, {len(views.held_out)} held out, {trainer.origin}"
    _LOGGER.info("%s: %s, on %s (%s)", resume_as, start, backend, reason)
    _LOGGER.info("%s: %s", resume_as, trainer.pose_rates)
    flags = "\n  ".join(flag_lines(flag_rows(trainer.config, trainer.state.strategy)))
    table = unshown([f"hyperparameters as used, also in {FLAGS}:\n  {flags}"])
    _LOGGER.info("%s: %s", resume_as, *table or [f"hyperparameters as in the table above, {FLAGS}"])
    held_out = [train_view(view, config) for view in views.held_out]
    fitted = fit(trainer, resume_as, checkpoint, held_out, folder)
    counts = [row["gaussians"] for row in fitted.curve]
    limit = limit_effect(config, fitted.limited, counts, left_out(len(dataset.points), config))
    _LOGGER.info("%s: train.max_gaussians %d %s", resume_as, config.max_gaussians, limit)
    write_tsv(folder / FLAGS, flag_rows(trainer.config, trainer.state.strategy, limit), COLUMNS)
    fitted.write(folder, ply=config.save_ply)
    write_json(folder / FIT, fitted.record())
    record = CaptureRecord(
        dataset.name,
        match_string,
        {view.name: view.camera for view in views.train},
        {view.name: view.camera for view in views.held_out},
        sha256,
        images_hash,
        sample(dataset.points),
        mean_color(map(_counted_pixels, train_views)),
        config.data_factor,
    )
    record.write(folder)
    return fitted


def train_view(view: View, config: TrainConfig) -> TrainView:
    """An undistorted image and its camera, both shrunk by `data_factor`.

    With `masks` only the pixels count that the view's mask keeps.
    """
    camera, image, mask = shrunk(view, config.data_factor, config.background)
    kept = view.mask() if config.masks else None
    if kept is not None:
        kept = resize_mask(kept, camera.width, camera.height)
        mask = kept if mask is None else mask & kept
    counted = None if mask is None else torch.from_numpy(mask)
    return TrainView(camera, torch.from_numpy(np.ascontiguousarray(image)), counted)


def _counted_pixels(view: TrainView) -> Pixels:
    """The pixels that count, as an image [H, W, 3] or, of a masked one, [1, N, 3]."""
    return (view.image if view.mask is None else view.image[view.mask][None]).numpy()


def shrunk_size(camera: Camera, data_factor: int) -> tuple[int, int]:
    """Width and height, px, of an image shrunk by `data_factor`."""
    width, height = (max(1, round(side / data_factor)) for side in (camera.width, camera.height))
    return width, height


def shrunk_camera(camera: Camera, data_factor: int) -> Camera:
    """The camera of an image shrunk by `data_factor`."""
    return camera.resized(*shrunk_size(camera, data_factor))


def shrunk(view: View, data_factor: int, background: Color) -> tuple[Camera, Pixels, Mask | None]:
    """Camera, image [H, W, 3] and valid pixels [H, W] of a view, shrunk by `data_factor`."""
    image, valid = view.image(background)
    camera = shrunk_camera(view.camera, data_factor)
    valid = None if valid is None else resize_mask(valid, camera.width, camera.height)
    return camera, resize(image, camera.width, camera.height), valid
