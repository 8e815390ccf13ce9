"""Visible Gaussians from near to far, packed for compositing, and which of them touch which cell.

The image is cut into cells of ROWS x COLUMNS px. sigma, half the squared Mahalanobis distance of a
pixel, is written as a sum of squares, which rounding cannot turn negative: with dy = y - pixel y
and across = x + shear dy - pixel x, sigma = 8 (along_x across^2 + along_y dy^2). A pixel is covered
where faintness + sigma / 8 <= LIMIT, faintness = -ln(opacity) / 8; its alpha is then at least
MIN_ALPHA. The eighths serve the exponential in `window`.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from stages.splat.cpu.compiling import COMPILE, HALF, INLINE, ZERO, Array, f32

ROWS, COLUMNS = 16, 128
CHANNELS = 4
LIMIT = f32(math.log(255) / 8)
EIGHT, SIXTEEN = f32(8), f32(16)
LEAST_DETERMINANT = 1e-8  # of xx yy; float32 conics have no more digits
_DIGITS = 2048


class Splat(NamedTuple):
    """One ellipse ready for compositing."""

    x: float  # px
    y: float
    shear: float
    along_x: float  # px^-2
    along_y: float
    faintness: float
    reach_x: float  # half the box of the covered pixels, px
    reach_y: float
    c0: float
    c1: float
    c2: float
    c3: float


class Bins(NamedTuple):
    """Splats by cell: those of cell c are ids[offsets[c] : offsets[c + 1]], nearest first."""

    splats: Array  # [V, 12] the fields of Splat; visible Gaussians, nearest first
    offsets: Array  # [cells + 1]
    ids: Array  # rows of splats
    across: int  # cells side by side
    width: int  # px
    height: int


@njit(**COMPILE)
def depth_order(depths: Array, radii: Array) -> Array:
    """Indices of the visible Gaussians, nearest first, equal depths in input order.

    A radix sort of the bits, which order positive floats; `depths` is a view as uint32 [N].
    """
    order = np.empty(depths.shape[0], np.int32)
    counts = np.zeros((3, _DIGITS), np.int32)
    visible = 0
    for i in range(depths.shape[0]):
        if radii[i, 0] > 0 and radii[i, 1] > 0:
            order[visible] = i
            visible += 1
            for digit in range(3):
                counts[digit, _digit(depths[i], digit)] += 1
    order = order[:visible]
    other = np.empty_like(order)
    for digit in range(3):
        begin = 0
        for k in range(_DIGITS):
            begin, counts[digit, k] = begin + counts[digit, k], begin
        for q in range(visible):
            k = _digit(depths[order[q]], digit)
            other[counts[digit, k]] = order[q]
            counts[digit, k] += 1
        order, other = other, order
    return order


@njit(**COMPILE)
def pack_splats(
    order: Array, means2d: Array, conics: Array, opacities: Array, colors: Array
) -> Array:
    """Rows of `Bins.splats` from near to far; colors [N, D] are padded with zeros."""
    splats = np.zeros((order.shape[0], 12), np.float32)
    for q in range(order.shape[0]):
        i, splat = order[q], splats[q]
        xx, xy, yy = conics[i, 0], conics[i, 1], conics[i, 2]
        # Long thin ellipses lose all digits of this difference in float32, the thinnest their sign.
        product = np.float64(xx) * np.float64(yy)
        det = f32(max(product - np.float64(xy) * np.float64(xy), LEAST_DETERMINANT * product))
        faintness = -math.log(opacities[i]) / EIGHT
        reach = SIXTEEN * max(LIMIT - faintness, ZERO)
        splat[0], splat[1], splat[2] = means2d[i, 0], means2d[i, 1], xy / xx
        splat[3], splat[4], splat[5] = xx / SIXTEEN, det / xx / SIXTEEN, faintness
        splat[6], splat[7] = math.sqrt(reach * yy / det), math.sqrt(reach * xx / det)
        for d in range(colors.shape[1]):
            splat[8 + d] = colors[i, d]
    return splats


@njit(**COMPILE)
def pack_backward(
    order: Array,
    conics: Array,
    opacities: Array,
    sums: Array,
    g_means2d: Array,
    g_conics: Array,
    g_opacities: Array,
    g_colors: Array,
) -> None:
    """Fill the derivatives of the visible Gaussians from the sums that `window` describes."""
    for q in range(order.shape[0]):
        i, s = order[q], sums[q]
        xx, xy, yy = conics[i, 0], conics[i, 1], conics[i, 2]
        g_opacities[i] = s[0] / opacities[i]
        g_means2d[i, 0], g_means2d[i, 1] = -(xx * s[1] + xy * s[3]), -(xy * s[1] + yy * s[3])
        g_conics[i, 0], g_conics[i, 1], g_conics[i, 2] = -HALF * s[2], -s[4], -HALF * s[5]
        for d in range(g_colors.shape[1]):
            g_colors[i, d] = s[6 + d]


@njit(**COMPILE)
def bin_splats(splats: Array, across: int, down: int) -> tuple[Array, Array]:
    """Offsets [cells + 1] and ids of `Bins`, for an image of across x down cells."""
    offsets = np.zeros(across * down + 1, np.int64)
    boxes = np.empty((splats.shape[0], 4), np.int32)
    for q in range(splats.shape[0]):
        splat, box = read_splat(splats, q), boxes[q]
        box[0], box[1] = _cells(splat.x, splat.reach_x, COLUMNS, across)
        box[2], box[3] = _cells(splat.y, splat.reach_y, ROWS, down)
        for row in range(box[2], box[3]):
            for column in range(box[0], box[1]):
                offsets[row * across + column + 1] += 1
    for cell in range(across * down):
        offsets[cell + 1] += offsets[cell]
    ends = offsets[:-1].copy()
    ids = np.empty(offsets[-1], np.int32)
    for q in range(splats.shape[0]):
        box = boxes[q]
        for row in range(box[2], box[3]):
            for column in range(box[0], box[1]):
                cell = row * across + column
                ids[ends[cell]] = q
                ends[cell] += 1
    return offsets, ids


@njit(**INLINE)
def read_splat(splats: Array, q: int) -> Splat:
    """Row q."""
    s = splats[q]
    return Splat(s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10], s[11])


@njit(**INLINE)
def pixels(centre: float, reach: float, count: int) -> tuple[int, int]:
    """First and last + 1 of the pixels, out of count, whose centres lie within reach."""
    most = f32(count)
    begin = min(max(centre - reach + HALF, ZERO), most)
    end = min(max(centre + reach + HALF, ZERO), most)
    return int(begin), int(end)


@njit(**INLINE)
def _cells(centre: float, reach: float, size: int, count: int) -> tuple[int, int]:
    """First and last + 1 of the cells that hold one of those pixels."""
    begin, end = pixels(centre, reach, size * count)
    return (begin // size, (end + size - 1) // size) if begin < end else (0, 0)


@njit(**INLINE)
def _digit(bits: int, digit: int) -> int:
    """One of the three digits of 11 bits, the lowest first."""
    return (bits >> np.uint32(11 * digit)) & np.uint32(_DIGITS - 1)
