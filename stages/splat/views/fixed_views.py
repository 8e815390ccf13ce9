"""Target views by a fixer: renders are fixed (`post`), or distilled into the Gaussians first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.run.artefacts import LEARNT_CAMERAS
from stages.run.checkpoint import Checkpoint
from stages.run.files import folder_hash
from stages.run.methods import DISTILL, Method
from stages.run.process.stopping import Preemption
from stages.scenes.cameras import Camera
from stages.scenes.colmap import read_model
from stages.scenes.config import ONE_NEAREST, ReferenceRule
from stages.scenes.images import Pixels, resize, resize_mask
from stages.scenes.view import View
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.views.distill import TrainedTimestamp, distil
from stages.splat.views.novel_views import TargetRenderer, load_gaussians
from stages.splat.views.references import Fix, Reference, fix_in_rounds


@dataclass(frozen=True)
class DistillRecipe:
    """The sections of params.yaml that distillation depends on."""

    distill: DistillConfig
    train: TrainConfig


class FixedViews:
    """The target views of one scene by one fixer."""

    def __init__(
        self,
        targets: TargetRenderer,
        splats: Path,
        fix: Fix,
        recipe: DistillRecipe,
        rule: ReferenceRule = ONE_NEAREST,
    ):
        """`rule` chooses the references, see `ranked_references`."""
        self.rule = rule
        self.targets, self.splats, self.fix, self.recipe = targets, splats, fix, recipe
        self.scene, self.calibration = targets.scene, targets.calibration
        self.backend = targets.backend
        self._trained: dict[str, TrainedTimestamp] = {}

    def render(self, folder: Path, method: str, fixer: str) -> dict[str, Any]:
        """Render every target view by `<fixer>-post` or `<fixer>-distill` into `folder`.

        `fixer` identifies the weights: a state of other weights is never resumed. Distilled
        Gaussians are written to gaussians/. Returns the contents of novel_views.json.
        """
        if Method.parse(method).form != DISTILL:
            return self.targets.render(
                folder, method, lambda timestamp: self.trained(timestamp).gaussians, self.fix_views
            )
        # One for all timestamps: signals reach the main thread alone.
        with Preemption() as preemption:

            def gaussians_of(timestamp: str) -> Gaussians:
                gaussians = self.distilled(timestamp, method, fixer, preemption)
                gaussians.save(folder / "gaussians" / f"{timestamp}.safetensors")
                return gaussians

            fix = self.fix_views if self.recipe.distill.post else None
            return self.targets.render(folder, method, gaussians_of, fix)

    def distilled(
        self, timestamp: str, method: str, fixer: str, preemption: Preemption
    ) -> Gaussians:
        """Gaussians of a timestamp after the progressive update towards the target cameras."""
        config, train = self.recipe.distill, self.recipe.train
        trained = self.trained(timestamp)
        targets = [self.calibration.targets[view.name] for view in self._targets(timestamp)]
        inputs = [folder_hash(self.splats / timestamp), fixer, self.backend]
        checkpoint = Checkpoint(
            "distill",
            f"{self.scene.name}.{method}",
            timestamp,
            config.recipe(),
            train.fingerprint(self.backend),
            trained.fingerprint(targets),
            *inputs,
        )
        return distil(
            trained,
            targets,
            self.fix,
            config,
            train,
            self.backend,
            checkpoint,
            preemption,
        )

    def fix_views(
        self, views: Sequence[View], cameras: Sequence[Camera], renders: Sequence[Pixels]
    ) -> list[Pixels]:
        """Fix renders of target views of one timestamp, with references by the policy.

        `cameras` are those of the renders; references are chosen by the calibrated ones. The plain
        Gaussians give the depth. A view that comes several times has renders of several kinds,
        always in one order: fixed views are references of renders of their own kind alone.
        """
        trained = self.trained(views[0].timestamp)
        places: dict[str, list[int]] = {}
        for index, view in enumerate(views):
            places.setdefault(view.name, []).append(index)
        names = list(places)
        calibrated = [self.calibration.targets[name] for name in names]
        chosen = trained.references(calibrated, trained.gaussians, self.backend)
        by_name = dict(zip(names, chosen, strict=True))
        references: list[list[Reference]] = []
        for index, view in enumerate(views):
            kind = places[view.name].index(index)
            references.append(
                [
                    one if isinstance(one, str) else places[names[one]][kind]
                    for one in by_name[view.name]
                ]
            )
        return fix_in_rounds(
            renders,
            references,
            lambda name: trained.images[name],
            self.fix,
            warp=trained.warp(cameras, trained.gaussians, self.backend),
        )

    def trained(self, timestamp: str) -> TrainedTimestamp:
        """Gaussians, learnt source cameras and source images of a timestamp, read once."""
        if timestamp not in self._trained:
            model = read_model(self.splats / timestamp / LEARNT_CAMERAS)
            learnt = {Path(name).stem: camera for name, camera in model.cameras.items()}
            images, valid = {}, {}
            for view in self.scene.views("source", timestamp):
                if view.name not in learnt:
                    continue
                width, height = learnt[view.name].width, learnt[view.name].height
                image, mask = view.image()
                # The size that was trained on.
                images[view.name] = resize(image, width, height)
                if mask is not None:
                    valid[view.name] = resize_mask(mask, width, height)
            name = f"{self.scene.name} {timestamp}"
            gaussians = load_gaussians(self.splats, timestamp, self.backend)
            self._trained[timestamp] = TrainedTimestamp(
                name, gaussians, learnt, images, valid, self.rule
            )
        return self._trained[timestamp]

    def _targets(self, timestamp: str) -> list[View]:
        return self.scene.views("target", timestamp)
