"""Training of a static scene on one kind of camera, into `<result>/checkpoints`."""

from collections.abc import Collection
from pathlib import Path

from stages.run.artefacts import GAUSSIANS
from stages.run.errors import UserError
from stages.run.files import whole_folder
from stages.run.notes import unshown
from stages.run.user_paths import make_target
from stages.scenes.dataset import Dataset
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.shared_folder import SharedFolder
from stages.splat.captures.claims import CHECKPOINTS, check_trained_on, claim_trained
from stages.splat.captures.training import capture_notes, split, train_capture
from stages.splat.config import TrainConfig
from stages.splat.training.fit import Fitted


def train_static(
    shared: SharedFolder,
    camera: str,
    static: StaticConfig,
    config: TrainConfig,
    result: Path,
    resume_as: str,
    overridden: Collection[str] = (),
) -> Fitted:
    """Train on the images of one kind of camera, into `result`/checkpoints.

    Args:
        shared: the prepared scene.
        camera: the kind.
        static: section `static` of params.yaml.
        config: params of the training.
        result: folder of the camera's results.
        resume_as: name of the resume state.
        overridden: keys of `config` that the command line sets.

    Raises UserError when `result` is of other images, as of another scene of the same name.
    """
    dataset = Dataset.read(shared.subset(camera))
    images_hash = shared.images_hash(camera)
    claim_trained(result / CHECKPOINTS, dataset.folder, lambda: dataset.image_hashes, images_hash)
    make_target(result)
    views = split(dataset.views, static.train_test_every, config.match_string)
    for line in unshown(capture_notes(dataset, views, config, "static_train", overridden)):
        print(f"{result}: {line}")
    with whole_folder(result / CHECKPOINTS) as folder:
        return train_capture(
            dataset,
            views,
            config,
            folder,
            match_string=config.match_string,
            resume_as=resume_as,
            images_hash=images_hash,
        )


def check_trained(result: Path) -> None:
    """Raise UserError when there are no trained Gaussians."""
    if not (result / CHECKPOINTS / GAUSSIANS).is_file():
        raise UserError(
            result / CHECKPOINTS,
            "nothing is trained yet",
            expected=GAUSSIANS,
            fix="set runtime.static.skip_train: false, or run static_train for this camera first",
        )


def check_same_images(shared: SharedFolder, camera: str, result: Path) -> None:
    """Raise UserError when the Gaussians in `result` are of other images than the scene's."""
    check_trained(result)
    dataset = Dataset.read(shared.subset(camera))
    check_trained_on(
        result / CHECKPOINTS,
        dataset.folder,
        lambda: dataset.image_hashes,
        shared.images_hash(camera),
    )
