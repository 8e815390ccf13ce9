"""What is to be said of a fixer whose fixed views of a scene are measured."""

from collections.abc import Iterable
from pathlib import Path

from stages.difix.network.training_record import TrainingRecord
from stages.samples.leaks import scene_subject
from stages.scenes.study.identity import normalised_name


def evaluation_notes(
    where: object, record: TrainingRecord, scene: str, folder: Path, tuning_scenes: Iterable[str]
) -> list[str]:
    """Notes on a fixer whose views of a scene are measured.

    Tuning scenes may be measured, though not as a result. Raises UserError for any other scene
    that the fixer was trained on.

    Args:
        where: the fixer, for the messages.
        record: its training record.
        scene: name of the scene.
        folder: where the scene is prepared.
        tuning_scenes: those of the study.
    """
    if normalised_name(scene) not in map(normalised_name, tuning_scenes):
        subjects = [scene_subject(scene, folder)] if record.scenes else []
        record.refuse_overlap(where, subjects, "evaluated")
    return record.notes
