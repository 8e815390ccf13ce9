"""Front-to-back compositing of packed splats, cell by cell, and its derivative.

A cell keeps what each of its pixels needs in planes: the transmittance T in front of the next splat
(negative once the pixel is full), then colours; backward, `ahead` and dL/dcolour. The innermost
loops run over LANES neighbouring pixels without a branch, so that they are vectorised.

alpha = min(MAX_ALPHA, opacity exp(-sigma)), w = alpha T, ahead = dL/dimage . (light from this splat
on), and v = dL/d(ln alpha). `sums` [V, SUMS] holds, for each splat, the sums over its pixels of
v, v dx, v dx^2, v dy, v dx dy, v dy^2, then of w dL/dimage, with (dx, dy) = centre - pixel.
"""

import math

import numpy as np
from numba import njit

from stages.splat.cpu.bins import CHANNELS, COLUMNS, LIMIT, ROWS, Bins, Splat, pixels, read_splat
from stages.splat.cpu.compiling import (
    COMPILE,
    HALF,
    INLINE,
    MAX_ALPHA,
    ONE,
    STOP_TRANSMITTANCE,
    ZERO,
    Array,
    f32,
)

LANES = 16
LANE = np.arange(LANES, dtype=np.float32)
BLOCKS = COLUMNS // LANES
# A window may begin at any pixel of the cell, so lines are longer by one window; their length is
# known to the compiler, which must see that planes do not overlap.
LINE = COLUMNS + LANES
SUMS = 6 + CHANNELS
CHECK_EVERY = 32  # splats between two looks for full pixels

# exp(-s / 8) for s in [-0.2, ln 255]: least squares at Chebyshev nodes; to the eighth power its
# relative error is below 2.1e-6, most of it from float32.
E0, E1, E2 = f32(1.00000012), f32(-0.99999803), f32(0.49992678)
E3, E4, E5 = f32(-0.16611679), f32(0.03997368), f32(-0.00594973)


@njit(**COMPILE)
def composite_forward(bins: Bins, background: Array, image: Array, left: Array) -> None:
    """Fill image [H, W, D], background [D] included, and left [H, W], the final transmittance."""
    planes = np.empty(ROWS * (1 + CHANNELS) * LINE, np.float32)
    alive = np.empty((ROWS, BLOCKS + 1), np.uint8)
    begins, ends = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    for cell in range(bins.offsets.shape[0] - 1):
        top, side, height, width = _place(bins, cell)
        _clear(planes, 1 + CHANNELS, alive, height, width)
        for k in range(bins.offsets[cell], bins.offsets[cell + 1]):
            splat = read_splat(bins.splats, bins.ids[k])
            x, y = splat.x - f32(side), splat.y - f32(top)
            first, last = pixels(y, splat.reach_y, height)
            _spans(splat, x, y, first, last, width, begins, ends)
            for row in range(first, last):
                dy = y - (f32(row) + HALF)
                for at in range(begins[row], ends[row], LANES):
                    if alive[row, at // LANES] or alive[row, at // LANES + 1]:
                        _blend(planes, row, at, splat, x - f32(at) - HALF, dy)
            looks = (k - bins.offsets[cell]) % CHECK_EVERY == CHECK_EVERY - 1
            if looks and not _any_alive(planes, 1 + CHANNELS, alive, height):
                break
        for row in range(height):
            for column in range(width):
                at = row * (1 + CHANNELS) * LINE + column
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
    absolute: Array | None,  # [V, 2], added to: sums of |dL/dx| and |dL/dy|; None leaves them out
) -> None:
    """Add up the derivatives of every splat, drawing the image again from front to back."""
    planes = np.empty(ROWS * (2 + CHANNELS) * LINE, np.float32)
    alive = np.empty((ROWS, BLOCKS + 1), np.uint8)
    begins, ends = np.empty(ROWS, np.int64), np.empty(ROWS, np.int64)
    window = np.empty(9 * LANES, np.float32)
    for cell in range(bins.offsets.shape[0] - 1):
        top, side, height, width = _place(bins, cell)
        _clear(planes, 2 + CHANNELS, alive, height, width)
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
                        _blend_back(planes, row, at, splat, dx, dy, window, absolute)
                _add_window(window, dx, sums, q)
                if absolute is not None:
                    _add_absolute(window, absolute, q)
            looks = (k - bins.offsets[cell]) % CHECK_EVERY == CHECK_EVERY - 1
            if looks and not _any_alive(planes, 2 + CHANNELS, alive, height):
                break


@njit(**INLINE)
def _exp_minus_8(y: float) -> float:
    """exp(-8 y) for y in [-0.025, LIMIT]; beyond it, anything."""
    p = E0 + y * (E1 + y * (E2 + y * (E3 + y * (E4 + y * E5))))
    p = p * p
    p = p * p
    return p * p


@njit(**INLINE)
def _place(bins: Bins, cell: int) -> tuple[int, int, int, int]:
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
    """Fill the first and last + 1 of the pixels to draw in each row, and return those of all rows.

    A splat that is narrower than a window is drawn by one window at the same place in every row.
    """
    begin, end = pixels(x, splat.reach_x, width)
    if splat.reach_x < HALF * f32(LANES - 1):
        for row in range(first, last):
            begins[row], ends[row] = begin, begin + 1
        return begin, begin + 1
    inverse = ONE / splat.along_x
    for row in range(first, last):
        dy = y - (f32(row) + HALF)
        rest = LIMIT - splat.faintness - splat.along_y * dy * dy
        reach = math.sqrt(max(rest * inverse, ZERO))
        begins[row], ends[row] = pixels(x + splat.shear * dy, reach, width)
    return begin, end


@njit(**INLINE)
def _blend(planes: Array, row: int, at: int, splat: Splat, dx: float, dy: float) -> None:
    """Draw one window of one row; dx belongs to its first pixel."""
    begin = row * (1 + CHANNELS) * LINE + at
    line = planes[begin : begin + CHANNELS * LINE + LANES]
    base = splat.faintness + splat.along_y * dy * dy
    across_0 = dx + splat.shear * dy
    for j in range(LANES):
        across = across_0 - LANE[j]
        y = base + splat.along_x * across * across
        T = line[j]
        w = (min(_exp_minus_8(y), MAX_ALPHA) if y <= LIMIT else ZERO) * T
        full = T - w <= STOP_TRANSMITTANCE
        w = ZERO if full else w
        line[j] = -abs(T) if full else T - w
        line[LINE + j] += w * splat.c0
        line[2 * LINE + j] += w * splat.c1
        line[3 * LINE + j] += w * splat.c2
        line[4 * LINE + j] += w * splat.c3


@njit(**INLINE)
def _load_gradients(
    planes: Array, top: int, side: int, height: int, width: int,
    image: Array, left: Array, g_image: Array, g_left: Array,
) -> None:  # fmt: skip
    """Fill the planes of ahead and dL/dcolour."""
    for row in range(height):
        for column in range(width):
            at = row * (2 + CHANNELS) * LINE + column
            r, c = top + row, side + column
            ahead = left[r, c] * g_left[r, c]
            for d in range(image.shape[2]):
                ahead += image[r, c, d] * g_image[r, c, d]
                planes[at + (2 + d) * LINE] = g_image[r, c, d]
            planes[at + LINE] = ahead


@njit(**INLINE)
def _blend_back(
    planes: Array, row: int, at: int, splat: Splat, dx: float, dy: float, window: Array,
    absolute: Array | None,
) -> None:  # fmt: skip
    """Add one row's share to the window's sums of v, v dy, v dy^2, w dL/dimage, |dL/dx|, |dL/dy|.

    dL/dx = 16 along_x (v across), up to sign, and dL/dy likewise, by sigma's sum of squares.
    """
    begin = row * (2 + CHANNELS) * LINE + at
    line = planes[begin : begin + (1 + CHANNELS) * LINE + LANES]
    base = splat.faintness + splat.along_y * dy * dy
    across_0 = dx + splat.shear * dy
    for j in range(LANES):
        across = across_0 - LANE[j]
        y = base + splat.along_x * across * across
        T = line[j]
        raw = _exp_minus_8(y)
        alpha = min(raw, MAX_ALPHA) if y <= LIMIT else ZERO
        full = T - alpha * T <= STOP_TRANSMITTANCE
        alpha = ZERO if full else alpha
        w = alpha * T
        line[j] = -abs(T) if full else T - w
        g0, g1, g2, g3 = (
            line[2 * LINE + j],
            line[3 * LINE + j],
            line[4 * LINE + j],
            line[5 * LINE + j],
        )
        light = w * (splat.c0 * g0 + splat.c1 * g1 + splat.c2 * g2 + splat.c3 * g3)
        ahead = line[LINE + j] - light
        line[LINE + j] = ahead
        v = light - alpha * ahead / (ONE - alpha)
        v = ZERO if raw > MAX_ALPHA else v
        window[j] += v
        window[LANES + j] += v * dy
        window[2 * LANES + j] += v * (dy * dy)
        window[3 * LANES + j] += w * g0
        window[4 * LANES + j] += w * g1
        window[5 * LANES + j] += w * g2
        window[6 * LANES + j] += w * g3
        if absolute is not None:
            along = splat.along_x * across
            window[7 * LANES + j] += abs(v * along)
            window[8 * LANES + j] += abs(v * (splat.shear * along + splat.along_y * dy))


@njit(**INLINE)
def _add_window(window: Array, dx: float, sums: Array, q: int) -> None:
    """Add a window's columns to the sums of splat q."""
    s0, s1, s2, s3, s4, s5 = ZERO, ZERO, ZERO, ZERO, ZERO, ZERO
    c0, c1, c2, c3 = ZERO, ZERO, ZERO, ZERO
    for j in range(LANES):
        d, v, v_dy = dx - LANE[j], window[j], window[LANES + j]
        s0 += v
        s1 += v * d
        s2 += v * d * d
        s3 += v_dy
        s4 += v_dy * d
        s5 += window[2 * LANES + j]
        c0 += window[3 * LANES + j]
        c1 += window[4 * LANES + j]
        c2 += window[5 * LANES + j]
        c3 += window[6 * LANES + j]
    total = sums[q]
    total[0] += s0
    total[1] += s1
    total[2] += s2
    total[3] += s3
    total[4] += s4
    total[5] += s5
    total[6] += c0
    total[7] += c1
    total[8] += c2
    total[9] += c3


@njit(**INLINE)
def _add_absolute(window: Array, absolute: Array, q: int) -> None:
    """Add a window's sums of |dL/dx| and |dL/dy|."""
    x, y = ZERO, ZERO
    for j in range(LANES):
        x += window[7 * LANES + j]
        y += window[8 * LANES + j]
    absolute[q, 0] += x * f32(16)
    absolute[q, 1] += y * f32(16)


@njit(**INLINE)
def _any_alive(planes: Array, fields: int, alive: Array, height: int) -> bool:
    """Mark the blocks of LANES pixels that are all full; false when no other is left."""
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
