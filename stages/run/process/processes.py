"""Identity of processes, whose numbers are reused, and children that end with their parents.

Identity comes from /proc on Linux; elsewhere a process is known by its number only.
"""

import contextlib
import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# DVC sets it for the commands of stages, and nothing else does.
_DVC = "DVC_STAGE"
_POLL_S, _GRACE_S = 0.5, 10.0
_GROUP_GRACE_S = 3.0  # less than the time in which further signals do not interrupt a cleanup


@dataclass(frozen=True)
class Process:
    """A process, distinct from earlier ones and containers' ones of the same number."""

    pid: int
    host: str
    boot: str  # id of the machine's boot
    space: str  # namespace of process numbers, one per container
    started: int  # clock ticks after the boot

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has this number now."""
        stat = _stat(pid)
        return cls(pid, socket.gethostname(), _boot(), _space(), int(stat[19]) if stat else 0)

    @property
    def is_here(self) -> bool:
        """Whether its number refers to the same process here: same boot, same namespace."""
        return (self.boot, self.space) == (_boot(), _space()) and (
            bool(self.boot) or self.host == socket.gethostname()
        )

    def is_alive(self) -> bool:
        """Whether it still runs; only meaningful if it `is_here`."""
        stat = _stat(self.pid)
        if stat:
            return int(stat[19]) == self.started and stat[0] not in ("Z", "X")
        if sys.platform == "linux":
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return True


def die_with_parent() -> None:
    """For `preexec_fn`: kill this process when the one that started it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def run_group(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run a program in `folder`, in a process group of its own; return its exit code and output.

    When this is interrupted, as by a signal to stop, the whole group ends before.
    """
    child: subprocess.Popen[str] | None = None
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        output, _ = child.communicate()
        return child.returncode, output
    except BaseException:
        if child is not None:
            _end_group(child)
        raise


def run_interruptibly(command: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
    """Run a program that cleans up after Ctrl-C, its output into `log`; return its exit code.

    When this is interrupted, as by a signal to stop, the program and all that it started get
    Ctrl-C once, and have as long as they need.
    """
    with log.open("w") as out:
        child = subprocess.Popen(
            command, env=environment, stdout=out, stderr=out, start_new_session=True
        )
        try:
            return child.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGINT)
            child.wait()
            raise


def _end_group(leader: subprocess.Popen[str]) -> None:
    """End a process group by SIGTERM, and what is left of it after a while by SIGKILL."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGTERM)
        until = time.monotonic() + _GROUP_GRACE_S
        while time.monotonic() < until:
            leader.poll()  # or its number stays
            os.killpg(leader.pid, 0)
            time.sleep(0.05)
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()


def end_with_dvc() -> None:
    """Stop this process when the DVC that started it, if any, has ended.

    A killed DVC leaves its command running, which would write beside the next one.
    """
    if _DVC not in os.environ:
        return
    dvc = Process.of(_dvc_pid())
    threading.Thread(target=_stop_after, args=(dvc,), daemon=True).start()


def _dvc_pid() -> int:
    """The nearest ancestor without our DVC_STAGE: DVC, which may start a shell in between."""
    ours, pid = f"{_DVC}={os.environ[_DVC]}".encode(), os.getppid()
    while stat := _stat(pid):
        try:
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            break
        if ours not in environment:
            break
        pid = int(stat[1])
    return pid


def _stop_after(dvc: Process) -> None:
    _wait_for(dvc)
    os.write(2, b"stopped: the DVC that started this has ended\n")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _wait_for(process: Process) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            handle = os.pidfd_open(process.pid)
            if process.is_alive():  # so the handle is of this process
                select.select([handle], [], [])
            os.close(handle)
    while process.is_alive():
        time.sleep(_POLL_S)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the state on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return []


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
