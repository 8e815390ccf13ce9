"""Costs: what is written, what is read back, and what a GPU's driver tells."""

import ctypes
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from stages.run import provenance
from stages.run.process.gpus import visible_gpus
from stages.run.provenance import cost, gpu_energy_j, recorded_costs


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATFIX_WORK", str(tmp_path))


class Driver:
    """NVML with two GPUs, each of which draws 36 J more at every look."""

    def __init__(self) -> None:
        self.drawn_mj, self.asked = 1000, []

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return 0

    def nvmlShutdown(self) -> int:  # noqa: N802
        return 0

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        ctypes.cast(count, ctypes.POINTER(ctypes.c_uint))[0] = 2
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:  # noqa: N802
        self.asked.append(index)
        return 0

    def nvmlDeviceGetHandleByUUID(self, name: bytes, device: Any) -> int:  # noqa: N802
        self.asked.append(name)
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, drawn: Any) -> int:  # noqa: N802
        self.drawn_mj += 36_000
        ctypes.cast(drawn, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.drawn_mj
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(provenance.ctypes, "CDLL", lambda name: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return driver


def test_cost_of_a_cpu_has_time_and_memory_alone() -> None:
    with cost("train", "scene"):
        pass
    costs = recorded_costs()["train"]["scene"]
    assert set(costs) == {"seconds", "ended", "peak_memory_gib", "device"}
    assert abs(costs["ended"] - time.time()) < 60
    assert 0 <= costs["seconds"] < 5
    assert costs["peak_memory_gib"] > 0


def test_cost_of_a_gpu_counts_all_processes_and_energy(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = SimpleNamespace(
        is_initialized=lambda: True,
        get_device_name=lambda: "H1",
        max_memory_allocated=lambda: 3 * 2**30,
    )
    monkeypatch.setitem(provenance.sys.modules, "torch", SimpleNamespace(cuda=gpu))
    monkeypatch.setenv("WORLD_SIZE", "4")
    ticks = iter([100.0, 110.0])
    monkeypatch.setattr(provenance.time, "monotonic", lambda: next(ticks))
    with cost("tune", "fixer"):
        pass
    costs = recorded_costs()["tune"]["fixer"]
    assert (costs["seconds"], costs["gpu_seconds"]) == (10.0, 40.0)
    assert (costs["device"], costs["gpu_peak_memory_gib"]) == ("H1", 3.0)
    # Two looks at two GPUs: each is 72 J further at its second, and together that is 0.04 Wh.
    assert costs["gpu_energy_wh"] == 0.04


def test_an_error_leaves_no_cost() -> None:
    with pytest.raises(ZeroDivisionError), cost("train", "scene"):
        _ = 1 / 0
    assert recorded_costs() == {}


def test_only_visible_gpus_are_asked(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu_energy_j()
    assert driver.asked == [0, 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc, 1")
    gpu_energy_j()
    assert driver.asked[2:] == [b"GPU-abc", 1]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpu_energy_j() is None


def test_gpus_are_counted_as_cuda_does(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    assert visible_gpus() == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-abc,3")
    assert visible_gpus() == ["GPU-abc", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []


def test_without_a_driver_there_is_no_energy(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(provenance.ctypes, "CDLL", absent)
    assert gpu_energy_j() is None
    assert visible_gpus() == []
