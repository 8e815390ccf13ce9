"""Views of a capture rendered from trained Gaussians and measured against their images."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch

from stages.quality.config import EvaluateConfig
from stages.quality.evaluation import MeasuredView, Measures, Meter, evaluate
from stages.quality.metrics.weights import MARKER
from stages.run.files import target_of
from stages.run.notes import unshown
from stages.run.plurals import counted
from stages.scenes.cameras import Array, Camera
from stages.scenes.frames import Sim3
from stages.scenes.images import BLACK, Mask, Pixels, png_writer
from stages.scenes.view import View
from stages.splat.captures.training import shrunk, shrunk_size
from stages.splat.gaussians import Gaussians
from stages.splat.render import align_camera, render

_LOGGER = logging.getLogger(__name__)
GIVEN, ALIGNED = "given", "aligned"  # poses of renders, and their folders
MASKS = "covisible"  # folder of masks that were used


@dataclass(frozen=True, eq=False)
class PoseAlignment:
    """Steps and learning rate of fitting poses to images before measuring; 0 steps fit none."""

    steps: int
    lr: float


def measure(
    gaussians: Gaussians,
    views: Sequence[View],
    train_from_views: Sim3,
    folder: Path,
    *,
    meter: Meter,
    color: Array,
    data_factor: int,
    alignment: PoseAlignment,
    backend: str,
    masks: Mapping[str, Mask] | None = None,
    protocol: str = "lens",
) -> tuple[list[Measures], Measures]:
    """Render views into `folder`/given and /aligned; return the rows of the views and their means.

    Args:
        gaussians: of the training capture.
        views: to be measured.
        train_from_views: from their world frame to that of the training capture.
        folder: for the renders.
        meter: measures PSNR, SSIM and LPIPS.
        color: [3], mean colour of the training images, as a baseline.
        data_factor: by which images are shrunk.
        alignment: of the poses.
        backend: cuda or cpu.
        masks: pixels [H, W] of the masked measures by view; None for those that the lens covers.
        protocol: how the masks were made.
    """
    rendered = _rendered(
        gaussians, views, train_from_views, folder, data_factor, alignment, backend, masks
    )
    rows, means = evaluate(rendered, meter, color, protocol, name=str(target_of(folder)))
    return [{"image": row["camera"], **row} for row in rows], means


def render_file(view: str) -> str:
    """Path of a view's render in the folder of its kind."""
    return view if view.endswith(".png") else f"{view}.png"


def mask_file(view: str) -> PurePosixPath:
    """Path of a view's mask in MASKS."""
    return PurePosixPath(view).with_suffix(".png")


def aligned_camera(
    gaussians: Gaussians,
    camera: Camera,
    image: Pixels,
    valid: Mask | None,
    alignment: PoseAlignment,
    backend: str,
) -> Camera:
    """The camera with its pose fitted to its image.

    Args:
        gaussians: that the pose is fitted with.
        camera: in their frame.
        image: [H, W, 3].
        valid: pixels [H, W] that count, None for all.
        alignment: steps and learning rate.
        backend: cuda or cpu.
    """
    return align_camera(
        gaussians,
        camera,
        torch.from_numpy(np.ascontiguousarray(image)),
        backend,
        steps=alignment.steps,
        lr=alignment.lr,
        mask=None if valid is None else torch.from_numpy(valid),
    )


def require_sizes(
    meter: Meter, views: Sequence[View], data_factor: int, *, masked: bool = False
) -> None:
    """Raise UserError for views that are too small to measure."""
    sizes = {view.name: shrunk_size(view.camera, data_factor) for view in views}
    meter.require_sizes(sizes, "lower train.data_factor, or take the views out", masked=masked)


def meter_of(config: EvaluateConfig, weights: Path) -> Meter:
    """The meter of captures, without LPIPS where its weights are missing, which is a warning."""
    if not (weights / MARKER).is_file() and not config.lpips.required:
        note = f"{weights} is not there; `dvc repro weights` makes it"
        meter = Meter.without_lpips(config, note)
    else:
        meter = Meter.build(config, weights)
    for warning in unshown(meter.warnings):
        _LOGGER.warning(warning)
    return meter


def summary(scalars: Measures) -> str:
    """The metrics of a result in one line."""
    if scalars.get("psnr") is None:
        return "no view is held out"
    lpips = "none" if scalars["lpips"] is None else f"{scalars['lpips']:.4f}"
    aligned = scalars["psnr_aligned"]
    at_aligned = "" if aligned is None else f" ({aligned:.2f} dB at aligned poses)"
    return (
        f"{counted(scalars['views'], 'view')}, PSNR {scalars['psnr']:.2f} dB{at_aligned}, "
        f"SSIM {scalars['ssim']:.4f}, LPIPS {lpips}"
    )


def _rendered(
    gaussians: Gaussians,
    views: Sequence[View],
    train_from_views: Sim3,
    folder: Path,
    data_factor: int,
    alignment: PoseAlignment,
    backend: str,
    masks: Mapping[str, Mask] | None,
) -> Iterator[MeasuredView]:
    background = gaussians.metadata.get("background", BLACK)  # where no Gaussian is
    with png_writer() as write:
        for view in views:
            camera, image, valid = shrunk(view, data_factor, background)
            camera = train_from_views.apply_camera(camera)
            cameras = {GIVEN: camera}
            if alignment.steps:
                cameras[ALIGNED] = aligned_camera(
                    gaussians, camera, image, valid, alignment, backend
                )
            renders: dict[str, Any] = {
                kind: render(gaussians, posed, backend).rgb.cpu().numpy()
                for kind, posed in cameras.items()
            }
            for kind, pixels in renders.items():
                write(folder / kind / render_file(view.name), pixels)
            mask = valid if masks is None else masks[view.name]
            mask = mask if valid is None or mask is None else mask & valid
            yield MeasuredView("", view.name, image, view.sha256, mask=mask, valid=valid, **renders)
