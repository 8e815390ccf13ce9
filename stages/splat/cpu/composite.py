"""Front-to-back compositing of packed splats, cell by cell, and its derivative.

`window` explains the planes of a cell and the sums of a splat.
"""

import math

import numpy as np
from numba import njit

from stages.splat.cpu.bins import COLUMNS, LIMIT, ROWS, Bins, Splat, pixels, read_splat
from stages.splat.cpu.compiling import COMPILE, HALF, INLINE, ONE, ZERO, Array, f32
from stages.splat.cpu.window import (
    BLENDED,
    DIFFERENTIATED,
    LANES,
    LINE,
    WINDOW,
    add_absolute,
    add_window,
    blend,
    blend_back,
)

BLOCKS = COLUMNS // LANES
CHECK_EVERY = 32  # splats between two checks for full pixels


@njit(**COMPILE)
def composite_forward(bins: Bins, background: Array, image: Array, left: Array) -> None:
    """Fill image [H, W, D], background [D] included, and left [H, W], the final transmittance."""
    planes = np.empty(ROWS * BLENDED * LINE, np.float32)
    alive = np.empty((ROWS, BLOCKS + 1), np.uint8)
    begins, ends = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    for cell in range(bins.offsets.shape[0] - 1):
        top, side, height, width = _cell_extent(bins, cell)
        _clear(planes, BLENDED, alive, height, width)
        for k in range(bins.offsets[cell], bins.offsets[cell + 1]):
            splat = read_splat(bins.splats, bins.ids[k])
            x, y = splat.x - f32(side), splat.y - f32(top)
            first, last = pixels(y, splat.reach_y, height)
            _spans(splat, x, y, first, last, width, begins, ends)
            for row in range(first, last):
                dy = y - (f32(row) + HALF)
                for at in range(begins[row], ends[row], LANES):
                    if alive[row, at // LANES] or alive[row, at // LANES + 1]:
                        blend(planes, row, at, splat, x - f32(at) - HALF, dy)
            looks = (k - bins.offsets[cell]) % CHECK_EVERY == CHECK_EVERY - 1
            if looks and not _any_alive(planes, BLENDED, alive, height):
                break
        for row in range(height):
            for column in range(width):
                at = row * BLENDED * LINE + column
                T = abs(planes[at])
                left[top + row, side + column] = T
                for d in range(image.shape[2]):
                    color = planes[at + (1 + d) * LINE] + T * background[d]
                    image[top + row, side + column, d] = color


@njit(**COMPILE)
def composite_backward(
    bins: Bins,
    image: Array,  # [H, W, D]
    left: Array,  # [H, W]
    g_image: Array,  # [H, W, D]
    g_left: Array,  # [H, W]
    sums: Array,  # [V, SUMS], added to
    absolute: Array | None,  # [V, 2], added to: sums of |dL/dx| and |dL/dy|; None skips them
) -> None:
    """Add up the derivatives of every splat, rendering the image again from front to back."""
    planes = np.empty(ROWS * DIFFERENTIATED * LINE, np.float32)
    alive = np.empty((ROWS, BLOCKS + 1), np.uint8)
    begins, ends = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    window = np.empty(WINDOW, np.float32)
    for cell in range(bins.offsets.shape[0] - 1):
        top, side, height, width = _cell_extent(bins, cell)
        _clear(planes, DIFFERENTIATED, alive, height, width)
        _load_gradients(planes, top, side, height, width, image, left, g_image, g_left)
        for k in range(bins.offsets[cell], bins.offsets[cell + 1]):
            q = bins.ids[k]
            splat = read_splat(bins.splats, q)
            x, y = splat.x - f32(side), splat.y - f32(top)
            first, last = pixels(y, splat.reach_y, height)
            begin, end = _spans(splat, x, y, first, last, width, begins, ends)
            for at in range(begin, end, LANES):
                window[:] = ZERO
                block, dx = at // LANES, x - f32(at) - HALF
                for row in range(first, last):
                    covered = begins[row] < at + LANES and ends[row] > at
                    if covered and (alive[row, block] or alive[row, block + 1]):
                        dy = y - (f32(row) + HALF)
                        blend_back(planes, row, at, splat, dx, dy, window, absolute)
                add_window(window, dx, sums, q)
                if absolute is not None:
                    add_absolute(window, absolute, q)
            looks = (k - bins.offsets[cell]) % CHECK_EVERY == CHECK_EVERY - 1
            if looks and not _any_alive(planes, DIFFERENTIATED, alive, height):
                break


@njit(**INLINE)
def _cell_extent(bins: Bins, cell: int) -> tuple[int, int, int, int]:
    """Top row and left column of a cell, its rows and columns."""
    top, side = cell // bins.across * ROWS, cell % bins.across * COLUMNS
    return top, side, min(ROWS, bins.height - top), min(COLUMNS, bins.width - side)


@njit(**INLINE)
def _clear(planes: Array, fields: int, alive: Array, height: int, width: int) -> None:
    """An empty cell: T = 1 in its pixels, full beyond them, zero elsewhere."""
    planes[:] = ZERO
    alive[:] = 0
    for row in range(height):
        at = row * fields * LINE
        planes[at : at + width] = ONE
        planes[at + width : at + LINE] = -ONE
        alive[row, : (width + LANES - 1) // LANES] = 1


@njit(**INLINE)
def _spans(
    splat: Splat, x: float, y: float, first: int, last: int, width: int, begins: Array, ends: Array
) -> tuple[int, int]:
    """Fill the first and last + 1 of the pixels to blend in each row, and return those of all rows.

    A splat that is narrower than a window takes one window at the same columns in every row.
    """
    begin, end = pixels(x, splat.reach_x, width)
    if splat.reach_x < HALF * f32(LANES - 1):
        end = min(begin + 1, end)
        for row in range(first, last):
            begins[row], ends[row] = begin, end
        return begin, end
    inverse = ONE / splat.along_x
    for row in range(first, last):
        dy = y - (f32(row) + HALF)
        rest = LIMIT - splat.faintness - splat.along_y * dy * dy
        reach = math.sqrt(max(rest * inverse, ZERO))
        begins[row], ends[row] = pixels(x + splat.shear * dy, reach, width)
    return begin, end


@njit(**INLINE)
def _load_gradients(
    planes: Array,
    top: int,
    side: int,
    height: int,
    width: int,
    image: Array,
    left: Array,
    g_image: Array,
    g_left: Array,
) -> None:
    """Fill the planes of ahead and dL/dcolour."""
    for row in range(height):
        for column in range(width):
            at = row * DIFFERENTIATED * LINE + column
            r, c = top + row, side + column
            ahead = left[r, c] * g_left[r, c]
            for d in range(image.shape[2]):
                ahead += image[r, c, d] * g_image[r, c, d]
                planes[at + (2 + d) * LINE] = g_image[r, c, d]
            planes[at + LINE] = ahead


@njit(**INLINE)
def _any_alive(planes: Array, fields: int, alive: Array, height: int) -> bool:
    """Mark the blocks of LANES pixels that are all full; false when all blocks are."""
    found = False
    for row in range(height):
        for block in range(BLOCKS):
            if alive[row, block]:
                begin = row * fields * LINE + block * LANES
                line = planes[begin : begin + LANES]
                most = -ONE
                for j in range(LANES):
                    most = max(most, line[j])
                alive[row, block] = most > ZERO
                found = found or most > ZERO
    return found
