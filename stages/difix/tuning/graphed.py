"""Optimisation steps as CUDA graphs, whose launch takes no time on the CPU.

A step with a batch of one is thousands of small kernels, which a CPU launches more slowly than a
GPU runs them: in float32 on an H200 it took 224 ms, and 72 ms with graphs (`benchmarks/difix.md`).
The forward and backward pass of a micro-batch are recorded once per shape and then replayed,
including the exchange between processes; the optimiser is another handful of kernels. No step
synchronises with the GPU.
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

_BUCKET = 2**25  # gradients per exchange between processes
_WARM_UP = 2
# What a graph depends on: shape of the views, whether the Gram loss counts, and whether the
# micro-batch is the first and the last of its step.
_Key = tuple[torch.Size, bool, bool, bool]


@dataclass
class _RecordedGraph:
    """A graph with its input and output tensors."""

    graph: torch.cuda.CUDAGraph
    views: Tensor
    target: Tensor
    corner: Tensor
    terms: Terms


class GraphedStep:
    """Gradients of a fixer by replay of graphs, and the update of its weights."""

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
        kept = _kept_float32(fixer)
        self._originals = _lower(fixer, set(parameters) | kept, dtype)
        self.master_weights = MasterWeights(
            parameters,
            kept & set(parameters),
            dtype,
            betas=betas,
            weight_decay=weight_decay,
            max_norm=max_norm,
            factor=1 / (accumulation * self.processes),
            gradient_dtype=dtype if accumulation == 1 else torch.float32,
        )
        fuse(fixer)
        self._buckets = [Buckets(group, _BUCKET) for group in self.master_weights.groups]
        self._graphs: dict[_Key, _RecordedGraph] = {}
        self._pool: Any = None
        if self.processes > 1:
            # NCCL cannot connect while a graph is being recorded.
            dist.all_reduce(torch.zeros(1, device=self.master_weights.control.device))
        self._first = True

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The trained parameters, float32, by name."""
        return self.master_weights.parameters

    @property
    def may_overflow(self) -> bool:
        """Whether steps whose gradients overflow are skipped."""
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
        """Accumulate the gradients of a micro-batch; `last`: it is the last of its step.

        The next call overwrites the returned terms.
        """
        assert generator is None, "a graph would sample the same latent at every replay"
        first, self._first = self._first, last
        corner = loss.corner(step, *target.shape[-2:])
        key = views.shape, loss.has_gram(step), first, last
        if key not in self._graphs:
            self._graphs[key] = self._record(loss, views, target, corner, step, first, last)
        recorded = self._graphs[key]
        recorded.views.copy_(views)
        recorded.target.copy_(target)
        recorded.corner.copy_(corner, non_blocking=True)
        recorded.graph.replay()
        return recorded.terms

    def learn(self, lr: float) -> tuple[Tensor, bool]:
        """Update the weights; the gradients' norm, and True: a skip is not known without a sync."""
        return self.master_weights.step(lr), True

    def refresh(self) -> None:
        """Copy the master weights to the network, after they were written from outside."""
        self.master_weights.refresh()

    def state(self) -> dict[str, Any]:
        """State of the optimiser, without the weights."""
        return self.master_weights.state()

    def load(self, state: dict[str, Any]) -> None:
        """Restore the result of `state`."""
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
    ) -> _RecordedGraph:
        views, target = views.clone(), target.clone()
        corner = corner.to(views.device)

        def work(exchanging: bool) -> Terms:
            output = self.fixer(views)
            terms = loss(output, target, step, corner)
            self._backward(
                terms.loss * self.master_weights.control[SCALE], first, exchanging and last
            )
            return Terms(*(term.detach() for term in terms))

        before = [] if first else [group.gradients.clone() for group in self.master_weights.groups]
        graph, terms = self._record_graph(work)
        for group, gradients in zip(self.master_weights.groups, before, strict=False):
            group.gradients.copy_(gradients)
        return _RecordedGraph(graph, views, target, corner, terms)

    def _record_graph(self, work: Callable[[bool], Terms]) -> tuple[torch.cuda.CUDAGraph, Terms]:
        """The graph of `work`, and the terms that it writes.

        Warm-up calls come first, without exchange: other processes may already have their graph.
        """
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):
                work(False)
        torch.cuda.current_stream().wait_stream(stream)
        torch.cuda.empty_cache()  # a graph allocates memory of its own
        # Replays are sequential, so graphs can share memory.
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"
        ):
            terms = work(True)
        return graph, terms

    def _backward(self, loss: Tensor, first: bool, exchanging: bool) -> None:
        """Backward pass into the flat gradients, which are summed over processes."""
        pending: list[dist.Work] = []

        def exchange(gradients: Tensor) -> None:
            if exchanging and self.processes > 1:
                pending.append(dist.all_reduce(gradients, async_op=True))

        large, *small = self._buckets
        large.on_ready = exchange
        for buckets in self._buckets:
            buckets.adding = not first
            buckets.begin()
        loss.backward()
        for buckets in self._buckets:
            buckets.end()
        for buckets in small:
            exchange(buckets.group.gradients)
        for reduction in pending:
            reduction.wait()

    def release(self) -> Fixer:
        """The fixer in float32 with its trained weights, free of graphs."""
        self._graphs.clear()
        for buckets in self._buckets:
            buckets.close()
        self._buckets = []
        self.master_weights.release()
        for tensor, original in self._originals:
            tensor.data = original.to(tensor.device)
        return self.fixer


def _kept_float32(fixer: Fixer) -> set[str]:
    """Names of parameters that stay float32, because a lower precision would round changes away.

    Low-rank changes are small compared with the weights that they are added to.
    """
    if fixer.lora is None:
        return set()
    layers = {id(layer) for layer in fixer._lora_layers().values()}
    return {
        name
        for name, parameter in fixer.named_parameters()
        if name.startswith("lora.") or id(parameter) in layers
    }


def _lower(fixer: Fixer, spared: set[str], dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
    """Cast all tensors but `spared` to `dtype`; those cast, each with its original on the CPU."""
    originals = []
    for name, tensor in [*fixer.named_parameters(), *fixer.named_buffers()]:
        if name not in spared and tensor.is_floating_point() and tensor.dtype != dtype:
            originals.append((tensor, tensor.detach().cpu()))
            tensor.data = tensor.data.to(dtype)
    return originals
