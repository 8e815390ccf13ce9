"""Spherical harmonics up to degree 3, in the basis and signs of 3D Gaussian Splatting.

`x, y, z` is the unit direction from the camera to the Gaussian; `b` receives (degree + 1)^2 values.
Coefficients: Sloan, "Efficient Spherical Harmonic Evaluation", JCGT 2013.
"""

from numba import njit

from stages.splat.cpu.compiling import COMPILE, ZERO, f32


@njit(inline="always", **COMPILE)
def sh_basis(deg, x, y, z, b):
    """Basis values at a direction."""
    b[0] = f32(0.2820947917738781)
    if deg > 0:
        b[1] = f32(-0.48860251190292) * y
        b[2] = f32(0.48860251190292) * z
        b[3] = f32(-0.48860251190292) * x
    if deg > 1:
        z2 = z * z
        fb = f32(-1.092548430592079) * z
        fa = f32(0.5462742152960395)
        c1 = x * x - y * y
        s1 = f32(2) * x * y
        b[4] = fa * s1
        b[5] = fb * y
        b[6] = f32(0.9461746957575601) * z2 - f32(0.3153915652525201)
        b[7] = fb * x
        b[8] = fa * c1
    if deg > 2:
        fc = f32(-2.285228997322329) * z2 + f32(0.4570457994644658)
        fb = f32(1.445305721320277) * z
        fa = f32(-0.5900435899266435)
        c2 = x * c1 - y * s1
        s2 = x * s1 + y * c1
        b[9] = fa * s2
        b[10] = fb * s1
        b[11] = fc * y
        b[12] = z * (f32(1.865881662950577) * z2 - f32(1.119528997770346))
        b[13] = fc * x
        b[14] = fb * c1
        b[15] = fa * c2


@njit(inline="always", **COMPILE)
def sh_gradient(deg, x, y, z, g):
    """Gradient of sum_k g[k] b[k] along x, y and z."""
    vx = ZERO
    vy = ZERO
    vz = ZERO
    if deg > 0:
        k = f32(0.48860251190292)
        vy -= k * g[1]
        vz += k * g[2]
        vx -= k * g[3]
    if deg > 1:
        fa = f32(0.5462742152960395)
        fb = f32(-1.092548430592079)
        vx += fa * f32(2) * y * g[4]
        vy += fa * f32(2) * x * g[4]
        vy += fb * z * g[5]
        vz += fb * y * g[5]
        vz += f32(2 * 0.9461746957575601) * z * g[6]
        vx += fb * z * g[7]
        vz += fb * x * g[7]
        vx += fa * f32(2) * x * g[8]
        vy -= fa * f32(2) * y * g[8]
    if deg > 2:
        z2 = z * z
        c1 = x * x - y * y
        s1 = f32(2) * x * y
        fc = f32(-2.285228997322329) * z2 + f32(0.4570457994644658)
        fcz = f32(2 * -2.285228997322329) * z
        fb = f32(1.445305721320277)
        fa = f32(-0.5900435899266435)
        vx += fa * f32(3) * s1 * g[9]
        vy += fa * f32(3) * c1 * g[9]  # s2 = 3x^2 y - y^3
        vx += fb * z * f32(2) * y * g[10]
        vy += fb * z * f32(2) * x * g[10]
        vz += fb * s1 * g[10]
        vy += fc * g[11]
        vz += fcz * y * g[11]
        vz += (f32(3 * 1.865881662950577) * z2 - f32(1.119528997770346)) * g[12]
        vx += fc * g[13]
        vz += fcz * x * g[13]
        vx += fb * z * f32(2) * x * g[14]
        vy -= fb * z * f32(2) * y * g[14]
        vz += fb * c1 * g[14]
        vx += fa * f32(3) * c1 * g[15]
        vy -= fa * f32(3) * s1 * g[15]  # c2 = x^3 - 3xy^2
    return vx, vy, vz
