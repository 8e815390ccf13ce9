"""The device of a benchmark."""

import platform
from pathlib import Path

import torch


def device_name(kind: str) -> str:
    """The GPU's name for `cuda`; else the processor's, and torch's number of threads."""
    if kind == "cuda":
        return torch.cuda.get_device_name()
    return f"{processor()}, {torch.get_num_threads()} thread(s)"


def processor() -> str:
    """The processor's name as the system gives it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
