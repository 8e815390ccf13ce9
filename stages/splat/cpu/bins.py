"""Which Gaussians touch which strip of rows, nearest first."""

import math

import numpy as np
from numba import njit

from stages.splat.cpu.compiling import COMPILE, HALF, ONE, f32


@njit(**COMPILE)
def depth_order(depth_bits, radii):
    """Indices of the visible Gaussians, nearest first: a stable radix sort of the floats' bits."""
    N = depth_bits.shape[0]
    n = 0
    a = np.empty(N, np.int32)
    b = np.empty(N, np.int32)
    h = np.zeros((3, 2048), np.int32)
    for i in range(N):
        if radii[i, 0] > 0 and radii[i, 1] > 0:
            a[n] = i
            n += 1
            d = depth_bits[i]
            h[0, d & 2047] += 1
            h[1, (d >> 11) & 2047] += 1
            h[2, (d >> 22) & 1023] += 1
    for p in range(3):
        s = 0
        for k in range(2048):
            c = h[p, k]
            h[p, k] = s
            s += c
    for p in range(3):
        sh = np.uint32(11 * p)
        for q in range(n):
            i = a[q]
            k = (depth_bits[i] >> sh) & np.uint32(2047)
            b[h[p, k]] = i
            h[p, k] += 1
        a, b = b, a
    return a[:n]


@njit(**COMPILE)
def bin_strips(order, xy, conics, opacities, H, strip, extent, slots_of):
    """Strip offsets, ranks of the Gaussians in each strip, and the slots of each Gaussian.

    Fills extent[q] = (largest sigma above MIN_ALPHA, half height in px) and slots_of, the first
    slot of each rank.
    """
    ns = (H + strip - 1) // strip
    n = order.shape[0]
    lo = np.empty(n, np.int32)
    hi = np.empty(n, np.int32)
    cnt = np.zeros(ns + 1, np.int64)
    tot = 0
    for q in range(n):
        i = order[q]
        sm = math.log(f32(255) * opacities[i])
        extent[q, 0] = sm
        a = conics[i, 0]
        b = conics[i, 1]
        c = conics[i, 2]
        idet = ONE / (a * c - b * b)
        ry = math.sqrt(f32(2) * sm * a * idet)
        extent[q, 1] = ry
        y0 = max(0, int(math.ceil(xy[i, 1] - ry - HALF)))
        y1 = min(H - 1, int(math.floor(xy[i, 1] + ry - HALF)))
        lo[q] = y0 // strip
        hi[q] = (y1 // strip) if y1 >= y0 else lo[q] - 1
        slots_of[q] = tot
        for s in range(lo[q], hi[q] + 1):
            cnt[s + 1] += 1
            tot += 1
    slots_of[n] = tot
    off = np.cumsum(cnt)
    cur = off[:-1].copy()
    ids = np.empty(tot, np.int32)
    slot = np.empty(tot, np.int32)
    for q in range(n):
        p = slots_of[q]
        for s in range(lo[q], hi[q] + 1):
            ids[cur[s]] = q
            slot[p] = cur[s]
            p += 1
            cur[s] += 1
    return off, ids, slot
