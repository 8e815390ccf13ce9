"""Densification by gsplat's strategies, with the opacity reset that gsplat 1.5.3 leaves out.

In 1.5.3 the reset's condition reads `step % reset_every == 0 & step > 0`, which Python takes as a
chain with `0 & step` and is never true (gsplat pull request 776). So what happens after a step is
said here, and how Gaussians grow and are pruned is gsplat's.
"""

import sys
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
    announced: bool = False

    def step_post_backward(
        self,
        params: dict[str, Tensor],
        optimizers: dict[str, Any],
        state: dict[str, Any],
        step: int,
        info: dict[str, Any],
        packed: bool = False,
    ) -> None:
        """Take the statistics of a step; grow, prune and reset when it is time."""
        if step < self.refine_stop_iter:
            self._update_state(params, state, info, packed)
            self.refine(params, optimizers, state, step)

    def acts_at(self, step: int) -> bool:
        """Whether `refine` changes anything at a step."""
        return step < self.refine_stop_iter and (self._refines_at(step) or self._resets_at(step))

    def refine(
        self,
        params: dict[str, Tensor],
        optimizers: dict[str, Any],
        state: dict[str, Any],
        step: int,
    ) -> None:
        """Grow, prune and reset when it is time."""
        if self._refines_at(step):
            self._grow_gs(params, optimizers, state, step)
            self._prune_gs(params, optimizers, state, step)
            for key in ("grad2d", "count", *(["radii"] if "radii" in state else [])):
                state[key].zero_()
        if self._resets_at(step):
            reset_opa(params, optimizers, state, value=2 * self.prune_opa)

    def _refines_at(self, step: int) -> bool:
        paused = step % self.reset_every < self.pause_refine_after_reset
        return step > self.refine_start_iter and step % self.refine_every == 0 and not paused

    def _resets_at(self, step: int) -> bool:
        return step > 0 and step % self.reset_every == 0

    def _update_state(
        self,
        params: dict[str, Tensor],
        state: dict[str, Any],
        info: dict[str, Any],
        packed: bool = False,
    ) -> None:
        """Add one step to the statistics, without the indexing that makes a GPU wait."""
        assert not packed, "statistics are kept of unpacked rasterisation only"
        means2d, radii = info[self.key_for_gradient], info["radii"]
        if state["grad2d"] is None:
            for key in ("grad2d", "count", *(["radii"] if "radii" in state else [])):
                state[key] = torch.zeros(len(params["means"]), device=means2d.device)
        gradient = means2d.absgrad if self.absgrad else means2d.grad  # [C, N, 2]
        across = gradient[..., 0] * (info["width"] / 2 * info["n_cameras"])
        down = gradient[..., 1] * (info["height"] / 2 * info["n_cameras"])
        seen = (radii > 0).all(dim=-1)  # [C, N]
        state["grad2d"] += torch.where(seen, torch.hypot(across, down), 0).sum(0)
        state["count"] += seen.sum(0)
        if "radii" in state:
            size = radii.amax(-1) * seen / max(info["width"], info["height"])
            torch.maximum(state["radii"], size.amax(0), out=state["radii"])

    @torch.no_grad()
    def _grow_gs(
        self,
        params: dict[str, Tensor],
        optimizers: dict[str, Any],
        state: dict[str, Any],
        step: int,
    ) -> tuple[int, int]:
        """Grow as gsplat does while there is room; then those with the largest gradients alone."""
        kept = self._fitting(params, state, step)
        if kept is not None:
            self._announce()
            state["grad2d"][~kept] = 0
            if step < self.refine_scale2d_stop_iter:
                state["radii"][~kept] = state["radii"][~kept].clamp(max=self.grow_scale2d)
        return super()._grow_gs(params, optimizers, state, step)

    def _fitting(
        self, params: dict[str, Tensor], state: dict[str, Any], step: int
    ) -> Tensor | None:
        """Which candidates for growth [N] fit under the limit; None when all do."""
        mean = state["grad2d"] / state["count"].clamp_min(1)
        high = mean > self.grow_grad2d
        largest = params["scales"].amax(-1).exp()
        small = largest <= self.grow_scale3d * state["scene_scale"]
        divides = high & ~small
        if step < self.refine_scale2d_stop_iter:
            divides |= state["radii"] > self.grow_scale2d
        added = (high & small).int() + divides.int()
        room = max(self.max_gaussians - len(mean), 0)
        if int(added.sum()) <= room:
            return None
        order = mean.argsort(descending=True, stable=True)
        fits = torch.empty_like(high)
        fits[order] = added[order].cumsum(0) <= room
        return fits

    def _announce(self) -> None:
        if not self.announced:
            print(
                f"train.max_gaussians: growth is held at {self.max_gaussians} Gaussians",
                file=sys.stderr,
                flush=True,
            )
            self.announced = True


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
        pause_refine_after_reset=int(given.pause_refine_after_reset * config.steps_scaler),
        absgrad=given.absgrad,
        revised_opacity=given.revised_opacity,
        **scaled,
    )
    strategy.max_gaussians = config.max_gaussians
    return strategy


def acts_at(strategy: Strategy, step: int) -> bool:
    """Whether a strategy adds, moves or removes Gaussians after a step."""
    if isinstance(strategy, CappedStrategy):
        return strategy.acts_at(step)
    within = strategy.refine_start_iter < step < strategy.refine_stop_iter
    return within and step % strategy.refine_every == 0


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
