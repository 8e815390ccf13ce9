"""The training loop: from the start, or from the last checkpoint, to the end."""

import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stages.run.artefacts import GAUSSIANS, LEARNT_CAMERAS, POINT_CLOUD
from stages.run.checkpoint import Checkpoint
from stages.run.files import link_or_copy, target_of
from stages.run.process.stopping import PREEMPTED, Preemption
from stages.run.progress import Progress
from stages.scenes.cameras import Camera
from stages.scenes.colmap import write_model
from stages.splat import export
from stages.splat.gaussians import Gaussians
from stages.splat.gpu.lock import gpu_lock_released
from stages.splat.training.evaluation import EvaluationRow, check_views, evaluate
from stages.splat.training.trainer import Trainer
from stages.splat.training.view_set import TrainView
from stages.splat.training.watched import watched

CURVE_POINTS = 50  # rows of a training curve
# Steps between looks at the progress; a look waits for the GPU.
_LOOK_EVERY = 50

CurveRow = dict[str, Any]  # step, loss, gaussians


@dataclass(frozen=True, eq=False)
class Fitted:
    """A finished run."""

    gaussians: Gaussians
    cameras: list[Camera]
    curve: list[CurveRow]
    evaluations: list[EvaluationRow]
    limited: bool  # whether max_gaussians held the growth
    poses: str = ""  # how they were learnt
    copied: frozenset[str] = frozenset()  # names of files that `fit` put into its folder

    def record(self) -> dict[str, Any]:
        """What fit.json holds."""
        return {"curve": self.curve, "evaluations": self.evaluations, "poses": self.poses}

    def write(self, folder: Path, *, ply: bool, suffix: str = "") -> None:
        """gaussians.safetensors, point_cloud.ply if `ply`, and the learnt cameras.

        The latter are a COLMAP model, cameras/sparse/0, whose images have the cameras' names and
        `suffix`. What `fit` copied to the folder of the last step is linked, not written again.
        """
        step = self.gaussians.metadata.get("step", 0)
        gaussians = self.gaussians.to("cpu")
        named = {f"{camera.name}{suffix}": camera for camera in self.cameras}
        learnt = {name: replace(camera, name=name) for name, camera in named.items()}
        with gpu_lock_released():
            if (same := _gaussians_of(step)) in self.copied:
                link_or_copy(folder / same, folder / GAUSSIANS)
            else:
                gaussians.save(folder / GAUSSIANS)
            if ply and (same := _ply_of(step)) in self.copied:
                link_or_copy(folder / same, folder / POINT_CLOUD)
            elif ply:
                export.write_ply(folder / POINT_CLOUD, gaussians)
            write_model(folder / LEARNT_CAMERAS, learnt)


def fit(
    trainer: Trainer,
    name: str,
    checkpoint: Checkpoint,
    test_views: Sequence[TrainView] = (),
    folder: Path | None = None,
    preemption: Preemption | None = None,
) -> Fitted:
    """Train to the end; a killed run that is started again continues at its last checkpoint.

    Args:
        trainer: at its start.
        name: of the run, for messages.
        checkpoint: of this run. Raises UserError when another run uses it.
        test_views: held-out views, measured beside the training views at `eval_steps`.
        folder: for the files of `ply_steps` and `save_steps`; None for nowhere.
        preemption: the caller's, where it receives signals for several runs.
    """
    check_views(name, trainer, test_views)
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
    curve: list[CurveRow] = []
    evaluations: list[EvaluationRow] = []
    begin = _resume(trainer, name, checkpoint, curve, evaluations)
    every = max(1, steps // CURVE_POINTS)
    with (
        nullcontext(preemption) if preemption else Preemption() as preemption,
        Progress(name, steps, begin) as progress,
    ):
        for step in range(begin, steps):
            # Render, loss, backward, optimisers; then duplicate, split and prune Gaussians.
            loss, _ = trainer.step(step)
            done = step + 1
            due = done % config.runtime.checkpoint_every == 0 and checkpoint.affordable()
            save = due or done == steps or preemption.noticed
            if done % every == 0 or save:
                trainer.check_finite(trainer.value(loss), done)
            if done % every == 0 or done == steps:
                curve.append(_curve_row(trainer, done, trainer.value(loss)))
            if done in eval_at and done < steps:
                evaluations += evaluate(trainer, test_views, done)
            _export(trainer, checkpoint.kept, done)
            if done % _LOOK_EVERY == 0 and progress.due():
                progress.report(
                    done, loss=trainer.value(loss), gaussians=len(trainer.state.params["means"])
                )
            if save:
                _save(trainer, name, checkpoint, done, curve, evaluations, folder)
            if preemption.noticed and done < steps:
                print(f"{name}: stopped at step {done}; run again to go on", file=sys.stderr)
                sys.exit(PREEMPTED)
    if all(row["step"] < steps for row in evaluations):
        # After the last save, so that a failure of measuring loses no training.
        evaluations += evaluate(trainer, test_views, steps)
    copied: frozenset[str] = frozenset()
    if folder is not None and checkpoint.kept.is_dir():
        copied = frozenset(os.listdir(checkpoint.kept))
        with gpu_lock_released():
            for name in copied:
                link_or_copy(checkpoint.kept / name, folder / name)
    return Fitted(
        trainer.gaussians(steps),
        trainer.learnt_cameras(),
        curve,
        evaluations,
        trainer.state.limited,
        str(trainer.pose_rates),
        copied,
    )


def _export(trainer: Trainer, kept: Path, step: int) -> None:
    """Write the files of `ply_steps` and `save_steps` beside the checkpoint, which survives."""
    config = trainer.config
    ply = config.save_ply and step in map(config.scaled, config.ply_steps)
    save = step in map(config.scaled, config.save_steps)
    if not (ply or save):
        return
    gaussians = trainer.gaussians(step).to("cpu")
    with gpu_lock_released():
        if ply:
            export.write_ply(kept / _ply_of(step), gaussians)
        if save:
            gaussians.save(kept / _gaussians_of(step))


def _gaussians_of(step: int) -> str:
    return f"gaussians_{step}.safetensors"


def _ply_of(step: int) -> str:
    return f"point_cloud_{step}.ply"


def _curve_row(trainer: Trainer, step: int, loss: float) -> CurveRow:
    return {"step": step, "loss": round(loss, 6), "gaussians": len(trainer.state.params["means"])}


def _resume(
    trainer: Trainer,
    name: str,
    checkpoint: Checkpoint,
    curve: list[CurveRow],
    evaluations: list[EvaluationRow],
) -> int:
    """Load the last checkpoint, if there is one; the step to go on with."""
    state = checkpoint.load()
    if state is None:
        return 0
    trainer.load_state_dict(state["trainer"])
    curve += state["curve"]
    evaluations += state["evaluations"]
    print(f"{name}: resumed at step {state['step']}", file=sys.stderr, flush=True)
    return state["step"]


def _save(
    trainer: Trainer,
    name: str,
    checkpoint: Checkpoint,
    step: int,
    curve: list[CurveRow],
    evaluations: list[EvaluationRow],
    folder: Path | None,
) -> None:
    rows = {"curve": curve, "evaluations": evaluations}
    result = None
    if folder is not None:  # a scratch folder, or a timestamp's in one
        result = target_of(target_of(folder.parent) / folder.name) / GAUSSIANS
    progress = watched(trainer, name, step, trainer.config.steps, result)
    state = {"trainer": trainer.state_dict(), "step": step, **rows}
    checkpoint.save(state, gpu_lock_released(), {**progress, **rows})
