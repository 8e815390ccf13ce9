"""The innermost loops: LANES neighbouring pixels of a row, without a branch, so that the compiler
vectorises them.

A cell keeps what its pixels need in planes. The first is the transmittance T in front of the next
splat, negative once the pixel is full; then, forward, come the colours, and backward `ahead` and
dL/dcolour. A row's planes lie LINE apart. (dx, dy) leads from a pixel to the splat's centre.

alpha = min(MAX_ALPHA, opacity exp(-sigma)), w = alpha T, ahead = dL/dimage . (light from this splat
on), and v = dL/d(ln alpha). A window sums up, column by column, v, v dy, v dy^2, w dL/dcolour and
at the end |dL/dx|, |dL/dy|. A splat's sums are those of v, v dx, v dx^2, v dy, v dx dy, v dy^2 and
w dL/dcolour over its pixels.
"""

import numpy as np
from numba import njit

from stages.splat.cpu.bins import CHANNELS, COLUMNS, LIMIT, Splat
from stages.splat.cpu.compiling import (
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
# A window may begin at any pixel of the cell, so a line is longer by one window. Its length is a
# constant, so that the compiler sees that planes do not overlap.
LINE = COLUMNS + LANES
BLENDED, DIFFERENTIATED = 1 + CHANNELS, 2 + CHANNELS  # planes, forward and backward
WINDOW = 9 * LANES
SUMS = 6 + CHANNELS

# exp(-y), y in [-0.025, ln(255) / 8], by least squares at Chebyshev nodes. Its eighth power is
# exp(-8 y) to a share of 2.1e-6, most of which is float32's.
E0, E1, E2 = f32(1.00000012), f32(-0.99999803), f32(0.49992678)
E3, E4, E5 = f32(-0.16611679), f32(0.03997368), f32(-0.00594973)


@njit(**INLINE)
def exp_minus_8(y: float) -> float:
    """exp(-8 y) for y in [-0.025, LIMIT]; undefined beyond."""
    p = E0 + y * (E1 + y * (E2 + y * (E3 + y * (E4 + y * E5))))
    p = p * p
    p = p * p
    return p * p


@njit(**INLINE)
def blend(planes: Array, row: int, at: int, splat: Splat, dx: float, dy: float) -> None:
    """Blend a splat into the pixels from `at` on; dx is that of the first."""
    begin = row * BLENDED * LINE + at
    line = planes[begin : begin + CHANNELS * LINE + LANES]
    base = splat.faintness + splat.along_y * dy * dy
    first = dx + splat.shear * dy
    for j in range(LANES):
        across = first - LANE[j]
        y = base + splat.along_x * across * across
        T = line[j]
        w = (min(exp_minus_8(y), MAX_ALPHA) if y <= LIMIT else ZERO) * T
        full = T - w <= STOP_TRANSMITTANCE
        w = ZERO if full else w
        line[j] = -abs(T) if full else T - w
        line[LINE + j] += w * splat.c0
        line[2 * LINE + j] += w * splat.c1
        line[3 * LINE + j] += w * splat.c2
        line[4 * LINE + j] += w * splat.c3


@njit(**INLINE)
def blend_back(
    planes: Array,
    row: int,
    at: int,
    splat: Splat,
    dx: float,
    dy: float,
    window: Array,
    absolute: Array | None,  # None leaves the absolute values out
) -> None:
    """Blend a splat again and add one row's share to the window.

    |dL/dx| = 16 |v along_x across|, and |dL/dy| likewise from sigma's sum of squares.
    """
    begin = row * DIFFERENTIATED * LINE + at
    line = planes[begin : begin + (1 + CHANNELS) * LINE + LANES]
    base = splat.faintness + splat.along_y * dy * dy
    first = dx + splat.shear * dy
    for j in range(LANES):
        across = first - LANE[j]
        y = base + splat.along_x * across * across
        T = line[j]
        raw = exp_minus_8(y)
        alpha = min(raw, MAX_ALPHA) if y <= LIMIT else ZERO
        full = T - alpha * T <= STOP_TRANSMITTANCE
        alpha = ZERO if full else alpha
        w = alpha * T
        line[j] = -abs(T) if full else T - w
        g0, g1 = line[2 * LINE + j], line[3 * LINE + j]
        g2, g3 = line[4 * LINE + j], line[5 * LINE + j]
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
            slope = splat.along_x * across
            window[7 * LANES + j] += abs(v * slope)
            window[8 * LANES + j] += abs(v * (splat.shear * slope + splat.along_y * dy))


@njit(**INLINE)
def add_window(window: Array, dx: float, sums: Array, q: int) -> None:
    """Add a window to the sums of splat q; dx is that of its first column."""
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
    total = (s0, s1, s2, s3, s4, s5, c0, c1, c2, c3)
    for n in range(SUMS):
        sums[q, n] += total[n]


@njit(**INLINE)
def add_absolute(window: Array, absolute: Array, q: int) -> None:
    """Add a window's |dL/dx| and |dL/dy| to those of splat q."""
    x, y = ZERO, ZERO
    for j in range(LANES):
        x += window[7 * LANES + j]
        y += window[8 * LANES + j]
    absolute[q, 0] += f32(16) * x
    absolute[q, 1] += f32(16) * y
