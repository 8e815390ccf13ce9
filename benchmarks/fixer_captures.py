"""Captures of few training views, and their held-out views by the shipped fixer.

Each is a folder of photographs, whose poses `capture_calibrate` estimates, or a calibrated sequence
in Hi4D's raw layout, whose own poses are taken. The product's path is taken from there:
`capture_train` on a dataset of the training views alone, `capture_evaluate` on one of the others,
and `capture_fix`. Sparse points are those that at least two training views observe.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from stages.difix.applied import AppliedFixer
from stages.quality.evaluation import Measures, Meter
from stages.run.files import whole_folder
from stages.run.settings.params import Params
from stages.scenes.captures.calibration import calibrate_capture, method_of
from stages.scenes.captures.config import (
    CaptureCalibrateConfig,
    CaptureEvaluateConfig,
    CaptureTrainConfig,
)
from stages.scenes.colmap import open_model
from stages.scenes.config import PrepareConfig, SceneEntry
from stages.scenes.dataset import Dataset
from stages.scenes.images import Pixels, resize
from stages.scenes.sources.importer import import_scene, spread_evenly
from stages.splat.captures.claims import TRAINED
from stages.splat.captures.evaluated import Evaluated, views_of_set
from stages.splat.captures.evaluation import evaluate_result
from stages.splat.captures.fixing import Fixing
from stages.splat.captures.results import train_result
from stages.splat.captures.training_views import TrainingViews
from stages.splat.config import DistillConfig, TrainConfig

CALIBRATED = "cameras/rgb_cameras.npz"  # of a sequence whose poses are known
_LEAST_VIEWS = 2  # that observe a sparse point
_SHARED = CaptureEvaluateConfig(align_steps=0, frame="shared")


class Fold(NamedTuple):
    """Names of views to train on, and of the others."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Trained:
    """Gaussians of one fold, its training views, and its evaluated held-out views."""

    dataset: Dataset  # of the training views
    training: TrainingViews
    views: Evaluated


def dataset_of(folder: Path, work: Path) -> Dataset:
    """The COLMAP dataset of a capture, made below `work` unless it is there; see the module."""
    made = work / folder.resolve().name
    params = Params.read()
    if (folder / CALIBRATED).is_file():
        cameras = tuple(sorted(path.name for path in (folder / "images").iterdir()))
        entry = SceneEntry(
            source="hi4d", source_cameras=cameras[1:], target_cameras=cameras[:1], timestamps=1
        )
        if not made.is_dir():
            config = params.section("prepare", PrepareConfig).model_copy(update={"height_px": 0})
            with whole_folder(made) as scratch:
                print(import_scene(made.name, entry, config, folder, scratch))
        return Dataset.read(next((made / "frames").iterdir()))
    if not made.is_dir():
        config = params.section("capture_calibrate", CaptureCalibrateConfig)
        config = config.model_copy(update={"method": method_of(folder, config)})
        with whole_folder(made) as scratch:
            calibrate_capture(folder, scratch, config)
    return Dataset.read(made)


def folds_of(dataset: Dataset, count: int) -> Iterator[Fold]:
    """`count` views spread evenly by name, and the others; where one is left, each in turn.

    Without a view to hold out there is no fold.
    """
    names = [view.name for view in dataset.views]
    if len(names) == count + 1:
        for name in names:
            yield Fold(tuple(one for one in names if one != name), (name,))
    elif len(names) > count:
        train = [names[index] for index in spread_evenly(range(len(names)), count)]
        yield Fold(tuple(train), tuple(name for name in names if name not in train))


def trained(
    dataset: Dataset, fold: Fold, folder: Path, px: int, meter: Meter, steps: int
) -> Trained:
    """Train on a fold by params.yaml, in `folder`, at sides of at most `px`; evaluate the others.

    `steps` replaces train.max_steps unless it is 0.
    """
    longest = max(max(view.camera.width, view.camera.height) for view in dataset.views)
    config = Params.read().section("train", TrainConfig)
    config = config.model_copy(update={"data_factor": -(-longest // px)})
    if steps:
        config = config.model_copy(update={"max_steps": steps})
    train, held_out = (
        subset(dataset, names, folder / part)
        for part, names in (("train", fold.train), ("held_out", fold.held_out))
    )
    result = folder / "result"
    capture = CaptureTrainConfig(test_every=0, align_steps=0)
    train_result(train, "", result, capture, config, meter)
    evaluate_result(result, held_out, _SHARED, meter)
    training = TrainingViews(result / TRAINED, train, dataset.name)
    return Trained(train, training, views_of_set(result, held_out, training, _SHARED))


def subset(dataset: Dataset, names: Sequence[str], folder: Path) -> Dataset:
    """A dataset of some of the images, with the points that at least two of them observe."""
    model = open_model(dataset.model)
    for image in list(model.images.values()):
        if image.has_pose and image.name not in names:
            model.deregister_frame(image.frame_id)
    for key, point in list(model.points3D.items()):
        if point.track.length() < _LEAST_VIEWS:
            model.delete_point3D(key)
    for name in names:
        link = folder / "images" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to((dataset.folder / "images" / name).resolve())
    (folder / "sparse" / "0").mkdir(parents=True)
    model.write(folder / "sparse" / "0")
    return Dataset.read(folder)


class Borrowing(TrainingViews):
    """Training views whose images are those of another capture, in the sizes of their own."""

    def __init__(self, own: Trained, others: Trained):
        super().__init__(own.training.trained, own.dataset, own.training.name)
        self.others = others.training

    def image(self, name: str) -> Pixels:
        """The image [H, W, 3] of another capture's training view."""
        own, names = super().image(name), list(self.others.cameras)
        borrowed = self.others.image(names[list(self.cameras).index(name) % len(names)])
        return resize(borrowed, own.shape[1], own.shape[0])


def fixed(
    one: Trained, training: TrainingViews, fixer: AppliedFixer, meter: Meter, folder: Path
) -> Measures:
    """Measures of the held-out views by `post`, whose images are written into `folder`."""
    params = Params.read()
    fixing = Fixing(
        fixer,
        ("post",),
        meter,
        params.section("distill", DistillConfig),
        params.section("train", TrainConfig),
    )
    methods = fixing.write(folder, one.views, training, folder.name)
    return methods[f"{fixer.name}-post"]
