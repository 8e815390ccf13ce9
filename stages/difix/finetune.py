"""The loop that teaches a fixer: the only module that imports accelerate.

Weights, gradients and optimiser are float32 throughout; lower precision is used inside the forward
pass alone (autocast). Weights kept in bf16 do not move at learning rates of fine-tuning, and
gradients in fp16 cannot be unscaled.

A step is an optimisation step, of `accumulation` micro-batches in every process. Everything random
is a function of the seed and of the number of a step or sample, so a run that is resumed goes on to
the same bytes on a CPU.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from stages.difix.batches import Batch, Source, seeded
from stages.difix.config import LoopConfig
from stages.difix.ema import Ema
from stages.difix.losses import FixerLoss, Terms
from stages.difix.model import Fixer, trainable
from stages.difix.precision import choose_precision
from stages.difix.schedule import learning_rate
from stages.difix.validation import Validator
from stages.run.checkpoint import PREEMPTED, Checkpoint, Preemption
from stages.run.errors import UserError
from stages.run.live import LiveCurve
from stages.run.progress import Progress

CURVE_COLUMNS = ["step", *Terms._fields, "grad_norm", "lr"]
_CURVE_POINTS = 100
_BETAS = (0.9, 0.999)
# Steps between asking all processes whether one of them was told to stop.
_ASK_EVERY = 10

Row = dict[str, Any]


class Tuner:
    """One optimisation of a fixer, in one process or as one of several."""

    def __init__(
        self,
        fixer: Fixer,
        config: LoopConfig,
        loss: FixerLoss,
        validator: Validator,
        device: torch.device,
        *,
        name: str = "tune",
        draw_latent: bool = False,
        keep_best: bool = False,
    ):
        self.fixer, self.config, self.loss, self.validator = fixer, config, loss, validator
        self.name, self.draw_latent, self.keep_best = name, draw_latent, keep_best
        self.accelerator = self._accelerator(device)
        if loss.perceptual:
            # Until now every process took `cuda` for the first GPU.
            loss.perceptual.to(self.accelerator.device)
        self.parameters = trainable(fixer, config.trained)
        self._started_at = [one.detach().to("cpu", copy=True) for one in self.parameters.values()]
        if config.gradient_checkpointing:
            fixer.use_checkpointing()
        # Convolutions are a third faster so on a CPU, and on tensor cores need no copies.
        fixer.to(self.accelerator.device, memory_format=torch.channels_last)
        adam = torch.optim.AdamW(
            list(self.parameters.values()), config.lr, _BETAS, weight_decay=config.weight_decay,
            fused=device.type == "cuda",
        )  # fmt: skip
        self.model, self.optimizer = self.accelerator.prepare(fixer, adam)
        self.ema = Ema(list(self.parameters.values()), config.ema_decay)
        self.curve: list[Row] = []
        self._live = LiveCurve(self.name, self.is_main)
        self.validations: list[Row] = []
        # Terms, gradient norm and number of steps since the last point of the curve.
        self._sums = torch.zeros(6, dtype=torch.float64, device=self.accelerator.device)
        self._best: dict[str, Any] = {}

    @property
    def is_main(self) -> bool:
        """Whether this process writes what the run leaves behind."""
        return self.accelerator.is_main_process

    def run(self, source: Source, checkpoint: Checkpoint) -> Fixer:
        """Train to the end, or from the last checkpoint on; return the tuned fixer.

        Raises UserError when the loss is not finite; the checkpoint is then of a step before.
        """
        config, begin = self.config, self._resume(checkpoint)
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        stream = source.batches(begin * config.accumulation, rank, processes)
        if begin == 0:
            self._validate("identity", 0, None)
            self._validate("untuned", 0, self.fixer)
            self._validate("untuned_withheld", 0, self.fixer, with_reference=False)
        with Preemption() as preemption, Progress(self.name, config.steps, begin) as progress:
            for done in range(begin + 1, config.steps + 1):
                self.step(done - 1, stream)
                last = done == config.steps
                stopping = self._stopping(preemption, done) and not last
                self._record(done, last, stopping, checkpoint)
                if progress.due() and self.curve and self.is_main:
                    progress.report(done, loss=self.curve[-1]["loss"] or math.nan)
                if stopping:
                    note = f"{self.name}: stopped at step {done}; run again to go on"
                    print(note, file=sys.stderr, flush=True)
                    sys.exit(PREEMPTED)
        return self._finished(checkpoint)

    def step(self, step: int, stream: Iterator[Batch]) -> None:
        """Learn from the next micro-batches."""
        told = torch.zeros_like(self._sums)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate(step)
        for micro in range(self.config.accumulation):
            is_last = micro == self.config.accumulation - 1
            alone = nullcontext() if is_last else self.accelerator.no_sync(self.model)
            with alone:
                terms = self._gradients(next(stream), step, micro)
            told[:4] += torch.stack(terms).detach() / self.config.accumulation
        told[4], told[5] = self._clip(), 1
        self.optimizer.step()
        self.optimizer.zero_grad()
        if not self.optimizer.step_was_skipped:
            self.ema.update(step)
        self._sums += told

    def moved(self) -> float:
        """How far the weights went, as a share of their own norm."""
        pairs = zip(self.parameters.values(), self._started_at, strict=True)
        squares = [
            (float((now.detach().cpu() - then).square().sum()), float(then.square().sum()))
            for now, then in pairs
        ]
        change, norm = (sum(column) for column in zip(*squares, strict=True))
        return math.sqrt(change / max(norm, 1e-30))

    def _accelerator(self, device: torch.device) -> Accelerator:
        where = f"{self.name}.precision"
        precision, reason = choose_precision(self.config.precision, device, where)
        mixed = "no" if precision == "fp32" else precision
        # Gradients lie in what is sent between processes; else they are held twice.
        sharing = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        accelerator = Accelerator(
            mixed_precision=mixed, cpu=device.type == "cpu", kwargs_handlers=[sharing]
        )
        if precision == "fp32":
            # TF32 products: three times faster, and its error is far below that of a batch.
            torch.set_float32_matmul_precision("high")
        if accelerator.is_main_process:
            count = accelerator.num_processes
            print(f"{self.name}: {device.type}, {precision} ({reason}), {count} process(es)")
        return accelerator

    def _learning_rate(self, step: int) -> float:
        config = self.config
        return learning_rate(config.lr, step, config.steps, config.warmup_steps, config.lr_schedule)

    def _gradients(self, batch: Batch, step: int, micro: int) -> Terms:
        """Add a micro-batch's gradients to those that are there."""
        accelerator, seed = self.accelerator, self.config.seed
        number = (step * self.config.accumulation + micro) * accelerator.num_processes
        number += accelerator.process_index
        batch = batch.to(accelerator.device)
        drop = torch.rand((), generator=seeded(seed, "reference dropout", number))
        views = batch.views(with_reference=bool(drop >= self.config.reference_dropout))
        drawing = seeded(seed, "latent", number) if self.draw_latent else None
        output = self.model(views, generator=drawing)
        terms = self.loss(output, batch.target, step)
        accelerator.backward(terms.loss / self.config.accumulation)
        return terms

    def _clip(self) -> Tensor:
        """Bound the gradients and return their norm before."""
        parameters = list(self.parameters.values())
        if self.config.max_grad_norm > 0:
            return self.accelerator.clip_grad_norm_(parameters, self.config.max_grad_norm)
        # Off: handed on, a bound of 0 would scale every gradient to 0.
        self.accelerator.unscale_gradients()
        return torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])

    def _record(self, done: int, last: bool, stopping: bool, checkpoint: Checkpoint) -> None:
        """Whatever is due after a step: a point of the curve, a validation, a checkpoint."""
        config = self.config
        validating = done % config.validate_every == 0 and not last
        saving = done % config.checkpoint_every == 0 or last or stopping
        pointing = done % max(1, config.steps // _CURVE_POINTS) == 0 or last
        if validating or saving or pointing:
            self._check(done, checkpoint)
        if pointing:
            self._point(done)
        if validating or (last and self.keep_best):
            self._validate("fixed", done, self.fixer)
            self._remember_best(done)
            self._write_sheet(done, checkpoint)
        if saving:
            self._save(checkpoint, done)

    def _point(self, done: int) -> None:
        """A point of the curve: means over all steps since the last, and over processes."""
        sums = self.accelerator.reduce(self._sums, "sum")
        means = (sums[:5] / sums[5]).tolist()
        values = {
            key: float(f"{value:.6g}") if math.isfinite(value) else None
            for key, value in zip(CURVE_COLUMNS[1:-1], means, strict=True)
        }
        lr = float(f"{self._learning_rate(done - 1):.6g}")
        self.curve.append({"step": done, **values, "lr": lr})
        self._live.write(self.curve[-1])
        self._sums.zero_()

    def _check(self, done: int, checkpoint: Checkpoint) -> None:
        sums = self.accelerator.reduce(self._sums, "sum")
        # GradScaler leaves out a step whose gradients overflow; without it they are in the weights.
        judged = sums[:4] if self.accelerator.scaler else sums[:5]
        if not judged.isfinite().all():
            kept = checkpoint.path if checkpoint.path.is_file() else "none was due yet"
            told = "the loss" if not sums[:4].isfinite().all() else "the gradient"
            raise UserError(
                self.name,
                f"{told} is not finite at step {done}",
                expected="a finite number",
                hint=f"the last good state: {kept}",
                fix="lower lr, set max_grad_norm: 1.0, or precision: fp32",
            )

    def _validate(
        self, row: str, done: int, fixer: Fixer | None, with_reference: bool = True
    ) -> None:
        """Measure a row, over all processes."""
        if not (with_reference or self.validator.has_references):
            return
        share = self.accelerator.process_index, self.accelerator.num_processes
        with self.ema.applied():
            sums = self.validator.sums(fixer, with_reference, *share)
        means = self.validator.means(self.accelerator.reduce(sums, "sum"))
        self.validations.append({"step": done, "row": row, **means})

    def _write_sheet(self, done: int, checkpoint: Checkpoint) -> None:
        if self.is_main:
            with self.ema.applied():
                self.validator.write_sheet(self.fixer, checkpoint.kept, done)

    def _remember_best(self, done: int) -> None:
        """Keep the weights when the newest `fixed` row has the highest PSNR so far."""
        newest = self.validations[-1]["psnr"]
        if self.keep_best and newest > self._best.get("psnr", -math.inf):
            with self.ema.applied():
                kept = {key: one.detach().cpu().clone() for key, one in self.parameters.items()}
            self._best = {"psnr": newest, "step": done, "parameters": kept}

    def _stopping(self, preemption: Preemption, done: int) -> bool:
        """Whether any process was told to stop: all have to end at the same step."""
        if self.accelerator.num_processes == 1:
            return preemption.noticed
        if done % _ASK_EVERY:
            return False
        noticed = torch.tensor(float(preemption.noticed), device=self.accelerator.device)
        return bool(self.accelerator.reduce(noticed, "sum") > 0)

    def _save(self, checkpoint: Checkpoint, done: int) -> None:
        sums = self.accelerator.reduce(self._sums, "sum")
        if self.is_main:
            scaler = self.accelerator.scaler
            state = {
                "step": done,
                "parameters": {k: one.detach() for k, one in self.parameters.items()},
                "ema": self.ema.averages,
                "optimizer": self.optimizer.state_dict(),
                "scaler": scaler.state_dict() if scaler else {},
                "curve": self.curve,
                "validations": self.validations,
                "sums": sums,
                "best": self._best,
            }
            checkpoint.save(state)
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _resume(self, checkpoint: Checkpoint) -> int:
        """Take up a checkpoint's state; the number of steps that it has behind it."""
        state = checkpoint.load()
        if state is None:
            return 0
        for key, value in state["parameters"].items():
            self.parameters[key].copy_(value)
        for average, value in zip(self.ema.averages, state["ema"], strict=True):
            average.copy_(value)
        self.optimizer.load_state_dict(state["optimizer"])
        if self.accelerator.scaler:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.curve, self.validations = state["curve"], state["validations"]
        if self.is_main:
            self._sums.copy_(state["sums"])
        self._best = state["best"]
        if self.is_main:
            print(f"{self.name}: resumed at step {state['step']}", file=sys.stderr, flush=True)
        return state["step"]

    @torch.no_grad()
    def _finished(self, checkpoint: Checkpoint) -> Fixer:
        """The fixer with the weights that are kept: the best, the averages, or the last."""
        if self._best:
            for key, value in self._best["parameters"].items():
                self.parameters[key].copy_(value)
        else:
            self.ema.keep()
        self.ema = Ema([], 0.0)
        if self.moved() == 0:
            raise UserError(
                self.name, "no weight has changed", expected="a fixer that learns",
                fix="raise lr, or the weights of `losses`",
            )  # fmt: skip
        step = self._best.get("step", self.config.steps)
        self._validate("tuned", step, self.fixer)
        self._validate("tuned_withheld", step, self.fixer, with_reference=False)
        self._write_sheet(step, checkpoint)
        return self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)
