"""The process of one task: started without a shell, stopped by signals, never left behind."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING

from stages.jobs.submission import Submission
from stages.run.process.processes import die_with_parent
from stages.run.process.stopping import PREEMPTED
from stages.run.settings.readings import PARAMS_ENV

if TYPE_CHECKING:
    from stages.graph.pipeline import Pipeline

STOPPED = PREEMPTED


def start(
    words: Sequence[str],
    root: Path,
    address: str,
    out: IO[bytes] | None = None,
    err: IO[bytes] | None = None,
    **environment: str,
) -> subprocess.Popen:
    """Start a task's command as DVC would.

    `python` is the current one. In a session of its own it gets no Ctrl-C: the process that started
    it decides how it is stopped.

    Args:
        words: The command.
        root: The workspace to run in.
        address: The stage, such as `train@scene`.
        out: Its standard output; None for ours.
        err: Its standard error; None for ours.
        environment: Variables to add.
    """
    variables = {**os.environ, "DVC_ROOT": str(root), "DVC_STAGE": address, **environment}
    variables["PATH"] = os.pathsep.join(
        [str(Path(sys.executable).parent), variables.get("PATH", "")]
    )
    return subprocess.Popen(
        words,
        cwd=root,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )


def begin(
    pipeline: "Pipeline", submission: Submission, address: str
) -> tuple[list[str] | None, dict[str, str]]:
    """`Pipeline.begin`, and the environment that makes the stage read the recorded params.

    Params are copied into the submission's folder: edits reach neither the stage nor its record.
    """
    params = submission.root / "params.yaml"
    before = None
    while before != (now := params.read_bytes()):
        before = now
        words = pipeline.begin(address)
    if words is None:
        return None, {}
    copied = submission.folder / f"params.{address}.yaml"
    copied.write_bytes(now)
    return words, {PARAMS_ENV: str(copied)}


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
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)
        if error is not None:
            for child in self.children:
                child.kill()

    def _notice(self, number: int, frame: FrameType | None) -> None:
        # SIGTERM from the cluster after its SIGUSR1 does not count as a second signal.
        again = self.noticed and number == signal.SIGINT
        self.noticed = True
        for child in self.children:
            child.kill() if again else child.terminate()
