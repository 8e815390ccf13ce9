"""Master weights in float32, and copies of them in the precision of the network.

A weight in bf16 would not change at the learning rates of fine-tuning, so the fixer computes with
copies in lower precision, as are their gradients; master weights and moments are float32. Each kind
is contiguous in memory: processes exchange slices without copying, and an optimisation step is a
handful of kernels.

On an H200 a step is 1.18 times as fast as autocast with torch's fused AdamW, with the same layers
and also as a CUDA graph (`benchmarks/difix.md`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stages.difix.gpu.adam import GOOD, SCALE, STEPS, adamw, squared_norm

_ALIGNED = 64  # values
# As torch's GradScaler: halved when gradients overflow, doubled after so many steps without.
_FIRST_SCALE, _PATIENCE = 2.0**16, 2000


class FlatParameters:
    """Parameters in contiguous memory: master weights, their copies, gradients and moments.

    The parameters themselves become the copies.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        dtype: torch.dtype,
        gradient_dtype: torch.dtype,
    ):
        self.names, self.parameters = list(parameters), list(parameters.values())
        device = self.parameters[0].device
        self.starts = [0]
        for parameter in self.parameters:
            self.starts.append(self.starts[-1] + -(-parameter.numel() // _ALIGNED) * _ALIGNED)
        total = self.starts[-1]
        self.weights = torch.zeros(total, device=device)
        self.copies = self.weights
        if dtype != torch.float32:
            self.copies = torch.zeros(total, dtype=dtype, device=device)
        triples = zip(
            self.parameters, self.views(self.weights), self.views(self.copies), strict=True
        )
        for parameter, weight, copy in triples:
            weight.copy_(parameter.detach())
            copy.copy_(weight)
            parameter.data = copy
        # Allocated after the parameters' own memory has been freed.
        self.gradients = torch.zeros(total, dtype=gradient_dtype, device=device)
        self.moments = torch.zeros(2, total, device=device)

    def views(self, flat: Tensor) -> list[Tensor]:
        """Views of a flat tensor in the shape of each parameter, 4D ones channels last."""
        return [
            _shaped(flat[start : start + parameter.numel()], parameter.shape)
            for start, parameter in zip(self.starts, self.parameters, strict=False)
        ]


class MasterWeights:
    """The trained weights of a fixer in float32, and AdamW over them."""

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
        gradient_dtype: torch.dtype,
    ):
        """Copy the parameters and allocate gradients and moments.

        Args:
            parameters: the trained parameters, by name.
            kept: names of those that the network uses in float32.
            dtype: precision of the others in the network.
            betas: decay of AdamW's first and second moment.
            weight_decay: of AdamW, relative to the learning rate.
            max_norm: bound of the gradients' norm; 0 or less: none.
            factor: turns summed gradients into means.
            gradient_dtype: precision in which the gradients of the others are summed.
        """
        single = torch.float32
        low = {name: weight for name, weight in parameters.items() if name not in kept}
        high = {name: weight for name, weight in parameters.items() if name in kept}
        self.groups = [FlatParameters(low, dtype, gradient_dtype)] if low else []
        self.groups += [FlatParameters(high, single, single)] if high else []
        self.betas, self.weight_decay, self.max_norm = betas, weight_decay, max(max_norm, 0.0)
        self.factor, self.scaled = factor, dtype == torch.float16
        weights = {
            name: weight
            for group in self.groups
            for name, weight in zip(group.names, group.views(group.weights), strict=True)
        }
        self.parameters = {name: weights[name] for name in parameters}
        device = self.groups[0].weights.device
        self.control = torch.zeros(3, device=device)
        self._rate = torch.zeros((), device=device)
        self.control[SCALE] = _FIRST_SCALE if self.scaled else 1.0

    def norm(self) -> Tensor:
        """Norm of the mean gradients, scalar."""
        total = torch.stack([squared_norm(group.gradients) for group in self.groups]).sum()
        return total.sqrt() * self.factor / self.control[SCALE]

    def step(self, lr: float) -> Tensor:
        """Update the weights; the gradients' norm, which is not finite if the step was skipped."""
        norm = self.norm()
        finite = norm.isfinite()
        self.control[STEPS] += finite
        self._rate.fill_(lr)
        for group in self.groups:
            adamw(
                group.weights,
                group.copies,
                group.gradients,
                group.moments,
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
            self._rescale(finite)
        return norm

    def refresh(self) -> None:
        """Copy the master weights to the network, after they were written from outside."""
        for group in self.groups:
            if group.copies is not group.weights:
                group.copies.copy_(group.weights)

    def release(self) -> None:
        """Make the parameters separate float32 weights again."""
        for group in self.groups:
            for parameter, weight in zip(group.parameters, group.views(group.weights), strict=True):
                parameter.data = weight.clone(memory_format=torch.preserve_format)
        self.groups, self.parameters = [], {}

    def state(self) -> dict[str, Any]:
        """State of the optimiser, without the weights."""
        return {"moments": [group.moments for group in self.groups], "control": self.control}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the result of `state`; the weights must have been restored before."""
        for group, moments in zip(self.groups, state["moments"], strict=True):
            group.moments.copy_(moments)
        self.control.copy_(state["control"])
        self.refresh()

    def _rescale(self, finite: Tensor) -> None:
        """Set the next step's scale of the loss, without a synchronisation."""
        steps = torch.where(finite, self.control[GOOD] + 1, 0)
        grows = steps >= _PATIENCE
        factor = torch.where(finite, torch.where(grows, 2.0, 1.0), 0.5)
        self.control[SCALE] *= factor
        self.control[GOOD] = torch.where(grows, 0, steps)


class Buckets:
    """Collects gradients in contiguous buckets while the backward pass is running.

    Backward computes the last parameters first. A complete bucket is copied or added to the flat
    gradients and then passed to `on_ready` while others are still being computed. The
    order of buckets is fixed, so that all processes exchange the same one.
    """

    def __init__(self, group: FlatParameters, size: int):
        self.group, self.views = group, group.views(group.gradients)
        self.bounds = _bounds(group.starts, size)
        self.bucket = {
            index: number
            for number, (first, last) in enumerate(self.bounds)
            for index in range(first, last)
        }
        self.adding, self.on_ready = False, lambda _: None
        self._missing: list[set[int]] = []
        self._emitted = 0
        self._hooks = [
            parameter.register_post_accumulate_grad_hook(lambda _, at=index: self._receive(at))
            for index, parameter in enumerate(group.parameters)
        ]
        self.begin()

    def close(self) -> None:
        """Remove the hooks of the parameters, which would keep the whole group in memory."""
        for hook in self._hooks:
            hook.remove()

    def begin(self) -> None:
        """Expect a gradient of every parameter."""
        self._missing = [set(range(first, last)) for first, last in self.bounds]
        self._emitted = 0

    def end(self) -> None:
        """Complete the buckets in which a parameter had no gradient."""
        for number, missing in enumerate(self._missing):
            if missing:
                if not self.adding:
                    torch._foreach_zero_([self.views[index] for index in missing])
                self._collect(number, missing)
                missing.clear()
        self._emit()

    def _receive(self, index: int) -> None:
        missing = self._missing[self.bucket[index]]
        missing.remove(index)
        if not missing:
            self._collect(self.bucket[index], set())
            self._emit()

    def _emit(self) -> None:
        """Pass on complete buckets, in order."""
        while self._emitted < len(self.bounds) and not self._missing[self._emitted]:
            first, last = self.bounds[self._emitted]
            self._emitted += 1
            self.on_ready(self.group.gradients[self.group.starts[first] : self.group.starts[last]])

    @torch.no_grad()
    def _collect(self, number: int, missing: set[int]) -> None:
        first, last = self.bounds[number]
        indices = [index for index in range(first, last) if index not in missing]
        views = [self.views[index] for index in indices]
        gradients = [self.group.parameters[index].grad for index in indices]
        if views and self.adding:
            torch._foreach_add_(views, [gradient.to(views[0].dtype) for gradient in gradients])
        elif views:
            torch._foreach_copy_(views, gradients)
        for index in indices:
            self.group.parameters[index].grad = None


def _shaped(flat: Tensor, shape: torch.Size) -> Tensor:
    if len(shape) != 4:
        return flat.view(shape)
    outputs, inputs, height, width = shape
    return flat.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


def _bounds(starts: Sequence[int], size: int) -> list[tuple[int, int]]:
    """First and last index of buckets of at least `size` values, last parameters first.

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
