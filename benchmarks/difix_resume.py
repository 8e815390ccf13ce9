"""Whether a tuning that was killed goes on as if nothing had happened: `--resume-check`.

Three processes train from the same start. The first runs through. The second saves its state after
`--save-at` steps and is ended by SIGKILL a step and a half later. The third takes up that state.
Its losses have to be those of the first, and depend on all weights and moments. Only the state of
the second is written; the others too are killed, once they have told their losses.

torch is told to use kernels that repeat themselves, so the tolerance is 0 unless another is given;
the steps that the first and the second both made show whether the machine keeps to that.
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
from stages.samples.batches import Source

_MARK = "LOSS "
_NEVER = 10**6  # steps
Losses = dict[int, float]
Tell = Callable[[int, torch.Tensor], None]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options of the check."""
    parser.add_argument("--resume-check", action="store_true", help="kill a run and resume it")
    parser.add_argument("--save-at", type=int, default=3, help="steps before the state is saved")
    parser.add_argument(
        "--tolerance", type=float, default=0.0, help="relative difference of a loss that may be"
    )
    parser.add_argument("--resume-child", action="store_true", help=argparse.SUPPRESS)


def check(given: argparse.Namespace) -> int:
    """Run the three processes, print their losses, and return the exit code: 1 when they differ."""
    # Killed a step after the first state, and before the second.
    saved = max(given.save_at, 2)
    last = saved + 2
    with tempfile.TemporaryDirectory() as scratch:
        whole, _ = _child(given, Path(scratch, "whole"), _NEVER, until=last)
        killed, size = _child(given, Path(scratch, "torn"), saved, until=saved + 1)
        resumed, _ = _child(given, Path(scratch, "torn"), _NEVER, until=last)
    print(f"state of {size / 2**30:.2f} GiB after {saved} steps, killed in step {max(killed) + 1}")
    print(f"{'step':>5}{'through':>20}{'killed':>20}{'resumed':>20}")
    for step in range(last + 1):
        told = (f"{one[step]:.12g}" if step in one else "-" for one in (whole, killed, resumed))
        print("{:5}{:>20}{:>20}{:>20}".format(step + 1, *told))
    if sorted(resumed) != list(range(saved, last + 1)):
        print(f"FAILED: it went on at step {min(resumed) + 1}, not at {saved + 1}")
        return 1
    found = difference(whole, resumed)
    print(f"two runs from the start differ by {difference(whole, killed):.3g} of the loss")
    print(f"resumed and unbroken run differ by {found:.3g}; tolerance {given.tolerance:g}")
    print("passed" if found <= given.tolerance else "FAILED")
    return int(found > given.tolerance)


def difference(a: Losses, b: Losses) -> float:
    """The largest relative difference at the steps that both have; infinite for what is no number.

    >>> difference({0: 2.0, 1: 4.0}, {1: 5.0}), difference({0: 1.0}, {0: float("nan")})
    (0.25, inf)
    """
    found = (abs(a[step] - b[step]) / max(abs(a[step]), 1e-30) for step in a.keys() & b.keys())
    return max(one if math.isfinite(one) else math.inf for one in found)


def train(build: Callable[[Tell], Tuner], source: Source) -> None:
    """A child: the trainer's whole loop, with its own checkpoints."""
    _repeatable()
    build(_tell).run(source, Checkpoint("benchmark", "resume"))


def _child(given: argparse.Namespace, work: Path, save_at: int, until: int) -> tuple[Losses, int]:
    """The losses that a process told, by step from 0 on, and the size of its saved state.

    It is killed as soon as it has told that of step `until`, before it learns from it.
    """
    command = [sys.executable, "-m", "benchmarks.difix_tune", "--resume-child", *_handed(given)]
    command += ["--steps", str(_NEVER), "--save-at", str(save_at)]
    environment = os.environ | {
        WORK_ROOT_VARIABLE: str(work), "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }  # fmt: skip
    losses: Losses = {}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None, "stdout is a pipe"
        for text in process.stdout:
            if not text.startswith(_MARK):
                continue
            told = json.loads(text.removeprefix(_MARK))
            losses[told["step"]] = told["loss"]
            if told["step"] == until:
                process.kill()
                break
    if process.returncode != -signal.SIGKILL:
        sys.exit(f"a child ended by itself, with code {process.returncode}")
    return losses, sum(path.stat().st_size for path in work.rglob("state.pt"))


def _handed(given: argparse.Namespace) -> list[str]:
    """What a child is told of the parent's options: the first size, the first case."""
    words: list[Any] = ["--size", given.size, "--device", given.device, "--sizes", given.sizes[0]]
    words += ["--cases", given.cases[0], "--batch", given.batch]
    words += ["--trained", given.trained, "--net", given.net]
    words += ["--ema-decay", given.ema_decay]
    words += ["--weights", given.weights] if given.weights else []
    words += ["--gradient-checkpointing", given.gradient_checkpointing]
    return [str(word) for word in words]


def _tell(step: int, loss: torch.Tensor) -> None:
    """Say a loss to the parent; what is read of a float32 is that number again."""
    print(_MARK + json.dumps({"step": step, "loss": float(loss)}), flush=True)


def _repeatable() -> None:
    """Kernels that give the same again; of attention the plain one, which has no others."""
    # Only warned of: pooling's gradient, whose windows do not overlap here and so add nothing up.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.deterministic = True
    torch.backends.cuda.enable_flash_sdp(False)
    torch.backends.cuda.enable_mem_efficient_sdp(False)
    torch.backends.cuda.enable_cudnn_sdp(False)
