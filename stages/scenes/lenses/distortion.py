"""Lens distortion of OpenCV's five-coefficient model, removed by resampling."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from stages.scenes.lenses.valid_region import Array, Reach, inside

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

# A border that fewer of the pixels repeat does no harm.
_LEAST_UNSEEN = 0.01


def distort(points: Array, coefficients: Array) -> Array:
    """Ideal to distorted image-plane points [..., 2]; coefficients k1 k2 p1 p2 k3.

    >>> distort(np.array([0.5, 0.0]), np.array([0.1, 0, 0, 0, 0])).tolist()
    [0.5125, 0.0]
    """
    k1, k2, p1, p2, k3 = coefficients
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
        ],
        axis=-1,
    )


def seen(K: Array, coefficients: Array, width: int, height: int) -> Mask | None:
    """Pixels [H, W] of the undistorted picture that the photograph shows; None when nearly all do.

    The others lie outside it, or where the distortion turns back or stretches it too far.
    """
    if not coefficients.any():
        return None

    def bend(points: Array) -> Array:
        return distort(points, coefficients) @ K[:2, :2].T + K[:2, 2]

    focal = K[[0, 1], [0, 1]]
    farthest = float(np.linalg.norm(np.array([width, height]) / focal))
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    plane = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]], axis=-1)
    found = Reach.of(bend, focal, farthest).holds(plane) & inside(bend(plane), width, height)
    return None if found.mean() >= 1 - _LEAST_UNSEEN else found


def ideal_intrinsics(K: Array) -> Array:
    """The same K without skew, which neither COLMAP's PINHOLE nor a rasteriser has."""
    ideal = K.copy()
    ideal[0, 1] = 0.0
    return ideal


def undistort(image: Pixels, K: Array, coefficients: Array, order: int = 1) -> Pixels:
    """The image [H, W, C] that a pinhole camera `ideal_intrinsics(K)` would have taken.

    Pixels from outside the photograph repeat its border. No distortion and no skew returns the
    input itself.
    """
    if not coefficients.any() and K[0, 1] == 0:
        return image
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    ideal = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]], axis=-1)
    bent = distort(ideal, coefficients)
    at_x = K[0, 0] * bent[..., 0] + K[0, 1] * bent[..., 1] + K[0, 2] - 0.5
    at_y = K[1, 1] * bent[..., 1] + K[1, 2] - 0.5
    planes = [
        map_coordinates(plane, [at_y, at_x], order=order, mode="nearest")
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack(planes, axis=-1)
