"""Resume state of long stages: outside every DVC out, one file, whole or absent.

A key ties the state to what the stage was given, and under DVC to the digest of its code; another
key means another folder, so a changed parameter never resumes the wrong run, and what DVC records
as the result of this code was not begun by other code.
"""

import io
import shutil
import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch

from stages.run import digests
from stages.run.errors import UserError
from stages.run.files import text_hash, whole_file, work_root
from stages.run.process import locks, stopping
from stages.run.settings import readings
from stages.run.user_paths import make_target

# States lie this many times as far apart as the last took to write, unless that was brief.
_APART, _BRIEF_S = 9, 0.2


class Checkpoint:
    """The latest state of one run, under `.work/<stage>/<item>/<key>/`.

    Raises UserError at once where none could be saved.
    """

    def __init__(self, stage: str, item: str, *parts: str):
        self.folder = (
            work_root() / stage / item / text_hash(*parts, digests.running_stage_digests())[:24]
        )
        self.path = self.folder / "state.pt"
        self._next = 0.0
        make_target(work_root())

    @property
    def kept(self) -> Path:
        """Folder for results that are made on the way: they too survive a kill."""
        return self.folder / "kept"

    def alone(self) -> AbstractContextManager[None]:
        """Keep every other run away from this state: one of another clone may be given the same."""
        return locks.alone(self.folder)

    def affordable(self) -> bool:
        """Whether saving again now would leave nine tenths of the time to the work itself."""
        return time.monotonic() >= self._next

    def save(
        self, state: dict[str, Any], writing: AbstractContextManager[None] | None = None
    ) -> None:
        """Replace the saved state; once it is copied it is written within `writing`."""
        began = time.monotonic()
        # Through memory: torch's own writer hides a full disk behind an error of its zip format.
        packed = io.BytesIO()
        torch.save(state, packed)
        with writing or nullcontext(), whole_file(self.path) as scratch:
            scratch.write_bytes(packed.getbuffer())
        ended = time.monotonic()
        took = ended - began
        self._next = ended + (_APART * took if took > _BRIEF_S else 0)

    def load(self) -> dict[str, Any] | None:
        """The saved state on the CPU, or None. Raises UserError when it cannot be read."""
        if not self.path.is_file():
            return None
        try:
            return torch.load(self.path, map_location="cpu", weights_only=True)
        except Exception as error:  # its reader has several kinds for a broken file
            raise UserError(
                self.path,
                "not a readable state",
                expected="what this stage saved",
                fix=f"delete {self.folder} and run again; training then starts anew",
            ) from error


def forget(stage: str, item: str) -> None:
    """Remove the states of a finished item, those of older params included.

    States that another run uses, as of an experiment with other params, are left. Raises UserError
    and removes nothing when what was made must not be recorded, see `readings.check`.
    """
    readings.check()
    stopping.too_late()
    folder = work_root() / stage / item
    for name in {locks.name_of(path.name) for path in folder.glob("*")}:
        with suppress(UserError), locks.alone(folder / name, wait_s=0):
            shutil.rmtree(folder / name, ignore_errors=True)
    with suppress(OSError):
        folder.rmdir()
