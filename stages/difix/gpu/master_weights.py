"""Weights in float32 that are learnt, and copies of them in the precision that is computed in.

A weight that is itself bf16 doesn't move at learning rates of fine-tuning. So the fixer computes
with copies, whose gradients have their precision; weights and moments are float32. All lie one
after the other in memory, parts of it are sent between processes as they are, and an optimisation
step is a handful of kernels.

On an H200 a step is 1.18 times as fast as by autocast and torch's fused AdamW, of the same layers
and recorded as well (`benchmarks/difix.md`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stages.difix.gpu.adam import GOOD, SCALE, STEPS, adamw, squared_norm

_ALIGNED = 64  # numbers
# As torch's GradScaler: halved when gradients overflow, doubled after that many steps without.
_FIRST_SCALE, _PATIENCE = 2.0**16, 2000


class Run:
    """Some parameters in one run of memory: weights, their copies, gradients and moments.

    From here on the parameters themselves are the copies.
    """

    def __init__(
        self, parameters: Mapping[str, nn.Parameter], dtype: torch.dtype, summed: torch.dtype
    ):
        self.names, self.parameters = list(parameters), list(parameters.values())
        device = self.parameters[0].device
        self.starts = [0]
        for one in self.parameters:
            self.starts.append(self.starts[-1] + -(-one.numel() // _ALIGNED) * _ALIGNED)
        total = self.starts[-1]
        self.weights = torch.zeros(total, device=device)
        self.copies = self.weights
        if dtype != torch.float32:
            self.copies = torch.zeros(total, dtype=dtype, device=device)
        places = zip(
            self.parameters, self.views(self.weights), self.views(self.copies), strict=True
        )
        for parameter, weight, copy in places:
            weight.copy_(parameter.detach())
            copy.copy_(weight)
            parameter.data = copy
        # Only now, when the parameters' own memory is free again.
        self.gradients = torch.zeros(total, dtype=summed, device=device)
        self.moments = torch.zeros(2, total, device=device)

    def views(self, flat: Tensor) -> list[Tensor]:
        """What of a run of memory belongs to each parameter, channels last where it has them."""
        return [
            _shaped(flat[start : start + one.numel()], one.shape)
            for start, one in zip(self.starts, self.parameters, strict=False)
        ]


class MasterWeights:
    """The learnt weights of a fixer, and AdamW over them."""

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        kept: set[str],
        dtype: torch.dtype,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        max_norm: float,
        factor: float,
        summed: torch.dtype,
    ):
        """`kept` names what is computed with in float32; `factor` turns sums into means.

        `summed` is the precision of the gradients of the others.
        """
        single = torch.float32
        low = {name: one for name, one in parameters.items() if name not in kept}
        high = {name: one for name, one in parameters.items() if name in kept}
        self.runs = [Run(low, dtype, summed)] if low else []
        self.runs += [Run(high, single, single)] if high else []
        self.betas, self.weight_decay, self.max_norm = betas, weight_decay, max(max_norm, 0.0)
        self.factor, self.scaled = factor, dtype == torch.float16
        found = {
            name: weight
            for run in self.runs
            for name, weight in zip(run.names, run.views(run.weights), strict=True)
        }
        self.parameters = {name: found[name] for name in parameters}
        device = self.runs[0].weights.device
        self.control = torch.zeros(3, device=device)
        self._rate = torch.zeros((), device=device)
        self.control[SCALE] = _FIRST_SCALE if self.scaled else 1.0

    def norm(self) -> Tensor:
        """Norm of the mean gradients, scalar."""
        total = torch.stack([squared_norm(run.gradients) for run in self.runs]).sum()
        return total.sqrt() * self.factor / self.control[SCALE]

    def step(self, lr: float) -> Tensor:
        """Learn from the gradients; their norm, which is not finite where nothing was learnt."""
        norm = self.norm()
        good = norm.isfinite()
        self.control[STEPS] += good
        self._rate.fill_(lr)
        for run in self.runs:
            adamw(
                run.weights,
                run.copies,
                run.gradients,
                run.moments,
                self.control,
                norm,
                lr=self._rate,
                betas=self.betas,
                eps=1e-8,
                weight_decay=self.weight_decay,
                factor=self.factor,
                max_norm=self.max_norm,
            )
        if self.scaled:
            self._rescale(good)
        return norm

    def refresh(self) -> None:
        """Compute with what the weights are now."""
        for run in self.runs:
            if run.copies is not run.weights:
                run.copies.copy_(run.weights)

    def release(self) -> None:
        """Let the parameters be float32 weights of their own again."""
        for run in self.runs:
            for parameter, weight in zip(run.parameters, run.views(run.weights), strict=True):
                parameter.data = weight.clone(memory_format=torch.preserve_format)
        self.runs, self.parameters = [], {}

    def state(self) -> dict[str, Any]:
        """What a later run needs besides the weights."""
        return {"moments": [run.moments for run in self.runs], "control": self.control}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` left; the weights are already those of then."""
        for run, moments in zip(self.runs, state["moments"], strict=True):
            run.moments.copy_(moments)
        self.control.copy_(state["control"])
        self.refresh()

    def _rescale(self, good: Tensor) -> None:
        """Choose the next step's scale of the loss, without waiting for this one."""
        since = torch.where(good, self.control[GOOD] + 1, 0)
        grown = since >= _PATIENCE
        factor = torch.where(good, torch.where(grown, 2.0, 1.0), 0.5)
        self.control[SCALE] *= factor
        self.control[GOOD] = torch.where(grown, 0, since)


class Buckets:
    """Brings gradients to their place in a run as soon as they are there.

    Last parameters come first. When all of a bucket have come they are copied, or added, and
    handed on, while the others are still being computed; in the order of the buckets, so that all
    processes hand on the same.
    """

    def __init__(self, run: Run, size: int):
        self.run, self.places = run, run.views(run.gradients)
        self.bounds = _bounds(run.starts, size)
        self.bucket = {
            index: number
            for number, (first, last) in enumerate(self.bounds)
            for index in range(first, last)
        }
        self.adding, self.hand_on = False, lambda _: None
        self._waiting: list[set[int]] = []
        self._handed = 0
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(lambda _, at=index: self._came(at))
            for index, parameter in enumerate(run.parameters)
        ]
        self.begin()

    def close(self) -> None:
        """Let go of the parameters, which would otherwise keep the whole run in memory."""
        for hook in self._hooks:
            hook.remove()

    def begin(self) -> None:
        """Expect a gradient for every parameter."""
        self._waiting = [set(range(first, last)) for first, last in self.bounds]
        self._handed = 0

    def end(self) -> None:
        """Finish the buckets of which a parameter had no gradient."""
        for number, waiting in enumerate(self._waiting):
            if waiting:
                if not self.adding:
                    torch._foreach_zero_([self.places[index] for index in waiting])
                self._place(number, waiting)
                waiting.clear()
        self._hand_on()

    def _came(self, index: int) -> None:
        waiting = self._waiting[self.bucket[index]]
        waiting.remove(index)
        if not waiting:
            self._place(self.bucket[index], set())
            self._hand_on()

    def _hand_on(self) -> None:
        """Hand on what is complete and whose turn it is."""
        while self._handed < len(self.bounds) and not self._waiting[self._handed]:
            first, last = self.bounds[self._handed]
            self._handed += 1
            self.hand_on(self.run.gradients[self.run.starts[first] : self.run.starts[last]])

    @torch.no_grad()
    def _place(self, number: int, without: set[int]) -> None:
        first, last = self.bounds[number]
        there = [index for index in range(first, last) if index not in without]
        places = [self.places[index] for index in there]
        came = [self.run.parameters[index].grad for index in there]
        if places and self.adding:
            torch._foreach_add_(places, [one.to(places[0].dtype) for one in came])
        elif places:
            torch._foreach_copy_(places, came)
        for index in there:
            self.run.parameters[index].grad = None


def _shaped(flat: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return flat.view(shape)
    outputs, inputs, height, width = shape
    return flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


def _bounds(starts: Sequence[int], size: int) -> list[tuple[int, int]]:
    """First and last index of buckets of at least `size` numbers, the last parameters first.

    >>> _bounds([0, 4, 6, 9], 4)
    [(1, 3), (0, 1)]
    """
    return list(_cut(starts, size))


def _cut(starts: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    last = len(starts) - 1
    for first in range(last - 1, -1, -1):
        if starts[last] - starts[first] >= size or first == 0:
            yield first, last
            last = first
