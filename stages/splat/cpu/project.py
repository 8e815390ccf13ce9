"""Gaussians to ellipses on the screen, and back: one camera, float32.

A Gaussian is the unit ball under M = R(quat) diag(scales). Seen through A = J W, the Jacobian J
[2, 3] of the projection at its centre times the camera's rotation W, it becomes the ellipse of
B = A M, with covariance B B^T plus eps2d on the diagonal (EWA splatting, Zwicker et al. 2001).
J is taken at most MARGIN beyond the image's border, as gsplat does. `conics` is the covariance's
inverse (xx, xy, yy), px^-2. A radius of 0 means not visible; radii follow gsplat's CUDA rule.

p is a centre in the camera's frame, (u, v) = (x, y) / z. g_ leads the name of a derivative.
Derivatives are written by hand; the footprint is cheaper redone than kept.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from stages.splat.cpu.algebra import (
    Matrix,
    Vector,
    add,
    multiply,
    quat_gradient,
    rotation_from_quat,
    rotation_part,
    scale,
    transform,
    transform_back,
    vector,
)
from stages.splat.cpu.compiling import (
    COMPILE_STRICT,
    INLINE_STRICT,
    MIN_ALPHA,
    ONE,
    TWO,
    ZERO,
    Array,
    f32,
)
from stages.splat.cpu.ellipse import covariance, covariance_gradient

MARGIN = f32(0.15)  # share of the image's width and height
MAX_SIGMAS = f32(3.33)  # beyond it even an opaque Gaussian is below MIN_ALPHA
MAX_DETERMINANT = f32(3e38)  # px^4; a Gaussian that overflows it is skipped, like one with NaN
MAX_RADIUS = 2.0**30  # px


class Lens(NamedTuple):
    """One camera and its limits; numbers are float32."""

    cam_from_world: Array  # [4, 4]
    K: Array  # [3, 3] px
    width: float
    height: float
    near: float
    far: float
    eps2d: float  # px^2
    antialiased: bool


class Cloud(NamedTuple):
    """N Gaussians, or the derivatives by them."""

    means: Array  # [N, 3]
    quats: Array  # [N, 4] wxyz
    scales: Array  # [N, 3]
    opacities: Array  # [N]


class Screen(NamedTuple):
    """N projected Gaussians."""

    means2d: Array  # [N, 2] px
    conics: Array  # [N, 3] px^-2
    depths: Array  # [N]
    opacities: Array  # [N] times the antialiasing's compensation
    radii: Array  # [N, 2] int32 px


@njit(**COMPILE_STRICT)
def project_forward(cloud: Cloud, lens: Lens, screen: Screen) -> None:
    """Fill `screen`, whose arrays are zeros before."""
    limits = _limits(lens)
    fx, fy, cx, cy = lens.K[0, 0], lens.K[1, 1], lens.K[0, 2], lens.K[1, 2]
    for i in range(cloud.means.shape[0]):
        p = _to_camera(lens.cam_from_world, vector(cloud.means, i))
        screen.depths[i] = p[2]
        if not (p[2] >= lens.near and p[2] <= lens.far):
            continue
        q, _ = _unit_quat(cloud.quats, i)
        a0, a1 = _look(lens, p, limits)
        r, s = rotation_from_quat(q), vector(cloud.scales, i)
        b0, b1 = multiply(transform_back(r, a0), s), multiply(transform_back(r, a1), s)
        xx, xy, yy, det, compensation = covariance(b0, b1, lens.eps2d)
        opacity = cloud.opacities[i] * (compensation if lens.antialiased else ONE)
        if not (det > ZERO and det < MAX_DETERMINANT and opacity >= MIN_ALPHA):
            continue
        x, y = fx * p[0] / p[2] + cx, fy * p[1] / p[2] + cy
        reach = min(MAX_SIGMAS, math.sqrt(TWO * math.log(opacity / MIN_ALPHA)))
        rx, ry = math.ceil(reach * math.sqrt(xx)), math.ceil(reach * math.sqrt(yy))
        if not (x + rx > 0 and x - rx < lens.width and y + ry > 0 and y - ry < lens.height):
            continue
        screen.radii[i, 0], screen.radii[i, 1] = min(rx, MAX_RADIUS), min(ry, MAX_RADIUS)
        screen.means2d[i, 0], screen.means2d[i, 1] = x, y
        screen.conics[i, 0], screen.conics[i, 1] = yy / det, -xy / det
        screen.conics[i, 2] = xx / det
        screen.opacities[i] = opacity


@njit(**COMPILE_STRICT)
def project_backward(
    cloud: Cloud,
    lens: Lens,
    radii: Array,  # [N, 2]
    g_screen: Screen,  # its radii are not read
    g_cloud: Cloud,  # added to
) -> Array:
    """Add to the derivatives by the Gaussians; return those by cam_from_world[:3] [3, 4]."""
    g_view = np.zeros((3, 4), np.float64)
    limits, w = _limits(lens), rotation_part(lens.cam_from_world)
    for i in range(cloud.means.shape[0]):
        if radii[i, 0] <= 0 or radii[i, 1] <= 0:
            continue
        mean, s = vector(cloud.means, i), vector(cloud.scales, i)
        p = _to_camera(lens.cam_from_world, mean)
        q, length = _unit_quat(cloud.quats, i)
        a0, a1 = _look(lens, p, limits)
        r = rotation_from_quat(q)
        c0, c1 = transform_back(r, a0), transform_back(r, a1)
        gb0, gb1, g_opacity = covariance_gradient(
            multiply(c0, s),
            multiply(c1, s),
            lens.eps2d,
            cloud.opacities[i],
            lens.antialiased,
            vector(g_screen.conics, i),
            g_screen.opacities[i],
        )
        # A row of B is b = c s, with c = a R and a = j W.
        gc0, gc1 = multiply(gb0, s), multiply(gb1, s)
        ga0, ga1 = transform(r, gc0), transform(r, gc1)
        g_p = _look_gradient(
            lens,
            p,
            limits,
            transform(w, ga0),
            transform(w, ga1),
            g_screen.means2d[i, 0],
            g_screen.means2d[i, 1],
            g_screen.depths[i],
        )
        g_cloud.opacities[i] += g_opacity
        _accumulate(g_cloud.scales, i, add(multiply(c0, gb0), multiply(c1, gb1)))
        g_quat = quat_gradient(q, _outer_sum(a0, gc0, a1, gc1))
        _accumulate_quat(g_cloud.quats, i, g_quat, q, length)
        _accumulate(g_cloud.means, i, transform_back(w, g_p))
        j0, j1 = _jacobian(lens, p, limits)
        for k in range(3):
            for n in range(3):
                g_view[k, n] += j0[k] * ga0[n] + j1[k] * ga1[n] + g_p[k] * mean[n]
            g_view[k, 3] += g_p[k]
    return g_view


@njit(**INLINE_STRICT)
def _limits(lens: Lens) -> tuple[float, float, float, float]:
    """Least and greatest x / z, least and greatest y / z."""
    x, y, fx, fy = lens.K[0, 2], lens.K[1, 2], lens.K[0, 0], lens.K[1, 1]
    dx, dy = MARGIN * lens.width, MARGIN * lens.height
    return -(x + dx) / fx, (lens.width - x + dx) / fx, -(y + dy) / fy, (lens.height - y + dy) / fy


@njit(**INLINE_STRICT)
def _to_camera(view: Array, mean: Vector) -> Vector:
    p = transform(rotation_part(view), mean)
    return p[0] + view[0, 3], p[1] + view[1, 3], p[2] + view[2, 3]


@njit(**INLINE_STRICT)
def _unit_quat(quats: Array, i: int) -> tuple[tuple[float, float, float, float], float]:
    """A normalised quaternion, and its length before."""
    w, x, y, z = quats[i, 0], quats[i, 1], quats[i, 2], quats[i, 3]
    length = math.sqrt(w * w + x * x + y * y + z * z)
    k = ONE / length
    return (w * k, x * k, y * k, z * k), length


@njit(**INLINE_STRICT)
def _jacobian(
    lens: Lens, p: Vector, limits: tuple[float, float, float, float]
) -> tuple[Vector, Vector]:
    """Rows of J, px per unit of length."""
    k = ONE / p[2]
    u = min(limits[1], max(limits[0], p[0] * k))
    v = min(limits[3], max(limits[2], p[1] * k))
    fx, fy = lens.K[0, 0] * k, lens.K[1, 1] * k
    return (fx, ZERO, -fx * u), (ZERO, fy, -fy * v)


@njit(**INLINE_STRICT)
def _look(
    lens: Lens, p: Vector, limits: tuple[float, float, float, float]
) -> tuple[Vector, Vector]:
    """Rows of A = J W."""
    j0, j1 = _jacobian(lens, p, limits)
    w = rotation_part(lens.cam_from_world)
    return transform_back(w, j0), transform_back(w, j1)


@njit(**INLINE_STRICT)
def _look_gradient(
    lens: Lens,
    p: Vector,
    limits: tuple[float, float, float, float],
    gj0: Vector,
    gj1: Vector,
    g_x: float,
    g_y: float,
    g_depth: float,
) -> Vector:
    """Derivative by p: through J, through the position on the screen, and through the depth."""
    k = ONE / p[2]
    u, v = p[0] * k, p[1] * k
    j0, j1 = _jacobian(lens, p, limits)
    g_u = -j0[0] * gj0[2] if u > limits[0] and u < limits[1] else ZERO
    g_v = -j1[1] * gj1[2] if v > limits[2] and v < limits[3] else ZERO
    g_u += g_x * lens.K[0, 0]
    g_v += g_y * lens.K[1, 1]
    through_j = gj0[0] * j0[0] + gj0[2] * j0[2] + gj1[1] * j1[1] + gj1[2] * j1[2]
    return g_u * k, g_v * k, g_depth - (g_u * u + g_v * v + through_j) * k


@njit(**INLINE_STRICT)
def _outer_sum(a0: Vector, b0: Vector, a1: Vector, b1: Vector) -> Matrix:
    """a0 b0^T + a1 b1^T"""
    return (
        add(scale(b0, a0[0]), scale(b1, a1[0])),
        add(scale(b0, a0[1]), scale(b1, a1[1])),
        add(scale(b0, a0[2]), scale(b1, a1[2])),
    )


@njit(**INLINE_STRICT)
def _accumulate(out: Array, i: int, values: Vector) -> None:
    out[i, 0] += values[0]
    out[i, 1] += values[1]
    out[i, 2] += values[2]


@njit(**INLINE_STRICT)
def _accumulate_quat(
    out: Array,
    i: int,
    g: tuple[float, float, float, float],
    q: tuple[float, float, float, float],
    length: float,
) -> None:
    """Add the derivative by the quaternion of any length, from that by the unit one."""
    along = g[0] * q[0] + g[1] * q[1] + g[2] * q[2] + g[3] * q[3]
    k = ONE / length
    for n in range(4):
        out[i, n] += (g[n] - along * q[n]) * k
