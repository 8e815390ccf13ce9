"""Densification by gsplat's strategies, with the opacity reset that gsplat 1.5.3 leaves out.

In 1.5.3 the reset's condition reads `step % reset_every == 0 & step > 0`, which Python parses as a
chain with `0 & step` and is never true (gsplat pull request 776). So when Gaussians are refined is
decided here; how they are duplicated, split and pruned is gsplat's.
"""

import logging
from typing import Any

import torch
from torch import Tensor

from stages.run.errors import UserError
from stages.run.notes import unshown
from stages.splat.config import TrainConfig
from stages.splat.raster import DefaultStrategy, MCMCStrategy, reset_opa

_LOGGER = logging.getLogger(__name__)
_LEAST_OPACITY = 1 / 128  # that halving leaves
_ABOVE_PRUNED = 1.1  # times prune_opa, where that is more

Strategy = DefaultStrategy | MCMCStrategy


class CappedStrategy(DefaultStrategy):
    """gsplat's default strategy with a working reset and a limit on the number of Gaussians."""

    max_gaussians: int = 1_000_000
    halve_every: int = 0  # steps between halvings of all opacities; 0: never
    announced: bool = False  # that growth is held at the limit

    def acts_at(self, step: int) -> bool:
        """Whether `refine` changes anything at a step."""
        halves = step < self.refine_stop_iter and self._halves_at(step)
        return halves or self.replaces_at(step)

    def replaces_at(self, step: int) -> bool:
        """Whether `refine` replaces parameters at a step, rather than changing them in place."""
        replaces = self._refines_at(step) or self._resets_at(step)
        return step < self.refine_stop_iter and replaces

    def refine(
        self,
        params: dict[str, Tensor],
        optimizers: dict[str, Any],
        state: dict[str, Any],
        step: int,
    ) -> None:
        """Grow, prune and reset at the steps for it.

        A Gaussian with a large mean gradient is duplicated when it is small and split in two when
        it is large (`duplicate` and `split` of gsplat's strategy/ops.py, by `_grow_gs`).
        """
        if self._refines_at(step):
            self._grow_gs(params, optimizers, state, step)
            self._prune_gs(params, optimizers, state, step)
            for key in ("grad2d", "count", *(["radii"] if "radii" in state else [])):
                state[key].zero_()
        if self._resets_at(step):
            reset_opa(params, optimizers, state, value=2 * self.prune_opa)
        elif self._halves_at(step):
            least = max(_LEAST_OPACITY, _ABOVE_PRUNED * self.prune_opa)
            _halve(params["opacities"], least)
        if self._halves_at(step):
            _forget_moments(optimizers)

    def _refines_at(self, step: int) -> bool:
        paused = step % self.reset_every < self.pause_refine_after_reset
        return step > self.refine_start_iter and step % self.refine_every == 0 and not paused

    def _resets_at(self, step: int) -> bool:
        return step > 0 and step % self.reset_every == 0

    def _halves_at(self, step: int) -> bool:
        return self.halve_every > 0 and step > 0 and step % self.halve_every == 0

    def collect(
        self, params: dict[str, Tensor], state: dict[str, Any], info: dict[str, Any]
    ) -> None:
        """Add one step to the statistics, without the indexing that makes a GPU wait."""
        means2d, radii = info[self.key_for_gradient], info["radii"]
        if state["grad2d"] is None:
            for key in ("grad2d", "count", *(["radii"] if "radii" in state else [])):
                state[key] = torch.zeros(len(params["means"]), device=means2d.device)
        gradient = means2d.absgrad if self.absgrad else means2d.grad  # [C, N, 2]
        across = gradient[..., 0] * (info["width"] / 2 * info["n_cameras"])
        down = gradient[..., 1] * (info["height"] / 2 * info["n_cameras"])
        visible = (radii > 0).all(dim=-1)  # [C, N]
        state["grad2d"] += torch.where(visible, torch.hypot(across, down), 0).sum(0)
        state["count"] += visible.sum(0)
        if "radii" in state:
            size = radii.amax(-1) * visible / max(info["width"], info["height"])
            torch.maximum(state["radii"], size.amax(0), out=state["radii"])

    @torch.no_grad()
    def _grow_gs(
        self,
        params: dict[str, Tensor],
        optimizers: dict[str, Any],
        state: dict[str, Any],
        step: int,
    ) -> tuple[int, int]:
        """Grow as gsplat does up to the limit; beyond it, only the largest mean gradients."""
        fits = self._fitting(params, state, step)
        if fits is not None:
            self._announce()
            state["grad2d"][~fits] = 0
            if step < self.refine_scale2d_stop_iter:
                state["radii"][~fits] = state["radii"][~fits].clamp(max=self.grow_scale2d)
        return super()._grow_gs(params, optimizers, state, step)

    def _fitting(
        self, params: dict[str, Tensor], state: dict[str, Any], step: int
    ) -> Tensor | None:
        """Which Gaussians [N] may grow without exceeding the limit; None when all may."""
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
            held = f"train.max_gaussians: growth is held at {self.max_gaussians} Gaussians"
            for note in unshown([held]):
                _LOGGER.warning(note)
            self.announced = True


@torch.no_grad()
def _halve(logits: Tensor, least: float) -> None:
    """Halve all opacities, but none to below `least`.

    What images determine grows back; floaters fade (LiteGS, Liao et al. 2025).
    """
    opacities = torch.sigmoid(logits)
    halved = torch.minimum(opacities, (opacities / 2).clamp_min(least))
    logits.copy_(torch.logit(halved))


def _forget_moments(optimizers: dict[str, Any]) -> None:
    """Clear the moments of the Gaussians' parameters, while Adam counts its steps on.

    Adam corrects the bias of the first steps only, so those that follow are up to 6.6 times as
    long. What that gains beside halving is in benchmarks/README.md.
    """
    for optimizer in optimizers.values():
        for moments in optimizer.state.values():
            moments["exp_avg"].zero_()
            moments["exp_avg_sq"].zero_()


def build(config: TrainConfig, backend: str) -> Strategy:
    """The strategy that `train.strategy` names, its step numbers scaled."""
    strategy = config.strategy
    scaled = {
        key: config.scaled(getattr(strategy, key))
        for key in ("refine_start_iter", "refine_stop_iter", "refine_every")
    }
    if strategy.kind == "mcmc":
        if backend == "cpu":
            raise UserError(
                "train.strategy.kind",
                "mcmc on the CPU",
                expected="a CUDA device",
                fix="set train.strategy.kind: default",
            )
        return MCMCStrategy(cap_max=config.max_gaussians, min_opacity=strategy.prune_opa, **scaled)
    capped = CappedStrategy(
        prune_opa=strategy.prune_opa,
        grow_grad2d=strategy.grow_grad2d,
        grow_scale3d=strategy.grow_scale3d,
        grow_scale2d=strategy.grow_scale2d,
        prune_scale3d=strategy.prune_scale3d,
        prune_scale2d=strategy.prune_scale2d,
        refine_scale2d_stop_iter=config.scaled(strategy.refine_scale2d_stop_iter)
        if strategy.refine_scale2d_stop_iter
        else 0,
        reset_every=config.scaled(strategy.reset_every),
        pause_refine_after_reset=int(strategy.pause_refine_after_reset * config.steps_scaler),
        absgrad=strategy.absgrad,
        revised_opacity=strategy.revised_opacity,
        **scaled,
    )
    capped.max_gaussians = config.max_gaussians
    capped.halve_every = config.scaled(strategy.halve_every) if strategy.halve_every else 0
    return capped


def collects_at(strategy: Strategy, step: int) -> bool:
    """Whether a step adds to the statistics by which Gaussians grow."""
    return isinstance(strategy, CappedStrategy) and step < strategy.refine_stop_iter


def acts_at(strategy: Strategy, step: int) -> bool:
    """Whether a strategy adds, moves or removes Gaussians after a step."""
    if isinstance(strategy, CappedStrategy):
        return strategy.acts_at(step)
    within = strategy.refine_start_iter < step < strategy.refine_stop_iter
    return within and step % strategy.refine_every == 0


def replaces_at(strategy: Strategy, step: int) -> bool:
    """Whether a strategy replaces parameters after a step, rather than changing them in place."""
    if isinstance(strategy, CappedStrategy):
        return strategy.replaces_at(step)
    return acts_at(strategy, step)


def refine(
    strategy: Strategy,
    params: dict[str, Tensor],
    optimizers: dict[str, Any],
    state: dict[str, Any],
    step: int,
    info: dict[str, Any],
    means_lr: float,
) -> None:
    """Let a strategy add, move and remove Gaussians after a step, when it is time.

    Args:
        strategy: this module's or one of gsplat's.
        params: parameters by gsplat's names; replaced where Gaussians come or go.
        optimizers: one Adam a parameter; their moments follow the Gaussians.
        state: the strategy's statistics.
        step: the step that was taken.
        info: the rasteriser's of this step; gsplat's own default strategy alone reads it.
        means_lr: learning rate of the means; mcmc's noise is proportional to it.
    """
    if isinstance(strategy, CappedStrategy):
        if strategy.acts_at(step):
            strategy.refine(params, optimizers, state, step)
    elif isinstance(strategy, MCMCStrategy):
        strategy.step_post_backward(params, optimizers, state, step, info, lr=means_lr)
    else:
        strategy.step_post_backward(params, optimizers, state, step, info, packed=False)
