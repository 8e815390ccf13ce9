"""The training views of a capture as its trainer had them: learnt cameras, undistorted images."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from stages.run.artefacts import GAUSSIANS, LEARNT_CAMERAS
from stages.run.errors import UserError
from stages.run.files import file_hash
from stages.run.plurals import first_few
from stages.run.user_paths import check_source
from stages.scenes.cameras import Camera
from stages.scenes.colmap import read_model
from stages.scenes.colmap_lenses import find_model
from stages.scenes.config import FIXED_SOURCE, NEAREST, ReferenceRule
from stages.scenes.dataset import Dataset
from stages.scenes.images import BLACK, Color, Mask, Pixels
from stages.scenes.view import View
from stages.splat.captures.claims import DATASET
from stages.splat.captures.record import CaptureRecord
from stages.splat.captures.training import shrunk, train_view
from stages.splat.config import TrainConfig
from stages.splat.gaussians import Gaussians
from stages.splat.views.distill import TrainedTimestamp
from stages.splat.views.references import Reference, best_references, ranked_references

_KEPT = 32  # images in memory that neighbouring views share as a reference


class TrainingViews:
    """The views that Gaussians were trained on, from the dataset that has their images."""

    def __init__(self, trained: Path, dataset: Dataset, name: str):
        """Read the training in `trained`, on images of `dataset` and of the scene `name`.

        Raises UserError when it was trained on other images.
        """
        record, views = CaptureRecord.read(trained), {view.name: view for view in dataset.views}
        for names in (record.train, record.held_out):
            _check_images(trained, dataset, record, list(names), views)
        self.trained, self.record, self.name = trained, record, name
        self.plain = Gaussians.load(trained / GAUSSIANS)
        learnt = read_model(trained / LEARNT_CAMERAS).cameras
        self.cameras: dict[str, Camera] = {name: learnt[name] for name in record.train}
        self._views = {name: views[name] for name in record.train}
        self.background: Color = self.plain.metadata.get("background", BLACK)
        self._shrunk = lru_cache(_KEPT)(self._read)

    def references(
        self, cameras: Sequence[Camera], rule: ReferenceRule, backend: str
    ) -> list[list[Reference]]:
        """Each camera's references by `capture_rule`, see `ranked_references`."""
        gaussians = self.plain.to("cuda" if backend == "cuda" else "cpu")
        rule = capture_rule(rule)
        ranked = ranked_references(rule.policy, cameras, self.cameras, gaussians, backend)
        return best_references(ranked, rule)

    @property
    def image_hashes(self) -> frozenset[str]:
        """SHA-256 of the images that were trained on."""
        return frozenset(self.record.sha256[name] for name in self.cameras)

    def identity(self) -> str:
        """A hash of the file of the Gaussians."""
        return file_hash(self.trained / GAUSSIANS)

    def timestamp(
        self, config: TrainConfig, gaussians: Gaussians, rule: ReferenceRule
    ) -> TrainedTimestamp:
        """All views in memory with the plain Gaussians on a device, as distillation takes them."""
        views = {name: train_view(view, config) for name, view in self._views.items()}
        return TrainedTimestamp(
            self.name,
            gaussians,
            self.cameras,
            {name: view.image.numpy() for name, view in views.items()},
            {name: view.mask.numpy() for name, view in views.items() if view.mask is not None},
            capture_rule(rule),
        )

    def recipe(self, config: TrainConfig) -> TrainConfig:
        """Params of a training that goes on from these Gaussians: they decide how to render."""
        plain = self.plain
        return config.model_copy(
            update={
                "data_factor": self.record.data_factor,
                "antialiased": plain.antialiased,
                "background": tuple(self.background),
                "near_plane": plain.metadata.get("near_plane", config.near_plane),
                "far_plane": plain.metadata.get("far_plane", config.far_plane),
            }
        )

    def image(self, name: str) -> Pixels:
        """The image [H, W, 3] of a training view."""
        return self._shrunk(name)[0]

    def valid(self, name: str) -> Mask | None:
        """The pixels [H, W] that its lens covers; None for all."""
        return self._shrunk(name)[1]

    def _read(self, name: str) -> tuple[Pixels, Mask | None]:
        return shrunk(self._views[name], self.record.data_factor, self.background)[1:]


def capture_rule(rule: ReferenceRule) -> ReferenceRule:
    """The rule of references in a capture: its images are no cameras that one could name.

    >>> capture_rule(ReferenceRule("source:16", 2))
    ReferenceRule(policy='nearest', count=2, warped=False)
    >>> capture_rule(ReferenceRule("overlap"))
    ReferenceRule(policy='overlap', count=1, warped=False)
    """
    return rule._replace(policy=NEAREST) if rule.policy.startswith(FIXED_SOURCE) else rule


def trained_dataset(data: Path, result: Path) -> Dataset:
    """The dataset in `data`, or for images without poses the one that `result` has of them."""
    check_source(data)
    estimated = result / DATASET / data.resolve().name
    return Dataset.read(estimated if find_model(data) is None and estimated.is_dir() else data)


def _check_images(
    trained: Path,
    dataset: Dataset,
    record: CaptureRecord,
    names: list[str],
    views: dict[str, View],
) -> None:
    others = [
        name for name in names if name not in views or views[name].sha256 != record.sha256[name]
    ]
    if others:
        raise UserError(
            dataset.folder,
            f"{len(others)} of the {len(names)} images that {trained} used are missing or "
            f"others: {first_few(others)}",
            expected=f"the dataset that was trained on, {record.name}",
            fix="name its folder",
        )
