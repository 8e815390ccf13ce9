"""Opens raw sequences by the word in `scenes.<scene>.source`, and finds their faults."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from stages.run.errors import UserError
from stages.scenes.config import SceneEntry
from stages.scenes.sources import actorshq, easyvolcap, hi4d, mvhumannet, transforms
from stages.scenes.sources.raw_sequence import RawSequence

# Selects frames of those that all cameras share.
ChooseFrames = Callable[[list[int]], list[int]]

_READERS = {
    "demo": hi4d.open_sequence,
    "hi4d": hi4d.open_sequence,
    "transforms": transforms.open_sequence,
    "mvhumannet": mvhumannet.open_sequence,
    "actorshq": actorshq.open_sequence,
}


def open_raw(entry: SceneEntry, root: Path) -> RawSequence:
    """The raw sequence of an entry. Raises UserError that names what is missing and where."""
    if entry.source == "easyvolcap":
        return easyvolcap.open_sequence(root, entry.cameras, entry.fps)
    if entry.contact != "any":
        return hi4d.open_sequence(root, entry.cameras, in_contact=entry.contact == "only")
    return _READERS[entry.source](root, entry.cameras)


def raw_errors(
    entries: Mapping[str, SceneEntry],
    raw_folder: Callable[[str], Path],
    choose: Callable[[str, Sequence[int], SceneEntry], list[int]] | None = None,
) -> list[UserError]:
    """The first fault of each raw sequence that a user brought; demo scenes are skipped.

    `raw_folder` gives the folder of a scene, `choose` the frames that its entry selects (without
    it: all).
    """
    errors = []
    for name, entry in entries.items():
        if entry.is_brought:
            chosen = partial(choose, name, entry=entry) if choose else None
            errors.append(layout_error(entry, raw_folder(name), chosen))
    return [error for error in errors if error]


def layout_error(
    entry: SceneEntry, root: Path, choose: ChooseFrames | None = None
) -> UserError | None:
    """The first error of a raw sequence that is found without decoding images, or None."""
    try:
        sequence = open_raw(entry, root)
        frames = sequence.common_frames(entry.cameras)
        for name in entry.cameras:
            sequence.camera(name, choose(frames) if choose else frames)
    except UserError as error:
        return error
    return None
