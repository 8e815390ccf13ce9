"""Several commands at once, one process each: a failure or a signal reaches all of them."""

import ctypes
import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

_PR_SET_PDEATHSIG = 1


def run_all(commands: Sequence[Sequence[str]], workers: int) -> None:
    """Run every command, at most `workers` at a time; exit with the first failure's code.

    SIGTERM and SIGUSR1 are passed on, and a child is killed when this process is: a killed stage
    must not leave trainings behind that write beside the next one.
    """
    waiting, running = list(commands), []

    def pass_on(number: int, frame: FrameType | None) -> None:
        waiting.clear()
        for child in running:
            child.send_signal(number)

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGTERM, signal.SIGUSR1)}
    failed = 0
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                running.append(subprocess.Popen(waiting.pop(0), preexec_fn=die_with_parent))
            ended = next((child for child in running if child.poll() is not None), None)
            if ended is None:
                _pause(running[0])
                continue
            running.remove(ended)
            if ended.returncode and not failed:
                failed = ended.returncode
                pass_on(signal.SIGTERM, None)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if failed:
        sys.exit(failed if failed > 0 else 128 - failed)


def _pause(child: subprocess.Popen) -> None:
    try:
        child.wait(timeout=0.1)
    except subprocess.TimeoutExpired:
        return


def die_with_parent() -> None:
    """For `preexec_fn`: kill this process when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
