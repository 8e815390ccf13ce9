"""An exponential moving average of weights: less noise than the last step's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


class Ema:
    """Averages of parameters; with decay 0 it holds nothing and stands for the parameters."""

    def __init__(self, parameters: Sequence[Tensor], decay: float):
        self.parameters, self.decay = list(parameters), decay
        self.averages = [one.detach().clone() for one in self.parameters] if decay else []

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the parameters after optimisation step `step`, counted from 0.

        The first steps count more, so that a short run isn't ruled by where it began.
        """
        if self.averages:
            decay = min(self.decay, (1 + step) / (10 + step))
            torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages in the parameters' place for as long as the block lasts."""
        if not self.averages:
            yield
            return
        kept = [one.detach().clone() for one in self.parameters]
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(kept)

    def keep(self) -> None:
        """Put the averages in the parameters' place for good."""
        if self.averages:
            self._write(self.averages)

    @torch.no_grad()
    def _write(self, values: Sequence[Tensor]) -> None:
        torch._foreach_copy_(self.parameters, list(values))
