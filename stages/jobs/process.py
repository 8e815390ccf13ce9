"""The process of one task: started without a shell, told to stop, never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO

from stages.run.parallel import die_with_parent

# What a stage ends with when it was stopped and can go on: stages.run.checkpoint.PREEMPTED.
STOPPED = os.EX_TEMPFAIL


def start(
    words: Sequence[str], root: Path, address: str,
    out: IO[bytes] | None = None, err: IO[bytes] | None = None, **environment: str,
) -> subprocess.Popen:  # fmt: skip
    """Run a task's command in the workspace `root`, as DVC would.

    `python` is the one that runs now. A session of its own keeps Ctrl-C away from it: who started
    it decides how it is stopped.
    """
    told = {**os.environ, "DVC_ROOT": str(root), "DVC_STAGE": address, **environment}
    told["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), told.get("PATH", "")])
    return subprocess.Popen(
        words, cwd=root, env=told, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
        start_new_session=True, preexec_fn=die_with_parent,
    )  # fmt: skip


class Stop:
    """Notices SIGTERM, SIGINT and SIGUSR1 and passes them on as SIGTERM; use as a context.

    A second SIGINT kills.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

    def __init__(self) -> None:
        self.noticed = False
        self.children: list[subprocess.Popen] = []

    def __enter__(self) -> "Stop":
        self.before = {number: signal.signal(number, self._notice) for number in self.SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if error is not None:
            for child in self.children:
                child.kill()

    def _notice(self, number: int, frame: FrameType | None) -> None:
        # The limit's USR1 may be followed by the cluster's TERM: that is no second wish.
        again = self.noticed and number == signal.SIGINT
        self.noticed = True
        for child in self.children:
            child.kill() if again else child.terminate()
