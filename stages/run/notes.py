"""Notes that each stage of one run of the graph would repeat: `stages.repro` shows each once.

Stages are processes of their own, so what was shown is kept in a file.
"""

import fcntl
import os
from collections.abc import Iterable

from stages.run.files import text_hash

# Path of the file, set by `stages.repro` for the stages that it starts.
NOTES_ENV = "SPLATFIX_NOTES"


def unshown(notes: Iterable[str]) -> list[str]:
    """The notes that no stage of this run has shown yet; they count as shown from now on.

    All of them where no run of the graph keeps them, as in a stage that was started by hand.
    """
    path = os.environ.get(NOTES_ENV)
    if not path:
        return list(notes)
    with open(path, "a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        shown = set(file.read().split())
        new = {text_hash(note): note for note in notes}
        new = {key: note for key, note in new.items() if key not in shown}
        file.writelines(f"{key}\n" for key in new)
    return list(new.values())
