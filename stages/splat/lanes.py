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

from stages.run.checkpoint import Preemption
from stages.splat.config import TrainConfig


@dataclass(frozen=True)
class Plan:
    """Which timestamps one process trains, and how many processes there are at once."""

    shares: tuple[tuple[str, ...], ...]
    gpus: tuple[str, ...]  # of each share; empty for what torch finds
    at_once: int
    lanes: int = 1  # trainings at once in a process

    def commands(self, scene: str, folder: Path, warm_start: bool) -> list[list[str]]:
        """One command a share; its results go to folders of `folder`."""
        found = []
        for nth, share in enumerate(self.shares):
            command = [sys.executable, "-m", "stages.train", "--scene", scene]
            command += ["--into", str(folder), "--timestamps", *share]
            if self.gpus:
                command += ["--gpu", self.gpus[nth]]
            if warm_start and nth:
                warm = folder / self.shares[nth - 1][-1] / "gaussians.safetensors"
                command += ["--warm", str(warm)]
            found.append(command)
        return found

    def __str__(self) -> str:
        where = f" on each of {len(self.gpus)} GPUs" if len(self.gpus) > 1 else ""
        return f"{self.lanes if self.gpus else self.at_once} at once{where}"


def plan(timestamps: Sequence[str], config: TrainConfig, backend: str) -> Plan:
    """Processes for a scene. Warm starts follow one another."""
    single = tuple((timestamp,) for timestamp in timestamps)
    if config.warm_start or backend == "cpu":
        at_once = 1 if config.warm_start else processes(config)
        return Plan(single, (), at_once)
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
    """Trainings at once on one GPU. Four gained 2 % over one on an H100: benchmarks/README.md."""
    return 1 if config.workers == "auto" else config.workers


def visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES names, or the numbers of all GPUs."""
    named = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    return [name for name in named if name] or [str(k) for k in range(torch.cuda.device_count())]


def side_by_side(
    timestamps: Sequence[str], train: Callable[[str, Preemption], None], config: TrainConfig
) -> None:
    """Train timestamps on one GPU, in as many lanes as asked for; the first failure ends all.

    Those that are ended save their state first, as when a signal asks for it.
    """
    if lanes(config) == 1:
        with Preemption() as preemption:
            for timestamp in timestamps:
                train(timestamp, preemption)
        return
    from stages.splat.gpu.turns import turn

    streams = threading.local()

    def begin() -> None:
        streams.own = torch.cuda.Stream()

    with Preemption() as preemption, ThreadPoolExecutor(lanes(config), initializer=begin) as pool:

        def one(timestamp: str) -> None:
            with turn(), torch.cuda.stream(streams.own):
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
