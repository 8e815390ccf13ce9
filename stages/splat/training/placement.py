"""Trainings of a scene's timestamps side by side.

On a CPU each is a process. Of several GPUs each has a process, and every n-th timestamp. Within
such a process timestamps follow one another, or `train.workers` of them share the GPU: each lane
has a thread and a stream of its own, so that the small kernels of one may fill the gaps that
another leaves, where processes would have the device in turns.
"""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch

from stages.run.artefacts import GAUSSIANS
from stages.run.process.gpus import named_gpus
from stages.run.process.stopping import Preemption
from stages.splat.config import TrainConfig


@dataclass(frozen=True)
class Plan:
    """Which timestamps one process trains, and how many processes there are at once."""

    shares: tuple[tuple[str, ...], ...]
    gpus: tuple[str, ...]  # of each share; empty for what torch finds
    at_once: int
    lanes: int = 1  # trainings at once in a process

    def commands(self, scene: str, folder: Path) -> list[list[str]]:
        """One command a share; its results go to folders of `folder`."""
        found = []
        for nth, share in enumerate(self.shares):
            command = [sys.executable, "-m", "stages.train", "--scene", scene]
            command += ["--into", str(folder), "--timestamps", *share]
            if self.gpus:
                command += ["--gpu", self.gpus[nth]]
            found.append(command)
        return found

    def __str__(self) -> str:
        where = f" on each of {len(self.gpus)} GPUs" if len(self.gpus) > 1 else ""
        return f"{self.lanes if self.gpus else self.at_once} at once{where}"


def starts(timestamps: Sequence[str], config: TrainConfig) -> dict[str, str | None]:
    """The neighbour whose Gaussians each timestamp starts from; None: from its sparse points.

    With warm starts, of every `warm_every` timestamps the middle one is the others' neighbour.
    What a timestamp starts from depends on nothing that runs beside it.
    """
    if not config.warm_start:
        return dict.fromkeys(timestamps)
    found: dict[str, str | None] = {}
    for first in range(0, len(timestamps), config.warm_every):
        group = timestamps[first : first + config.warm_every]
        middle = group[len(group) // 2]
        found |= {timestamp: None if timestamp == middle else middle for timestamp in group}
    return found


def warm_starts(
    folder: Path, timestamps: Sequence[str], config: TrainConfig
) -> dict[str, Path | None]:
    """The Gaussians that each timestamp starts from, in the folder of all results."""
    return {
        timestamp: folder / start / GAUSSIANS if start else None
        for timestamp, start in starts(timestamps, config).items()
    }


def rounds(timestamps: Sequence[str], config: TrainConfig) -> list[list[str]]:
    """Timestamps that can be trained side by side, one round after the other."""
    warm = starts(timestamps, config)
    both = [[one for one in timestamps if (warm[one] is None) == alone] for alone in (True, False)]
    return [part for part in both if part]


def plan(timestamps: Sequence[str], config: TrainConfig, backend: str) -> Plan:
    """Processes for timestamps that do not wait for each other."""
    if backend == "cpu":
        return Plan(tuple((timestamp,) for timestamp in timestamps), (), processes(config))
    gpus = tuple(visible_gpus()[: len(timestamps)])
    shares = tuple(tuple(timestamps[k :: len(gpus)]) for k in range(len(gpus)))
    return Plan(shares, gpus, len(gpus), min(lanes(config), len(shares[0])))


def processes(config: TrainConfig) -> int:
    """Trainings at once on a CPU."""
    if config.workers != "auto":
        return config.workers
    # macOS has no affinity.
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def lanes(config: TrainConfig) -> int:
    """Trainings at once on one GPU; what more than one gain stands in benchmarks/README.md."""
    return 4 if config.workers == "auto" else config.workers


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names, or the numbers of all GPUs."""
    return named_gpus() or [str(k) for k in range(torch.cuda.device_count())]


def side_by_side(
    timestamps: Sequence[str], train: Callable[[str, Preemption], None], config: TrainConfig
) -> None:
    """Train timestamps in this process, on a GPU in as many lanes as asked for.

    The first failure ends all; those that are ended save their state first, as when a signal
    asks for it.
    """
    if min(lanes(config), len(timestamps)) == 1:
        with Preemption() as preemption:
            for timestamp in timestamps:
                train(timestamp, preemption)
        return
    from stages.splat.gpu.lock import gpu_lock

    streams = threading.local()

    def begin() -> None:
        streams.own = torch.cuda.Stream()

    with Preemption() as preemption, ThreadPoolExecutor(lanes(config), initializer=begin) as pool:

        def one(timestamp: str) -> None:
            with gpu_lock(), torch.cuda.stream(streams.own):
                train(timestamp, preemption)

        futures = [pool.submit(one, timestamp) for timestamp in timestamps]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            preemption.noticed = True
            for future in futures:
                future.cancel()
            raise
