"""Processor cores that this process may use."""

import os
import sys

_VARIABLE = "SPLATFIX_CORES"


def available_cores() -> int:
    """Cores of this process: SLURM and containers give fewer than the machine has.

    SPLATFIX_CORES gives fewer still: the share of a task beside which others run.
    """
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    share = os.environ.get(_VARIABLE, "")
    return min(cores, int(share)) if share.isdecimal() and int(share) else cores


def share_of_cores(tasks: int) -> dict[str, str]:
    """The variable of each of several processes that run at the same time."""
    return {_VARIABLE: str(max(1, available_cores() // tasks))}


def at_most(cores: int) -> dict[str, str]:
    """The variable of a process that may use so many, where nothing else keeps it to them."""
    return {_VARIABLE: str(max(1, min(cores, available_cores())))}
