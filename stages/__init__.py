"""A study in stages; each is run by `python -m stages.<name>`."""

import os
import signal
import sys
from types import FrameType


def stop_early(number: int, frame: FrameType | None) -> None:
    """End while a command's imports are under way: there is nothing to save or to tidy up."""
    os.write(2, b"stopped before it began\n")
    os._exit(os.EX_TEMPFAIL)


# What the interpreter calls a module that it is about to run; `stages.run.entry` takes over.
if sys.argv[:1] == ["-m"]:
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, stop_early)
