"""Densification by gsplat's strategies, with the opacity reset that gsplat 1.5.3 leaves out.

In 1.5.3 the reset's condition reads `step % reset_every == 0 & step > 0`, which Python takes as a
chain with `0 & step` and is never true (gsplat pull request 776). The reset is repeated here; a
version that resets by itself is not harmed, since the clamp may run twice.
"""

from typing import Any

import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.splat.config import TrainConfig
from stages.splat.raster import DefaultStrategy, MCMCStrategy, reset_opa

Strategy = DefaultStrategy | MCMCStrategy


class CappedStrategy(DefaultStrategy):
    """gsplat's default strategy with a working reset and a limit on the number of Gaussians."""

    max_gaussians: int = 1_000_000

    def step_post_backward(
        self,
        params: dict[str, Tensor],
        optimizers: dict[str, Any],
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
    ) -> None:
        """Grow, prune and reset when it is time."""
        super().step_post_backward(params, optimizers, state, step, info, packed)
        if 0 < step < self.refine_stop_iter and step % self.reset_every == 0:
            reset_opa(params, optimizers, state, value=2 * self.prune_opa)

    @torch.no_grad()
    def _grow_gs(
        self,
        params: dict[str, Tensor],
        optimizers: dict[str, Any],
        state: dict[str, Any],
        step: int,
    ) -> tuple[int, int]:
        room = self.max_gaussians - len(params["means"])
        if room <= 0:
            return 0, 0
        # Each candidate adds one: only the strongest that still fit may act.
        mean = state["grad2d"] / state["count"].clamp_min(1)
        wanted = int((mean > self.grow_grad2d).sum())
        if state.get("radii") is not None:
            too_large = int((state["radii"] > self.grow_scale2d).sum())
            if wanted + too_large > room:
                state["radii"].zero_()
        if wanted > room:
            kept = torch.zeros_like(mean, dtype=torch.bool)
            kept[mean.topk(room).indices] = True
            state["grad2d"][~kept] = 0
        return super()._grow_gs(params, optimizers, state, step)


def build(config: TrainConfig, backend: str) -> Strategy:
    """The strategy that `train.strategy` names, its step numbers scaled."""
    given = config.strategy
    scaled = {
        key: config.scaled(getattr(given, key))
        for key in ("refine_start_iter", "refine_stop_iter", "refine_every")
    }
    if given.kind == "mcmc":
        if backend == "cpu":
            raise UserError(
                "train.strategy.kind", "mcmc on the CPU", expected="a CUDA device",
                fix="set train.strategy.kind: default",
            )  # fmt: skip
        return MCMCStrategy(cap_max=config.max_gaussians, min_opacity=given.prune_opa, **scaled)
    strategy = CappedStrategy(
        prune_opa=given.prune_opa,
        grow_grad2d=given.grow_grad2d,
        grow_scale3d=given.grow_scale3d,
        grow_scale2d=given.grow_scale2d,
        prune_scale3d=given.prune_scale3d,
        prune_scale2d=given.prune_scale2d,
        refine_scale2d_stop_iter=config.scaled(given.refine_scale2d_stop_iter)
        if given.refine_scale2d_stop_iter
        else 0,
        reset_every=config.scaled(given.reset_every),
        pause_refine_after_reset=given.pause_refine_after_reset,
        absgrad=given.absgrad,
        revised_opacity=given.revised_opacity,
        **scaled,
    )
    strategy.max_gaussians = config.max_gaussians
    return strategy


def after_backward(
    strategy: Strategy,
    params: dict[str, Tensor],
    optimizers: dict[str, Any],
    state: dict[str, Any],
    step: int,
    info: dict[str, Any],
    means_lr: float,
) -> None:
    """One call for both strategies."""
    if isinstance(strategy, MCMCStrategy):
        strategy.step_post_backward(params, optimizers, state, step, info, lr=means_lr)
    else:
        strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
