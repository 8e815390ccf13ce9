"""Target views of prepared scenes by the shipped fixer, with references of several kinds.

They are read from a workspace in which `dvc repro` ran: `scenes`, `calibrated` and `splats`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.quality.config import NovelViewsConfig
from stages.quality.evaluation import MeasuredView
from stages.run.settings.params import Params
from stages.scenes.cameras import Camera
from stages.scenes.config import ReferenceRule
from stages.scenes.images import Pixels
from stages.scenes.poses.calibration import read_calibration
from stages.scenes.scene import Scene
from stages.splat.config import DistillConfig, TrainConfig
from stages.splat.raster import choose_backend
from stages.splat.render import render
from stages.splat.views.distill import TrainedTimestamp
from stages.splat.views.fixed_views import DistillRecipe, FixedViews
from stages.splat.views.novel_views import TargetRenderer
from stages.splat.views.references import Fix, Reference, Warp, fix_in_rounds
from stages.splat.views.visibility import depth_view
from stages.splat.views.warping import warp


@dataclass(frozen=True, eq=False)
class Targets:
    """Target views of one timestamp: cameras, ground truth and renders of its Gaussians."""

    trained: TrainedTimestamp
    cameras: Sequence[Camera]
    truths: Sequence[Pixels]
    renders: Sequence[Pixels]
    references: Sequence[Sequence[Reference]]
    backend: str

    def measured(self, images: Sequence[Pixels]) -> list[MeasuredView]:
        """Images of the views as they are measured."""
        pairs = zip(self.cameras, self.truths, images, strict=True)
        return [MeasuredView("", camera.name, truth, "", image) for camera, truth, image in pairs]

    def fixed(
        self, fix: Fix, warping: Warp | None, images: "TrainedTimestamp | None" = None
    ) -> list[Pixels]:
        """The views fixed by `post`, with source images of these Gaussians or of others.

        Other scenes must have source cameras of the same names.
        """
        of = self.trained if images is None else images
        image_of = of.images.__getitem__
        return fix_in_rounds(self.renders, self.references, image_of, fix, warp=warping)

    @property
    def warp(self) -> Warp | None:
        """Warps as the product does."""
        return self.trained.warp(self.cameras, self.trained.gaussians, self.backend)

    @property
    def unswept(self) -> Warp:
        """Warps by the depth of the Gaussians as it is, as in training of the shipped fixer."""
        gaussians, sources = self.trained.gaussians, self.trained.sources

        def warped(
            index: int, chosen: Sequence[Reference], images: Sequence[Pixels]
        ) -> list[Pixels]:
            target = depth_view(gaussians, self.cameras[index], self.backend)
            views = [depth_view(gaussians, sources[str(one)], self.backend) for one in chosen]
            valid = [self.trained.valid.get(str(one)) for one in chosen]
            return list(warp(target, views, images, valid).permute(0, 2, 3, 1).cpu().numpy())

        return warped


def targets_of(scene: str, data: Path, fix: Fix, rule: ReferenceRule) -> Iterator[Targets]:
    """The target views of a scene by timestamp, as stage `fixed_views` takes them."""
    params = Params.read()
    rendering = params.section("novel_views", NovelViewsConfig)
    backend, _ = choose_backend(rendering.backend)
    prepared, calibration = (
        Scene.read(data / "scenes" / scene),
        read_calibration(data / "calibrated" / scene),
    )
    renderer = TargetRenderer(prepared, calibration, rendering, backend)
    recipe = DistillRecipe(
        params.section("distill", DistillConfig), params.section("train", TrainConfig)
    )
    views = FixedViews(renderer, data / "splats" / scene, fix, recipe, rule)
    for timestamp in prepared.timestamps:
        trained = views.trained(timestamp)
        targets = prepared.views("target", timestamp)
        cameras = [calibration.targets[view.name] for view in targets]
        yield Targets(
            trained,
            cameras,
            [view.pixels() for view in targets],
            [render(trained.gaussians, one, backend).rgb.cpu().numpy() for one in cameras],
            trained.references(cameras, trained.gaussians, backend),
            backend,
        )


Variant = Callable[[Targets, TrainedTimestamp], list[Pixels]]  # of views, and of another scene


def variants(fix: Fix, withheld: Fix) -> dict[str, Variant]:
    """How the views are made, by the name of their row."""
    return {
        "render": lambda views, _: list(views.renders),
        "fixed, warps as in training": lambda views, _: views.fixed(fix, views.unswept),
        "fixed": lambda views, _: views.fixed(fix, views.warp),
        "references withheld": lambda views, _: views.fixed(withheld, None),
        "another scene's references": lambda views, other: views.fixed(fix, views.warp, other),
    }


def random_view(width: int, height: int, count: int) -> tuple[Pixels, list[Pixels]]:
    """An image [H, W, 3] and `count` warped references [H, W, 4] of noise, for timing."""
    random = torch.Generator().manual_seed(0)
    noise = torch.rand(count, height, width, 4, generator=random).numpy()
    return noise[0, :, :, :3], list(noise)
