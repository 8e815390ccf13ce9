"""A study in stages, and commands around it; each is run by `python -m stages.<name>`."""

import os
import signal
import sys
from types import FrameType


def stop_early(number: int, frame: FrameType | None) -> None:
    """End during a command's imports, where there is nothing to save or to clean up."""
    os.write(2, b"stopped before it began\n")
    os._exit(os.EX_TEMPFAIL)


# The interpreter's argv[0] before it runs a module; later `stages.run.entry` handles signals.
if sys.argv[:1] == ["-m"]:
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, stop_early)

# Stages lie in this folder and commands in one of their own; both are started in the same way.
__path__.append(os.path.join(__path__[0], "commands"))
