"""Colours from spherical harmonics up to degree 3, in the basis and signs of 3D Gaussian Splatting.

A colour is max(0, 0.5 + sum_k b_k(d) sh_k), d = (x, y, z) the unit direction from the camera's
centre to the Gaussian. Basis: Sloan, "Efficient Spherical Harmonic Evaluation", JCGT 2013.
"""

import math

import numpy as np
from numba import njit

from stages.splat.cpu.algebra import Vector, add, dot, scale, vector
from stages.splat.cpu.compiling import COMPILE_STRICT, HALF, INLINE_STRICT, ONE, ZERO, Array, f32

MAX_DEGREE = 3
C0 = f32(0.28209479177387814)
C1 = f32(0.4886025119029199)
C2 = f32(1.0925484305920792)  # xy, yz, xz
C20 = f32(0.31539156525252005)  # 3 z^2 - 1
C22 = f32(0.5462742152960396)  # x^2 - y^2
C30 = f32(0.3731763325901154)  # z (5 z^2 - 3)
C31 = f32(0.4570457994644658)  # x and y (5 z^2 - 1)
C32 = f32(1.4453057213202771)  # z (x^2 - y^2), and twice it for xyz
C33 = f32(0.5900435899266435)  # x (x^2 - 3 y^2), y (3 x^2 - y^2)
THREE, FIVE = f32(3), f32(5)


@njit(**COMPILE_STRICT)
def shade_forward(
    means: Array, sh: Array, eye: Array, radii: Array, degree: int, colors: Array
) -> None:
    """Fill colors [N, 3] of the visible Gaussians from sh [N, K, 3]; eye [3] is the centre."""
    basis = np.empty(16, np.float32)
    for i in range(means.shape[0]):
        if radii[i, 0] <= 0 or radii[i, 1] <= 0:
            continue
        direction, _ = _direction(means, i, eye)
        _fill_basis(degree, direction, basis)
        color = (HALF, HALF, HALF)
        for k in range((degree + 1) ** 2):
            color = add(color, scale(vector(sh[i], k), basis[k]))
        for n in range(3):
            colors[i, n] = max(color[n], ZERO)


@njit(**COMPILE_STRICT)
def shade_backward(
    means: Array,
    sh: Array,
    eye: Array,
    radii: Array,
    degree: int,
    colors: Array,
    g_colors: Array,
    g_means: Array,
    g_sh: Array,
) -> Array:
    """Add to the derivatives by means and sh, and return that by the camera's centre [3]."""
    g_eye = np.zeros(3, np.float64)
    basis, g_basis = np.empty(16, np.float32), np.empty(16, np.float32)
    for i in range(means.shape[0]):
        if radii[i, 0] <= 0 or radii[i, 1] <= 0:
            continue
        direction, distance = _direction(means, i, eye)
        _fill_basis(degree, direction, basis)
        g_color = (
            g_colors[i, 0] if colors[i, 0] > ZERO else ZERO,
            g_colors[i, 1] if colors[i, 1] > ZERO else ZERO,
            g_colors[i, 2] if colors[i, 2] > ZERO else ZERO,
        )
        for k in range((degree + 1) ** 2):
            g_basis[k] = dot(g_color, vector(sh[i], k))
            for n in range(3):
                g_sh[i, k, n] += basis[k] * g_color[n]
        if degree == 0:
            continue
        g = _basis_gradient(degree, direction, g_basis)
        g = scale(add(g, scale(direction, -dot(g, direction))), ONE / distance)
        for n in range(3):
            g_means[i, n] += g[n]
            g_eye[n] -= g[n]
    return g_eye


@njit(**INLINE_STRICT)
def _direction(means: Array, i: int, eye: Array) -> tuple[Vector, float]:
    """Unit direction from the camera's centre, and the distance."""
    d = add(vector(means, i), (-eye[0], -eye[1], -eye[2]))
    distance = math.sqrt(dot(d, d))
    return scale(d, ONE / distance), distance


@njit(**INLINE_STRICT)
def _fill_basis(degree: int, direction: Vector, b: Array) -> None:
    """b_k at a unit direction, k < (degree + 1)^2."""
    x, y, z = direction
    b[0] = C0
    if degree > 0:
        b[1], b[2], b[3] = -C1 * y, C1 * z, -C1 * x
    if degree > 1:
        b[4], b[5], b[7] = C2 * x * y, -C2 * y * z, -C2 * x * z
        b[6], b[8] = C20 * (THREE * z * z - ONE), C22 * (x * x - y * y)
    if degree > 2:
        band = FIVE * z * z - ONE
        b[9], b[15] = -C33 * y * (THREE * x * x - y * y), -C33 * x * (x * x - THREE * y * y)
        b[10], b[14] = f32(2) * C32 * x * y * z, C32 * z * (x * x - y * y)
        b[11], b[13] = -C31 * y * band, -C31 * x * band
        b[12] = C30 * z * (FIVE * z * z - THREE)


@njit(**INLINE_STRICT)
def _basis_gradient(degree: int, direction: Vector, g: Array) -> Vector:
    """Derivative of sum_k g_k b_k along x, y and z, for degree 1 or more."""
    x, y, z = direction
    gx, gy, gz = -C1 * g[3], -C1 * g[1], C1 * g[2]
    if degree > 1:
        gx += C2 * (y * g[4] - z * g[7]) + f32(2) * C22 * x * g[8]
        gy += C2 * (x * g[4] - z * g[5]) - f32(2) * C22 * y * g[8]
        gz += -C2 * (y * g[5] + x * g[7]) + f32(6) * C20 * z * g[6]
    if degree > 2:
        band, square, product = FIVE * z * z - ONE, THREE * (x * x - y * y), f32(6) * x * y
        gx += -C33 * (product * g[9] + square * g[15]) - C31 * band * g[13]
        gy += -C33 * (square * g[9] - product * g[15]) - C31 * band * g[11]
        gx += f32(2) * C32 * z * (y * g[10] + x * g[14])
        gy += f32(2) * C32 * z * (x * g[10] - y * g[14])
        gz += C32 * (f32(2) * x * y * g[10] + (x * x - y * y) * g[14])
        gz += -f32(10) * C31 * z * (y * g[11] + x * g[13])
        gz += C30 * (f32(15) * z * z - THREE) * g[12]
    return gx, gy, gz
