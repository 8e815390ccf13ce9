"""Shared by the benchmarks of DiFix: fixers with random weights, images, precisions and clocks.

Precisions are those of params.yaml as the stages run them (`fp32` allows TF32 where they do), and
`strict`: fp32 without any TF32.
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
_GPU_ONLY = {"fp16", "graph", "fused"}

Row = dict[str, Any]


class Images(NamedTuple):
    """Noisy renders, smooth ground truth and other views; [N, 3, H, W] in [0, 1]."""

    image: Tensor
    target: Tensor
    reference: Tensor


def options(description: str, known: tuple[str, ...]) -> argparse.ArgumentParser:
    """A parser with the options of all these benchmarks; a case is `precision:execution`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--size", choices=sorted(SIZES), default="sd-turbo")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--cases",
        nargs="+",
        default=list(known),
        metavar="CASE",
        help=f"precision:execution, default: {' '.join(known)}",
    )
    parser.add_argument("--warmup", type=int, default=2, help="calls before the clock starts")
    parser.add_argument("--out", type=Path, help="also write the rows to this JSON file")
    return parser


def device_of(args: argparse.Namespace) -> torch.device:
    """The requested device; removes the cases that a CPU cannot compute from `args.cases`."""
    device, _ = choose_device(args.device, "--device")
    invalid = [case for case in args.cases if case.split(":")[0] not in PRECISIONS]
    if invalid:
        raise SystemExit(f"--cases: {invalid[0]}: a precision is one of {', '.join(PRECISIONS)}")
    if device.type == "cpu":
        args.cases = [case for case in args.cases if not set(re.split("[:+]", case)) & _GPU_ONLY]
    return device


def new_fixer(size: str, device: torch.device) -> Fixer:
    """A fixer with random weights on `device`, the same at every call."""
    with torch.device(device):
        return random_fixer(SIZES[size], seed=0)


def random_images(count: int, height: int, width: int, seed: int = 0) -> Images:
    """Random images, the same at every call."""
    generator = seeded("benchmark", seed, height, width)
    coarse = torch.rand(count, 3, 6, 8, generator=generator)
    target = F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
    noise = 0.1 * torch.randn(target.shape, generator=generator)
    return Images((target + noise).clamp(0, 1), target, target.roll(width // 16, dims=-1))


def params_precision(name: str) -> str:
    """The name of a precision in params.yaml."""
    return "fp32" if name == STRICT else name


def set_tf32(name: str) -> None:
    """Set TF32 to torch's defaults of a new process, or disable it for `strict`."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = name != STRICT


def reset_peak(device: torch.device) -> None:
    """Free unused memory and reset the peak."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: torch.device) -> float | None:
    """Peak memory of tensors on the GPU since `reset_peak`; None on a CPU."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None


def wait(device: torch.device) -> None:
    """Wait until a GPU has run all its kernels."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def formatted(value: float | None, digits: int = 1) -> str:
    """A number as text of a table."""
    return "-" if value is None else f"{value:.{digits}f}"


def write_rows(path: Path | None, rows: list[Row]) -> None:
    """Write a results file, unless `path` is None."""
    if path is not None:
        write_json(path, {"rows": rows})


class Clock:
    """Milliseconds between marks. A GPU records events in its stream; the CPU does not wait."""

    def __init__(self, device: torch.device):
        self.on_gpu = device.type == "cuda"
        self.marks: list[Any] = []

    def mark(self) -> None:
        """Record the time."""
        if not self.on_gpu:
            self.marks.append(time.perf_counter())
            return
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        self.marks.append(event)

    def gaps_ms(self) -> list[float]:
        """Time from each mark to the next; waits until all work is done."""
        pairs = list(zip(self.marks, self.marks[1:], strict=False))
        if not self.on_gpu:
            return [1e3 * (after - before) for before, after in pairs]
        torch.cuda.synchronize()
        return [before.elapsed_time(after) for before, after in pairs]
