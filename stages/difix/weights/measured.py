"""Whether pictures by a fixer may be measured: not on what it learnt from."""

from collections.abc import Iterable

from stages.difix.weights.taught import Taught
from stages.samples.photographed import prepared
from stages.scenes.study.identity import spelled


def may_be_measured(
    where: object, taught: Taught, scene: str, tuning_scenes: Iterable[str]
) -> list[str]:
    """Notes on a fixer whose pictures of a scene are measured.

    Scenes of the tuning may be looked at, as no measure of success. Raises UserError when any other
    was learnt from.
    """
    if spelled(scene) not in map(spelled, tuning_scenes):
        taught.refuse(where, [prepared(scene)] if taught.scenes else [], "evaluated")
    return taught.notes
