"""The scenes, people and images that a fixer was trained on, kept with its weights.

`taught.json` lies in the fixer's folder: {"scenes": [{"scene", "group", "photographs"}, ...],
"unknown": [fixers that it started from and that have no record]}. A .pkl has the same as text.

`tuning.json` is beside it where the fixer was tuned by the study: the numbers of metrics/tune.json,
so that a stage that repeats them needs no tuning where no method does.
"""

import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.run.errors import UserError, raise_all
from stages.run.files import parse_json, read_json, write_json
from stages.scenes.study.overlap import Subject, common

FILE = "taught.json"
TUNING_FILE = "tuning.json"
_SPEC_FILE = "fixer.json"
_FIX = "take another fixer, or take these scenes out of the study's roles"


@dataclass(frozen=True)
class TrainingRecord:
    """Scenes that a fixer, or one that it started from, was trained on; empty: none."""

    scenes: tuple[Subject, ...] = ()
    unknown: tuple[str, ...] = ()

    def merged(self, other: "TrainingRecord") -> "TrainingRecord":
        """The scenes of both records."""
        return TrainingRecord(
            tuple(dict.fromkeys((*self.scenes, *other.scenes))),
            tuple(dict.fromkeys((*self.unknown, *other.unknown))),
        )

    @property
    def summary(self) -> str:
        """One line for a model card."""
        items = [
            f"{one.scene or 'images'} ({one.group or 'people unknown'})" for one in self.scenes
        ]
        items += [f"unknown scenes, by {one}" for one in self.unknown]
        return ", ".join(items) or "no scene"

    @property
    def notes(self) -> list[str]:
        """Notes for the user on what cannot be checked."""
        return [
            f"the training scenes of {one} are unknown: it may have learnt from measured ones"
            for one in self.unknown
        ]

    def refuse_overlap(self, where: object, measured: Iterable[Subject], use: str) -> None:
        """Raise UserError when the fixer was trained on a scene of `measured`.

        `use` is the purpose of these scenes, such as `reserved`.
        """
        raise_all(
            UserError(
                where,
                f"this fixer learnt from {overlap}",
                expected=f"one that was not trained on {use} scenes, their people or images",
                fix=_FIX,
            )
            for overlap in common(self.scenes, measured)
        )


def write_training_record(folder: Path, record: TrainingRecord) -> None:
    """Write taught.json."""
    write_json(folder / FILE, asdict(record))


def describe(views: Path, weights: Path, record: TrainingRecord) -> None:
    """Write what is known of a fixer beside the views that it fixed.

    Args:
        views: Folder of the views.
        weights: Folder of the fixer.
        record: What it was trained on.
    """
    write_training_record(views, record)
    if (weights / TUNING_FILE).is_file():
        shutil.copyfile(weights / TUNING_FILE, views / TUNING_FILE)


def read_training_record(folder: Path) -> TrainingRecord:
    """The record in a fixer's folder; unknown where it has none.

    Raises UserError when the record cannot be read.
    """
    if (folder / FILE).is_file():
        return from_dict(read_json(folder / FILE), folder / FILE)
    if (folder / _SPEC_FILE).is_file():
        return TrainingRecord(unknown=(f"{folder} (its record {FILE} is missing)",))
    return TrainingRecord(unknown=(str(folder),))


def as_text(record: TrainingRecord) -> str:
    """A record as text, for checkpoints that are one file."""
    return json.dumps(asdict(record))


def from_text(text: str, where: object) -> TrainingRecord:
    """Inverse of `as_text`. Raises UserError for any other text."""
    try:
        return from_dict(parse_json(text), where)
    except ValueError as error:
        raise _unreadable(where, error) from error


def from_dict(content: Mapping[str, Any], where: object) -> TrainingRecord:
    """A record from its dictionary. Raises UserError when that has another structure."""
    try:
        scenes = tuple(
            Subject(str(one["scene"]), str(one["group"]), tuple(map(str, one["photographs"])))
            for one in content["scenes"]
        )
        return TrainingRecord(scenes, tuple(map(str, content["unknown"])))
    except (KeyError, TypeError) as error:
        raise _unreadable(where, error) from error


def _unreadable(where: object, error: Exception) -> UserError:
    return UserError(
        where,
        f"not a training record ({type(error).__name__}: {error})",
        expected="scenes: [{scene, group, photographs}], unknown: [...]",
        fix="get the file again; without it the fixer's training scenes count as unknown",
    )
