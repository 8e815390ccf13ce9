"""Quality of the views that a training sees: PSNR and SSIM by split."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from stages.quality.metrics.psnr import HIGHEST_PSNR_DB, psnr
from stages.quality.metrics.ssim import SMALLEST_PX, ssim
from stages.run.errors import UserError
from stages.run.settings.alignment import Alignment
from stages.splat.gaussians import Gaussians
from stages.splat.render import align_camera, render
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView

_ALIGNMENT = Alignment()

EvaluationRow = dict[str, Any]  # step, split, psnr (dB), ssim, gaussians


def evaluate(trainer: Trainer, test_views: Sequence[TrainView], step: int) -> list[EvaluationRow]:
    """Mean PSNR and SSIM of every split; of masked views, over the pixels that count.

    Training views are measured at their learnt poses (`train`), test views at their given ones
    (`test`) and, when poses are optimised, at poses aligned to the frozen Gaussians
    (`test_aligned`).
    """
    gaussians, backend, views = trainer.gaussians(step), trainer.backend, trainer.views
    learnt = zip(trainer.learnt_cameras(), views.images, views.masks, strict=True)
    train_views = [TrainView(*parts) for parts in learnt]
    rows = [_measure("train", step, gaussians, train_views, backend)]
    if test_views:
        rows.append(_measure("test", step, gaussians, test_views, backend))
        if trainer.config.pose_opt:
            aligned = [_aligned(view, gaussians, backend) for view in test_views]
            rows.append(_measure("test_aligned", step, gaussians, aligned, backend))
    return rows


def check_views(name: str, trainer: Trainer, test_views: Sequence[TrainView]) -> None:
    """Raise UserError for views that cannot be measured, before hours are spent on them."""
    views = trainer.views
    given = zip(views.cameras, views.images, views.masks, strict=True)
    train_views = [TrainView(*parts) for parts in given]
    for view in (*train_views, *test_views):
        height, width = view.image.shape[:2]
        if min(height, width) < SMALLEST_PX:
            raise UserError(
                f"{name}  {view.camera.name}",
                f"{width}x{height} px to train on or to measure",
                expected=f"at least {SMALLEST_PX} px a side",
                fix="lower train.data_factor, or bring larger images",
            )
    for split, kind in ((train_views, "training"), (test_views, "held-out")):
        if split and not any(_counts(view) for view in split):
            raise UserError(
                name,
                f"the masks of all {len(split)} {kind} views are empty: no pixel counts",
                expected="masks that leave something",
                fix="repair the masks, or set train.masks: false",
            )


def _counts(view: TrainView) -> bool:
    return view.mask is None or bool(view.mask.any())


def _aligned(view: TrainView, gaussians: Gaussians, backend: str) -> TrainView:
    camera = align_camera(
        gaussians,
        view.camera,
        view.image,
        backend,
        steps=_ALIGNMENT.align_steps,
        lr=_ALIGNMENT.align_lr,
        mask=view.mask,
    )
    return replace(view, camera=camera)


def _measure(
    split: str, step: int, gaussians: Gaussians, views: Sequence[TrainView], backend: str
) -> EvaluationRow:
    scores = torch.tensor([_scores(gaussians, view, backend) for view in views if _counts(view)])
    mean_psnr, mean_ssim = scores.mean(dim=0).tolist()
    return {
        "step": step,
        "split": split,
        "psnr": round(mean_psnr, 4),
        "ssim": round(mean_ssim, 5),
        "gaussians": len(gaussians),
    }


def _scores(gaussians: Gaussians, view: TrainView, backend: str) -> tuple[float, float]:
    """PSNR and SSIM of one view. Pixels that do not count are taken from the ground truth."""
    image = render(gaussians, view.camera, backend).rgb
    truth, share = view.image.to(image.device), 1.0
    if view.mask is not None:
        mask = view.mask.to(image.device)
        image = torch.where(mask[..., None], image, truth)
        share = max(float(mask.float().mean()), 1e-6)
    a, b = (pixels.permute(2, 0, 1)[None] for pixels in (image, truth))
    decibels = min(float(psnr(a, b)) + 10 * math.log10(share), HIGHEST_PSNR_DB)
    return decibels, 1 - (1 - float(ssim(a, b))) / share
