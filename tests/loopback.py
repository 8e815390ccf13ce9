"""SLURM's commands on a cluster of this machine's own, and ports for its daemons."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SCRIPT = Path(__file__).with_name("loopback_cluster.sh")
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch")


class Cluster:
    """SLURM's commands on the loopback cluster."""

    def __init__(self, conf: Path):
        self.conf = conf

    def run(self, *words: str, check: bool = True) -> str:
        """Run one of SLURM's commands."""
        env = {**os.environ, "SLURM_CONF": str(self.conf)}
        return subprocess.run(
            words, env=env, check=check, capture_output=True, text=True, timeout=60
        ).stdout

    def queue(self) -> list[str]:
        """Jobs that wait or run, each `id state`."""
        return self.run("squeue", "--noheader", "--array", "--format=%i %T").splitlines()

    def wait(self, timeout_s: float = 120) -> None:
        """Until no job waits or runs."""
        self.until(lambda: not self.queue(), timeout_s)

    def until(self, reached: Callable[[], object], timeout_s: float = 60) -> None:
        """Until something holds."""
        end = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < end, f"not reached in {timeout_s} s; queue: {self.queue()}"
            time.sleep(0.1)


def free_port(count: int) -> int:
    """The first of some ports on loopback that are free in a row."""
    for first in range(20000 + os.getpid() % 20000, 60000, count):
        with_all = [socket.socket() for _ in range(count)]
        try:
            for offset, one in enumerate(with_all):
                one.bind(("127.0.0.1", first + offset))
            return first
        except OSError:
            continue
        finally:
            for one in with_all:
                one.close()
    raise AssertionError("no free ports")


def missing_programs() -> list[str]:
    """What SLURM needs and this machine lacks."""
    # Debian puts daemons where an ordinary user does not look.
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    return [name for name in DAEMONS if not shutil.which(name, path=path)]


@contextmanager
def started(folder: Path, node_cpus: int = 8) -> Iterator[Cluster]:
    """A cluster in a folder that everyone may enter, as long as the block runs."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    numbers = {"SLURM_PORT": str(free_port(5)), "SLURM_NODE_CPUS": str(node_cpus)}
    env = {**os.environ, **numbers, "PATH": path}
    subprocess.run(["bash", SCRIPT, "up", folder], check=True, timeout=120, env=env)
    try:
        yield Cluster(folder / "slurm.conf")
    finally:
        subprocess.run(["bash", SCRIPT, "down", folder], check=True, timeout=120, env=env)
