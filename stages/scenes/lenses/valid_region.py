"""How far a lens can be straightened: where its photograph folds over or is stretched too thin.

`bend` maps points [N, 2] of the plane at depth 1 before the camera to pixels [N, 2] of the
photograph; a pinhole picture of that plane has the focal lengths `focal` [2], px. Where one pixel
of the photograph would be drawn out over more than `MOST_STRETCH` of the picture, and all the more
where the mapping turns back, the picture does not count: up to there each of its points is another
of the photograph.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Bend = Callable[[Array], Array]

MOST_STRETCH = 10.0
_DIRECTIONS, _RADII, _HALVINGS = 360, 128, 40
_LINES = 97  # of the grid that areas are summed over
_STEP = 1e-6  # of a difference quotient, in the plane at depth 1


@dataclass(frozen=True, eq=False)
class Reach:
    """How far from the optical axis a lens is straightened, by direction, in the plane."""

    angles: Array  # [D + 1], a whole turn
    radii: Array  # [D + 1]

    @staticmethod
    def of(bend: Bend, focal: Array, farthest: float) -> "Reach":
        """Up to the first point along each direction that does not count, at most `farthest`."""
        angles = np.linspace(-np.pi, np.pi, _DIRECTIONS + 1)
        return Reach(angles, _first_end(lambda at: counts(bend, focal, at), angles, farthest))

    def holds(self, points: Array) -> NDArray[np.bool_]:
        """Which points [..., 2] of the plane lie within."""
        x, y = points[..., 0], points[..., 1]
        # Between two directions the nearer end counts.
        limit = np.minimum(self.radii[:-1], self.radii[1:])
        turn = (np.arctan2(y, x) + np.pi) / (2 * np.pi) * _DIRECTIONS
        return np.hypot(x, y) <= limit[np.clip(turn.astype(int), 0, _DIRECTIONS - 1)]

    def shown(self, bend: Bend, width: int, height: int) -> Array:
        """Points [D, 2] of the plane where the photograph, or what counts of it, ends."""

        def in_photograph(at: Array) -> NDArray[np.bool_]:
            return self.holds(at) & inside(bend(at), width, height)

        radii = _last_end(in_photograph, self.angles, float(self.radii.max()))
        return _polar(self.angles, radii)


def counts(bend: Bend, focal: Array, points: Array) -> NDArray[np.bool_]:
    """Whether the mapping keeps its sense at points [N, 2] and stretches them by little enough."""
    steps = _STEP * np.eye(2)
    across, down = (
        (bend(points + step) - bend(points - step)) / (2 * _STEP * length)
        for step, length in zip(steps, focal, strict=True)
    )
    with np.errstate(invalid="ignore", over="ignore"):  # at the poles of rational lenses
        return _least(across, down) >= 1 / MOST_STRETCH  # NaN does not


def _least(across: Array, down: Array) -> Array:
    """The smaller singular value of [N] mappings, negative where one turns over."""
    determinant = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    squares = np.square(across).sum(1) + np.square(down).sum(1)
    least = np.sqrt(squares + 2 * determinant) - np.sqrt(np.maximum(squares - 2 * determinant, 0))
    return least / 2


def inside(pixels: Array, width: int, height: int) -> NDArray[np.bool_]:
    """Which pixels [..., 2] lie in a photograph; NaN does not."""
    x, y = pixels[..., 0], pixels[..., 1]
    return (x >= 0) & (y >= 0) & (x <= width) & (y <= height)


def share(bend: Bend, corners: Array, size: tuple[int, int], reach: Reach | None) -> float:
    """The part of a photograph's area that a picture shows.

    `corners` [2, 2] are the picture's first and last in the plane.
    """
    lines = [np.linspace(*corners[:, axis], _LINES) for axis in (0, 1)]
    plane = np.stack(np.meshgrid(*lines), axis=-1)
    pixels = bend(plane.reshape(-1, 2)).reshape(plane.shape)
    # Twice the area of each cell is the product of its diagonals.
    one, other = pixels[1:, 1:] - pixels[:-1, :-1], pixels[1:, :-1] - pixels[:-1, 1:]
    areas = np.abs(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]) / 2
    middles = (plane[1:, 1:] + plane[:-1, :-1]) / 2
    seen = inside((pixels[1:, 1:] + pixels[:-1, :-1]) / 2, *size)
    if reach is not None:
        seen &= reach.holds(middles)
    return min(1.0, float(areas[seen].sum()) / (size[0] * size[1]))


def _polar(angles: Array, radii: Array) -> Array:
    return radii[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _holding(
    rule: Callable[[Array], NDArray[np.bool_]], angles: Array, farthest: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Radii [R] and whether a rule holds at them in every direction, [D, R]."""
    radii = np.linspace(0, farthest, _RADII)
    points = _polar(angles[:, None], np.broadcast_to(radii, (len(angles), _RADII)))
    return radii, rule(points.reshape(-1, 2)).reshape(len(angles), _RADII)


def _first_end(rule: Callable[[Array], NDArray[np.bool_]], angles: Array, farthest: float) -> Array:
    """Radius [D] up to which a rule holds from the axis on."""
    radii, holds = _holding(rule, angles, farthest)
    last = np.where(holds.all(1), _RADII, np.argmin(holds, axis=1)) - 1
    return _refined(rule, angles, radii, last)


def _last_end(rule: Callable[[Array], NDArray[np.bool_]], angles: Array, farthest: float) -> Array:
    """The largest radius [D] at which a rule holds."""
    radii, holds = _holding(rule, angles, farthest)
    last = np.where(holds.any(1), _RADII - 1 - np.argmax(holds[:, ::-1], axis=1), -1)
    return _refined(rule, angles, radii, last)


def _refined(
    rule: Callable[[Array], NDArray[np.bool_]], angles: Array, radii: Array, last: Array
) -> Array:
    """The end of a rule between radius number `last` [D] and the next, by halving."""
    low = np.where(last >= 0, radii[np.maximum(last, 0)], 0.0)
    high = np.where(last >= 0, radii[np.minimum(last + 1, _RADII - 1)], 0.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        holds = rule(_polar(angles, middle))
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return low
