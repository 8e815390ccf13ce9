"""Steps of tuning a fixer: time, memory and loss, by the trainer of stage `tune`.

    python -m benchmarks.difix_tune [--sizes 320 512] [--cases fp32:eager bf16:graph] [--batch 1]
    python -m benchmarks.difix_tune --curve-steps 200 --curves curves.tsv
    python -m torch.distributed.run --standalone --nproc-per-node 2 -m benchmarks.difix_tune
    python -m benchmarks.difix_tune --resume-check

A case is a precision and how a step is computed, `tune.execution`, or else `LAYERS+STEP` with the
layers of `difix_layers`: by its `TorchStep` kernel by kernel (`calls`) or recorded (`torch`), or by
the project's (`graph`). `learn ms` is the optimiser's part; the warm-up is everything before the
timed steps, compilation included.
Weights and images are random. Each sample has a reference, and all terms of the loss count from the
first step. Timed steps all use the same batch, so that the first and last loss are comparable.
Curves use other images at each step, the same ones in every case, with the published loss.
`--weights` names a folder as stage `weights` writes it; without one the backbone of LPIPS is random
too. With several processes each has its own batch, and `peak GiB` is the maximum over them.
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
from benchmarks.command_line import launch
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

# Earlier measurements on one H200, ms per step of batch 1: a plain loop over a UNet and a VAE's
# decoder, two views, TF32, fused AdamW. The targets are for one such GPU.
ANCHORS_MS = {320: 168, 512: 235}
TARGETS_MS = {320: 60}
CASES = ("fp32:eager", "bf16:eager", "fp32:graph", "bf16:graph", "fp16:graph")
HEADER = "{:>5}{:>8}{:>20}{:>10}{:>10}{:>10}{:>10}{:>10}{:>11}{:>12}{:>12}"
PROFILED_STEPS = 3
_CURVE_WARM_UP = 50  # steps


class RandomImages:
    """A source of random images: one batch repeated, or another at each step if `varied`."""

    def __init__(self, side: int, batch_size: int, varied: bool = False):
        self.side, self.batch_size, self.varied = side, batch_size, varied

    def batches(self, start: int, rank: int, processes: int) -> Iterator[Batch]:
        """See `batches.Source`."""
        for micro in itertools.count(start * self.varied, self.varied):
            seed = micro * processes + rank
            batch = Batch(*cases.random_images(self.batch_size, self.side, self.side, seed=seed))
            if torch.cuda.is_available():
                batch = Batch(
                    *(tensor.pin_memory() for tensor in batch)
                )  # as the loader of `tune` does
            if not self.varied:
                yield from itertools.repeat(batch)
            yield batch

    def sample(self) -> Sample:
        """A sample for validation."""
        return Sample(
            *(images[0] for images in cases.random_images(1, self.side, self.side, seed=-1))
        )


class ObservedTuner(Tuner):
    """A tuner that reports the number and loss of each step, with a choice of layers and steps."""

    on_loss: Callable[[int, Tensor], None] | None = None

    def __init__(self, execution: str, *args: Any, **kwargs: Any):
        self.steps_by = execution
        super().__init__(*args, **kwargs)

    def _stepper(self, parameters: dict[str, torch.nn.Parameter]) -> Any:
        layers, _, kind = self.steps_by.partition("+")
        if not kind:
            return super()._stepper(parameters)
        use_layers(self.fixer, layers)
        if kind == "graph":
            from stages.difix.tuning import graphed

            with patch.object(graphed, "fuse", lambda fixer: None):  # its layers have been replaced
                return super()._stepper(parameters)
        assert kind in ("calls", "torch"), f"unknown kind of step: {kind!r}"
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
        if self.on_loss:
            self.on_loss(step, terms.loss.detach().clone())
        return terms


def main() -> None:
    parser = cases.options(__doc__.splitlines()[0], CASES)
    parser.add_argument(
        "--sizes", nargs="+", type=int, default=[320], help="side of square images, px"
    )
    parser.add_argument("--steps", type=int, default=30, help="timed steps")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--trained", choices=choices("trained"), help="default: by the size")
    parser.add_argument(
        "--gradient-checkpointing", choices=choices("gradient_checkpointing"), default="none"
    )
    parser.add_argument("--ema-decay", type=float, default=0.0)
    parser.add_argument("--net", choices=sorted(BACKBONES), default="vgg")
    parser.add_argument("--weights", type=Path)
    parser.add_argument(
        "--profile", nargs="*", default=[], metavar="CASE", help="also print a profile of these"
    )
    parser.add_argument("--curve-steps", type=int, default=0, help="steps of a curve, 0: none")
    parser.add_argument("--curve-cases", nargs="*", metavar="CASE", help="default: --cases")
    parser.add_argument(
        "--curves", type=Path, help="TSV of the curves; a figure is written beside it"
    )
    difix_resume.add_options(parser)
    args = parser.parse_args()
    device = cases.device_of(args)
    # A tiny fixer starts with a decoder whose output is 0: nothing trains unless that does.
    args.trained = args.trained or ("all" if args.size == "tiny" else "published")
    if args.resume_check:
        sys.exit(difix_resume.check(args))
    with tempfile.TemporaryDirectory() as scratch:
        args.weights = args.weights or random_weights(args.net, Path(scratch))
        if args.resume_child:
            source = RandomImages(args.sizes[0], args.batch)
            case = args.sizes[0], args.cases[0]
            difix_resume.train(lambda on_loss: build(args, *case, device, on_loss), source)
        else:
            measure_all(args, device)


def choices(key: str) -> tuple[str, ...]:
    """Values that a key of `tune` may have."""
    return get_args(LoopConfig.model_fields[key].annotation)


def measure_all(args: argparse.Namespace, device: torch.device) -> None:
    """Measure all cases, print the tables and write the results."""
    is_main = PartialState(cpu=device.type == "cpu").is_main_process
    rows, curves = [], {}
    for side, case in itertools.product(args.sizes, args.cases):
        with kernels(case.split(":")[1].partition("+")[0]):
            rows.append(measure(args, side, case, device))
        if is_main:
            print(line(rows[-1]), flush=True)
            cases.write_rows(args.out, rows)
        with_curve = args.cases if args.curve_cases is None else args.curve_cases
        if args.curve_steps and case in with_curve and side == args.sizes[0]:
            curves[case] = curve(args, side, case, device)
    if is_main:
        titles = ("px", "", "", "ms/step", "slowest", "learn ms", "warm-up s", "peak GiB")
        print(f"\n{rows[0]['device']}, {rows[0]['processes']} process(es), batch {args.batch}")
        titles += ("samples/s", "first loss", "last loss")
        print(HEADER.format(*titles), *map(line, rows), sep="\n", flush=True)
        if curves:
            difix_curves.report(args.curves, curves)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def measure(args: argparse.Namespace, side: int, case: str, device: torch.device) -> cases.Row:
    """Time the steps of one case."""
    cases.reset_peak(device)
    losses: list[Tensor] = []  # on the device, to avoid synchronisation
    tuner = build(args, side, case, device, lambda step, loss: losses.append(loss))
    accelerator, device = tuner.accelerator, tuner.accelerator.device
    stream = RandomImages(side, args.batch).batches(
        0, accelerator.process_index, accelerator.num_processes
    )
    clock, learning = cases.Clock(device), cases.Clock(device)
    begin = time.perf_counter()
    learn = tuner.stepper.learn
    for step in range(args.warmup + args.steps):
        if step == args.warmup:
            cases.wait(device)
            warmed = time.perf_counter() - begin
            tuner.stepper.learn = marked(learn, learning)
            clock.mark()
        tuner.step(step, stream)
        if step >= args.warmup:
            clock.mark()
    gaps = clock.gaps_ms()
    peak = cases.peak_gib(device)
    peaks = accelerator.gather(torch.tensor([peak or 0.0], device=device))
    first, last = float(losses[0]), float(losses[-1])
    if case in args.profile:
        profile_steps(tuner, stream, args.warmup + args.steps)
    tuner.stepper.learn = learn
    tuner.stepper.release()
    return row_of(args, side, case, tuner, gaps) | {
        "learn_ms": round(statistics.median(learning.gaps_ms()[::2]), 2),
        "warmup_s": round(warmed, 1),
        "peak_gib": None if peak is None else round(float(peaks.max()), 2),
        "first_loss": first,
        "last_loss": last,
    }


def marked(learn: Callable[[float], Any], clock: cases.Clock) -> Callable[[float], Any]:
    """The optimiser's part of a step, with marks at its start and end."""

    def marked_learn(lr: float) -> Any:
        clock.mark()
        result = learn(lr)
        clock.mark()
        return result

    return marked_learn


def row_of(
    args: argparse.Namespace, side: int, case: str, tuner: Tuner, gaps: list[float]
) -> cases.Row:
    """The description of a case, and its times."""
    precision, execution = case.split(":")
    count, name = tuner.accelerator.num_processes, device_name(tuner.accelerator.device.type)
    anchored = args.size == "sd-turbo" and "H200" in name and args.batch == count == 1
    return {
        "name": f"DiFix tuning step, {args.size}, {side} px, {precision}, {execution}",
        "device": name,
        "value": round(statistics.median(gaps), 2),
        "unit": "ms",
        "anchor": ANCHORS_MS.get(side) if anchored else None,
        "target": TARGETS_MS.get(side) if anchored and execution == "graph" else None,
        "side_px": side,
        "precision": precision,
        "execution": execution,
        "slowest_ms": round(max(gaps), 2),
        "samples_per_s": round(1e3 * args.batch * count * len(gaps) / sum(gaps), 2),
        "processes": count,
        "batch": args.batch,
        "trained": args.trained,
        "gradient_checkpointing": args.gradient_checkpointing,
        "ema_decay": args.ema_decay,
        "backbone": tuner.loss.net,
    }


def curve(args: argparse.Namespace, side: int, case: str, device: torch.device) -> list[float]:
    """The losses of `args.curve_steps` steps."""
    cases.reset_peak(device)
    losses: list[Tensor] = []
    tuner = build(
        args,
        side,
        case,
        device,
        lambda step, loss: losses.append(loss),
        losses=LossConfig(net=args.net),
        steps=args.curve_steps,
        warmup_steps=_CURVE_WARM_UP,
    )
    accelerator = tuner.accelerator
    stream = RandomImages(side, args.batch, varied=True).batches(
        0, accelerator.process_index, accelerator.num_processes
    )
    for step in range(args.curve_steps):
        tuner.step(step, stream)
    tuner.stepper.release()
    return [float(loss) for loss in losses]


def build(
    args: argparse.Namespace,
    side: int,
    case: str,
    device: torch.device,
    on_loss: Callable[[int, Tensor], None],
    **values: Any,
) -> Tuner:
    """A tuner as in stage `tune`, of a fixer with random weights."""
    # accelerate keeps one precision per process, but each case has its own.
    AcceleratorState._reset_state()
    precision, execution = case.split(":")
    cases.set_tf32(precision)
    config = LoopConfig(
        **{
            "device": device.type,
            "precision": cases.params_precision(precision),
            "execution": "graph" if "graph" in execution else "eager",
            "steps": args.steps,
            "batch_size": args.batch,
            "warmup_steps": 0,
            "reference_dropout": 0.0,
            "trained": args.trained,
            "gradient_checkpointing": args.gradient_checkpointing,
            "ema_decay": args.ema_decay,
            "runtime": LoopRuntime(checkpoint_every=args.save_at),
            "validate_every": 10**9,
            "losses": LossConfig(gram_warmup_steps=0, net=args.net),
        }
        | values
    )
    where = PartialState(cpu=device.type == "cpu").device
    loss = FixerLoss(config.losses, args.weights, where)
    validator = Validator([RandomImages(side, 1).sample()], None, where)
    fixer = cases.new_fixer(args.size, where)
    tuner = ObservedTuner(execution, fixer, config, loss, validator, where, name="benchmark")
    tuner.on_loss = on_loss
    if precision == cases.STRICT:
        cases.set_tf32(precision)  # the tuner allows TF32 wherever params.yaml says fp32
    return tuner


def random_weights(net: str, folder: Path) -> Path:
    """A random backbone as stage `weights` writes it, scaled to keep activations from vanishing."""
    features = {}
    for name, shape in BACKBONES[net].shapes.items():
        scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) > 1 else 0.1
        features[name] = scale * torch.randn(shape, generator=seeded("backbone", name))
    save_file(features, folder / f"{net}.safetensors")
    write_json(folder / MARKER, {net: {"found": True, "sha256": "0" * 64}})
    return folder


def profile_steps(tuner: Tuner, stream: Iterator[Batch], done: int) -> None:
    """Print a profile of a few more steps."""
    with profile() as profiler:
        for step in range(done, done + PROFILED_STEPS):
            tuner.step(step, stream)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    if tuner.is_main:
        where = "device" if torch.cuda.is_available() else "cpu"
        table = profiler.key_averages().table(
            sort_by=f"self_{where}_time_total", row_limit=40, max_name_column_width=90
        )
        print(f"{PROFILED_STEPS} steps\n{table}", flush=True)


def line(row: cases.Row) -> str:
    """A row of the table."""
    return HEADER.format(
        row["side_px"],
        row["precision"],
        row["execution"],
        cases.formatted(row["value"]),
        cases.formatted(row["slowest_ms"]),
        cases.formatted(row["learn_ms"], 2),
        cases.formatted(row["warmup_s"]),
        cases.formatted(row["peak_gib"], 2),
        cases.formatted(row["samples_per_s"], 2),
        f"{row['first_loss']:.6g}",
        f"{row['last_loss']:.6g}",
    )


if __name__ == "__main__":
    launch(main)
