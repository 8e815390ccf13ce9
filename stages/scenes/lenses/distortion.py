"""Lens distortion of OpenCV's five-coefficient model, removed by resampling."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from stages.scenes.lenses.valid_region import Array, ValidRegion, inside

Pixels = NDArray[np.float32]
Mask = NDArray[np.bool_]

# With fewer pixels from outside the image, which repeat its border, nothing is masked.
_MIN_OUTSIDE_SHARE = 0.01


def distort(points: Array, coefficients: Array) -> Array:
    """Undistorted to distorted image-plane points [..., 2]; coefficients k1 k2 p1 p2 k3.

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


def valid_pixels(K: Array, coefficients: Array, width: int, height: int) -> Mask | None:
    """Valid pixels [H, W] of the undistorted image; None if nearly all are.

    The others come from outside the distorted image or from outside the lens's valid region.
    """
    if not coefficients.any():
        return None

    def to_pixels(points: Array) -> Array:
        return distort(points, coefficients) @ K[:2, :2].T + K[:2, 2]

    focal = K[[0, 1], [0, 1]]
    max_radius = float(np.linalg.norm(np.array([width, height]) / focal))
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    plane = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]], axis=-1)
    region = ValidRegion.of(to_pixels, focal, max_radius)
    valid = region.contains(plane) & inside(to_pixels(plane), width, height)
    return None if valid.mean() >= 1 - _MIN_OUTSIDE_SHARE else valid


def ideal_intrinsics(K: Array) -> Array:
    """K without skew, which COLMAP's PINHOLE and the rasterisers lack."""
    ideal = K.copy()
    ideal[0, 1] = 0.0
    return ideal


def undistort(image: Pixels, K: Array, coefficients: Array, order: int = 1) -> Pixels:
    """The image [H, W, C] that a pinhole camera `ideal_intrinsics(K)` would have taken.

    Pixels from outside the image repeat its border. Without distortion and skew the input itself
    is returned.
    """
    if not coefficients.any() and K[0, 1] == 0:
        return image
    height, width = image.shape[:2]
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    plane_points = np.stack([(columns - K[0, 2]) / K[0, 0], (rows - K[1, 2]) / K[1, 1]], axis=-1)
    distorted = distort(plane_points, coefficients)
    at_x = K[0, 0] * distorted[..., 0] + K[0, 1] * distorted[..., 1] + K[0, 2] - 0.5
    at_y = K[1, 1] * distorted[..., 1] + K[1, 2] - 0.5
    planes = [
        map_coordinates(plane, [at_y, at_x], order=order, mode="nearest")
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack(planes, axis=-1)
