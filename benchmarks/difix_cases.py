"""What the benchmarks of DiFix share: fixers that know nothing, pictures, precisions and clocks.

Precisions are those of params.yaml as the stages run them, `fp32` with such TF32 products as they
allow, and `strict`: fp32 without any TF32.
"""

import argparse
import gc
import re
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from stages.difix.network.model import Fixer, random_fixer
from stages.difix.network.precision import choose_device
from stages.difix.network.spec import SIZES
from stages.run.files import write_json
from stages.samples.batches import seeded

STRICT = "strict"
PRECISIONS = (STRICT, "fp32", "bf16", "fp16")
_OF_A_GPU = {"fp16", "graph", "fused"}

Row = dict[str, Any]


class Pictures(NamedTuple):
    """Smooth random pictures, their noisy renders, and other views; [N, 3, H, W] in [0, 1]."""

    image: Tensor
    target: Tensor
    reference: Tensor


def options(description: str, known: tuple[str, ...]) -> argparse.ArgumentParser:
    """A parser with the options that all these benchmarks take; cases are `precision:way`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=sorted(SIZES), default="sd-turbo")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--cases",
        nargs="+",
        default=list(known),
        metavar="CASE",
        help=f"precision:way, default: {' '.join(known)}",
    )
    parser.add_argument("--warmup", type=int, default=2, help="calls before the clock starts")
    parser.add_argument("--out", type=Path, help="also write the rows there, as JSON")
    return parser


def device_of(given: argparse.Namespace) -> torch.device:
    """The device that was asked for; leaves out the cases that a CPU cannot compute."""
    device, _ = choose_device(given.device, "--device")
    odd = [case for case in given.cases if case.split(":")[0] not in PRECISIONS]
    if odd:
        raise SystemExit(f"--cases: {odd[0]}: a precision is one of {', '.join(PRECISIONS)}")
    if device.type == "cpu":
        given.cases = [one for one in given.cases if not set(re.split("[:+]", one)) & _OF_A_GPU]
    return device


def new_fixer(size: str, device: torch.device) -> Fixer:
    """A fixer with random weights, made where it is used; the same at every call."""
    with torch.device(device):
        return random_fixer(SIZES[size], seed=0)


def pictures(count: int, height: int, width: int, seed: int = 0) -> Pictures:
    """The same pictures at every call."""
    generator = seeded("benchmark", seed, height, width)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    target = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    noise = 0.1 * torch.randn(target.shape, generator=generator)
    return Pictures((target + noise).clamp(0, 1), target, target.roll(width // 16, dims=-1))


def params_precision(name: str) -> str:
    """What params.yaml calls a precision."""
    return "fp32" if name == STRICT else name


def use_products(name: str) -> None:
    """torch's own choice of TF32, as a new process has it; none for `strict`."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = name != STRICT


def forget_peak(device: torch.device) -> None:
    """Give back what is no longer used, and count memory anew."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float | None:
    """Most memory that tensors took on the GPU since `forget_peak`; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None


def wait(device: torch.device) -> None:
    """Until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def shown(value: float | None, digits: int = 1) -> str:
    """A number in a table."""
    return "-" if value is None else f"{value:.{digits}f}"


def write_rows(path: Path | None, rows: list[Row]) -> None:
    """Write a results file, unless there is no path."""
    if path is not None:
        write_json(path, {"rows": rows})


class Clock:
    """Milliseconds between marks. A GPU marks its own queue, so that the CPU need not wait."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.marks: list[Any] = []

    def mark(self) -> None:
        """Note the time."""
        if not self.on_gpu:
            self.marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.marks.append(event)

    def gaps_ms(self) -> list[float]:
        """Time from each mark to the next, once all work is done."""
        pairs = list(zip(self.marks, self.marks[1:], strict=False))
        if not self.on_gpu:
            return [1e3 * (after - before) for before, after in pairs]
        torch.cuda.synchronize()
        return [before.elapsed_time(after) for before, after in pairs]
