"""Training of a static scene on one kind of camera: its subset to `<result>/checkpoints`."""

from collections.abc import Collection
from pathlib import Path

from stages.run.artefacts import GAUSSIANS
from stages.run.errors import UserError
from stages.run.files import whole_folder
from stages.run.user_paths import make_target
from stages.scenes.dataset import Dataset
from stages.scenes.static.config import StaticConfig
from stages.scenes.static.shared_folder import SharedFolder
from stages.splat.captures.claims import check_trained_on, claim_trained
from stages.splat.captures.training import capture_notes, split, train_capture
from stages.splat.config import TrainConfig
from stages.splat.training.fit import Fitted

CHECKPOINTS = "checkpoints"


def train_static(
    shared: SharedFolder, camera: str, static: StaticConfig, config: TrainConfig, result: Path,
    name: str, given: Collection[str] = (),
) -> Fitted:  # fmt: skip
    """Train on one camera's subset into `result`/checkpoints.

    `given` are the keys of `config` that the command line gave.
    Raises UserError when a result of other photographs is there, as of another scene of one name.
    """
    dataset = Dataset.read(shared.subset(camera))
    photographs = shared.photographs(camera)
    claim_trained(result / CHECKPOINTS, dataset.folder, lambda: dataset.photographs, photographs)
    make_target(result)
    chosen = split(dataset.views, static.train_test_every, config.match_string)
    for line in capture_notes(dataset, chosen, config, "static_train", given):
        print(f"{result}: {line}")
    with whole_folder(result / CHECKPOINTS) as folder:
        return train_capture(
            dataset,
            chosen,
            config,
            folder,
            match_string=config.match_string,
            resume_as=name,
            photographs=photographs,
        )


def check_trained(result: Path) -> None:
    """Raise UserError when there are no checkpoints to reuse."""
    if not (result / CHECKPOINTS / GAUSSIANS).is_file():
        raise UserError(
            result / CHECKPOINTS, "nothing is trained yet", expected=GAUSSIANS,
            fix="set static.skip_train: false, or run static_train for this camera first",
        )  # fmt: skip


def check_same_images(shared: SharedFolder, camera: str, result: Path) -> None:
    """Raise UserError when what is trained there is of other photographs than the scene's."""
    check_trained(result)
    dataset = Dataset.read(shared.subset(camera))
    check_trained_on(
        result / CHECKPOINTS, dataset.folder, lambda: dataset.photographs,
        shared.photographs(camera),
    )  # fmt: skip
