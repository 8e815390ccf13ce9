"""Processor cores that this process may use."""

import os
import sys


def available_cores() -> int:
    """Cores of this process: SLURM and containers give fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
