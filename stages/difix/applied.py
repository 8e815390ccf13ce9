"""A fixer whose fixed views of a capture are measured: what it was trained on, and how it runs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from stages.difix.config import FixerConfig
from stages.difix.inference import Runner
from stages.difix.network.training_record import TrainingRecord
from stages.difix.weights.folders import read_folder
from stages.run.files import folder_hash, safe_name
from stages.scenes.config import ReferenceRule
from stages.scenes.images import Pixels
from stages.scenes.study.identity import group_in_name
from stages.scenes.study.overlap import Subject


@dataclass(frozen=True, eq=False)
class AppliedFixer:
    """A fixer in a folder such as data/difix/tuned, ready for inference."""

    folder: Path
    name: str  # of its methods
    record: TrainingRecord
    runner: Runner
    weights: str  # hash of the folder
    identity: str  # of the weights and of how they are run
    rule: ReferenceRule  # of references

    @classmethod
    def read(cls, folder: Path, config: FixerConfig) -> "AppliedFixer":
        """Read the fixer in a folder. Raises UserError when there is none."""
        fixer, weights = read_folder(folder), folder_hash(folder)
        record, runner = fixer.training_record, Runner(fixer, config)
        return cls(
            folder,
            safe_name(folder.resolve().name, folder),
            record,
            runner,
            weights,
            weights + config.model_dump_json(),
            runner.rule,
        )

    @property
    def notes(self) -> Sequence[str]:
        """What a reader of its results should know."""
        return self.record.notes

    def fix(
        self, images: Sequence[Pixels], references: Sequence[Sequence[Pixels]], grids: int = 1
    ) -> list[Pixels]:
        """The fixed views of all images, each with its references; see `Runner.fix`."""
        return self.runner.fix(images, references, grids)

    def refuse_known(self, name: str, images: Iterable[str]) -> None:
        """Raise UserError when the fixer was trained on a scene `name`, its people or images.

        `images` are hashes of those that the Gaussians were trained on and are measured on.
        """
        subject = Subject(name, group_in_name(name), tuple(sorted(images)))
        self.record.refuse_overlap(self.folder, [subject], "evaluated")
