"""Growth towards a number of Gaussians, drawn where the images are wrong.

After LiteGS (Liao et al. 2025), from its published facts: a Gaussian is drawn in proportion to how
much the error varies over the pixels that it covers, times its squared opacity; opacities are
halved at times, and what no pixel shows is removed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from stages.splat.raster import duplicate, remove, split

Params = dict[str, Tensor]
Optimizers = dict[str, Any]
_LEAST_OPACITY = 1 / 128


class Fragments(NamedTuple):
    """What all training views say of each Gaussian; sums over pixels, by its blended weight."""

    weight: Tensor  # [N], of the weights; 0: no pixel shows it
    error: Tensor  # [N], of the absolute errors
    squared: Tensor  # [N], of their squares

    def variation(self) -> Tensor:
        """Weighted sum of squared distances of errors from their mean, [N]."""
        mean = self.error / self.weight.clamp_min(1e-12)
        return (self.squared - mean * self.error).clamp_min(0)


Measure = Callable[[], Fragments]


@dataclass
class BudgetStrategy:
    """A strategy with gsplat's interface; it collects nothing in steps."""

    most: int  # Gaussians in the end
    grow_scale3d: float  # below this size, in scene scales, duplicate; above, split
    refine_start_iter: int
    refine_stop_iter: int
    refine_every: int
    reset_every: int  # steps between halvings of all opacities

    def check_sanity(self, params: Params, optimizers: Optimizers) -> None:
        """Every parameter has its optimiser."""
        assert params.keys() == optimizers.keys()

    def initialize_state(self, scene_scale: float) -> dict[str, Any]:
        """The scene's scale is all there is to know."""
        return {"scene_scale": scene_scale}

    def step_pre_backward(self, *_: object) -> None:
        """Gradients of the image plane are not needed."""

    def acts_at(self, step: int) -> bool:
        """Whether `refine` changes anything at a step."""
        return self._grows_at(step) or self._halves_at(step)

    @torch.no_grad()
    def refine(
        self,
        params: Params,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        measure: Measure,
    ) -> None:
        """Remove what no view shows and grow; halve opacities, at the steps for it."""
        if self._grows_at(step):
            fragments = measure()
            is_seen = fragments.weight > 0
            score = fragments.variation() * torch.sigmoid(params["opacities"]) ** 2
            if is_seen.any() and not is_seen.all():
                remove(params, optimizers, state, ~is_seen)
                score = score[is_seen]
            self._grow(params, optimizers, state, step, score)
        if self._halves_at(step):
            opacities = torch.sigmoid(params["opacities"]) / 2
            params["opacities"].copy_(torch.logit(opacities.clamp_min(_LEAST_OPACITY)))
            for moments in optimizers["opacities"].state.values():
                moments["exp_avg"].zero_()
                moments["exp_avg_sq"].zero_()

    def _grow(
        self,
        params: Params,
        optimizers: Optimizers,
        state: dict[str, Any],
        step: int,
        score: Tensor,
    ) -> None:
        """An equal share of the Gaussians that are still to come."""
        left = len(range(step, self.refine_stop_iter, self.refine_every))
        count = min(-(-(self.most - len(score)) // left), int((score > 0).sum()))
        if count <= 0:
            return
        # The largest of logarithms with Gumbel noise are draws without replacement.
        noise = -torch.empty_like(score).exponential_().log()
        drawn = torch.zeros_like(score, dtype=torch.bool)
        drawn[(score.log() + noise).topk(count).indices] = True
        is_large = params["scales"].amax(-1).exp() > self.grow_scale3d * state["scene_scale"]
        halves = drawn & is_large
        duplicate(params, optimizers, state, drawn & ~is_large)
        added = len(params["means"]) - len(halves)
        split(params, optimizers, state, torch.cat([halves, halves.new_zeros(added)]))

    def _grows_at(self, step: int) -> bool:
        is_time = self.refine_start_iter < step < self.refine_stop_iter
        return is_time and step % self.refine_every == 0

    def _halves_at(self, step: int) -> bool:
        return 0 < step < self.refine_stop_iter and step % self.reset_every == 0
