"""A study in stages, and commands around it; each is run by `python -m stages.<name>`."""

import os
import signal
import sys
from importlib.util import find_spec
from types import FrameType


def stop_early(number: int, frame: FrameType | None) -> None:
    """End during a command's imports, where there is nothing to save or to clean up."""
    os.write(2, b"stopped before it began\n")
    os._exit(os.EX_TEMPFAIL)


# The interpreter's argv[0] before it runs a module; later `stages.run.entry` handles signals.
if sys.argv[:1] == ["-m"]:
    for _number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(_number, stop_early)

if find_spec("pydantic") is None:  # every command needs it, and no other Python has it
    _ACTIVATE = os.path.join(os.path.dirname(__path__[0]), ".venv", "bin", "activate")
    _THERE = os.path.isfile(_ACTIVATE)
    sys.stderr.write(
        f"{sys.executable}: not the Python of this project's environment; fix: "
        + ("" if _THERE else "`make setup`, then ")
        + f"`. {os.path.relpath(_ACTIVATE)}`\n"
    )
    sys.exit(2)

# Stages lie in this folder and commands in one of their own; both are started in the same way.
__path__.append(os.path.join(__path__[0], "commands"))
