"""An exponential moving average (EMA) of weights, less noisy than the last step's weights.

Not diffusers' EMAModel: that copies the weights at the first step and rounds differently.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Averages of parameters; with decay 0 it is empty and every method does nothing."""

    def __init__(self, parameters: Sequence[Tensor], decay: float):
        self.parameters, self.decay = list(parameters), decay
        self.averages = [one.detach().clone() for one in self.parameters] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Add the parameters after optimisation step `step`, counted from 0.

        The decay grows over the first steps, so that a short run does not average its start.
        """
        if self.averages:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Replace the parameters by the averages within the block."""
        if not self.averages:
            yield
            return
        originals = [one.detach().clone() for one in self.parameters]
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(originals)

    def keep(self) -> None:
        """Replace the parameters by the averages."""
        if self.averages:
            self._write(self.averages)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, list(values))
