"""Flicker: how much a method's error changes over time, relative to the photographed change."""

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]  # [H, W, 3]
_Frame = tuple[Image, Image, NDArray[np.bool_]]  # ground truth, error, valid pixels


class Flicker:
    """Sums over consecutive timestamps of every camera.

    >>> flicker = Flicker()
    >>> dark, light = np.zeros((2, 2, 3)), np.full((2, 2, 3), 0.4)
    >>> flicker.add("28", dark, dark, None)
    >>> flicker.add("28", light, light - 0.1, None)
    >>> round(flicker.value(), 6)
    0.25
    """

    def __init__(self) -> None:
        """Without views."""
        self._last: dict[Hashable, _Frame] = {}
        self._error = self._change = 0.0

    def add(
        self, camera: Hashable, truth: Image, render: Image, valid: NDArray[np.bool_] | None
    ) -> None:
        """Take the next timestamp of a camera; pixels count that are valid in both of a pair."""
        known = np.ones(truth.shape[:2], bool) if valid is None else valid
        error = render - truth
        last = self._last.get(camera)
        if last is not None and last[0].shape == truth.shape:
            both = known & last[2]
            self._error += float(np.abs(error - last[1])[both].sum(dtype=np.float64))
            self._change += float(np.abs(truth - last[0])[both].sum(dtype=np.float64))
        self._last[camera] = truth, error, known

    def value(self) -> float | None:
        """The mean absolute change of the error over that of the ground truth; None without any."""
        return round(self._error / self._change, 6) if self._change > 0 else None
