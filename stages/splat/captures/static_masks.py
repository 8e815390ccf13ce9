"""Masks and alignment of a static scene, kept in its shared folder while they are valid.

Those of another program are used and neither deleted nor overwritten, unless
runtime.static.rebuild_covisible asks for it.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from stages.run.artefacts import GAUSSIANS
from stages.run.errors import UserError
from stages.run.files import file_hash, read_json, text_hash, write_json
from stages.scenes.cameras import Camera
from stages.scenes.dataset import Dataset
from stages.scenes.frames import normalisation
from stages.scenes.images import read_mask, write_mask
from stages.scenes.scene import camera_to_dict
from stages.scenes.static.alignment import FrameAlignment, read_alignment, write_alignment
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.shared_folder import SharedFolder
from stages.scenes.view import View
from stages.splat.captures.claims import CHECKPOINTS
from stages.splat.gaussians import Gaussians
from stages.splat.views.covisible import backend_of, covisible, rule_of

MASKS_JSON = "masks.json"  # of masks of ours
_REBUILD = "runtime.static.rebuild_covisible: true computes them again"
_LOGGER = logging.getLogger(__name__)


def update_alignment(
    path: Path, gaussians: Gaussians, held_out: Dataset, *, replace: bool
) -> FrameAlignment:
    """Write the alignment when it is missing or of other frames; return the right one.

    A file of the same frames but for half turns, as of parsers without gsplat's flip, is right in
    its own convention. Without `replace` an existing file is kept, with a message when it differs.
    """
    support, _ = normalisation([view.camera for view in held_out.views], held_out.points)
    wanted = FrameAlignment.between(gaussians.world_from_norm.inverse(), support)
    if path.is_file():
        reason = "of other frames"
        try:
            stored = read_alignment(path)
            if stored.is_like(wanted) and (stored.normalization or not replace):
                return wanted
            if not replace and stored.in_frames_of(wanted) is not None:
                _LOGGER.info("%s: kept; its frames are half turns from the Gaussians'", path)
                return wanted
        except UserError as error:
            reason = error.got
        if not replace:
            _LOGGER.warning("%s: %s, kept; %s", path, reason, _REBUILD)
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
) -> tuple[dict[str, NDArray[np.bool_]], int]:
    """Covisibility masks [H, W] of eval frames by name, and how many are another program's.

    Missing ones are computed. masks.json beside them holds a hash of their inputs; when that
    changes, all in the folder are deleted. Without it the masks are another program's: those are
    used as they are, and where some are missing, these are computed and not stored.

    Args:
        shared: the prepared scene, which has the masks.
        camera: the kind of camera that was trained on.
        static: section `static` of params.yaml.
        result: folder of the camera's results.
        training: cameras that were trained on.
        held_out: dataset of all eval frames.
        views: the eval frames whose masks are needed.

    Raises UserError for a mask whose size is not its frame's.
    """
    rule = rule_of(static)
    gaussians = result / CHECKPOINTS / GAUSSIANS
    cameras = [
        str(camera_to_dict(item)) for item in (*training, *(v.camera for v in held_out.views))
    ]
    key = text_hash(file_hash(gaussians), str(rule), *cameras)
    inputs = shared.masks(camera) / MASKS_JSON
    is_foreign = has_foreign_masks(shared, camera) and not static.runtime.rebuild_covisible
    if not is_foreign and (static.runtime.rebuild_covisible or _key(inputs) != key):
        if inputs.is_file():
            shutil.rmtree(shared.masks(camera))
        # masks.json speaks for all masks, so none of another program may stay beside it.
        for path in _mask_files(shared, camera):
            path.unlink()
        write_json(inputs, {"key": key, "needed_views": rule.needed(len(training))})
    masks = {
        view.name: _stored_mask(shared.mask(camera, view.name), view)
        for view in views
        if shared.mask(camera, view.name).is_file()
    }
    missing = [view for view in views if view.name not in masks]
    foreign = len(masks) if is_foreign else 0
    if is_foreign:
        text = "%s: %d masks of another program, used as they are; %d more are computed; %s"
        _LOGGER.info(text, shared.masks(camera), len(masks), len(missing), _REBUILD)
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
            masks[view.name] = mask.cpu().numpy()
            if not is_foreign:
                write_mask(shared.mask(camera, view.name), masks[view.name])
    return {view.name: masks[view.name] for view in views}, foreign


def has_foreign_masks(shared: SharedFolder, camera: str) -> bool:
    """Whether a camera's masks, of any eval frames, are another program's."""
    return not (shared.masks(camera) / MASKS_JSON).is_file() and bool(_mask_files(shared, camera))


def _mask_files(shared: SharedFolder, camera: str) -> list[Path]:
    return sorted(shared.masks_of_frames(camera).rglob("*.png"))


def _key(inputs: Path) -> str | None:
    return read_json(inputs).get("key") if inputs.is_file() else None


def _stored_mask(path: Path, view: View) -> NDArray[np.bool_]:
    mask, wanted = read_mask(path), (view.camera.height, view.camera.width)
    if mask.shape != wanted:
        raise UserError(
            path,
            f"{mask.shape[1]}x{mask.shape[0]} px",
            expected=f"the {wanted[1]}x{wanted[0]} px of {view.name}",
            fix="set runtime.static.rebuild_covisible: true, which computes all masks again",
        )
    return mask
