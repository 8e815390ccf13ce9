"""Lens distortion of OpenCV's five-coefficient model, removed by resampling."""

import numpy as np
from scipy.ndimage import map_coordinates

from stages.scenes.cameras import Array
from stages.scenes.images import Pixels


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
