"""Which GPUs a process may use: CUDA_VISIBLE_DEVICES is read and set here alone."""

import os
from collections.abc import Sequence

_VARIABLE = "CUDA_VISIBLE_DEVICES"


def named_gpus() -> list[str] | None:
    """Indices or UUIDs that CUDA_VISIBLE_DEVICES names; None where it is not set."""
    value = os.environ.get(_VARIABLE)
    if value is None:
        return None
    return [name.strip() for name in value.split(",") if name.strip() not in ("", "-1")]


def gpu_environment(gpus: Sequence[str]) -> dict[str, str]:
    """The variable of a process that may use these GPUs."""
    return {_VARIABLE: ",".join(gpus)}


def use_gpus(gpus: Sequence[str]) -> None:
    """Restrict this process to these GPUs; CUDA reads it at its first use."""
    os.environ.update(gpu_environment(gpus))
