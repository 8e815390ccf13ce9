"""Fixed views of results: below one as `fixed/<fixer>/<views>`, or in a folder of the graph."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stages.quality.evaluation import Measures
from stages.run.artefacts import CAPTURE
from stages.run.checkpoint import forget
from stages.run.errors import UserError
from stages.run.files import whole_folder
from stages.run.user_paths import check_source, make_target, run_name
from stages.scenes.captures.config import CaptureEvaluateConfig, CaptureTrainConfig
from stages.scenes.dataset import Dataset
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.shared_folder import SharedFolder
from stages.splat.captures.claims import CHECKPOINTS, FIXED, TRAINED, claim_fixed
from stages.splat.captures.evaluated import Evaluated, eval_frames, held_out_views, views_of_set
from stages.splat.captures.fixing import STATE, Fixing
from stages.splat.captures.static_training import check_trained
from stages.splat.captures.training_views import TrainingViews, trained_dataset

Methods = dict[str, Measures]  # by name, that of the plain Gaussians first


@dataclass(frozen=True, eq=False)
class FixedCaptures:
    """Fixed views of captures."""

    fixing: Fixing
    train: CaptureTrainConfig
    evaluate: CaptureEvaluateConfig

    def below(self, result: Path, data: Path, eval_set: Path | None) -> tuple[Path, Methods]:
        """Fix the held-out views of a result, or those of `eval_set`; return their folder too.

        Args:
            result: folder of the results.
            data: the dataset or the images that were trained on.
            eval_set: a dataset that the result was evaluated on.

        Raises UserError when there are fixed views of other images or weights already.
        """
        if result.is_file() or (result.is_dir() and not (result / TRAINED / CAPTURE).is_file()):
            raise UserError(
                result,
                f"no {TRAINED}/{CAPTURE} in it",
                expected="a result of capture_train: only these can be fixed, since they record "
                "their training views; those of other programs can only be evaluated",
                fix="python -m stages.capture_train DATA_DIR RESULT_DIR",
            )
        check_source(result)
        dataset = trained_dataset(data, result)
        training = TrainingViews(result / TRAINED, dataset, dataset.name)
        if eval_set is None:
            views = held_out_views(result, dataset, training, self.train)
        else:
            check_source(eval_set)
            views = views_of_set(result, Dataset.read(eval_set), training, self.evaluate)
        return _write_below(self.fixing, result, views, training)

    def of_variants(
        self, folder: Path, results: Mapping[str, Path], dataset: Dataset, eval_set: Dataset
    ) -> dict[tuple[str, str], Methods]:
        """Fix all evaluated views of the variants of a capture, into `folder`/<variant>/<views>.

        Args:
            folder: for all variants.
            results: folders of their results.
            dataset: the capture.
            eval_set: the dataset that they were evaluated on.

        Returns the measures by variant and name of the views.
        """
        evaluations = {}
        for variant, result in results.items():
            training = TrainingViews(result / TRAINED, dataset, dataset.name)
            views = [views_of_set(result, eval_set, training, self.evaluate)]
            if training.record.held_out:
                views.insert(0, held_out_views(result, dataset, training, self.train))
            evaluations |= {(variant, one.name): (one, training) for one in views}
        return _write_all(self.fixing, folder, evaluations)


@dataclass(frozen=True, eq=False)
class FixedCameras:
    """Fixed views of a static scene by the kinds of camera that were trained on."""

    fixing: Fixing
    static: StaticConfig
    scene: str
    shared: SharedFolder

    def below(self, result: Path, camera: str) -> tuple[Path, Methods]:
        """Fix the eval frames of one kind of camera below its result; return their folder too.

        Raises UserError when there are fixed views of other images or weights already.
        """
        return _write_below(self.fixing, result, *self._evaluated(result, camera))

    def of_cameras(
        self, folder: Path, results: Mapping[str, Path]
    ) -> dict[tuple[str, str], Methods]:
        """Fix the eval frames of all kinds of camera, into `folder`/<camera>/<views>.

        `results` are the folders of their results. Returns the measures by kind of camera and name
        of the views.
        """
        found = {camera: self._evaluated(result, camera) for camera, result in results.items()}
        evaluations = {(camera, pair[0].name): pair for camera, pair in found.items()}
        return _write_all(self.fixing, folder, evaluations)

    def _evaluated(self, result: Path, camera: str) -> tuple[Evaluated, TrainingViews]:
        check_trained(result)
        dataset = Dataset.read(self.shared.subset(camera))
        views = eval_frames(self.shared, camera, self.static, result)
        return views, TrainingViews(result / CHECKPOINTS, dataset, self.scene)


def _write_below(
    fixing: Fixing, result: Path, views: Evaluated, training: TrainingViews
) -> tuple[Path, Methods]:
    folder = result / FIXED / fixing.fixer.name / views.name
    claim_fixed(folder, views.image_hashes, fixing.fixer.weights)
    make_target(result)
    state = f"{run_name(result)}.{fixing.fixer.name}.{views.name}"
    with whole_folder(folder) as scratch:
        methods = fixing.write(scratch, views, training, state)
    forget(STATE, state)
    return folder, methods


def _write_all(
    fixing: Fixing,
    folder: Path,
    evaluations: Mapping[tuple[str, str], tuple[Evaluated, TrainingViews]],
) -> dict[tuple[str, str], Methods]:
    """Write fixed views into `folder`/<first>/<second> for each pair of names."""
    for views, training in evaluations.values():  # before any of them is fixed
        fixing.check(views, training)
    states = {names: ".".join((run_name(folder), *names)) for names in evaluations}
    with whole_folder(folder) as scratch:
        written = {
            names: fixing.write(scratch.joinpath(*names), views, training, states[names])
            for names, (views, training) in evaluations.items()
        }
    for state in states.values():
        forget(STATE, state)
    return written
