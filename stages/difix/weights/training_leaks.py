"""Whether pictures by a fixer may be measured: not on what it learnt from."""

from collections.abc import Iterable

from stages.difix.network.training_record import TrainingRecord
from stages.samples.photographed import prepared
from stages.scenes.study.identity import normalised_name


def evaluation_notes(
    where: object, taught: TrainingRecord, scene: str, tuning_scenes: Iterable[str]
) -> list[str]:
    """Notes on a fixer whose pictures of a scene are measured.

    Scenes of the tuning may be looked at, as no measure of success. Raises UserError when any other
    was learnt from.
    """
    if normalised_name(scene) not in map(normalised_name, tuning_scenes):
        taught.refuse(where, [prepared(scene)] if taught.scenes else [], "evaluated")
    return taught.notes
