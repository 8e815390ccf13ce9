"""What two scenes have in common: a name, people or images.

Scenes that a fixer was tuned on and scenes that it is measured on may have nothing in common.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stages.run.plurals import counted
from stages.scenes.study.identity import group_in_name, normalised_name, people


@dataclass(frozen=True)
class Subject:
    """A scene, its group and the SHA-256 of its images; unknown values are empty."""

    scene: str
    group: str
    photographs: tuple[str, ...] = ()

    def shared_with(self, other: "Subject") -> str:
        """What two scenes have in common, in words; empty if nothing."""
        if self.scene and normalised_name(self.scene) == normalised_name(other.scene):
            return f"the scene {other.scene}"
        if self.group and people(self.group) == people(other.group):
            return f"{people(other.group)}, whom both {self.scene or 'it'} and {other.scene} show"
        common = set(self.photographs) & set(other.photographs)
        return f"{counted(len(common), 'image')} of {other.scene}" if common else ""


def named(scene: str, group: str = "") -> Subject:
    """A scene whose images are not known; without `group`, its group follows from its name."""
    return Subject(scene, group or group_in_name(scene))


def common(first: Iterable[Subject], second: Iterable[Subject]) -> Iterator[str]:
    """What any two scenes of two lists have in common, without repetitions."""
    others = list(second)
    overlaps = (scene.shared_with(other) for scene in first for other in others)
    yield from dict.fromkeys(overlap for overlap in overlaps if overlap)
