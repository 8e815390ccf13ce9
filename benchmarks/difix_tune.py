"""Steps of tuning a fixer: time, memory and loss, by the trainer of stage `tune`.

    python -m benchmarks.difix_tune [--sizes 320 512] [--cases fp32:eager bf16:graph] [--batch 1]
    python -m benchmarks.difix_tune --curve-steps 200 --curves curves.tsv
    python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.difix_tune
    python -m benchmarks.difix_tune --resume-check

A case is a precision and how a step is computed, `tune.execution`, or else `LAYERS+STEP` with the
layers of `difix_layers`: by its `TorchStep` kernel by kernel (`calls`) or recorded (`torch`), or by
the project's (`graph`). `learn ms` is the optimiser's part, and warm-up what comes before the steps
that are timed, compilation included.
Weights and pictures are random. Each sample has a reference, and all terms of the loss count from
the first step. While steps are timed every one sees the same batch, so that first and last loss
compare. Curves are of other pictures at each step, the same ones in every case, with the published
loss. `--weights` names a folder as stage `weights` writes it; without one the backbone of LPIPS is
random too. In several processes each has a batch of its own; `peak GiB` is that of the fullest.
"""

import argparse
import itertools
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

import torch
from accelerate.state import AcceleratorState, PartialState
from safetensors.torch import save_file
from torch import Tensor
from torch.profiler import profile

from benchmarks import difix_cases as cases
from benchmarks import difix_curves, difix_resume
from benchmarks.difix_layers import TorchStep, kernels, use_layers
from benchmarks.machine import device_name
from stages.difix.config import LoopConfig, LoopRuntime, LossConfig
from stages.difix.network.precision import DTYPES
from stages.difix.tuning.finetune import BETAS, Tuner
from stages.difix.tuning.losses import FixerLoss, Terms
from stages.difix.tuning.validation import Sample, Validator
from stages.quality.metrics.backbones import BACKBONES
from stages.quality.metrics.weights import MARKER
from stages.run.files import write_json
from stages.samples.batches import Batch, seeded

# Measured before on one H200, ms a step of batch 1: a plain loop over a UNet and a VAE's decoder,
# two views, TF32, fused AdamW. The targets are for one GPU of that kind.
ANCHORS_MS = {320: 168, 512: 235}
TARGETS_MS = {320: 60}
CASES = ("fp32:eager", "bf16:eager", "fp32:graph", "bf16:graph", "fp16:graph")
HEADER = "{:>5}{:>8}{:>20}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>12}{:>12}"
PROFILED_STEPS = 3
_CURVE_WARM_UP = 50  # steps


class Pictures:
    """A source of random pictures: the same batch again and again, or another at each step."""

    def __init__(self, side: int, batch_size: int, varied: bool = False):
        self.side, self.batch_size, self.varied = side, batch_size, varied

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        """See `batches.Source`."""
        for micro in itertools.count(start * self.varied, self.varied):
            seed = micro * processes + rank
            found = Batch(*cases.pictures(self.batch_size, self.side, self.side, seed=seed))
            if torch.cuda.is_available():
                found = Batch(*(one.pin_memory() for one in found))  # as the loader of `tune` does
            if not self.varied:
                yield from itertools.repeat(found)
            yield found

    def sample(self) -> Sample:
        """One to validate on."""
        return Sample(*(one[0] for one in cases.pictures(1, self.side, self.side, seed=-1)))


class ToldTuner(Tuner):
    """A tuner that hands on the number and loss of each step, whose layers may be others."""

    tell: Callable[[int, Tensor], None] | None = None

    def __init__(self, way: str, *given: Any, **named: Any):
        self.way = way
        super().__init__(*given, **named)

    def _stepper(self, parameters: dict[str, torch.nn.Parameter]) -> Any:
        layers, _, kind = self.way.partition("+")
        if not kind:
            return super()._stepper(parameters)
        use_layers(self.fixer, layers)
        if kind == "graph":
            from stages.difix.tuning import graphed

            with patch.object(graphed, "fuse", lambda fixer: None):  # its layers are chosen already
                return super()._stepper(parameters)
        assert kind in ("calls", "torch"), f"no step {kind!r}"
        config = self.config
        return TorchStep(
            self.fixer,
            parameters,
            DTYPES[self.precision],
            kind == "torch",
            betas=BETAS,
            weight_decay=config.weight_decay,
            max_norm=config.max_grad_norm,
            accumulation=config.accumulation,
        )

    def _gradients(self, batch: Batch, step: int, micro: int) -> Terms:
        terms = super()._gradients(batch, step, micro)
        if self.tell:
            self.tell(step, terms.loss.detach().clone())
        return terms


def main() -> None:
    parser = cases.options(__doc__.splitlines()[0], CASES)
    parser.add_argument("--sizes", nargs="+", type=int, default=[320], help="of squares, px")
    parser.add_argument("--steps", type=int, default=30, help="steps that are timed")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--trained", choices=choices("trained"), help="default: by the size")
    parser.add_argument(
        "--gradient-checkpointing", choices=choices("gradient_checkpointing"), default="none"
    )
    parser.add_argument("--ema-decay", type=float, default=0.0)
    parser.add_argument("--net", choices=sorted(BACKBONES), default="vgg")
    parser.add_argument("--weights", type=Path)
    parser.add_argument(
        "--profile", nargs="*", default=[], metavar="CASE", help="also print where its time goes"
    )
    parser.add_argument("--curve-steps", type=int, default=0, help="steps of a curve, 0: none")
    parser.add_argument("--curve-cases", nargs="*", metavar="CASE", help="default: --cases")
    parser.add_argument("--curves", type=Path, help="TSV of the curves; a figure lies beside it")
    difix_resume.add_options(parser)
    given = parser.parse_args()
    device = cases.device_of(given)
    # A tiny fixer starts with a decoder that gives 0, and cannot learn unless that learns.
    given.trained = given.trained or ("all" if given.size == "tiny" else "published")
    if given.resume_check:
        sys.exit(difix_resume.check(given))
    with tempfile.TemporaryDirectory() as scratch:
        given.weights = given.weights or random_weights(given.net, Path(scratch))
        if given.resume_child:
            source = Pictures(given.sizes[0], given.batch)
            case = given.sizes[0], given.cases[0]
            difix_resume.train(lambda tell: build(given, *case, device, tell), source)
        else:
            measure_all(given, device)


def choices(key: str) -> tuple[str, ...]:
    """What a key of `tune` allows."""
    return get_args(LoopConfig.model_fields[key].annotation)


def measure_all(given: argparse.Namespace, device: torch.device) -> None:
    """Print the tables and write what was measured."""
    is_main = PartialState(cpu=device.type == "cpu").is_main_process
    rows, curves = [], {}
    for side, case in itertools.product(given.sizes, given.cases):
        with kernels(case.split(":")[1].partition("+")[0]):
            rows.append(measure(given, side, case, device))
        if is_main:
            print(line(rows[-1]), flush=True)
            cases.write_rows(given.out, rows)
        drawn = given.cases if given.curve_cases is None else given.curve_cases
        if given.curve_steps and case in drawn and side == given.sizes[0]:
            curves[case] = curve(given, side, case, device)
    if is_main:
        titles = ("px", "", "", "ms/step", "slowest", "learn ms", "warm-up s", "peak GiB")
        print(f"\n{rows[0]['device']}, {rows[0]['processes']} process(es), batch {given.batch}")
        titles += ("samples/s", "first loss", "last loss")
        print(HEADER.format(*titles), *map(line, rows), sep="\n", flush=True)
        if curves:
            difix_curves.report(given.curves, curves)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def measure(given: argparse.Namespace, side: int, case: str, device: torch.device) -> cases.Row:
    """Time the steps of one case."""
    cases.forget_peak(device)
    losses: list[Tensor] = []  # on the device, so that nothing waits for them
    tuner = build(given, side, case, device, lambda step, loss: losses.append(loss))
    accelerator, device = tuner.accelerator, tuner.accelerator.device
    stream = Pictures(side, given.batch).batches(
        0, accelerator.process_index, accelerator.num_processes
    )
    clock, learning = cases.Clock(device), cases.Clock(device)
    begin = time.perf_counter()
    learn = tuner.stepper.learn
    for step in range(given.warmup + given.steps):
        if step == given.warmup:
            cases.wait(device)
            warmed = time.perf_counter() - begin
            tuner.stepper.learn = marked(learn, learning)
            clock.mark()
        tuner.step(step, stream)
        if step >= given.warmup:
            clock.mark()
    gaps = clock.gaps_ms()
    peak = cases.peak_gib(device)
    peaks = accelerator.gather(torch.tensor([peak or 0.0], device=device))
    first, last = float(losses[0]), float(losses[-1])
    if case in given.profile:
        profile_steps(tuner, stream, given.warmup + given.steps)
    tuner.stepper.learn = learn
    tuner.stepper.release()
    return row_of(given, side, case, tuner, gaps) | {
        "learn_ms": round(statistics.median(learning.gaps_ms()[::2]), 2),
        "warmup_s": round(warmed, 1),
        "peak_gib": None if peak is None else round(float(peaks.max()), 2),
        "first_loss": first,
        "last_loss": last,
    }


def marked(learn: Callable[[float], Any], clock: cases.Clock) -> Callable[[float], Any]:
    """The optimiser's part of a step, its beginning and end noted."""

    def noted(lr: float) -> Any:
        clock.mark()
        found = learn(lr)
        clock.mark()
        return found

    return noted


def row_of(
    given: argparse.Namespace, side: int, case: str, tuner: Tuner, gaps: list[float]
) -> cases.Row:
    """What a case is, and its times."""
    precision, execution = case.split(":")
    count, name = tuner.accelerator.num_processes, device_name(tuner.accelerator.device.type)
    anchored = given.size == "sd-turbo" and "H200" in name and given.batch == count == 1
    return {
        "name": f"DiFix tuning step, {given.size}, {side} px, {precision}, {execution}",
        "device": name,
        "value": round(statistics.median(gaps), 2),
        "unit": "ms",
        "anchor": ANCHORS_MS.get(side) if anchored else None,
        "target": TARGETS_MS.get(side) if anchored and execution == "graph" else None,
        "side_px": side,
        "precision": precision,
        "execution": execution,
        "slowest_ms": round(max(gaps), 2),
        "samples_per_s": round(1e3 * given.batch * count * len(gaps) / sum(gaps), 2),
        "processes": count,
        "batch": given.batch,
        "trained": given.trained,
        "gradient_checkpointing": given.gradient_checkpointing,
        "ema_decay": given.ema_decay,
        "backbone": tuner.loss.net,
    }


def curve(given: argparse.Namespace, side: int, case: str, device: torch.device) -> list[float]:
    """The loss of each of many steps."""
    cases.forget_peak(device)
    losses: list[Tensor] = []
    tuner = build(
        given,
        side,
        case,
        device,
        lambda step, loss: losses.append(loss),
        losses=LossConfig(net=given.net),
        steps=given.curve_steps,
        warmup_steps=_CURVE_WARM_UP,
    )
    accelerator = tuner.accelerator
    stream = Pictures(side, given.batch, varied=True).batches(
        0, accelerator.process_index, accelerator.num_processes
    )
    for step in range(given.curve_steps):
        tuner.step(step, stream)
    tuner.stepper.release()
    return [float(loss) for loss in losses]


def build(
    given: argparse.Namespace,
    side: int,
    case: str,
    device: torch.device,
    tell: Callable[[int, Tensor], None],
    **values: Any,
) -> Tuner:
    """A tuner as stage `tune` makes it, of a fixer that knows nothing."""
    # accelerate keeps a process's precision; here each case has its own.
    AcceleratorState._reset_state()
    precision, execution = case.split(":")
    cases.use_products(precision)
    config = LoopConfig(
        **{
            "device": device.type,
            "precision": cases.params_precision(precision),
            "execution": "graph" if "graph" in execution else "eager",
            "steps": given.steps,
            "batch_size": given.batch,
            "warmup_steps": 0,
            "reference_dropout": 0.0,
            "trained": given.trained,
            "gradient_checkpointing": given.gradient_checkpointing,
            "ema_decay": given.ema_decay,
            "runtime": LoopRuntime(checkpoint_every=given.save_at),
            "validate_every": 10**9,
            "losses": LossConfig(gram_warmup_steps=0, net=given.net),
        }
        | values
    )
    where = PartialState(cpu=device.type == "cpu").device
    loss = FixerLoss(config.losses, given.weights, where)
    validator = Validator([Pictures(side, 1).sample()], None, where)
    fixer = cases.new_fixer(given.size, where)
    tuner = ToldTuner(execution, fixer, config, loss, validator, where, name="benchmark")
    tuner.tell = tell
    if precision == cases.STRICT:
        cases.use_products(precision)  # the tuner allows TF32 wherever params.yaml says fp32
    return tuner


def random_weights(net: str, folder: Path) -> Path:
    """A backbone as stage `weights` writes it, of a size that keeps activations alive."""
    features = {}
    for name, shape in BACKBONES[net].shapes.items():
        size = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        features[name] = size * torch.randn(shape, generator=seeded("backbone", name))
    save_file(features, folder / f"{net}.safetensors")
    write_json(folder / MARKER, {net: {"found": True, "sha256": "0" * 64}})
    return folder


def profile_steps(tuner: Tuner, stream: Iterator[Batch], done: int) -> None:
    """Print what takes the time of a few more steps."""
    with profile() as seen:
        for step in range(done, done + PROFILED_STEPS):
            tuner.step(step, stream)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    if tuner.is_main:
        where = "device" if torch.cuda.is_available() else "cpu"
        table = seen.key_averages().table(
            sort_by=f"self_{where}_time_total", row_limit=40, max_name_column_width=90
        )
        print(f"{PROFILED_STEPS} steps\n{table}", flush=True)


def line(row: cases.Row) -> str:
    """A row of the table."""
    return HEADER.format(
        row["side_px"],
        row["precision"],
        row["execution"],
        cases.shown(row["value"]),
        cases.shown(row["slowest_ms"]),
        cases.shown(row["learn_ms"], 2),
        cases.shown(row["warmup_s"]),
        cases.shown(row["peak_gib"], 2),
        cases.shown(row["samples_per_s"], 2),
        f"{row['first_loss']:.6g}",
        f"{row['last_loss']:.6g}",
    )


if __name__ == "__main__":
    main()
