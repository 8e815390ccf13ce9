"""Target views by a fixer: of each picture (`post`), or distilled into the Gaussians first."""

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
from stages.scenes.images import Pixels, resize, resize_mask
from stages.scenes.view import View
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.views.distill import Fix, Moment, distil
from stages.splat.views.novel_views import TargetRenderer, load_gaussians


@dataclass(frozen=True)
class DistillRecipe:
    """The sections of params.yaml that decide how Gaussians are distilled."""

    distill: DistillConfig
    train: TrainConfig


class FixedViews:
    """The target views of one scene by one fixer."""

    def __init__(self, targets: TargetRenderer, splats: Path, fix: Fix, recipe: DistillRecipe):
        self.targets, self.splats, self.fix, self.recipe = targets, splats, fix, recipe
        self.scene, self.calibration = targets.scene, targets.calibration
        self.backend = targets.backend
        self._moments: dict[str, Moment] = {}

    def draw(self, folder: Path, method: str, fixer: str) -> dict[str, Any]:
        """Draw every target view by `<fixer>-post` or `<fixer>-distill` into `folder`.

        `fixer` identifies the weights: a state of other weights is never gone on with. Of distilled
        Gaussians those of each timestamp are kept in gaussians/. Returns what novel_views.json
        holds.
        """
        if Method.parse(method).form != DISTILL:
            return self.targets.draw(
                folder, method, lambda timestamp: self.moment(timestamp).gaussians, self.mend
            )
        # One for all timestamps: signals reach the main thread alone.
        with Preemption() as preemption:

            def gaussians_of(timestamp: str) -> Gaussians:
                found = self.distilled(timestamp, method, fixer, preemption)
                found.save(folder / "gaussians" / f"{timestamp}.safetensors")
                return found

            mend = self.mend if self.recipe.distill.post else None
            return self.targets.draw(folder, method, gaussians_of, mend)

    def distilled(
        self, timestamp: str, method: str, fixer: str, preemption: Preemption
    ) -> Gaussians:
        """Gaussians of a timestamp after the progressive update towards the target cameras."""
        config, train = self.recipe.distill, self.recipe.train
        inputs = [folder_hash(self.splats / timestamp), fixer, self.backend]
        checkpoint = Checkpoint(
            "distill", f"{self.scene.name}.{method}", timestamp, config.model_dump_json(),
            train.fingerprint(self.backend), *inputs,
        )  # fmt: skip
        targets = [self.calibration.targets[view.name] for view in self._targets(timestamp)]
        return distil(
            self.moment(timestamp), targets, self.fix, config, train, self.backend, checkpoint,
            preemption,
        )  # fmt: skip

    def mend(self, views: Sequence[View], pictures: Sequence[Pixels]) -> list[Pixels]:
        """Pictures of target views, fixed beside the photograph of the nearest source camera."""
        references = []
        for view in views:
            moment = self.moment(view.timestamp)
            nearest = moment.reference(self.calibration.targets[view.name])
            references.append(moment.photographs[nearest])
        return self.fix(pictures, references)

    def moment(self, timestamp: str) -> Moment:
        """Gaussians, learnt source cameras and source photographs of a timestamp."""
        if timestamp not in self._moments:
            model = read_model(self.splats / timestamp / LEARNT_CAMERAS)
            learnt = {Path(name).stem: camera for name, camera in model.cameras.items()}
            views = self.scene.views("source", timestamp)
            self._moments[timestamp] = Moment(
                f"{self.scene.name} {timestamp}",
                load_gaussians(self.splats, timestamp, self.backend),
                learnt,
                {
                    view.name: _photograph(view, learnt[view.name])
                    for view in views
                    if view.name in learnt
                },
                {
                    view.name: resize_mask(mask, learnt[view.name].width, learnt[view.name].height)
                    for view in views
                    if view.name in learnt and (mask := view.valid()) is not None
                },
            )
        return self._moments[timestamp]

    def _targets(self, timestamp: str) -> list[View]:
        return self.scene.views("target", timestamp)


def _photograph(view: View, camera: Camera) -> Pixels:
    """The photograph of a view at the size that it was trained on."""
    image = view.pixels()
    if image.shape[:2] == (camera.height, camera.width):
        return image
    return resize(image, camera.width, camera.height)
