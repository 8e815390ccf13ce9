"""A fixer's layers and tuning steps in plain torch, for comparison with `stages.difix.gpu`.

Layers: `eager` are those of diffusers, channels last, and `first` the same channels first;
`scores` stores the scores of the VAE's attention in memory. `compile`, `autotune` and `overhead`
are `scores` with modes of torch.compile. `fused` are those of `stages.difix.gpu.fused`, and `norms`
the same with torch.compile instead of Triton's kernels.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from stages.difix.network.model import Fixer
from stages.difix.network.onestep import alpha_bar
from stages.difix.tuning.losses import FixerLoss, Terms

MODES = {
    "compile": "default",
    "autotune": "max-autotune-no-cudagraphs",
    "overhead": "reduce-overhead",
}
_MAX_SHAPES = 512  # compiled by torch.compile per function
_WARM_UP = 3


def use_layers(fixer: Fixer, layers: str) -> None:
    """Replace a fixer's layers by those that `layers` names."""
    torch._dynamo.reset()
    if layers == "first":
        fixer.to(memory_format=torch.contiguous_format)
    if layers in ("eager", "first"):
        return
    # A local import, because its kernels need triton, which is installed only with CUDA.
    from stages.difix.gpu import fused

    if layers in ("fused", "norms"):
        fused.fuse(fixer)
        return
    for module in fixer.vae.modules():
        if type(module).__name__ == "Attention":
            module.set_processor(_Scores(fused.wide_attention))
    if layers in MODES:
        torch.compiler.assume_constant_result(alpha_bar)  # else it would break the graph
        fixer.compile(dynamic=False, mode=MODES[layers])


def kernels(layers: str) -> AbstractContextManager[Any]:
    """A context in which the kernels that `layers` needs are used."""
    if layers != "norms":
        return nullcontext()
    return patch.multiple("stages.difix.gpu.fused", **compiled_norms())


class _Scores:
    """The VAE's attention over pixels with its scores stored in memory."""

    def __init__(self, attention: Callable[..., Tensor]):
        self.attention = attention

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: None = None,
    ) -> Tensor:
        count, channels, height, width = hidden_states.shape
        tokens = attn.group_norm(hidden_states).permute(0, 2, 3, 1)
        tokens = tokens.reshape(count, height * width, channels)
        mixed = self.attention(attn.to_q(tokens), attn.to_k(tokens), attn.to_v(tokens))
        mixed = attn.to_out[0](mixed).reshape(count, height, width, channels)
        return mixed.permute(0, 3, 1, 2) + hidden_states


def compiled_norms() -> dict[str, Callable[..., Tensor]]:
    """Functions of `groupnorm` that `fused` uses, by torch.compile."""
    torch._dynamo.config.recompile_limit = _MAX_SHAPES
    normalise = torch.compile(normalised, dynamic=False)

    def group_norm(
        x: Tensor, layer: nn.GroupNorm, *, silu: bool = False, shift: Tensor | None = None
    ) -> Tensor:
        x = x.contiguous(memory_format=torch.channels_last)
        return normalise(x, layer.weight, layer.bias, shift, layer.num_groups, layer.eps, silu)

    return {"group_norm": group_norm, "add": torch.compile(added, dynamic=False)}


def normalised(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    shift: Tensor | None,
    groups: int,
    eps: float,
    silu: bool,
) -> Tensor:
    """Group normalisation from statistics per channel, so that whole rows of memory are read."""
    wide = x.float()
    variance, mean = torch.var_mean(wide, dim=(2, 3), correction=0)  # [N, C]
    shifted = mean if shift is None else mean + shift
    grouped = shifted.unflatten(1, (groups, -1))
    centre = grouped.mean(2, keepdim=True)
    spread = variance.unflatten(1, (groups, -1)) + (grouped - centre).square()
    inverse = (spread.mean(2, keepdim=True) + eps).rsqrt().expand_as(grouped).flatten(1)
    scale = inverse * weight
    offset = bias - centre.expand_as(grouped).flatten(1) * scale
    if shift is not None:
        offset = offset + shift * scale
    y = wide * scale[..., None, None] + offset[..., None, None]
    return (F.silu(y) if silu else y).to(x.dtype)


def added(x: Tensor, other: Tensor, bias: Tensor) -> Tensor:
    """`x + other + bias`."""
    return x + other + bias[:, None, None]


class TorchStep:
    """A tuning step in plain torch: autocast to bf16, fused AdamW; by CUDA graphs if `recorded`."""

    may_overflow = False

    def __init__(
        self,
        fixer: Fixer,
        parameters: dict[str, nn.Parameter],
        dtype: torch.dtype,
        recorded: bool,
        *,
        betas: tuple[float, float],
        weight_decay: float,
        max_norm: float,
        accumulation: int,
    ):
        assert accumulation == 1, "micro-batches are not supported"
        self.fixer, self.parameters, self.dtype = fixer, parameters, dtype
        self.recorded, self.max_norm = recorded, max_norm
        device = next(iter(parameters.values())).device
        self.rate, self.norm = torch.zeros((), device=device), torch.zeros((), device=device)
        on_gpu = device.type == "cuda"
        self.adam = torch.optim.AdamW(
            list(parameters.values()),
            self.rate,
            betas,
            weight_decay=weight_decay,
            fused=on_gpu,
            capturable=on_gpu,
        )
        self._graphs: list[torch.cuda.CUDAGraph] = []

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
        """Compute the gradients of a batch; `last` and `generator` as in other steppers."""
        assert last, "micro-batches are not supported"
        if not self.recorded:
            return self._gradients(loss, views, target, step, loss.corner(step, *views.shape[-2:]))
        if not self._graphs:
            self._record(loss, views.clone(), target.clone(), step)
        self.views.copy_(views)
        self.target.copy_(target)
        self._graphs[0].replay()
        return self.terms

    def learn(self, lr: float) -> tuple[Tensor, bool]:
        """Update the weights; the gradients' norm, and True."""
        self.rate.fill_(lr)
        if self.recorded:
            self._graphs[1].replay()
        else:
            self._learn()
        return self.norm, True

    def release(self) -> Fixer:
        """The fixer."""
        self._graphs.clear()
        return self.fixer

    def _gradients(
        self, loss: FixerLoss, views: Tensor, target: Tensor, step: int, corner: Tensor
    ) -> Terms:
        self.adam.zero_grad()
        with torch.autocast(views.device.type, self.dtype, self.dtype != torch.float32):
            output = self.fixer(views)
        terms = loss(output, target, step, corner)
        terms.loss.backward()
        return Terms(*(term.detach() for term in terms))

    def _learn(self) -> None:
        parameters = list(self.parameters.values())
        self.norm.copy_(torch.nn.utils.clip_grad_norm_(parameters, self.max_norm or 1e30))
        self.adam.step()

    def _record(self, loss: FixerLoss, views: Tensor, target: Tensor, step: int) -> None:
        self.views, self.target = views, target
        corner = loss.corner(step, *views.shape[-2:]).to(views.device)
        work = partial(self._gradients, loss, views, target, step, corner)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UP):  # with a learning rate of 0
                work()
                self._learn()
        torch.cuda.current_stream().wait_stream(stream)
        for state in self.adam.state.values():
            for tensor in state.values():
                tensor.zero_()
        self.adam.zero_grad()
        torch.cuda.empty_cache()
        pool, (first, second) = (
            torch.cuda.graph_pool_handle(),
            (torch.cuda.CUDAGraph() for _ in "12"),
        )
        with torch.cuda.graph(first, pool=pool, stream=stream):
            self.terms = work()
        with torch.cuda.graph(second, pool=pool, stream=stream):
            self._learn()
        self._graphs = [first, second]
