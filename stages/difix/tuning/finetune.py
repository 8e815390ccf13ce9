"""The training loop of a fixer: the only module that imports accelerate.

Trained weights are always float32: in bf16 they would not change at learning rates of fine-tuning.
`execution` decides how a step is computed: kernel by kernel (`eager`), or as a CUDA graph
(`gpu.graphed`).

A step is an optimisation step, of `accumulation` micro-batches in every process. All random numbers
depend on the seed and the number of a step or sample alone, so a resumed run ends with the same
bytes on a CPU.
"""

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor

from stages.difix.config import LoopConfig
from stages.difix.network.model import Fixer, trainable
from stages.difix.network.precision import DTYPES, choose_execution, choose_precision
from stages.difix.tuning.eager import EagerStep
from stages.difix.tuning.ema import Ema
from stages.difix.tuning.losses import FixerLoss, Terms
from stages.difix.tuning.low_rank import LowRank
from stages.difix.tuning.schedule import learning_rate
from stages.difix.tuning.validation import References, Validator
from stages.quality.metrics.batch import OutOfRange
from stages.run.checkpoint import Checkpoint
from stages.run.errors import UserError
from stages.run.process.stopping import PREEMPTED, Preemption
from stages.run.progress import Progress
from stages.samples.batches import Batch, BatchSource, seeded

if TYPE_CHECKING:
    from stages.difix.tuning.graphed import GraphedStep

CURVE_COLUMNS = ["step", *Terms._fields, "grad_norm", "lr"]
_CURVE_POINTS = 100
BETAS = (0.9, 0.999)
# Steps between checks, over all processes, for a signal to stop.
_STOP_CHECK_STEPS = 10

MetricRow = dict[str, Any]  # of the loss curve or of the validations


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
        base_decay: float = 0.0,
        rank: int = 0,
    ):
        """`base_decay` pulls weights towards the initial ones, as weight decay does towards 0.

        With a `rank` the changes of weights have at most that rank, and their factors are what is
        trained, decayed, pulled and averaged.
        """
        self.fixer, self.config, self.loss, self.validator = fixer, config, loss, validator
        self.name, self.draw_latent, self.keep_best = name, draw_latent, keep_best
        self.rank = rank
        self.accelerator = self._accelerator(device)
        if loss.perceptual:
            # It was loaded to `cuda`, which is the first GPU in every process.
            loss.perceptual.to(self.accelerator.device)
        parameters = trainable(fixer, config.trained)
        self._low_rank = LowRank(fixer, parameters, rank, config.seed) if rank else None
        tuned = self._low_rank.weights() if self._low_rank else parameters
        self._initial = [one.detach().to("cpu", copy=True) for one in tuned.values()]
        parameters = self._low_rank.parameters if self._low_rank else parameters
        if config.gradient_checkpointing != "none":
            fixer.use_checkpointing(config.gradient_checkpointing == "all")
        # Convolutions are a third faster so on a CPU, and need no copies on tensor cores.
        fixer.to(self.accelerator.device, memory_format=torch.channels_last)
        self.stepper = self._stepper(parameters)
        self.parameters = self.stepper.parameters
        self.base_decay, self._anchors = base_decay, list[Tensor]()
        if base_decay:
            self._anchors = [one.detach().clone() for one in self.parameters.values()]
        self.ema = Ema(list(self.parameters.values()), config.ema_decay)
        self.curve: list[MetricRow] = []
        self.validations: list[MetricRow] = []
        # Terms, gradient norm and number of steps since the last point of the curve.
        self._sums = torch.zeros(
            len(Terms._fields) + 2, dtype=torch.float64, device=self.accelerator.device
        )
        self._best: dict[str, Any] = {}
        self._done = 0
        self.weights_moved = 0.0  # `_change` at the end

    @property
    def is_main(self) -> bool:
        """Whether this process writes the results."""
        return self.accelerator.is_main_process

    def run(self, source: BatchSource, checkpoint: Checkpoint) -> Fixer:
        """Train to the end, resuming from a checkpoint; return the tuned fixer.

        Raises UserError when the loss is not finite; the checkpoint is then of an earlier step.
        """
        with checkpoint.alone() if self.is_main else nullcontext():
            try:
                return self._run(source, checkpoint)
            # LPIPS refuses an image that is not finite before the loss is checked.
            except OutOfRange as error:
                raise self._diverged("an image", self._done, checkpoint) from error

    def _run(self, source: BatchSource, checkpoint: Checkpoint) -> Fixer:
        config, start = self.config, self._resume(checkpoint)
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        stream = source.batches(start * config.accumulation, rank, processes)
        if start == 0:
            self._validate("identity", 0, None)
            self._validate("untuned", 0, self.fixer)
            self._validate("untuned_withheld", 0, self.fixer, references="withheld")
            self._validate("untuned_wrong", 0, self.fixer, references="wrong")
        with Preemption() as preemption, Progress(self.name, config.steps, start) as progress:
            for done in range(start + 1, config.steps + 1):
                self._done = done
                self.step(done - 1, stream)
                last = done == config.steps
                stopping = self._stopping(preemption, done) and not last
                self._record(done, last, stopping, checkpoint)
                if progress.due() and self.curve and self.is_main:
                    progress.report(done, loss=self.curve[-1]["loss"] or math.nan)
                if stopping:
                    note = f"{self.name}: stopped at step {done}; run again to resume"
                    print(note, file=sys.stderr, flush=True)
                    sys.exit(PREEMPTED)
        return self._finished(checkpoint)

    def step(self, step: int, stream: Iterator[Batch]) -> Tensor:
        """One optimisation step; its mean terms, the gradient norm, and 1."""
        sums = torch.zeros_like(self._sums)
        for micro in range(self.config.accumulation):
            terms = self._gradients(next(stream), step, micro)
            sums[:-2] += torch.stack(terms).detach() / self.config.accumulation
        rate = self._learning_rate(step)
        sums[-2], moved = self.stepper.learn(rate)
        sums[-1] = 1
        if self._anchors:
            self._pull(rate * self.base_decay)
        if moved:
            self.ema.update(step)
        self._sums += sums
        return sums

    @torch.no_grad()
    def _pull(self, share: float) -> None:
        """Move the weights a share of the way back to the initial ones (L2-SP, Li et al. 2018)."""
        torch._foreach_lerp_(list(self.parameters.values()), self._anchors, share)
        self.stepper.refresh()

    def _change(self) -> float:
        """Norm of the weights' change, relative to their initial norm."""
        tuned = self._low_rank.weights() if self._low_rank else self.parameters
        pairs = zip(tuned.values(), self._initial, strict=True)
        squares = [
            (float((now.detach().cpu() - then).square().sum()), float(then.square().sum()))
            for now, then in pairs
        ]
        change, norm = (sum(column) for column in zip(*squares, strict=True))
        return math.sqrt(change / max(norm, 1e-30))

    def _accelerator(self, device: torch.device) -> Accelerator:
        config = self.config
        self.precision, reason = choose_precision(
            config.precision, device, f"{self.name}.precision"
        )
        # Graphed steps replace the weights of layers by copies, which factors have none of.
        requested = "eager" if self.rank else config.execution
        self.execution = choose_execution(
            requested, device, self.draw_latent, f"{self.name}.execution"
        )
        autocast = self.execution == "eager" and self.precision != "fp32"
        # Gradients are views of the buckets that processes exchange, instead of copies.
        gradients = DistributedDataParallelKwargs(gradient_as_bucket_view=True)
        accelerator = Accelerator(
            mixed_precision=self.precision if autocast else "no",
            cpu=device.type == "cpu",
            kwargs_handlers=[gradients],
        )
        if self.precision == "fp32":
            # TF32 products are three times faster; their error is far below a batch's noise.
            torch.set_float32_matmul_precision("high")
        if accelerator.is_main_process:
            count = accelerator.num_processes
            how = f"{self.precision} ({reason}), {self.execution}"
            how += f" ({self.name}.rank is {self.rank})" if self.rank else ""
            how += f", {count} process{'es' * (count != 1)}"
            print(f"{self.name}: {device.type}, {how}")
        return accelerator

    def _stepper(self, parameters: dict[str, torch.nn.Parameter]) -> "EagerStep | GraphedStep":
        config = self.config
        options = {
            "betas": BETAS,
            "weight_decay": config.weight_decay,
            "max_norm": config.max_grad_norm,
            "accumulation": config.accumulation,
        }
        if self.execution == "eager":
            return EagerStep(self.accelerator, self.fixer, parameters, **options)
        # Its kernels need triton, which is installed with CUDA only.
        from stages.difix.tuning.graphed import GraphedStep

        return GraphedStep(self.fixer, parameters, DTYPES[self.precision], **options)

    def _learning_rate(self, step: int) -> float:
        config = self.config
        return learning_rate(config.lr, step, config.steps, config.warmup_steps, config.lr_schedule)

    def _gradients(self, batch: Batch, step: int, micro: int) -> Terms:
        """Add a micro-batch's gradients to those of its step."""
        accelerator, seed = self.accelerator, self.config.seed
        number = (step * self.config.accumulation + micro) * accelerator.num_processes
        number += accelerator.process_index
        batch = batch.to(accelerator.device)
        drop = torch.rand((), generator=seeded(seed, "reference dropout", number))
        views = batch.views(with_reference=bool(drop >= self.config.reference_dropout))
        generator = seeded(seed, "latent", number) if self.draw_latent else None
        last = micro == self.config.accumulation - 1
        return self.stepper.gradients(
            self.loss, views, batch.target, step, last=last, generator=generator
        )

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """Compute with the EMA of the weights within the block."""
        with self.ema.applied():
            self.stepper.refresh()
            yield
        self.stepper.refresh()

    def _record(self, done: int, last: bool, stopping: bool, checkpoint: Checkpoint) -> None:
        """A point of the curve, a validation and a checkpoint, where due after a step."""
        config = self.config
        validating = done % config.validate_every == 0 and not last
        due = done % config.runtime.checkpoint_every == 0 and self._affordable(checkpoint)
        saving = due or last or stopping
        pointing = done % max(1, config.steps // _CURVE_POINTS) == 0 or last
        if validating or saving or pointing:
            self._check(done, checkpoint)
        if pointing:
            self._point(done)
        if validating or (last and self.keep_best):
            self._validate("fixed", done, self.fixer)
            self._keep_best(done)
            self._write_sheet(done, checkpoint)
        if saving:
            self._save(checkpoint, done)

    def _affordable(self, checkpoint: Checkpoint) -> bool:
        """`Checkpoint.affordable` of the process that saves: all save at the same steps."""
        costly = self.is_main and not checkpoint.affordable()
        if self.accelerator.num_processes == 1:
            return not costly
        flag = torch.tensor(float(costly), device=self.accelerator.device)
        return not self.accelerator.reduce(flag, "sum")

    def _point(self, done: int) -> None:
        """A point of the curve: means over all steps since the last, and over processes."""
        sums = self.accelerator.reduce(self._sums, "sum")
        means = (sums[:-1] / sums[-1]).tolist()
        values = {
            key: float(f"{value:.6g}") if math.isfinite(value) else None
            for key, value in zip(CURVE_COLUMNS[1:-1], means, strict=True)
        }
        lr = float(f"{self._learning_rate(done - 1):.6g}")
        self.curve.append({"step": done, **values, "lr": lr})
        self._sums.zero_()

    def _check(self, done: int, checkpoint: Checkpoint) -> None:
        sums = self.accelerator.reduce(self._sums, "sum")
        # With a scaled loss, a step with overflowing gradients is skipped and the scale lowered.
        checked = sums[:-2] if self.stepper.may_overflow else sums[:-1]
        if not checked.isfinite().all():
            what = "the loss" if not sums[:-2].isfinite().all() else "the gradient"
            raise self._diverged(what, done, checkpoint)

    def _diverged(self, what: str, done: int, checkpoint: Checkpoint) -> UserError:
        saved = checkpoint.path if checkpoint.path.is_file() else "none was due yet"
        return UserError(
            self.name,
            f"{what} is not finite at step {done}",
            expected="a finite number",
            hint=f"the last good state: {saved}",
            fix="lower lr, set max_grad_norm: 1.0, or precision: fp32",
        )

    def _validate(
        self, row: str, done: int, fixer: Fixer | None, references: References = "own"
    ) -> None:
        """Measure a row over all processes, where there are such references."""
        if not self.validator.has(references):
            return
        share = self.accelerator.process_index, self.accelerator.num_processes
        with self._averaged():
            sums = self.validator.sums(fixer, references, *share)
        means = self.validator.means(self.accelerator.reduce(sums, "sum"))
        self.validations.append({"step": done, "row": row, **means})

    def _write_sheet(self, done: int, checkpoint: Checkpoint) -> None:
        if self.is_main:
            with self._averaged():
                self.validator.write_sheet(self.fixer, checkpoint.kept, done)

    def _keep_best(self, done: int) -> None:
        """Keep the weights when the newest `fixed` row has the highest PSNR so far."""
        newest = self.validations[-1]["psnr"]
        if self.keep_best and newest > self._best.get("psnr", -math.inf):
            with self.ema.applied():
                weights = {key: one.detach().cpu().clone() for key, one in self.parameters.items()}
            self._best = {"psnr": newest, "step": done, "parameters": weights}

    def _stopping(self, preemption: Preemption, done: int) -> bool:
        """Whether any process got a signal to stop: all must end at the same step."""
        if self.accelerator.num_processes == 1:
            return preemption.noticed
        if done % _STOP_CHECK_STEPS:
            return False
        noticed = torch.tensor(float(preemption.noticed), device=self.accelerator.device)
        return bool(self.accelerator.reduce(noticed, "sum") > 0)

    def _save(self, checkpoint: Checkpoint, done: int) -> None:
        sums = self.accelerator.reduce(self._sums, "sum")
        if self.is_main:
            rows = {"curve": self.curve, "validations": self.validations}
            state = {
                "step": done,
                "execution": self.execution,
                "parameters": {k: one.detach() for k, one in self.parameters.items()},
                "ema": self.ema.averages,
                # No step follows the last, so its moments, two thirds of the state, are left out.
                **({} if done == self.config.steps else self.stepper.state()),
                **rows,
                "sums": sums,
                "best": self._best,
            }
            steps = {"name": self.name, "step": done, "steps": self.config.steps}
            checkpoint.save(state, progress={**steps, **rows})
        self.accelerator.wait_for_everyone()

    @torch.no_grad()
    def _resume(self, checkpoint: Checkpoint) -> int:
        """Load the checkpoint, if there is one; its number of finished steps."""
        state = checkpoint.load()
        if state is None:
            return 0
        if state["execution"] != self.execution:
            raise UserError(
                checkpoint.path,
                f"state of a run by {state['execution']}, not {self.execution}",
                fix=f"set {self.name}.execution to what it was, or delete the file to start anew",
            )
        for key, value in state["parameters"].items():
            self.parameters[key].copy_(value)
        for average, value in zip(self.ema.averages, state["ema"], strict=True):
            average.copy_(value)
        if state["step"] < self.config.steps:
            self.stepper.load(state)
        self.curve, self.validations = state["curve"], state["validations"]
        if self.is_main:
            self._sums.copy_(state["sums"])
        self._best = state["best"]
        if self.is_main:
            print(f"{self.name}: resumed at step {state['step']}", file=sys.stderr, flush=True)
        return state["step"]

    @torch.no_grad()
    def _finished(self, checkpoint: Checkpoint) -> Fixer:
        """The fixer with its final weights: the best, the EMA, or the last."""
        if self._best:
            for key, value in self._best["parameters"].items():
                self.parameters[key].copy_(value)
        else:
            self.ema.keep()
        self.stepper.refresh()
        self.ema = Ema([], 0.0)
        self.weights_moved = self._change()
        if self.weights_moved == 0:
            raise UserError(
                self.name,
                "no weight has changed",
                expected="a fixer that learns",
                fix="raise lr, or the weights of `losses`",
            )
        step = self._best.get("step", self.config.steps)
        self._validate("tuned", step, self.fixer)
        self._validate("tuned_withheld", step, self.fixer, references="withheld")
        self._validate("tuned_wrong", step, self.fixer, references="wrong")
        self._write_sheet(step, checkpoint)
        fixer = self.stepper.release()
        keys = list(self.parameters)
        if self._low_rank:
            keys = list(self._low_rank.weights())
            self._low_rank.merge()
            self._low_rank = None
        named = dict(fixer.named_parameters())
        self.parameters = {key: named[key] for key in keys}
        return fixer
