"""Runs a trainer from its start, or from its last checkpoint, to its end."""

import math
import shutil
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from stages.quality.metrics.psnr import HIGHEST_PSNR_DB, psnr
from stages.quality.metrics.ssim import SMALLEST_PX, ssim
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.process.stopping import PREEMPTED, Preemption
from stages.run.progress import Progress
from stages.scenes.cameras import Camera
from stages.scenes.colmap import write_model
from stages.splat import export
from stages.splat.gaussians import Gaussians
from stages.splat.gpu.lock import gpu_lock_released
from stages.splat.render import align_camera, render
from stages.splat.training.trainer import Trainer, TrainView

CURVE_POINTS = 50  # rows of a training curve
ALIGN_STEPS, ALIGN_LR = 60, 2e-3
# Steps between looks at the progress; a look waits for the GPU.
_LOOK_EVERY = 50

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Fitted:
    """A finished run."""

    gaussians: Gaussians
    cameras: list[Camera]
    curve: list[Row]  # step, loss, gaussians
    evaluations: list[Row]  # step, split, psnr, ssim, gaussians

    def write(self, folder: Path, *, ply: bool, suffix: str = "") -> None:
        """gaussians.safetensors, point_cloud.ply if wanted, and the learnt cameras.

        The latter are a COLMAP model, cameras/sparse/0, whose images have the cameras' names and
        `suffix`.
        """
        gaussians = self.gaussians.to("cpu")
        named = {f"{camera.name}{suffix}": camera for camera in self.cameras}
        learnt = {name: replace(camera, name=name) for name, camera in named.items()}
        with gpu_lock_released():
            gaussians.save(folder / "gaussians.safetensors")
            if ply:
                export.write_ply(folder / "point_cloud.ply", gaussians)
            write_model(folder / "cameras" / "sparse" / "0", learnt)


def fit(
    trainer: Trainer,
    name: str,
    checkpoint: Checkpoint,
    test_views: Sequence[TrainView] = (),
    folder: Path | None = None,
    preemption: Preemption | None = None,  # of the caller, who hears signals for several runs
) -> Fitted:
    """Train to the end; a killed run that is started again continues at its last checkpoint.

    At `eval_steps` all views are measured: training views at their learnt poses (`train`), test
    views at their given ones (`test`) and, when poses are optimised, at poses aligned to the
    frozen Gaussians (`test_aligned`). What `ply_steps` and `save_steps` ask for goes to `folder`.
    Raises UserError when another run uses the checkpoint.
    """
    _check_views(name, _given(trainer), test_views)
    with checkpoint.alone():
        return _fit(trainer, name, checkpoint, test_views, folder, preemption)


def _fit(
    trainer: Trainer,
    name: str,
    checkpoint: Checkpoint,
    test_views: Sequence[TrainView],
    folder: Path | None,
    preemption: Preemption | None,
) -> Fitted:
    config, steps = trainer.config, trainer.config.steps
    eval_at = {config.scaled(step) for step in config.eval_steps}
    curve: list[Row] = []
    evaluations: list[Row] = []
    begin = _resume(trainer, name, checkpoint, curve, evaluations)
    every = max(1, steps // CURVE_POINTS)
    with (
        nullcontext(preemption) if preemption else Preemption() as preemption,
        Progress(name, steps, begin) as progress,
    ):
        for step in range(begin, steps):
            loss, _ = trainer.step(step)
            done = step + 1
            due = done % config.checkpoint_every == 0 and checkpoint.affordable()
            save = due or done == steps or preemption.noticed
            if done % every == 0 or save:
                trainer.check_finite(trainer.value(loss), done)
            if done % every == 0 or done == steps:
                curve.append(_point(trainer, done, trainer.value(loss)))
            if done in eval_at and done < steps:
                evaluations += evaluate(trainer, test_views, done)
            _keep(trainer, checkpoint.kept, done)
            if done % _LOOK_EVERY == 0 and progress.due():
                progress.report(
                    done, loss=trainer.value(loss), gaussians=len(trainer.params["means"])
                )
            if save:
                _save(trainer, checkpoint, done, curve, evaluations)
            if preemption.noticed and done < steps:
                print(f"{name}: stopped at step {done}; run again to go on", file=sys.stderr)
                sys.exit(PREEMPTED)
    if all(row["step"] < steps for row in evaluations):
        # What is trained is saved by now, whatever measuring it may do.
        evaluations += evaluate(trainer, test_views, steps)
    if folder is not None and checkpoint.kept.is_dir():
        with gpu_lock_released():
            shutil.copytree(checkpoint.kept, folder, dirs_exist_ok=True)
    return Fitted(trainer.gaussians(steps), trainer.learnt_cameras(), curve, evaluations)


def _keep(trainer: Trainer, kept: Path, step: int) -> None:
    """Write what is wanted of this step where a kill does not reach it."""
    config = trainer.config
    ply = config.save_ply and step in map(config.scaled, config.ply_steps)
    save = step in map(config.scaled, config.save_steps)
    if not (ply or save):
        return
    gaussians = trainer.gaussians(step).to("cpu")
    with gpu_lock_released():
        if ply:
            export.write_ply(kept / f"point_cloud_{step}.ply", gaussians)
        if save:
            gaussians.save(kept / f"gaussians_{step}.safetensors")


def evaluate(trainer: Trainer, test_views: Sequence[TrainView], step: int) -> list[Row]:
    """Mean PSNR and SSIM of every split; of masked views, over the pixels that count."""
    gaussians, backend = trainer.gaussians(step), trainer.backend
    pairs = zip(trainer.learnt_cameras(), trainer.images, trainer.masks, strict=True)
    trained = [TrainView(*parts) for parts in pairs]
    rows = [_measure("train", step, gaussians, trained, backend)]
    if test_views:
        rows.append(_measure("test", step, gaussians, test_views, backend))
        if trainer.config.pose_opt:
            aligned = [_aligned(view, gaussians, backend) for view in test_views]
            rows.append(_measure("test_aligned", step, gaussians, aligned, backend))
    return rows


def _given(trainer: Trainer) -> list[TrainView]:
    pairs = zip(trainer.cameras, trainer.images, trainer.masks, strict=True)
    return [TrainView(*parts) for parts in pairs]


def _check_views(name: str, trained: Sequence[TrainView], test: Sequence[TrainView]) -> None:
    """Raise UserError for views that cannot be measured, before hours are spent on them."""
    for view in (*trained, *test):
        height, width = view.image.shape[:2]
        if min(height, width) < SMALLEST_PX:
            raise UserError(
                f"{name}  {view.camera.name}", f"{width}x{height} px to train on or to measure",
                expected=f"at least {SMALLEST_PX} px a side",
                fix="lower train.data_factor, or bring larger photographs",
            )  # fmt: skip
    for views, kind in ((trained, "training"), (test, "held-out")):
        if views and not any(_counts(view) for view in views):
            raise UserError(
                name, f"the masks of all {len(views)} {kind} views are empty: no pixel counts",
                expected="masks that leave something",
                fix="mend the masks, or set train.masks: false",
            )  # fmt: skip


def _counts(view: TrainView) -> bool:
    return view.mask is None or bool(view.mask.any())


def _aligned(view: TrainView, gaussians: Gaussians, backend: str) -> TrainView:
    camera = align_camera(
        gaussians, view.camera, view.image, backend,
        steps=ALIGN_STEPS, lr=ALIGN_LR, mask=view.mask,
    )  # fmt: skip
    return replace(view, camera=camera)


def _measure(
    split: str, step: int, gaussians: Gaussians, views: Sequence[TrainView], backend: str
) -> Row:
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
    """PSNR and SSIM of one view. Pixels that do not count are taken from the photograph."""
    picture = render(gaussians, view.camera, backend).rgb
    truth, share = view.image.to(picture.device), 1.0
    if view.mask is not None:
        mask = view.mask.to(picture.device)
        picture = torch.where(mask[..., None], picture, truth)
        share = max(float(mask.float().mean()), 1e-6)
    a, b = (image.permute(2, 0, 1)[None] for image in (picture, truth))
    decibels = min(float(psnr(a, b)) + 10 * math.log10(share), HIGHEST_PSNR_DB)
    return decibels, 1 - (1 - float(ssim(a, b))) / share


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
        },
        gpu_lock_released(),
    )
