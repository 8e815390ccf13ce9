"""What taught a fixer: scenes, people and photographs, kept with its weights and handed on.

`taught.json` lies in the fixer's folder: {"scenes": [{"scene", "group", "photographs"}, ...],
"unknown": [fixers that it started from and that don't say]}. A .pkl has the same as text.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.run.errors import UserError, raise_all
from stages.run.files import parse_json, read_json, write_json
from stages.scenes.study.overlap import Subject, common

FILE = "taught.json"
_OWN = "fixer.json"
_WHERE_TO = "take another fixer, or take these scenes out of the study's roles"


@dataclass(frozen=True)
class TrainingRecord:
    """Every scene that a fixer learnt from, itself or before; empty: none did."""

    scenes: tuple[Subject, ...] = ()
    unknown: tuple[str, ...] = ()

    def and_by(self, other: "TrainingRecord") -> "TrainingRecord":
        """What both learnt from."""
        return TrainingRecord(
            tuple(dict.fromkeys((*self.scenes, *other.scenes))),
            tuple(dict.fromkeys((*self.unknown, *other.unknown))),
        )

    @property
    def summary(self) -> str:
        """One line for a model card."""
        told = [
            f"{one.scene or 'photographs'} ({one.group or 'people unknown'})" for one in self.scenes
        ]
        told += [f"what taught {one} is unknown" for one in self.unknown]
        return ", ".join(told) or "no scene"

    @property
    def notes(self) -> list[str]:
        """What cannot be judged, to be said aloud."""
        return [
            f"what taught {one} is unknown: it may have seen what is measured here"
            for one in self.unknown
        ]

    def refuse(self, where: object, measured: Iterable[Subject], use: str) -> None:
        """Raise UserError when a scene that is measured was learnt from.

        `use` says what the scenes are for, such as `reserved`.
        """
        raise_all(
            UserError(
                where, f"this fixer learnt from {told}",
                expected=f"none that was taught by {use} scenes, their people or photographs",
                fix=_WHERE_TO,
            )
            for told in common(self.scenes, measured)
        )  # fmt: skip


def write_training_record(folder: Path, taught: TrainingRecord) -> None:
    """Write taught.json."""
    write_json(folder / FILE, asdict(taught))


def read_training_record(folder: Path) -> TrainingRecord:
    """What a fixer's folder says; unknown where it says nothing.

    Raises UserError when there is a record that cannot be read.
    """
    if (folder / FILE).is_file():
        return from_dict(read_json(folder / FILE), folder / FILE)
    if (folder / _OWN).is_file():
        return TrainingRecord(unknown=(f"{folder} (its record {FILE} is missing)",))
    return TrainingRecord(unknown=(str(folder),))


def as_text(taught: TrainingRecord) -> str:
    """The record for a form without files of its own."""
    return json.dumps(asdict(taught))


def from_text(text: str, where: object) -> TrainingRecord:
    """Inverse of `as_text`. Raises UserError when it is none."""
    try:
        return from_dict(parse_json(text), where)
    except ValueError as error:
        raise _unreadable(where, error) from error


def from_dict(found: Mapping[str, Any], where: object) -> TrainingRecord:
    """A record from its dictionary. Raises UserError when it is none."""
    try:
        scenes = tuple(
            Subject(str(one["scene"]), str(one["group"]), tuple(map(str, one["photographs"])))
            for one in found["scenes"]
        )
        return TrainingRecord(scenes, tuple(map(str, found["unknown"])))
    except (KeyError, TypeError) as error:
        raise _unreadable(where, error) from error


def _unreadable(where: object, error: Exception) -> UserError:
    return UserError(
        where, f"not a record of what taught a fixer ({type(error).__name__}: {error})",
        expected="scenes: [{scene, group, photographs}], unknown: [...]",
        fix="get it again; without it, what taught the fixer counts as unknown",
    )  # fmt: skip
