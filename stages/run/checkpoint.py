"""Resume state of long stages: one file outside all DVC outs, complete or absent.

A key ties the state to the stage's inputs, and under DVC to the digest of its code. Each key has
its own folder, so that a run never resumes a state of other params, and a result that DVC records
for this code was not started by other code. Beside the state of a training lies `progress.json`,
for those who watch it (`run.trainings`).
"""

import io
import math
import shutil
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from stages.run import digests
from stages.run.artefacts import PROGRESS, STATE
from stages.run.errors import UserError
from stages.run.files import text_hash, whole_file, work_root, write_json
from stages.run.process import locks, stopping
from stages.run.settings import readings
from stages.run.user_paths import make_target

# Time between two states as a multiple of the time to write one, unless that was shorter than
# _BRIEF_S.
_APART, _BRIEF_S = 9, 0.2


class Checkpoint:
    """The latest state of one run, under `.work/<stage>/<item>/<key>/`.

    Raises UserError at once if no state could be saved there.
    """

    def __init__(self, stage: str, item: str, *parts: str):
        self.folder = (
            work_root() / stage / item / text_hash(*parts, digests.running_stage_digests())[:24]
        )
        self.path = self.folder / STATE
        self._next = 0.0
        make_target(work_root())

    @property
    def kept(self) -> Path:
        """Folder for intermediate results, which survive a kill as well."""
        return self.folder / "kept"

    def alone(self) -> AbstractContextManager[None]:
        """Lock the state against other runs: one of another clone may have the same key."""
        return locks.alone(self.folder)

    def affordable(self) -> bool:
        """Whether saving now would take at most a tenth of the run's time."""
        return time.monotonic() >= self._next

    def save(
        self,
        state: dict[str, Any],
        writing: AbstractContextManager[None] | None = None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        """Replace the saved state: serialise it to memory, then write the files within `writing`.

        `progress` is plain numbers and text, for those who watch; nothing is resumed from it.
        """
        began = time.monotonic()
        # Through memory: torch's own writer hides a full disk behind an error of its zip format.
        packed = io.BytesIO()
        torch.save(state, packed)
        with writing or nullcontext():
            with whole_file(self.path) as scratch:
                scratch.write_bytes(packed.getbuffer())
            if progress is not None:
                write_json(self.folder / PROGRESS, _finite(progress))
        ended = time.monotonic()
        took = ended - began
        self._next = ended + (_APART * took if took > _BRIEF_S else 0)

    def load(self) -> dict[str, Any] | None:
        """The saved state on the CPU, or None. Raises UserError when it cannot be read."""
        if not self.path.is_file():
            return None
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises various types for a broken file
            raise UserError(
                self.path,
                "not a readable state",
                expected="a state that this stage saved",
                fix=f"delete {self.folder} and run again; training then starts from the beginning",
            ) from error


def _finite(value: Any) -> Any:
    """The same lists, mappings and scalars, with None for numbers that JSON lacks."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def forget(stage: str, item: str) -> None:
    """Remove the states of a finished item, including those of older params.

    States that another run uses, such as an experiment with other params, are kept. Raises
    UserError and removes nothing when the result must not be recorded, see `readings.check`.
    """
    readings.check()
    stopping.too_late()
    folder = work_root() / stage / item
    for name in {locks.name_of(path.name) for path in folder.glob("*")}:
        with suppress(UserError), locks.alone(folder / name, wait_s=0):
            shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()
