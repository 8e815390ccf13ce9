"""Costs of runs. They differ between runs, hence stored beside the resume states, not in outs."""

import ctypes
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stages.run.at_work import at_work
from stages.run.files import read_json, safe_name, work_root, write_json
from stages.run.process.gpus import management_library, visible_gpus

Cost = Mapping[str, Any]


@contextmanager
def cost(stage: str, item: str) -> Iterator[None]:
    """Write the cost of the block to `<work root>/cost/<stage>/<item>.json`, unless it fails.

    seconds; ended, Unix time in s; peak_memory_gib, of this process or the largest of its
    children; device. With a GPU also gpu_seconds, over all processes of a run;
    gpu_peak_memory_gib, of this process alone; and gpu_energy_wh, of all visible GPUs, where
    their driver counts it.
    """
    path = _folder() / safe_name(stage, "cost") / f"{safe_name(item, 'cost')}.json"
    began, energy_j = time.monotonic(), gpu_energy_j()
    with at_work(f"{stage} {item}"):
        yield
    seconds = round(time.monotonic() - began, 2)
    costs = {"seconds": seconds, "ended": round(time.time(), 2)}
    costs |= {"peak_memory_gib": _peak_memory_gib(), **_device(seconds)}
    if energy_j is not None and "gpu_seconds" in costs:
        costs["gpu_energy_wh"] = round(((gpu_energy_j() or energy_j) - energy_j) / 3600, 3)
    write_json(path, costs)


def recorded_costs() -> dict[str, dict[str, Cost]]:
    """Every recorded cost by stage and item; results from a cache have none."""
    costs: dict[str, dict[str, Cost]] = {}
    for path in sorted(_folder().glob("*/*.json")):
        costs.setdefault(path.parent.name, {})[path.stem] = read_json(path)
    return costs


def gpu_energy_j() -> float | None:
    """Energy of the visible GPUs since their driver was loaded, J; None where it is not counted."""
    nvml = management_library()
    if nvml is None:
        return None
    energies = [_energy_mj(nvml, name) for name in visible_gpus()]
    nvml.nvmlShutdown()
    return None if not energies or None in energies else sum(filter(None, energies)) / 1000


def _folder() -> Path:
    return work_root() / "cost"


def _energy_mj(nvml: ctypes.CDLL, name: str) -> int | None:
    device, energy = ctypes.c_void_p(), ctypes.c_ulonglong()
    if name.isdigit():
        status = nvml.nvmlDeviceGetHandleByIndex_v2(int(name), ctypes.byref(device))
    else:
        status = nvml.nvmlDeviceGetHandleByUUID(name.encode(), ctypes.byref(device))
    status = status or nvml.nvmlDeviceGetTotalEnergyConsumption(device, ctypes.byref(energy))
    return None if status else energy.value


def _peak_memory_gib() -> float:
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20, 3)


def _device(seconds: float) -> dict[str, Any]:
    # A process that has not imported torch has used no GPU through it.
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_initialized():
        return {"device": platform.machine()}
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    return {
        "device": torch.cuda.get_device_name(),
        "gpu_seconds": round(seconds * processes, 2),
        "gpu_peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 3),
    }
