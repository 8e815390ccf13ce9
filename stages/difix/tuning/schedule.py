"""The learning rate by optimisation step, for any number of processes."""

import math
from typing import Literal


def learning_rate(
    peak: float,
    step: int,  # counted from 0
    steps: int,
    warmup_steps: int,
    schedule: Literal["constant", "cosine"],
) -> float:
    """The rate of a step: a linear warm-up, then constant or half a cosine down to 0.

    >>> [learning_rate(1.0, step, 10, 4, "constant") for step in (0, 3, 4, 9)]
    [0.25, 1.0, 1.0, 1.0]
    >>> [round(learning_rate(1.0, step, 10, 4, "cosine"), 3) for step in (3, 4, 7, 9)]
    [1.0, 1.0, 0.5, 0.067]
    """
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    if schedule == "constant":
        return peak
    passed = (step - warmup_steps) / max(1, steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * passed))
