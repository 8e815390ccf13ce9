"""Distillation of a fixer into Gaussians: the progressive 3D update of Difix3D (Wu et al. 2025).

Novel cameras set out from the source cameras and move towards the targets, a share of the way a
round. Each round their pictures are fixed and become training views beside the photographs. Of a
target only its camera is known here, never its photograph.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from stages.run.checkpoint import Checkpoint
from stages.run.process.stopping import PREEMPTED, Preemption
from stages.scenes.cameras import Camera, between, nearest_cameras
from stages.scenes.images import Mask, Pixels
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.training.trainer import Trainer, TrainView

# Pictures [H, W, 3] and a reference for each, to what photographs of them might look like.
Fix = Callable[[Sequence[Pixels], Sequence[Pixels]], list[Pixels]]


@dataclass(frozen=True, eq=False)
class Moment:
    """What is known of one timestamp: its Gaussians and its source photographs."""

    name: str
    gaussians: Gaussians
    sources: Mapping[str, Camera]  # world frame, as learnt
    photographs: Mapping[str, Pixels]
    seen: Mapping[str, Mask] = field(
        default_factory=dict
    )  # of photographs that a lens did not fill

    def counting(self, name: str) -> torch.Tensor | None:
        """Pixels [H, W] of a photograph to train on; None for all."""
        return torch.from_numpy(self.seen[name]) if name in self.seen else None

    def reference(self, camera: Camera) -> str:
        """The source camera nearest to a camera."""
        return nearest_cameras(camera, self.sources, 1)[0]


def recipe(train: TrainConfig, config: DistillConfig) -> TrainConfig:
    """How the update trains: rates lowered, poses and the number of Gaussians held."""
    rates = {
        "means_lr": config.means_lr_scale, "sh0_lr": config.sh_lr_scale,
        "shN_lr": config.sh_lr_scale, "scales_lr": config.shape_lr_scale,
        "quats_lr": config.shape_lr_scale, "opacities_lr": config.shape_lr_scale,
    }  # fmt: skip
    changes: dict[str, Any] = {key: getattr(train, key) * scale for key, scale in rates.items()}
    changes["strategy"] = train.strategy.model_copy(
        update={"kind": "default", "refine_stop_iter": 0}
    )
    changes |= {"max_steps": config.rounds * config.steps, "steps_scaler": 1.0}
    # Random backgrounds come from one sequence, which threads of other timestamps draw from too.
    still = {"pose_opt": False, "opacity_reg": 0.0, "random_bkgd": False}
    return train.model_copy(update=changes | still)


def distil(
    moment: Moment,
    targets: Sequence[Camera],
    fix: Fix,
    config: DistillConfig,
    train: TrainConfig,
    backend: str,
    checkpoint: Checkpoint,
    preemption: Preemption,
) -> Gaussians:
    """The Gaussians of a moment after every round; a killed run goes on at its last round.

    Raises UserError when another run uses the checkpoint.
    """
    with checkpoint.alone():
        return _distil(moment, targets, fix, config, train, backend, checkpoint, preemption)


def _distil(
    moment: Moment,
    targets: Sequence[Camera],
    fix: Fix,
    config: DistillConfig,
    train: TrainConfig,
    backend: str,
    checkpoint: Checkpoint,
    preemption: Preemption,
) -> Gaussians:
    sources = [
        TrainView(camera, torch.from_numpy(moment.photographs[name]), moment.counting(name))
        for name, camera in moment.sources.items()
    ]
    trainer = Trainer(
        sources, np.empty((0, 3)), np.empty((0, 3), np.uint8), recipe(train, config), backend,
        moment.gaussians,
    )  # fmt: skip
    begin, novel = _resumed(trainer, sources, checkpoint, moment.name)
    for number in range(begin, config.rounds):
        cameras = interpolated_cameras(moment, targets, (number + 1) / config.rounds)
        seen = fixed_views(trainer.gaussians(number), moment, cameras, fix, config, backend)
        novel = [*novel, *seen] if config.keep == "all" else seen
        trainer.set_views([*sources, *novel])
        for step in range(number * config.steps, (number + 1) * config.steps):
            loss, _ = trainer.step(step, drawn(step, len(sources), len(novel), config))
        trainer.check_finite(trainer.value(loss), step + 1)
        _save(trainer, checkpoint, number + 1, novel)
        if preemption.noticed and number + 1 < config.rounds:
            print(f"{moment.name}: stopped after round {number + 1}", file=sys.stderr)
            sys.exit(PREEMPTED)
    return trainer.gaussians(config.rounds * config.steps)


def interpolated_cameras(moment: Moment, targets: Sequence[Camera], share: float) -> list[Camera]:
    """For each target a camera that has gone a share of the way to it, with its intrinsics.

    It sets out from the source camera that is nearest to the target.
    """
    starts = [moment.sources[moment.reference(target)] for target in targets]
    return [between(start, target, share) for start, target in zip(starts, targets, strict=True)]


def fixed_views(
    gaussians: Gaussians,
    moment: Moment,
    cameras: Sequence[Camera],
    fix: Fix,
    config: DistillConfig,
    backend: str,
) -> list[TrainView]:
    """Fixed pictures of cameras as training views; what no Gaussian covers does not count."""
    renderings = [render(gaussians, camera, backend) for camera in cameras]
    references = [moment.photographs[moment.reference(camera)] for camera in cameras]
    pictures = fix([one.rgb.cpu().numpy() for one in renderings], references)
    return [
        TrainView(
            camera, torch.from_numpy(picture), one.alpha.cpu() > config.min_alpha,
            config.novel_weight,
        )
        for camera, picture, one in zip(cameras, pictures, renderings, strict=True)
    ]  # fmt: skip


def drawn(step: int, sources: int, novel: int, config: DistillConfig) -> int:
    """The view of a step: with probability `novel_share` one of the novel views, at the end."""
    random = np.random.default_rng([config.seed, step])
    if random.random() < config.novel_share:
        return sources + int(random.integers(novel))
    return int(random.integers(sources))


def _resumed(
    trainer: Trainer, sources: list[TrainView], checkpoint: Checkpoint, name: str
) -> tuple[int, list[TrainView]]:
    state = checkpoint.load()
    if state is None:
        return 0, []
    novel = [_unpacked(*packed) for packed in state["novel"]]
    trainer.set_views([*sources, *novel])
    trainer.load_state_dict(state["trainer"])
    print(f"{name}: resumed after round {state['round']}", file=sys.stderr, flush=True)
    return state["round"], novel


def _save(trainer: Trainer, checkpoint: Checkpoint, number: int, novel: list[TrainView]) -> None:
    packed = [(_packed(view.camera), view.image, view.mask, view.weight) for view in novel]
    checkpoint.save({"trainer": trainer.state_dict(), "round": number, "novel": packed})


def _packed(camera: Camera) -> list[Any]:
    return [
        camera.name, camera.K.tolist(), camera.cam_from_world.tolist(), camera.width, camera.height
    ]  # fmt: skip


def _unpacked(camera: list[Any], image: Any, mask: Any, weight: float) -> TrainView:
    name, K, pose, width, height = camera
    return TrainView(Camera(name, np.array(K), np.array(pose), width, height), image, mask, weight)
