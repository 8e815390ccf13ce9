"""Who is to be seen in a scene, and in which photographs: what may not teach and be measured."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stages.scenes.study.identity import group_in_name, normalised_name, people


@dataclass(frozen=True)
class Subject:
    """A scene, its group and the SHA-256 of its photographs; what is not known is empty."""

    scene: str
    group: str
    photographs: tuple[str, ...] = ()

    def shared_with(self, other: "Subject") -> str:
        """What two scenes have in common, in words; empty if nothing is."""
        if self.scene and normalised_name(self.scene) == normalised_name(other.scene):
            return f"the scene {other.scene}"
        if self.group and people(self.group) == people(other.group):
            return f"{people(other.group)}, whom {self.scene or 'it'} shows as {other.scene} does"
        common = set(self.photographs) & set(other.photographs)
        return f"{len(common)} photographs of {other.scene}" if common else ""


def named(scene: str, group: str = "") -> Subject:
    """A scene of which no more is known."""
    return Subject(scene, group or group_in_name(scene))


def common(first: Iterable[Subject], second: Iterable[Subject]) -> Iterator[str]:
    """What scenes of two lists have in common, each once."""
    others = list(second)
    found = (one.shared_with(other) for one in first for other in others)
    yield from dict.fromkeys(told for told in found if told)
