"""Runs a trainer from its start, or from its last checkpoint, to its end."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stages.quality.psnr import psnr
from stages.quality.ssim import ssim
from stages.run.checkpoint import PREEMPTED, Checkpoint, Preemption
from stages.run.progress import Progress
from stages.scenes.cameras import Camera
from stages.splat import export
from stages.splat.gaussians import Gaussians
from stages.splat.render import align_camera, render
from stages.splat.trainer import Trainer, TrainView

CURVE_POINTS = 50  # rows of a training curve
ALIGN_STEPS, ALIGN_LR = 60, 2e-3

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A finished run."""

    gaussians: Gaussians
    cameras: list[Camera]
    curve: list[Row]  # step, loss, psnr, gaussians
    evaluations: list[Row]  # step, split, psnr, ssim


def fit(
    trainer: Trainer,
    name: str,
    checkpoint: Checkpoint,
    test_views: Sequence[TrainView] = (),
    ply_folder: Path | None = None,
) -> Fitted:
    """Train to the end; a killed run that is started again continues at its last checkpoint.

    At `eval_steps` all views are measured: training views at their learnt poses (`train`), test
    views at their given ones (`test`) and, when poses are optimised, at poses aligned to the
    frozen Gaussians (`test_aligned`). At `ply_steps` a PLY goes to `ply_folder`.
    """
    config, steps = trainer.config, trainer.config.steps
    eval_at = {config.scaled(step) for step in config.eval_steps}
    ply_at = {config.scaled(step) for step in config.ply_steps} if config.save_ply else set()
    curve: list[Row] = []
    evaluations: list[Row] = []
    begin = _resume(trainer, name, checkpoint, curve, evaluations)
    preemption = Preemption()
    every = max(1, steps // CURVE_POINTS)
    with Progress(name, steps, begin) as progress:
        for step in range(begin, steps):
            loss, _ = trainer.step(step)
            done = step + 1
            if done % every == 0 or done == steps:
                curve.append(_point(trainer, done, float(loss)))
                trainer.check_finite(curve[-1]["loss"], done)
            if done in eval_at or done == steps:
                evaluations += evaluate(trainer, test_views, done)
            if done in ply_at and ply_folder is not None:
                export.write_ply(ply_folder / f"point_cloud_{done}.ply", trainer.gaussians(done))
            if progress.due():
                progress.report(done, loss=float(loss), gaussians=len(trainer.params["means"]))
            if done % config.checkpoint_every == 0 or done == steps or preemption.noticed:
                _save(trainer, checkpoint, done, curve, evaluations)
            if preemption.noticed and done < steps:
                print(f"{name}: stopped at step {done}; run again to go on", file=sys.stderr)
                sys.exit(PREEMPTED)
    return Fitted(trainer.gaussians(steps), trainer.learnt_cameras(), curve, evaluations)


def evaluate(trainer: Trainer, test_views: Sequence[TrainView], step: int) -> list[Row]:
    """Mean PSNR and SSIM of every split."""
    gaussians, backend = trainer.gaussians(step), trainer.backend
    cameras = trainer.learnt_cameras()
    rows = [_measure("train", step, gaussians, cameras, trainer.images, backend)]
    if test_views:
        images = [view.image for view in test_views]
        given = [view.camera for view in test_views]
        rows.append(_measure("test", step, gaussians, given, images, backend))
        if trainer.config.pose_opt:
            aligned = [
                align_camera(gaussians, camera, image, backend, steps=ALIGN_STEPS, lr=ALIGN_LR)
                for camera, image in zip(given, images, strict=True)
            ]
            rows.append(_measure("test_aligned", step, gaussians, aligned, images, backend))
    return rows


def _measure(
    split: str, step: int, gaussians: Gaussians, cameras: list[Camera], images: list, backend: str
) -> Row:
    scores = []
    for camera, image in zip(cameras, images, strict=True):
        picture = render(gaussians, camera, backend).rgb.permute(2, 0, 1)[None].cpu()
        truth = image.permute(2, 0, 1)[None].cpu()
        scores.append((float(psnr(picture, truth)), float(ssim(picture, truth))))
    mean_psnr, mean_ssim = torch.tensor(scores, dtype=torch.float64).mean(dim=0).tolist()
    return {
        "step": step,
        "split": split,
        "psnr": round(mean_psnr, 4),
        "ssim": round(mean_ssim, 5),
        "gaussians": len(gaussians),
    }


def _point(trainer: Trainer, step: int, loss: float) -> Row:
    return {"step": step, "loss": round(loss, 6), "gaussians": len(trainer.params["means"])}


def _resume(
    trainer: Trainer, name: str, checkpoint: Checkpoint, curve: list[Row], evaluations: list[Row]
) -> int:
    state = checkpoint.load()
    if state is None:
        return 0
    trainer.load_state_dict(state["trainer"])
    curve += state["curve"]
    evaluations += state["evaluations"]
    print(f"{name}: resumed at step {state['step']}", file=sys.stderr, flush=True)
    return state["step"]


def _save(
    trainer: Trainer, checkpoint: Checkpoint, step: int, curve: list[Row], evaluations: list[Row]
) -> None:
    checkpoint.save(
        {
            "trainer": trainer.state_dict(),
            "step": step,
            "curve": curve,
            "evaluations": evaluations,
        }
    )
