"""Where a scene's timestamps are trained: in which process, on which GPU, on which CUDA stream.

Each core of a CPU has a process, or each of several GPUs, and every n-th timestamp. On a core
timestamps follow one another. On a GPU `runtime.train.workers` of them share it: each has a thread
and a CUDA stream, so that the small kernels of one fill the gaps of another. The kernels of
processes would not overlap.
"""

import logging
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.run.artefacts import GAUSSIANS
from stages.run.process.cores import available_cores
from stages.run.process.gpus import visible_gpus
from stages.run.process.stopping import Preemption
from stages.splat.config import TrainConfig

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Placement:
    """Which timestamps each process trains, and how many run at once."""

    shares: tuple[tuple[str, ...], ...]  # timestamps, by process
    gpus: tuple[str, ...]  # by process; empty on a CPU
    processes: int  # at once
    streams: int = 1  # trainings at once in a process

    @property
    def at_once(self) -> int:
        """Trainings at once."""
        return self.processes * self.streams

    def commands(self, entry: Sequence[str], folder: Path) -> list[list[str]]:
        """One command of `entry` per process; its results go to folders of `folder`."""
        commands = []
        for nth, share in enumerate(self.shares):
            command = [sys.executable, "-m", *entry, "--into", str(folder)]
            command += ["--timestamps", *share]
            if self.gpus:
                command += ["--gpu", self.gpus[nth]]
            commands.append(command)
        return commands

    def __str__(self) -> str:
        where = f" on each of {len(self.gpus)} GPUs" if len(self.gpus) > 1 else ""
        return f"{max(self.streams, 1 if self.gpus else self.processes)} at once{where}"


def starts(timestamps: Sequence[str], config: TrainConfig) -> dict[str, str | None]:
    """The neighbour whose Gaussians each timestamp starts from; None for its sparse points.

    With warm starts, the middle one of every `warm_every` timestamps is the others' neighbour,
    whatever runs at the same time.
    """
    if not config.warm_start:
        return dict.fromkeys(timestamps)
    neighbours: dict[str, str | None] = {}
    for first in range(0, len(timestamps), config.warm_every):
        group = timestamps[first : first + config.warm_every]
        middle = group[len(group) // 2]
        neighbours |= {timestamp: None if timestamp == middle else middle for timestamp in group}
    return neighbours


def warm_starts(
    folder: Path, timestamps: Sequence[str], config: TrainConfig
) -> dict[str, Path | None]:
    """The file of Gaussians that each timestamp starts from, in the folder of all results."""
    return {
        timestamp: folder / start / GAUSSIANS if start else None
        for timestamp, start in starts(timestamps, config).items()
    }


def rounds(timestamps: Sequence[str], config: TrainConfig) -> list[list[str]]:
    """Timestamps that can be trained at the same time, one round after the other."""
    neighbours = starts(timestamps, config)
    cold = [timestamp for timestamp in timestamps if neighbours[timestamp] is None]
    warm = [timestamp for timestamp in timestamps if neighbours[timestamp] is not None]
    return [part for part in (cold, warm) if part]


def place(timestamps: Sequence[str], config: TrainConfig, backend: str) -> Placement:
    """Processes for timestamps that do not wait for each other.

    Where NVIDIA's driver counts no GPUs, this process uses the first one that torch found.
    """
    gpus = () if backend == "cpu" else tuple(visible_gpus()[: len(timestamps)])
    if backend == "cuda" and not gpus:
        _LOGGER.warning("NVML counts no GPUs: one is used; CUDA_VISIBLE_DEVICES names more")
    at_once = processes(config) if backend == "cpu" else max(1, len(gpus))
    count = min(at_once, len(timestamps))
    shares = tuple(tuple(timestamps[k::count]) for k in range(count))
    return Placement(shares, gpus, count, min(streams(config, backend), len(shares[0])))


def processes(config: TrainConfig) -> int:
    """Processes at once on a CPU."""
    if config.runtime.workers != "auto":
        return config.runtime.workers
    # macOS has no affinity.
    return available_cores()


def streams(config: TrainConfig, backend: str) -> int:
    """CUDA streams of one GPU; benchmarks/README.md says what more than one gain."""
    if backend == "cpu":
        return 1
    return 4 if config.runtime.workers == "auto" else config.runtime.workers


def side_by_side(
    timestamps: Sequence[str], train: Callable[[str, Preemption], None], at_once: int
) -> None:
    """Train timestamps in this process, `at_once` of them at a time, each on a CUDA stream.

    `train` is called with a timestamp and the signals to heed. The first failure ends all
    trainings, which save their state first, as at a signal.
    """
    if min(at_once, len(timestamps)) == 1:
        with Preemption() as preemption:
            for timestamp in timestamps:
                train(timestamp, preemption)
        return
    from stages.splat.gpu.lock import gpu_lock

    thread = threading.local()

    def create_stream() -> None:
        thread.stream = torch.cuda.Stream()

    with (
        Preemption() as preemption,
        ThreadPoolExecutor(at_once, initializer=create_stream) as pool,
    ):

        def train_on_stream(timestamp: str) -> None:
            with gpu_lock(), torch.cuda.stream(thread.stream):
                train(timestamp, preemption)

        futures = [pool.submit(train_on_stream, timestamp) for timestamp in timestamps]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            preemption.noticed = True
            for future in futures:
                future.cancel()
            raise
