"""Front-to-back compositing of sorted ellipses, a strip of rows at a time, and its derivative.

A strip is STRIP rows; each row keeps its transmittance, live flag and colours in planes of ROW
floats, so that the innermost loops run over LANES neighbouring pixels without a branch and are
vectorised. `extent[q]` holds the largest sigma that still reaches MIN_ALPHA and the half height in
px. Images are at most MAX_WIDTH px wide; the caller cuts wider ones into bands.

Symbols: sigma is half the Mahalanobis distance, alpha = min(MAX_ALPHA, opacity exp(-sigma)),
T the transmittance in front of a Gaussian, w = alpha T, and Q what lies behind it, weighted by the
incoming gradient. `partial` holds, for each (Gaussian, strip): sums of v, v dx, v dx^2, v dy,
v dx dy, v dy^2, four colour gradients, and the absolute gradient along x and y, v = dL/d(-sigma).
"""

import math

import numpy as np
from numba import njit

from stages.splat.cpu.compiling import (
    COMPILE,
    HALF,
    MAX_ALPHA,
    ONE,
    STOP_TRANSMITTANCE,
    ZERO,
    f32,
)

LANES = 16
STRIP = 8
MAX_WIDTH = 1024
# A compile-time stride keeps the planes at constant distances; the margin takes the last window.
ROW = MAX_WIDTH + 3 * LANES


def _fit_exponential():
    """Polynomial of degree 5 for exp(-y) on [0, 0.4]; raised to 16 it serves exp(-s) up to 6.4."""
    y = (np.cos(np.linspace(0, np.pi, 400)) + 1) / 2 * 0.40
    fitted = np.polynomial.chebyshev.Chebyshev.fit(y, np.exp(-y), 5, domain=[0, 0.40])
    return fitted.convert(kind=np.polynomial.Polynomial).coef


E0, E1, E2, E3, E4, E5 = (f32(value) for value in _fit_exponential())


@njit(inline="always", **COMPILE)
def _exp_minus(s):
    """exp(-s) for s in [0, 6.4], relative error below 1e-6."""
    y = s * f32(1 / 16)
    p = E0 + y * (E1 + y * (E2 + y * (E3 + y * (E4 + y * E5))))
    p = p * p
    p = p * p
    p = p * p
    return p * p


@njit(inline="always", **COMPILE)
def _span(mx, dy, cxx, cxy, cyy, limit, W):
    """Columns [x0, x1) where a row at offset dy meets the ellipse sigma <= limit."""
    bb = cxy * dy
    disc = bb * bb - cxx * (cyy * dy * dy - f32(2) * limit)
    r = math.sqrt(max(disc, ZERO))
    ia = ONE / cxx
    x0 = max(0, int(math.ceil(mx + (bb - r) * ia - HALF)))
    x1 = min(W - 1, int(math.floor(mx + (bb + r) * ia - HALF))) + 1
    return (x0, x1) if disc > ZERO else (0, 0)


@njit(**COMPILE)
def _any_alive(buf, alive, nr, blocks, fields, ROW):
    """Mark blocks of LANES pixels that are all opaque; false when none is left."""
    any_alive = False
    for r in range(nr):
        for b in range(blocks):
            if alive[r, b]:
                o = (r * fields + 1) * ROW + b * LANES
                v = buf[o : o + LANES]
                m = ZERO
                for j in range(LANES):
                    m += v[j]
                if m > ZERO:
                    any_alive = True
                else:
                    alive[r, b] = 0
    return any_alive


@njit(**COMPILE)
def composite_forward(
    order, off, ids, extent, xy, conics, opacities, colors, W, H, out, transmittance
):
    """Fill `out` [H, W, C] and `transmittance` [H, W]."""
    C = colors.shape[1]
    blocks = (W + LANES - 1) // LANES
    fields = 6
    lane = np.arange(LANES).astype(np.float32)
    buf = np.empty(STRIP * 6 * ROW, np.float32)
    alive = np.zeros((STRIP, blocks + 2), np.uint8)
    for s in range(off.shape[0] - 1):
        R0 = s * STRIP
        nr = min(STRIP, H - R0)
        for r in range(nr):
            for f in range(fields):
                o = (r * fields + f) * ROW
                v = buf[o : o + blocks * LANES + 2 * LANES]
                v[:] = ZERO
                if f < 2:
                    v[:W] = ONE
            alive[r, :blocks] = 1
        since = 0
        e = off[s + 1]
        for k in range(off[s], e):
            q = ids[k]
            i = order[q]
            limit = extent[q, 0]
            ry = extent[q, 1]
            mx = xy[i, 0]
            my = xy[i, 1]
            cxx = conics[i, 0]
            cxy = conics[i, 1]
            cyy = conics[i, 2]
            opacity = opacities[i]
            ha = HALF * cxx
            f0 = colors[i, 0]
            f1 = colors[i, 1] if C > 1 else ZERO
            f2 = colors[i, 2] if C > 2 else ZERO
            f3 = colors[i, 3] if C > 3 else ZERO
            y0 = max(0, int(math.ceil(my - ry - HALF)) - R0)
            y1 = min(nr - 1, int(math.floor(my + ry - HALF)) - R0)
            for r in range(y0, y1 + 1):
                dy = my - (f32(R0 + r) + HALF)
                x0, x1 = _span(mx, dy, cxx, cxy, cyy, limit, W)
                hc = HALF * cyy * dy * dy
                bb = cxy * dy
                for x in range(x0, x1, LANES):
                    if alive[r, x // LANES] + alive[r, (x + LANES - 1) // LANES] == 0:
                        continue
                    dx0 = mx - f32(x) - HALF
                    o = r * fields * ROW + x
                    line = buf[o : o + 5 * ROW + LANES]
                    for j in range(LANES):
                        dx = dx0 - lane[j]
                        sigma = hc + dx * (bb + ha * dx)
                        live = line[ROW + j]
                        T = line[j]
                        a = min(opacity * _exp_minus(min(sigma, f32(6.4))), MAX_ALPHA) * live
                        a = a if (sigma <= limit) & (sigma >= ZERO) else ZERO
                        dead = T * (ONE - a) <= STOP_TRANSMITTANCE
                        line[ROW + j] = ZERO if dead else live
                        w = ZERO if dead else a * T
                        line[j] = T - w
                        line[2 * ROW + j] += w * f0
                        line[3 * ROW + j] += w * f1
                        line[4 * ROW + j] += w * f2
                        line[5 * ROW + j] += w * f3
            since += 1
            if since == 32:
                since = 0
                if not _any_alive(buf, alive, nr, blocks, fields, ROW):
                    break
        for r in range(nr):
            for x in range(W):
                o = r * fields * ROW + x
                transmittance[R0 + r, x] = buf[o]
                for c in range(C):
                    out[R0 + r, x, c] = buf[o + (2 + c) * ROW]


def _make_backward(absgrad):
    """The backward kernel; `absgrad` is compiled in, since its sums cost a tenth of the time."""

    @njit(**COMPILE)
    def backward(
        order, off, ids, extent, xy, conics, opacities, colors, W, H, behind, gout, partial
    ):
        """Fill `partial` [slots, 12]; `behind` is dL/dimage . image plus dL/dT T at each pixel."""
        C = colors.shape[1]
        blocks = (W + LANES - 1) // LANES
        fields = 7
        lane = np.arange(LANES).astype(np.float32)
        buf = np.empty(STRIP * 7 * ROW, np.float32)
        alive = np.zeros((STRIP, blocks + 2), np.uint8)
        sums = np.zeros(9 * LANES, np.float32)
        a0 = np.zeros(STRIP, np.int64)
        a1 = np.zeros(STRIP, np.int64)
        for s in range(off.shape[0] - 1):
            R0 = s * STRIP
            nr = min(STRIP, H - R0)
            for r in range(nr):
                for f in range(fields):
                    o = (r * fields + f) * ROW
                    v = buf[o : o + blocks * LANES + 2 * LANES]
                    v[:] = ZERO
                    if f < 2:
                        v[:W] = ONE
                o = r * fields * ROW
                for x in range(W):
                    buf[o + 2 * ROW + x] = behind[R0 + r, x]
                    for c in range(C):
                        buf[o + (3 + c) * ROW + x] = gout[R0 + r, x, c]
                alive[r, :blocks] = 1
            since = 0
            e = off[s + 1]
            k = off[s]
            run = True
            while k < e and run:
                q = ids[k]
                i = order[q]
                limit = extent[q, 0]
                ry = extent[q, 1]
                mx = xy[i, 0]
                my = xy[i, 1]
                cxx = conics[i, 0]
                cxy = conics[i, 1]
                cyy = conics[i, 2]
                opacity = opacities[i]
                ha = HALF * cxx
                f0 = colors[i, 0]
                f1 = colors[i, 1] if C > 1 else ZERO
                f2 = colors[i, 2] if C > 2 else ZERO
                f3 = colors[i, 3] if C > 3 else ZERO
                y0 = max(0, int(math.ceil(my - ry - HALF)) - R0)
                y1 = min(nr - 1, int(math.floor(my + ry - HALF)) - R0)
                xl = W
                xh = 0
                for r in range(y0, y1 + 1):
                    x0, x1 = _span(mx, my - (f32(R0 + r) + HALF), cxx, cxy, cyy, limit, W)
                    a0[r] = x0
                    a1[r] = x1
                    if x1 > x0:
                        xl = min(xl, x0)
                        xh = max(xh, x1)
                t0 = ZERO
                t1 = ZERO
                t2 = ZERO
                t3 = ZERO
                t4 = ZERO
                t5 = ZERO
                t6 = ZERO
                t7 = ZERO
                t8 = ZERO
                t9 = ZERO
                t10 = ZERO
                t11 = ZERO
                for x in range(xl, xh, LANES):
                    sums[:] = ZERO
                    dx0 = mx - f32(x) - HALF
                    b0 = x // LANES
                    b1 = (x + LANES - 1) // LANES
                    for r in range(y0, y1 + 1):
                        if a0[r] >= x + LANES or a1[r] <= x or alive[r, b0] + alive[r, b1] == 0:
                            continue
                        dy = my - (f32(R0 + r) + HALF)
                        hc = HALF * cyy * dy * dy
                        bb = cxy * dy
                        cyy_dy = cyy * dy
                        dy2 = dy * dy
                        o = r * fields * ROW + x
                        line = buf[o : o + 6 * ROW + LANES]
                        for j in range(LANES):
                            dx = dx0 - lane[j]
                            sigma = hc + dx * (bb + ha * dx)
                            live = line[ROW + j]
                            T = line[j]
                            ar = opacity * _exp_minus(min(sigma, f32(6.4)))
                            a = min(ar, MAX_ALPHA) * live
                            a = a if (sigma <= limit) & (sigma >= ZERO) else ZERO
                            dead = T * (ONE - a) <= STOP_TRANSMITTANCE
                            line[ROW + j] = ZERO if dead else live
                            a = ZERO if dead else a
                            w = a * T
                            line[j] = T - w
                            g0 = line[3 * ROW + j]
                            g1 = line[4 * ROW + j]
                            g2 = line[5 * ROW + j]
                            g3 = line[6 * ROW + j]
                            cg = f0 * g0 + f1 * g1 + f2 * g2 + f3 * g3
                            Q = line[2 * ROW + j] - w * cg
                            line[2 * ROW + j] = Q
                            v = a * (Q / (ONE - a) - T * cg)
                            v = ZERO if ar > MAX_ALPHA else v
                            sums[j] += v
                            sums[LANES + j] += v * dy
                            sums[2 * LANES + j] += v * dy2
                            sums[3 * LANES + j] += w * g0
                            sums[4 * LANES + j] += w * g1
                            sums[5 * LANES + j] += w * g2
                            sums[6 * LANES + j] += w * g3
                            if absgrad:
                                sums[7 * LANES + j] += abs(v * (cxx * dx + bb))
                                sums[8 * LANES + j] += abs(v * (cxy * dx + cyy_dy))
                    for j in range(LANES):
                        dx = dx0 - lane[j]
                        v = sums[j]
                        vx = v * dx
                        u = sums[LANES + j]
                        t0 += v
                        t1 += vx
                        t2 += vx * dx
                        t3 += u
                        t4 += u * dx
                        t5 += sums[2 * LANES + j]
                        t6 += sums[3 * LANES + j]
                        t7 += sums[4 * LANES + j]
                        t8 += sums[5 * LANES + j]
                        t9 += sums[6 * LANES + j]
                        t10 += sums[7 * LANES + j]
                        t11 += sums[8 * LANES + j]
                partial[k, 0] = t0
                partial[k, 1] = t1
                partial[k, 2] = t2
                partial[k, 3] = t3
                partial[k, 4] = t4
                partial[k, 5] = t5
                partial[k, 6] = t6
                partial[k, 7] = t7
                partial[k, 8] = t8
                partial[k, 9] = t9
                partial[k, 10] = t10
                partial[k, 11] = t11
                k += 1
                since += 1
                if since == 32:
                    since = 0
                    run = _any_alive(buf, alive, nr, blocks, fields, ROW)
            if k < e:
                partial[k:e] = ZERO

    return backward


@njit(**COMPILE)
def gather_gradients(
    order,
    slots_of,
    slot,
    partial,
    conics,
    opacities,
    absgrad,
    g_xy,
    g_conics,
    g_opacities,
    g_colors,
    g_abs,
):
    """Add up the slots of each Gaussian and turn sums into derivatives."""
    n = order.shape[0]
    C = g_colors.shape[1]
    a = np.empty(12, np.float32)
    for q in range(n):
        a[:] = ZERO
        for p in range(slots_of[q], slots_of[q + 1]):
            for m in range(12):
                a[m] += partial[slot[p], m]
        i = order[q]
        g_xy[i, 0] = conics[i, 0] * a[1] + conics[i, 1] * a[3]
        g_xy[i, 1] = conics[i, 1] * a[1] + conics[i, 2] * a[3]
        g_conics[i, 0] = HALF * a[2]
        g_conics[i, 1] = a[4]
        g_conics[i, 2] = HALF * a[5]
        g_opacities[i] = -a[0] / opacities[i]
        for c in range(C):
            g_colors[i, c] = a[6 + c]
        if absgrad:
            g_abs[i, 0] = a[10]
            g_abs[i, 1] = a[11]


composite_backward = _make_backward(False)
composite_backward_abs = _make_backward(True)
