"""What a run cost. It differs from run to run, so it lies with the resume states and in no out."""

import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from stages.run.files import read_json, safe_name, work_root, write_json

WHOLE = "all"  # the item of a stage that has one run alone


@contextmanager
def cost(stage: str, item: str) -> Iterator[None]:
    """Write what the block cost to `<work root>/cost/<stage>/<item>.json`, if it ends well.

    seconds; peak_memory_gib, of this process or the largest of its children; device, and with a
    GPU gpu_peak_memory_gib, of this process alone.
    """
    path = _path(stage, item)
    began = time.monotonic()
    yield
    seconds = round(time.monotonic() - began, 2)
    write_json(path, {"seconds": seconds, "peak_memory_gib": _peak_memory_gib(), **_device()})


@contextmanager
def stage_cost() -> Iterator[None]:
    """Write what a stage cost that DVC started, as `cost` does; nothing for any other command."""
    # Taken out of the environment: the processes that a stage starts are parts of it.
    stage, _, item = os.environ.pop("DVC_STAGE", "").partition("@")
    with cost(stage, item or WHOLE) if stage else nullcontext():
        yield


def recorded(name: str) -> dict[str, Any] | None:
    """What a stage such as `train@scene` cost when it last ran here, if that is known."""
    stage, _, item = name.partition("@")
    path = _path(stage, item or WHOLE)
    return read_json(path) if path.is_file() else None


def _path(stage: str, item: str) -> Path:
    return work_root() / "cost" / safe_name(stage, "cost") / f"{safe_name(item, 'cost')}.json"


def _peak_memory_gib() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20, 3)


def _device() -> dict[str, Any]:
    # A process that has not imported torch has used no GPU through it.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"device": platform.machine()}
    peak = torch.cuda.max_memory_allocated() / 2**30
    return {"device": torch.cuda.get_device_name(), "gpu_peak_memory_gib": round(peak, 3)}
