"""Optimisation steps as CUDA graphs: what takes no time to launch, whatever the CPU is doing.

A step of a batch of one is thousands of small kernels, which a CPU launches more slowly than a GPU
works them off: in float32 an H200 took 224 ms so, and 72 by graphs (`benchmarks/difix.md`). Here
forward and backward pass of a micro-batch are recorded once for every shape and then replayed, with
the exchange between processes inside; the optimiser follows in a handful of kernels. Nothing in a
step waits for the GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stages.difix.gpu.adam import SCALE
from stages.difix.gpu.fused import fuse
from stages.difix.gpu.master_weights import Buckets, MasterWeights
from stages.difix.network.model import Fixer
from stages.difix.tuning.losses import FixerLoss, Terms

_BUCKET = 2**25  # numbers that are exchanged at once
_WARM_UP = 2
# What a recording depends on besides shapes: whether Gram matrices count, and whether a
# micro-batch is the first and the last of its step.
_Key = tuple[torch.Size, bool, bool, bool]


@dataclass
class _Recording:
    """A graph, where it reads and where it writes."""

    graph: torch.cuda.CUDAGraph
    views: Tensor
    target: Tensor
    corner: Tensor
    terms: Terms


class GraphedStep:
    """Gradients of a fixer by replay, and the weights that learn from them."""

    def __init__(
        self,
        fixer: Fixer,
        parameters: dict[str, torch.nn.Parameter],
        dtype: torch.dtype,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        max_norm: float,
        accumulation: int,
    ):
        self.fixer, self.dtype = fixer, dtype
        self.processes = dist.get_world_size() if dist.is_initialized() else 1
        kept = _kept(fixer)
        self._originals = _lower(fixer, set(parameters) | kept, dtype)
        self.master_weights = MasterWeights(
            parameters,
            kept & set(parameters),
            dtype,
            betas=betas,
            weight_decay=weight_decay,
            max_norm=max_norm,
            factor=1 / (accumulation * self.processes),
            summed=dtype if accumulation == 1 else torch.float32,
        )
        fuse(fixer)
        self._buckets = [Buckets(run, _BUCKET) for run in self.master_weights.runs]
        self._recordings: dict[_Key, _Recording] = {}
        self._pool: Any = None
        if self.processes > 1:
            # Connections cannot be made while a graph is recorded.
            dist.all_reduce(torch.zeros(1, device=self.master_weights.control.device))
        self._first = True

    @property
    def parameters(self) -> dict[str, Tensor]:
        """What is learnt, float32, by name."""
        return self.master_weights.parameters

    @property
    def may_overflow(self) -> bool:
        """Whether a step whose gradients overflow is left out."""
        return self.master_weights.scaled

    def gradients(
        self,
        loss: FixerLoss,
        views: Tensor,
        target: Tensor,
        step: int,
        *,
        last: bool,
        generator: torch.Generator | None = None,
    ) -> Terms:
        """Add a micro-batch's gradients to those that are there; `last` of its step or not.

        The terms are overwritten by the next call.
        """
        assert generator is None, "a graph would draw the same latent again and again"
        first, self._first = self._first, last
        corner = loss.corner(step, *target.shape[-2:])
        key = views.shape, loss.has_gram(step), first, last
        if key not in self._recordings:
            self._recordings[key] = self._record(loss, views, target, corner, step, first, last)
        found = self._recordings[key]
        found.views.copy_(views)
        found.target.copy_(target)
        found.corner.copy_(corner, non_blocking=True)
        found.graph.replay()
        return found.terms

    def learn(self, lr: float) -> tuple[Tensor, bool]:
        """Move the weights; the gradients' norm, and whether they moved as far as is known."""
        return self.master_weights.step(lr), True

    def refresh(self) -> None:
        """Weights that were written are computed with from now on."""
        self.master_weights.refresh()

    def state(self) -> dict[str, Any]:
        """What a later run needs besides the weights."""
        return self.master_weights.state()

    def load(self, state: dict[str, Any]) -> None:
        """Take up what `state` left."""
        self.master_weights.load(state)

    def _record(
        self,
        loss: FixerLoss,
        views: Tensor,
        target: Tensor,
        corner: Tensor,
        step: int,
        first: bool,
        last: bool,
    ) -> _Recording:
        views, target = views.clone(), target.clone()
        corner = corner.to(views.device)

        def work(exchanging: bool) -> Terms:
            output = self.fixer(views)
            terms = loss(output, target, step, corner)
            self._backward(
                terms.loss * self.master_weights.control[SCALE], first, exchanging and last
            )
            return Terms(*(one.detach() for one in terms))

        before = [] if first else [run.gradients.clone() for run in self.master_weights.runs]
        graph, terms = self._captured(work)
        for run, gradients in zip(self.master_weights.runs, before, strict=False):
            run.gradients.copy_(gradients)
        return _Recording(graph, views, target, corner, terms)

    def _captured(self, work: Callable[[bool], Terms]) -> tuple[torch.cuda.CUDAGraph, Terms]:
        """A recording of some work, and what it gives.

        The work is done a few times before, then without exchange: other processes may have a
        recording of theirs already.
        """
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(_WARM_UP):
                work(False)
        torch.cuda.current_stream().wait_stream(beside)
        torch.cuda.empty_cache()  # a recording has memory of its own
        # Replays follow one another, so they can share their memory.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=beside, capture_error_mode="thread_local"
        ):
            terms = work(True)
        return graph, terms

    def _backward(self, loss: Tensor, first: bool, exchanging: bool) -> None:
        """Gradients of the loss to their places, and summed over processes."""
        pending: list[dist.Work] = []

        def exchange(part: Tensor) -> None:
            if exchanging and self.processes > 1:
                pending.append(dist.all_reduce(part, async_op=True))

        large, *small = self._buckets
        large.hand_on = exchange
        for buckets in self._buckets:
            buckets.adding = not first
            buckets.begin()
        loss.backward()
        for buckets in self._buckets:
            buckets.end()
        for buckets in small:
            exchange(buckets.run.gradients)
        for one in pending:
            one.wait()

    def release(self) -> Fixer:
        """The fixer as it came: float32, with what was learnt."""
        self._recordings.clear()
        for buckets in self._buckets:
            buckets.close()
        self._buckets = []
        self.master_weights.release()
        for tensor, original in self._originals:
            tensor.data = original.to(tensor.device)
        return self.fixer


def _kept(fixer: Fixer) -> set[str]:
    """Names of parameters that stay float32: those whose sums a lower precision would round away.

    Low-rank changes are small beside the weights that they are added to.
    """
    if fixer.lora is None:
        return set()
    layers = {id(one) for one in fixer._lora_layers().values()}
    return {
        name
        for name, one in fixer.named_parameters()
        if name.startswith("lora.") or id(one) in layers
    }


def _lower(fixer: Fixer, spared: set[str], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Bring what isn't learnt to a precision; each tensor with its original, on the CPU."""
    found = []
    for name, one in [*fixer.named_parameters(), *fixer.named_buffers()]:
        if name not in spared and one.is_floating_point() and one.dtype != dtype:
            found.append((one, one.detach().cpu()))
            one.data = one.data.to(dtype)
    return found
