"""Seconds that the parts of a calibration take."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

from stages.scenes.captures import calibration as capture_calibration
from stages.scenes.captures import colmap_mapping
from stages.scenes.poses import colmap_features, colmap_pooled, scene_calibration

FEATURES = "features"
# Functions by the part that they are; what they call of other parts does not count.
_PARTS: tuple[tuple[Any, str, str], ...] = (
    (colmap_features, "_detect", FEATURES),
    (colmap_features, "_write", "matching"),
    (colmap_features, "_match", "matching"),
    (colmap_features, "match_pairs", "matching"),
    (colmap_features, "_read_matches", "matching"),
    (colmap_features, "_pooled", "matching"),
    (colmap_pooled, "verify", "verification"),
    (scene_calibration, "_estimate", "poses"),
    (scene_calibration, "_points", "points"),
    (scene_calibration, "write_calibration", "writing"),
    (capture_calibration, "_check_images", "images"),
    (colmap_mapping, "_extract", FEATURES),
    (colmap_mapping, "_match", "matching"),
    (capture_calibration, "map_capture", "poses"),
)


class Parts:
    """Seconds by part, in the order in which parts began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._inner = [0.0]

    def timed(self, part: str, function: Callable) -> Callable:
        """The function, whose seconds count for the part, without those of parts within it."""

        def run(*args: Any, **kwargs: Any) -> Any:
            self.seconds.setdefault(part, 0.0)
            self._inner.append(0.0)
            begin = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                whole = time.perf_counter() - begin
                self.seconds[part] += whole - self._inner.pop()
                self._inner[-1] += whole

        return run


@contextmanager
def measured() -> Iterator[Parts]:
    """The parts of the calibrations within the block."""
    parts = Parts()
    with ExitStack() as stack:
        for module, name, part in _PARTS:
            run = parts.timed(part, getattr(module, name))
            stack.enter_context(mock.patch.object(module, name, run))
        yield parts


def text(seconds: dict[str, float], total: float) -> str:
    """One line: the seconds and the share of each part, and the total in times of the features'."""
    listed = seconds | {"other": max(total - sum(seconds.values()), 0.0)}
    shares = ", ".join(f"{part} {of:.1f} s ({of / total:.0%})" for part, of in listed.items())
    features = seconds.get(FEATURES, 0.0)
    return shares + (f"; {total / features:.2f} times the features' own time" if features else "")
