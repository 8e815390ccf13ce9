"""Whether a tuning that was killed resumes exactly: `--resume-check`.

Three processes train from the same start. The first runs through. The second saves its state after
`--save-at` steps and is killed by SIGKILL a step and a half later. The third resumes from that
state. Its losses, which depend on all weights and moments, must equal those of the first. Only the
second writes a state; the others are killed too, once they have reported their losses.

torch uses deterministic kernels, so the tolerance is 0 by default; the steps that the first and the
second have in common show whether the machine is deterministic.
"""

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stages.difix.tuning.finetune import Tuner
from stages.run.checkpoint import Checkpoint
from stages.run.files import WORK_ROOT_VARIABLE
from stages.samples.batches import BatchSource

_MARK = "LOSS "
_NEVER = 10**6  # steps
Losses = dict[int, float]
Report = Callable[[int, torch.Tensor], None]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the check."""
    parser.add_argument("--resume-check", action="store_true", help="kill a run and resume it")
    parser.add_argument("--save-at", type=int, default=3, help="steps before the state is saved")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="allowed relative difference of a loss"
    )
    parser.add_argument("--resume-child", action="store_true", help=argparse.SUPPRESS)


def check(args: argparse.Namespace) -> int:
    """Run the three processes, print their losses, and return the exit code: 1 when they differ."""
    # Killed a step after the first state, and before the second.
    saved = max(args.save_at, 2)
    last = saved + 2
    with tempfile.TemporaryDirectory() as scratch:
        whole, _ = _child(args, Path(scratch, "whole"), _NEVER, until=last)
        killed, size = _child(args, Path(scratch, "torn"), saved, until=saved + 1)
        resumed, _ = _child(args, Path(scratch, "torn"), _NEVER, until=last)
    print(f"state of {size / 2**30:.2f} GiB after {saved} steps, killed in step {max(killed) + 1}")
    print(f"{'step':>5}{'through':>20}{'killed':>20}{'resumed':>20}")
    for step in range(last + 1):
        losses = (f"{run[step]:.12g}" if step in run else "-" for run in (whole, killed, resumed))
        print("{:5}{:>20}{:>20}{:>20}".format(step + 1, *losses))
    if sorted(resumed) != list(range(saved, last + 1)):
        print(f"FAILED: it resumed at step {min(resumed) + 1}, not at {saved + 1}")
        return 1
    error = difference(whole, resumed)
    print(f"two runs from the start differ by {difference(whole, killed):.3g} of the loss")
    print(f"resumed and unbroken run differ by {error:.3g}; tolerance {args.tolerance:g}")
    print("passed" if error <= args.tolerance else "FAILED")
    return int(error > args.tolerance)


def difference(a: Losses, b: Losses) -> float:
    """The largest relative difference at common steps; infinite for values that are not finite.

    >>> difference({0: 2.0, 1: 4.0}, {1: 5.0}), difference({0: 1.0}, {0: float("nan")})
    (0.25, inf)
    """
    differences = (
        abs(a[step] - b[step]) / max(abs(a[step]), 1e-30) for step in a.keys() & b.keys()
    )
    return max(one if math.isfinite(one) else math.inf for one in differences)


def train(build: Callable[[Report], Tuner], source: BatchSource) -> None:
    """A child: the trainer's whole loop, with its own checkpoints."""
    _use_deterministic_kernels()
    build(_report).run(source, Checkpoint("benchmark", "resume"))


def _child(args: argparse.Namespace, work: Path, save_at: int, until: int) -> tuple[Losses, int]:
    """The losses of a process by step, from 0 on, and the size of its saved state, bytes.

    It is killed once it has reported the loss of step `until`, before its optimiser runs.
    """
    command = [
        sys.executable,
        "-m",
        "benchmarks.difix_tune",
        "--resume-child",
        *_child_options(args),
    ]
    command += ["--steps", str(_NEVER), "--save-at", str(save_at)]
    environment = os.environ | {
        WORK_ROOT_VARIABLE: str(work),
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    losses: Losses = {}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "stdout is a pipe"
        for text in process.stdout:
            if not text.startswith(_MARK):
                continue
            report = json.loads(text.removeprefix(_MARK))
            losses[report["step"]] = report["loss"]
            if report["step"] == until:
                process.kill()
                break
    if process.returncode != -signal.SIGKILL:
        sys.exit(f"a child ended by itself, with code {process.returncode}")
    return losses, sum(path.stat().st_size for path in work.rglob("state.pt"))


def _child_options(args: argparse.Namespace) -> list[str]:
    """A child's options: the parent's, with the first size and case."""
    words: list[Any] = ["--size", args.size, "--device", args.device, "--sizes", args.sizes[0]]
    words += ["--cases", args.cases[0], "--batch", args.batch]
    words += ["--trained", args.trained, "--net", args.net]
    words += ["--ema-decay", args.ema_decay]
    words += ["--weights", args.weights] if args.weights else []
    words += ["--gradient-checkpointing", args.gradient_checkpointing]
    return [str(word) for word in words]


def _report(step: int, loss: torch.Tensor) -> None:
    """Report a loss to the parent; its decimal form restores the float32 exactly."""
    print(_MARK + json.dumps({"step": step, "loss": float(loss)}), flush=True)


def _use_deterministic_kernels() -> None:
    """Deterministic kernels; for attention, the plain one alone has them."""
    # Warnings only: the gradient of pooling is exact anyway, as its windows do not overlap here.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
