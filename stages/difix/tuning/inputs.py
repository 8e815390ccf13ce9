"""Inputs of a tuning: the dataset, the fixer that it starts from, and the key of their content."""

from collections.abc import Callable
from pathlib import Path

from stages.difix.config import TuneConfig
from stages.difix.network.model import Fixer
from stages.difix.network.training_record import TrainingRecord, read_training_record
from stages.difix.weights.folders import read_folder, read_part
from stages.difix.weights.pkl import SUFFIXES, read_pkl
from stages.difix.weights.state_dicts import fixer_from_published
from stages.quality.measured import data_words
from stages.run.errors import UserError
from stages.run.files import file_hash, folder_hash, text_hash
from stages.samples.dataset import common_prompt, read_split
from stages.samples.index import IMPORTED, INDEX_FILE, is_imported, read_index
from stages.samples.leaks import index_subject
from stages.scenes.scene import source_of
from stages.scenes.study.overlap import Subject


class TuningData:
    """Both splits of the dataset, checked."""

    def __init__(
        self, path: Path, samples_root: Path, scene_folder: Callable[[str], Path] | None = None
    ):
        """Raises UserError when samples are missing or broken, see `read_split`.

        Args:
            path: Of dataset.json.
            samples_root: Folder with the samples of all scenes.
            scene_folder: Of a prepared scene by name, which says what its images are.
        """
        self.path, self.samples_root, self._scene_folder = path, samples_root, scene_folder
        self.train, self.test = read_split(path, "train"), read_split(path, "test")
        self.prompt = common_prompt([*self.train, *self.test], path)

    def digest(self) -> str:
        """SHA-256 over the list of samples and the content of every image."""
        samples = (*self.train, *self.test)
        images = sorted({path for sample in samples for path in sample.paths})
        return text_hash(file_hash(self.path), *(file_hash(path) for path in images))

    def train_views(self) -> int:
        """How many distinct target images the training samples have, by their content."""
        return len({file_hash(sample.target) for sample in self.train})

    def words(self) -> str:
        """What the images of the training samples are; empty where it is not known."""
        names = [one.scene for one in self.training_record().scenes if one.scene]
        if self._scene_folder is None:
            return ""
        return data_words(names, {name: self._source(name, self._scene_folder) for name in names})

    def _source(self, scene: str, scene_folder: Callable[[str], Path]) -> str:
        """What the samples of a scene come from."""
        folder = self.samples_root / scene
        if (folder / INDEX_FILE).is_file() and is_imported(read_index(folder)):
            return IMPORTED
        return source_of(scene_folder(scene))

    def training_record(self) -> TrainingRecord:
        """The scenes of the training samples, by their index; other samples by their images."""
        folders, digests = {}, set()
        for sample in self.train:
            folder = sample.image.parents[1]
            if folder.parent == self.samples_root and (folder / INDEX_FILE).is_file():
                folders[folder.name] = folder
            else:
                images = (sample.target, sample.reference)
                digests |= {file_hash(path) for path in images if path is not None}
        subjects = [index_subject(read_index(folder)) for folder in folders.values()]
        if digests:
            subjects.append(Subject("", "", tuple(sorted(digests))))
        return TrainingRecord(tuple(subjects))


def initial_fixer(base: Path, init_from: str) -> Fixer:
    """The fixer in the folder `base`, with the weights of `init_from` unless that is empty.

    Raises UserError when these are of another architecture.
    """
    fixer = read_folder(base)
    if not init_from:
        return fixer
    path = Path(init_from).expanduser()
    spec = fixer.spec.changed(origin=f"{fixer.spec.origin}, from {path.name}")
    if path.suffix in SUFFIXES:
        return read_pkl(path, base, spec.reference, spec.prompt, fixer.prompt, spec.origin)
    if not path.is_dir():
        raise UserError(
            "tune.init_from",
            f"{init_from}: no such folder or file",
            expected="a fixer's folder, or a .pkl of the published trainer",
        )
    parts = {part: read_part(path, part) for part in ("unet", "vae")}
    fixer = fixer_from_published(spec, parts, fixer.prompt, path)
    fixer.training_record = read_training_record(path)
    return fixer


def check_inputs(fixer: Fixer, data: TuningData, config: TuneConfig) -> None:
    """Raise UserError when the dataset or the params do not suit the fixer."""
    if config.multiple % fixer.spec.factor:
        raise UserError(
            "tune.multiple",
            str(config.multiple),
            expected=f"a multiple of {fixer.spec.factor}, by which this fixer's VAE shrinks",
        )
    if config.losses.views == "all" and fixer.spec.residual:
        raise UserError(
            "tune.losses.views",
            "all, but this fixer adds its output to the render alone",
            expected="render, or a fixer of SD-Turbo's size",
            fix="set it to render",
        )
    if data.prompt and data.prompt != fixer.spec.prompt:
        raise UserError(
            data.path,
            f"the prompt {data.prompt!r}",
            expected=f"{fixer.spec.prompt!r}, whose embedding the fixer has",
            fix="set base.prompt and the pairs' prompt alike",
        )


def checkpoint_key(data: TuningData, base: Path, config: TuneConfig) -> tuple[str, ...]:
    """Everything that a run's result depends on: params, samples and the initial fixer."""
    origin = ""
    if config.init_from:
        path = Path(config.init_from).expanduser()
        origin = folder_hash(path) if path.is_dir() else origin
        origin = file_hash(path) if path.is_file() else origin
    return config.recipe(), data.digest(), folder_hash(base), origin
