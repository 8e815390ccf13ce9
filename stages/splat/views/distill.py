"""Distillation of a fixer into Gaussians: the progressive 3D update of Difix3D (Wu et al. 2025).

Novel cameras start at the source cameras and move towards the targets, a share of the way per
round. In each round their renders are fixed and become training views beside the source images. Of
a target only its camera is known here, never its ground truth.
"""

import hashlib
import itertools
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch

from stages.run.checkpoint import Checkpoint
from stages.run.files import text_hash
from stages.run.process.stopping import PREEMPTED, Preemption
from stages.scenes.cameras import Camera, between, nearest_cameras
from stages.scenes.config import ONE_NEAREST, ReferenceRule
from stages.scenes.images import Mask, Pixels
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.render import render
from stages.splat.training.trainer import Trainer, TrainView
from stages.splat.training.watched import watched
from stages.splat.views.references import (
    Fix,
    Reference,
    Warp,
    best_references,
    fix_in_rounds,
    ranked_references,
)
from stages.splat.views.visibility import (
    SAME_SURFACE,
    DepthView,
    depth_view,
    surface_of,
    visible_counts,
)
from stages.splat.views.warping import Warper


@dataclass(frozen=True, eq=False)
class TrainedTimestamp:
    """The Gaussians of one timestamp and the source views that they were trained on."""

    name: str
    gaussians: Gaussians
    sources: Mapping[str, Camera]  # world frame, as learnt
    images: Mapping[str, Pixels]
    valid: Mapping[str, Mask] = field(default_factory=dict)  # for images that are not wholly valid
    rule: ReferenceRule = ONE_NEAREST  # of references

    def source_views(self) -> list[TrainView]:
        """The source images as training views, each masked to its valid pixels."""
        return [
            TrainView(
                camera,
                torch.from_numpy(self.images[name]),
                torch.from_numpy(self.valid[name]) if name in self.valid else None,
            )
            for name, camera in self.sources.items()
        ]

    def references(
        self,
        cameras: Sequence[Camera],
        gaussians: Gaussians,
        backend: str,
        earlier: Sequence[Camera] = (),
    ) -> list[list[Reference]]:
        """Each camera's references by the rule, see `ranked_references`."""
        ranked = ranked_references(
            self.rule.policy, cameras, self.sources, gaussians, backend, earlier
        )
        return best_references(ranked, self.rule)

    def warp(
        self,
        cameras: Sequence[Camera],
        gaussians: Gaussians,
        backend: str,
        earlier: Sequence[Camera] = (),
    ) -> Warp | None:
        """Warps references, as `references` gives them, into the cameras' views by the Gaussians.

        None where the rule takes references as they are.
        """
        if not self.rule.warped:
            return None
        warper, views = Warper(gaussians, backend), [*cameras, *earlier]

        def warped(index: int, chosen: Sequence[Reference], images: Sequence[Pixels]) -> list:
            named = [self.sources[one] if isinstance(one, str) else views[one] for one in chosen]
            valid = [self.valid.get(one) if isinstance(one, str) else None for one in chosen]
            return warper(cameras[index], named, images, valid)

        return warped

    def nearest_source(self, camera: Camera) -> str:
        """Name of the source camera nearest to a camera."""
        return nearest_cameras(camera, self.sources, 1)[0]

    def fingerprint(self, targets: Sequence[Camera]) -> str:
        """A hash of the source cameras, their images and valid pixels, and of target cameras.

        The Gaussians are not in it.
        """
        cameras = [_packed(camera) for camera in (*self.sources.values(), *targets)]
        pixels = [
            (name, str(array.shape), hashlib.sha256(np.ascontiguousarray(array)).hexdigest())
            for arrays in (self.images, self.valid)
            for name, array in arrays.items()
        ]
        return text_hash(json.dumps(cameras), *itertools.chain(*pixels))


def distill_recipe(train: TrainConfig, config: DistillConfig) -> TrainConfig:
    """The training params of the update: lower rates, fixed poses and number of Gaussians."""
    rates = {
        "means_lr": config.means_lr_scale,
        "sh0_lr": config.sh_lr_scale,
        "shN_lr": config.sh_lr_scale,
        "scales_lr": config.shape_lr_scale,
        "quats_lr": config.shape_lr_scale,
        "opacities_lr": config.shape_lr_scale,
    }
    changes: dict[str, Any] = {key: getattr(train, key) * scale for key, scale in rates.items()}
    changes["strategy"] = train.strategy.model_copy(
        update={"kind": "default", "refine_stop_iter": 0}
    )
    changes |= {"max_steps": config.rounds * config.steps, "steps_scaler": 1.0}
    # Random backgrounds come from one generator, which threads of other timestamps share.
    fixed = {"pose_opt": False, "color_opt": False, "opacity_reg": 0.0, "random_bkgd": False}
    return train.model_copy(update=changes | fixed)


def distil(
    trained: TrainedTimestamp,
    targets: Sequence[Camera],
    fix: Fix,
    config: DistillConfig,
    train: TrainConfig,
    backend: str,
    checkpoint: Checkpoint,
    preemption: Preemption,
) -> Gaussians:
    """Train the Gaussians of a timestamp through all rounds; a killed run resumes after its last.

    Args:
        trained: the timestamp.
        targets: target cameras.
        fix: the fixer.
        config: params of the rounds.
        train: params of the training, before `distill_recipe`.
        backend: cuda or cpu.
        checkpoint: the resume state.
        preemption: tells when the run is to stop.

    Raises UserError when another run uses the checkpoint.
    """
    with checkpoint.alone():
        return _distil(trained, targets, fix, config, train, backend, checkpoint, preemption)


def _distil(
    trained: TrainedTimestamp,
    targets: Sequence[Camera],
    fix: Fix,
    config: DistillConfig,
    train: TrainConfig,
    backend: str,
    checkpoint: Checkpoint,
    preemption: Preemption,
) -> Gaussians:
    sources = trained.source_views()
    trainer = Trainer(
        sources,
        np.empty((0, 3)),
        np.empty((0, 3), np.uint8),
        distill_recipe(train, config),
        backend,
        trained.gaussians,
    )
    begin, novel = _resumed(trainer, sources, checkpoint, trained.name)
    for number in range(begin, config.rounds):
        cameras = interpolated_cameras(trained, targets, (number + 1) / config.rounds)
        gaussians = trainer.gaussians(number)
        fixed = fixed_views(gaussians, trained, cameras, fix, config, backend, novel)
        novel = [*novel, *fixed] if config.keep == "all" else fixed
        trainer.set_views([*sources, *novel])
        for step in range(number * config.steps, (number + 1) * config.steps):
            loss, _ = trainer.step(step, choose_view(step, len(sources), len(novel), config))
        trainer.check_finite(trainer.value(loss), step + 1)
        done = number + 1 == config.rounds
        if done or preemption.noticed or checkpoint.affordable():
            progress = watched(trainer, trained.name, step + 1, config.rounds * config.steps)
            _save(trainer, checkpoint, number + 1, novel, progress)
            if preemption.noticed and not done:
                print(f"{trained.name}: stopped after round {number + 1}", file=sys.stderr)
                sys.exit(PREEMPTED)
    return trainer.gaussians(config.rounds * config.steps)


def interpolated_cameras(
    trained: TrainedTimestamp, targets: Sequence[Camera], share: float
) -> list[Camera]:
    """Per target a camera with its intrinsics, `share` of the way from the nearest source."""
    starts = [trained.sources[trained.nearest_source(target)] for target in targets]
    return [between(start, target, share) for start, target in zip(starts, targets, strict=True)]


def fixed_views(
    gaussians: Gaussians,
    trained: TrainedTimestamp,
    cameras: Sequence[Camera],
    fix: Fix,
    config: DistillConfig,
    backend: str,
    earlier: Sequence[TrainView] = (),
) -> list[TrainView]:
    """Fixed views of cameras as training views, masked to the pixels that count.

    These are covered by Gaussians and, by `config.where`, visible to a source camera or to none.

    Args:
        gaussians: that are rendered.
        trained: the timestamp, which has the references.
        cameras: of the views.
        fix: the fixer.
        config: says which pixels count, and gives the views' weight.
        backend: cuda or cpu.
        earlier: fixed views of the rounds before, as far as they are kept.
    """
    renderings = [render(gaussians, camera, backend) for camera in cameras]
    before = [view.camera for view in earlier]
    images = fix_in_rounds(
        [rendering.rgb.cpu().numpy() for rendering in renderings],
        trained.references(cameras, gaussians, backend, before),
        lambda name: trained.images[name],
        fix if config.shifted_grids == 1 else partial(fix, grids=config.shifted_grids),
        [view.image.numpy() for view in earlier],
        trained.warp(cameras, gaussians, backend, before),
    )
    sources: list[DepthView] = []
    if config.where != "all":
        sources = [depth_view(gaussians, camera, backend) for camera in trained.sources.values()]
    views = []
    for camera, image, rendering in zip(cameras, images, renderings, strict=True):
        covered = rendering.alpha > config.min_alpha
        counted = covered & _counted(surface_of(rendering, camera), sources, config)
        # The loss is a mean over the pixels that count: one weighs the same whatever `where` is.
        share = float(counted.sum() / covered.sum().clamp(min=1))
        weight = config.novel_weight * share
        views.append(TrainView(camera, torch.from_numpy(image), counted.cpu(), weight))
    return views


def _counted(novel: DepthView, sources: Sequence[DepthView], config: DistillConfig) -> torch.Tensor:
    """The pixels [H, W] of a novel view that `config.where` selects, by what sources see."""
    if config.where == "all":
        return torch.ones_like(novel.depth, dtype=torch.bool)
    seen = visible_counts(novel, sources, SAME_SURFACE) > 0
    return seen if config.where == "covered" else ~seen


def choose_view(step: int, sources: int, novel: int, config: DistillConfig) -> int:
    """Index of a step's view: with probability `novel_share` a novel one, else a source."""
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


def _save(
    trainer: Trainer,
    checkpoint: Checkpoint,
    number: int,
    novel: list[TrainView],
    progress: dict[str, Any],
) -> None:
    packed = [(_packed(view.camera), view.image, view.mask, view.weight) for view in novel]
    state = {"trainer": trainer.state_dict(), "round": number, "novel": packed}
    checkpoint.save(state, progress=progress)


def _packed(camera: Camera) -> list[Any]:
    return [
        camera.name,
        camera.K.tolist(),
        camera.cam_from_world.tolist(),
        camera.width,
        camera.height,
    ]


def _unpacked(camera: list[Any], image: Any, mask: Any, weight: float) -> TrainView:
    name, K, pose, width, height = camera
    return TrainView(Camera(name, np.array(K), np.array(pose), width, height), image, mask, weight)
