"""What a run cost. It differs from run to run, so it lies with the resume states and in no out."""

import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stages.run.files import safe_name, work_root, write_json


@contextmanager
def cost(stage: str, item: str) -> Iterator[None]:
    """Write what the block cost to `<work root>/cost/<stage>/<item>.json`, if it ends well.

    seconds; peak_memory_gib, of this process or the largest of its children; device, and with a
    GPU gpu_peak_memory_gib, of this process alone.
    """
    path = work_root() / "cost" / safe_name(stage, "cost") / f"{safe_name(item, 'cost')}.json"
    began = time.monotonic()
    yield
    seconds = round(time.monotonic() - began, 2)
    write_json(path, {"seconds": seconds, "peak_memory_gib": _peak_memory_gib(), **_device()})


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
