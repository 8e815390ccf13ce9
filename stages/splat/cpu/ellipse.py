"""The ellipse that a Gaussian becomes on the screen: the covariance B B^T of B = (b0, b1), blurred.

Antialiasing (Yu et al. 2024, Mip-Splatting) takes back the light that the blur adds: opacity times
sqrt(det sharp / det blurred). g_ leads the name of a derivative.
"""

import math

from numba import njit

from stages.splat.cpu.algebra import Vector, add, cross, dot, scale
from stages.splat.cpu.compiling import HALF, INLINE_STRICT, ONE, TWO, ZERO, f32


@njit(**INLINE_STRICT)
def covariance(b0: Vector, b1: Vector, eps2d: float) -> tuple[float, float, float, float, float]:
    """Blurred xx, xy, yy, their determinant, and antialiasing's factor on the opacity.

    det(B B^T) is the squared area |b0 x b1|^2: no cancellation, never negative.
    """
    k = cross(b0, b1)
    sharp = dot(k, k)
    xx, yy = dot(b0, b0), dot(b1, b1)
    det = sharp + eps2d * (xx + yy) + eps2d * eps2d
    return xx + eps2d, dot(b0, b1), yy + eps2d, det, math.sqrt(sharp / det)


@njit(**INLINE_STRICT)
def covariance_gradient(
    b0: Vector,
    b1: Vector,
    eps2d: float,
    opacity: float,
    antialiased: bool,
    g_conic: Vector,
    g_drawn: float,  # by the compensated opacity
) -> tuple[Vector, Vector, float]:
    """Derivatives by b0, b1 and the opacity."""
    xx, xy, yy, det, compensation = covariance(b0, b1, eps2d)
    k = cross(b0, b1)
    inverse = ONE / det
    g_det = -(g_conic[0] * yy - g_conic[1] * xy + g_conic[2] * xx) * inverse * inverse
    g_sharp, g_opacity = ZERO, g_drawn
    if antialiased:  # compensation = sqrt(sharp / det)
        g_opacity = g_drawn * compensation
        if compensation > f32(1e-6):
            half = HALF * g_drawn * opacity / compensation
            g_sharp = half * inverse
            g_det -= half * compensation * compensation * inverse
    g_sharp += g_det
    g_xx = g_conic[2] * inverse + g_det * eps2d
    g_yy = g_conic[0] * inverse + g_det * eps2d
    g_xy = -g_conic[1] * inverse
    g_k = scale(k, TWO * g_sharp)
    gb0 = add(add(scale(b0, TWO * g_xx), scale(b1, g_xy)), cross(b1, g_k))
    gb1 = add(add(scale(b1, TWO * g_yy), scale(b0, g_xy)), cross(g_k, b0))
    return gb0, gb1, g_opacity
