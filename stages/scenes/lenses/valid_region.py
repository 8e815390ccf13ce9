"""The part of the image plane in which an image with lens distortion can be undistorted.

`distort` maps points [N, 2] of the plane at depth 1 to pixels [N, 2] of the distorted image; the
undistorted image has focal lengths `focal` [2], px. A point is valid unless one distorted pixel
would be stretched over more than `MAX_STRETCH` undistorted ones, or the mapping is inverted there.
Within the valid region around the optical axis the mapping is one to one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Distort = Callable[[Array], Array]

MAX_STRETCH = 10.0
_DIRECTIONS, _RADII, _BISECTIONS = 360, 128, 40
_LINES = 97  # per side of the grid that areas are summed over
_STEP = 1e-6  # of a difference quotient, in the plane at depth 1


@dataclass(frozen=True, eq=False)
class ValidRegion:
    """Radius of the valid region around the optical axis, by direction."""

    angles: Array  # [D + 1], the full circle
    radii: Array  # [D + 1]

    @staticmethod
    def of(distort: Distort, focal: Array, max_radius: float) -> "ValidRegion":
        """Up to the first invalid point in each direction, at most `max_radius`."""
        angles = np.linspace(-np.pi, np.pi, _DIRECTIONS + 1)
        radii = _first_end(lambda at: is_valid(distort, focal, at), angles, max_radius)
        return ValidRegion(angles, radii)

    def contains(self, points: Array) -> NDArray[np.bool_]:
        """Which points [..., 2] of the plane are in the region."""
        x, y = points[..., 0], points[..., 1]
        # Between two directions the smaller radius counts.
        limit = np.minimum(self.radii[:-1], self.radii[1:])
        position = (np.arctan2(y, x) + np.pi) / (2 * np.pi) * _DIRECTIONS
        return np.hypot(x, y) <= limit[np.clip(position.astype(int), 0, _DIRECTIONS - 1)]

    def image_border(self, distort: Distort, width: int, height: int) -> Array:
        """Points [D, 2] of the plane on the border of the image's valid part."""

        def in_image(at: Array) -> NDArray[np.bool_]:
            return self.contains(at) & inside(distort(at), width, height)

        radii = _last_end(in_image, self.angles, float(self.radii.max()))
        return _polar(self.angles, radii)


def is_valid(distort: Distort, focal: Array, points: Array) -> NDArray[np.bool_]:
    """Whether the mapping at points [N, 2] is not inverted and not stretched too far."""
    steps = _STEP * np.eye(2)
    across, down = (
        (distort(points + step) - distort(points - step)) / (2 * _STEP * length)
        for step, length in zip(steps, focal, strict=True)
    )
    with np.errstate(invalid="ignore", over="ignore"):  # at the poles of rational lenses
        return _smaller_singular_value(across, down) >= 1 / MAX_STRETCH  # NaN does not


def _smaller_singular_value(across: Array, down: Array) -> Array:
    """The smaller singular value of N Jacobians with columns [N, 2], negative where inverted."""
    determinant = across[:, 0] * down[:, 1] - across[:, 1] * down[:, 0]
    squares = np.square(across).sum(1) + np.square(down).sum(1)
    doubled = np.sqrt(squares + 2 * determinant) - np.sqrt(np.maximum(squares - 2 * determinant, 0))
    return doubled / 2


def inside(pixels: Array, width: int, height: int) -> NDArray[np.bool_]:
    """Which pixels [..., 2] lie in an image; NaN does not."""
    x, y = pixels[..., 0], pixels[..., 1]
    return (x >= 0) & (y >= 0) & (x <= width) & (y <= height)


def covered_share(
    distort: Distort, corners: Array, size: tuple[int, int], region: ValidRegion | None
) -> float:
    """The share of a distorted image's area that its undistorted image shows.

    Args:
        distort: the lens.
        corners: first and last corner [2, 2] of the undistorted image in the plane.
        size: (width, height) of the distorted image, px.
        region: valid region; None if all points are valid.
    """
    lines = [np.linspace(*corners[:, axis], _LINES) for axis in (0, 1)]
    plane = np.stack(np.meshgrid(*lines), axis=-1)
    pixels = distort(plane.reshape(-1, 2)).reshape(plane.shape)
    # Twice the area of each cell is the product of its diagonals.
    one, other = pixels[1:, 1:] - pixels[:-1, :-1], pixels[1:, :-1] - pixels[:-1, 1:]
    areas = np.abs(one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]) / 2
    middles = (plane[1:, 1:] + plane[:-1, :-1]) / 2
    covered = inside((pixels[1:, 1:] + pixels[:-1, :-1]) / 2, *size)
    if region is not None:
        covered &= region.contains(middles)
    return min(1.0, float(areas[covered].sum()) / (size[0] * size[1]))


def _polar(angles: Array, radii: Array) -> Array:
    return radii[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _evaluate(
    rule: Callable[[Array], NDArray[np.bool_]], angles: Array, max_radius: float
) -> tuple[Array, NDArray[np.bool_]]:
    """Radii [R] and whether a rule holds at them in each direction, [D, R]."""
    radii = np.linspace(0, max_radius, _RADII)
    points = _polar(angles[:, None], np.broadcast_to(radii, (len(angles), _RADII)))
    return radii, rule(points.reshape(-1, 2)).reshape(len(angles), _RADII)


def _first_end(
    rule: Callable[[Array], NDArray[np.bool_]], angles: Array, max_radius: float
) -> Array:
    """Radius [D] up to which a rule holds without a gap from the axis."""
    radii, holds = _evaluate(rule, angles, max_radius)
    last = np.where(holds.all(1), _RADII, np.argmin(holds, axis=1)) - 1
    return _refined(rule, angles, radii, last)


def _last_end(
    rule: Callable[[Array], NDArray[np.bool_]], angles: Array, max_radius: float
) -> Array:
    """The largest radius [D] at which a rule holds."""
    radii, holds = _evaluate(rule, angles, max_radius)
    last = np.where(holds.any(1), _RADII - 1 - np.argmax(holds[:, ::-1], axis=1), -1)
    return _refined(rule, angles, radii, last)


def _refined(
    rule: Callable[[Array], NDArray[np.bool_]], angles: Array, radii: Array, last: Array
) -> Array:
    """The radius where a rule ends between radius number `last` [D] and the next, by bisection."""
    low = np.where(last >= 0, radii[np.maximum(last, 0)], 0.0)
    high = np.where(last >= 0, radii[np.minimum(last + 1, _RADII - 1)], 0.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        holds = rule(_polar(angles, middle))
        low, high = np.where(holds, middle, low), np.where(holds, high, middle)
    return low
