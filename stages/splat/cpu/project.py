"""Gaussians to screen-space ellipses and colours, and back: one camera, float32.

World to camera by V, then EWA projection (Zwicker et al. 2001): the 2D covariance is B B^T plus
eps2d on the diagonal, with B = J R M, M = R(quat) diag(scales) and J the projection's Jacobian,
clamped to 1.15 times the field of view. `conics` is its inverse (xx, xy, yy). Radii follow
gsplat's CUDA rule: 0 means not visible. Derivatives carry a leading g and are written by hand.
"""

import math

import numpy as np
from numba import njit

from stages.splat.cpu.compiling import COMPILE, HALF, MIN_ALPHA, ONE, ZERO, f32
from stages.splat.cpu.sh import sh_basis, sh_gradient


@njit(**COMPILE)
def project_forward(
    means,
    quats,
    scales,
    opacities,
    sh,
    deg,
    V,
    K,
    eye,
    W,
    H,
    eps2d,
    near,
    far,
    antialiased,
    xy,
    conics,
    depth,
    compensation,
    colors,
    radii,
):
    """Fill xy, conics, depth, compensation, colors and radii of N Gaussians."""
    N = means.shape[0]
    r00 = V[0, 0]
    r01 = V[0, 1]
    r02 = V[0, 2]
    r10 = V[1, 0]
    r11 = V[1, 1]
    r12 = V[1, 2]
    r20 = V[2, 0]
    r21 = V[2, 1]
    r22 = V[2, 2]
    fx = K[0, 0]
    fy = K[1, 1]
    cx = K[0, 2]
    cy = K[1, 2]
    lxp = (W - cx) / fx + f32(0.15) * W / fx
    lxn = cx / fx + f32(0.15) * W / fx
    lyp = (H - cy) / fy + f32(0.15) * H / fy
    lyn = cy / fy + f32(0.15) * H / fy
    b = np.empty(16, np.float32)
    for i in range(N):
        radii[i, 0] = 0
        radii[i, 1] = 0
        mx = means[i, 0]
        my = means[i, 1]
        mz = means[i, 2]
        x = r00 * mx + r01 * my + r02 * mz + V[0, 3]
        y = r10 * mx + r11 * my + r12 * mz + V[1, 3]
        z = r20 * mx + r21 * my + r22 * mz + V[2, 3]
        depth[i] = z
        if z < near or z > far:
            continue
        qw = quats[i, 0]
        qx = quats[i, 1]
        qy = quats[i, 2]
        qz = quats[i, 3]
        qn = ONE / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        qw *= qn
        qx *= qn
        qy *= qn
        qz *= qn
        s0 = scales[i, 0]
        s1 = scales[i, 1]
        s2 = scales[i, 2]
        # M = Rq * S  (world)
        m00 = (ONE - f32(2) * (qy * qy + qz * qz)) * s0
        m01 = f32(2) * (qx * qy - qw * qz) * s1
        m02 = f32(2) * (qx * qz + qw * qy) * s2
        m10 = f32(2) * (qx * qy + qw * qz) * s0
        m11 = (ONE - f32(2) * (qx * qx + qz * qz)) * s1
        m12 = f32(2) * (qy * qz - qw * qx) * s2
        m20 = f32(2) * (qx * qz - qw * qy) * s0
        m21 = f32(2) * (qy * qz + qw * qx) * s1
        m22 = (ONE - f32(2) * (qx * qx + qy * qy)) * s2
        rz = ONE / z
        tx = z * min(lxp, max(-lxn, x * rz))
        ty = z * min(lyp, max(-lyn, y * rz))
        j00 = fx * rz
        j02 = -fx * tx * rz * rz
        j11 = fy * rz
        j12 = -fy * ty * rz * rz
        # A = J * Rcw  (2x3)
        a00 = j00 * r00 + j02 * r20
        a01 = j00 * r01 + j02 * r21
        a02 = j00 * r02 + j02 * r22
        a10 = j11 * r10 + j12 * r20
        a11 = j11 * r11 + j12 * r21
        a12 = j11 * r12 + j12 * r22
        # B = A * M (2x3), cov = B B^T
        b00 = a00 * m00 + a01 * m10 + a02 * m20
        b01 = a00 * m01 + a01 * m11 + a02 * m21
        b02 = a00 * m02 + a01 * m12 + a02 * m22
        b10 = a10 * m00 + a11 * m10 + a12 * m20
        b11 = a10 * m01 + a11 * m11 + a12 * m21
        b12 = a10 * m02 + a11 * m12 + a12 * m22
        cxx = b00 * b00 + b01 * b01 + b02 * b02
        cxy = b00 * b10 + b01 * b11 + b02 * b12
        cyy = b10 * b10 + b11 * b11 + b12 * b12
        # det of B B^T via cross product of the rows: no cancellation
        k0 = b01 * b12 - b02 * b11
        k1 = b02 * b10 - b00 * b12
        k2 = b00 * b11 - b01 * b10
        det0 = k0 * k0 + k1 * k1 + k2 * k2
        det = det0 + eps2d * (cxx + cyy) + eps2d * eps2d
        cxx += eps2d
        cyy += eps2d
        if det <= ZERO:
            continue
        o = opacities[i]
        cm = ONE
        if antialiased:
            cm = math.sqrt(det0 / det)
            o *= cm
        compensation[i] = cm
        if o < MIN_ALPHA:
            continue
        ext = min(f32(3.33), math.sqrt(f32(2) * math.log(o * f32(255))))
        rx = math.ceil(ext * math.sqrt(cxx))
        ry = math.ceil(ext * math.sqrt(cyy))
        u = fx * x * rz + cx
        v = fy * y * rz + cy
        if u + rx <= 0 or u - rx >= W or v + ry <= 0 or v - ry >= H:
            continue
        radii[i, 0] = int(rx)
        radii[i, 1] = int(ry)
        xy[i, 0] = u
        xy[i, 1] = v
        di = ONE / det
        conics[i, 0] = cyy * di
        conics[i, 1] = -cxy * di
        conics[i, 2] = cxx * di
        if deg >= 0:
            dx = mx - eye[0]
            dy = my - eye[1]
            dz = mz - eye[2]
            dn = ONE / math.sqrt(dx * dx + dy * dy + dz * dz)
            sh_basis(deg, dx * dn, dy * dn, dz * dn, b)
            c0 = HALF
            c1_ = HALF
            c2_ = HALF
            for k in range((deg + 1) * (deg + 1)):
                c0 += b[k] * sh[i, k, 0]
                c1_ += b[k] * sh[i, k, 1]
                c2_ += b[k] * sh[i, k, 2]
            colors[i, 0] = max(c0, ZERO)
            colors[i, 1] = max(c1_, ZERO)
            colors[i, 2] = max(c2_, ZERO)


@njit(**COMPILE)
def project_backward(
    means,
    quats,
    scales,
    sh,
    deg,
    V,
    K,
    eye,
    W,
    H,
    eps2d,
    antialiased,
    compensation,
    colors,
    radii,
    g_xy,
    g_conics,
    g_depth,
    g_compensation,
    g_colors,
    g_means,
    g_quats,
    g_scales,
    g_sh,
):
    """Fill the derivatives of the inputs; return those of V [3, 4] and of the camera centre [3]."""
    N = means.shape[0]
    r00 = V[0, 0]
    r01 = V[0, 1]
    r02 = V[0, 2]
    r10 = V[1, 0]
    r11 = V[1, 1]
    r12 = V[1, 2]
    r20 = V[2, 0]
    r21 = V[2, 1]
    r22 = V[2, 2]
    fx = K[0, 0]
    fy = K[1, 1]
    cx = K[0, 2]
    cy = K[1, 2]
    lxp = (W - cx) / fx + f32(0.15) * W / fx
    lxn = cx / fx + f32(0.15) * W / fx
    lyp = (H - cy) / fy + f32(0.15) * H / fy
    lyn = cy / fy + f32(0.15) * H / fy
    b = np.zeros(16, np.float32)
    gb = np.zeros(16, np.float32)
    gV = np.zeros((3, 4), np.float32)
    gc = np.zeros(3, np.float32)
    for i in range(N):
        if radii[i, 0] <= 0 or radii[i, 1] <= 0:
            continue
        mx = means[i, 0]
        my = means[i, 1]
        mz = means[i, 2]
        x = r00 * mx + r01 * my + r02 * mz + V[0, 3]
        y = r10 * mx + r11 * my + r12 * mz + V[1, 3]
        z = r20 * mx + r21 * my + r22 * mz + V[2, 3]
        qw = quats[i, 0]
        qx = quats[i, 1]
        qy = quats[i, 2]
        qz = quats[i, 3]
        qn = ONE / math.sqrt(qw * qw + qx * qx + qy * qy + qz * qz)
        qw *= qn
        qx *= qn
        qy *= qn
        qz *= qn
        s0 = scales[i, 0]
        s1 = scales[i, 1]
        s2 = scales[i, 2]
        q00 = ONE - f32(2) * (qy * qy + qz * qz)
        q01 = f32(2) * (qx * qy - qw * qz)
        q02 = f32(2) * (qx * qz + qw * qy)
        q10 = f32(2) * (qx * qy + qw * qz)
        q11 = ONE - f32(2) * (qx * qx + qz * qz)
        q12 = f32(2) * (qy * qz - qw * qx)
        q20 = f32(2) * (qx * qz - qw * qy)
        q21 = f32(2) * (qy * qz + qw * qx)
        q22 = ONE - f32(2) * (qx * qx + qy * qy)
        m00 = q00 * s0
        m01 = q01 * s1
        m02 = q02 * s2
        m10 = q10 * s0
        m11 = q11 * s1
        m12 = q12 * s2
        m20 = q20 * s0
        m21 = q21 * s1
        m22 = q22 * s2
        rz = ONE / z
        xr = x * rz
        yr = y * rz
        clx = ONE
        cly = ONE  # 1 inside the fov clamp
        ux = xr
        uy = yr
        if xr > lxp:
            ux = lxp
            clx = ZERO
        if xr < -lxn:
            ux = -lxn
            clx = ZERO
        if yr > lyp:
            uy = lyp
            cly = ZERO
        if yr < -lyn:
            uy = -lyn
            cly = ZERO
        j00 = fx * rz
        j02 = -fx * ux * rz
        j11 = fy * rz
        j12 = -fy * uy * rz
        a00 = j00 * r00 + j02 * r20
        a01 = j00 * r01 + j02 * r21
        a02 = j00 * r02 + j02 * r22
        a10 = j11 * r10 + j12 * r20
        a11 = j11 * r11 + j12 * r21
        a12 = j11 * r12 + j12 * r22
        b00 = a00 * m00 + a01 * m10 + a02 * m20
        b01 = a00 * m01 + a01 * m11 + a02 * m21
        b02 = a00 * m02 + a01 * m12 + a02 * m22
        b10 = a10 * m00 + a11 * m10 + a12 * m20
        b11 = a10 * m01 + a11 * m11 + a12 * m21
        b12 = a10 * m02 + a11 * m12 + a12 * m22
        cxx = b00 * b00 + b01 * b01 + b02 * b02
        cxy = b00 * b10 + b01 * b11 + b02 * b12
        cyy = b10 * b10 + b11 * b11 + b12 * b12
        k0 = b01 * b12 - b02 * b11
        k1 = b02 * b10 - b00 * b12
        k2 = b00 * b11 - b01 * b10
        det0 = k0 * k0 + k1 * k1 + k2 * k2
        tr = cxx + cyy
        det = det0 + eps2d * tr + eps2d * eps2d
        di = ONE / det
        cxx += eps2d
        cyy += eps2d
        # conic = [cyy, -cxy, cxx]/det
        g0 = g_conics[i, 0]
        g1 = g_conics[i, 1]
        g2 = g_conics[i, 2]
        gdet = -(g0 * cyy - g1 * cxy + g2 * cxx) * di * di
        gxx = g2 * di
        gyy = g0 * di
        gxy_ = -g1 * di
        gdet0 = ZERO
        if antialiased:  # compensation = sqrt(det0/det)
            cm = compensation[i]
            if cm > f32(1e-6):
                h = HALF * g_compensation[i] / cm
                gdet0 = h * di
                gdet -= h * det0 * di * di
        gdet0 += gdet
        gtr = gdet * eps2d
        gxx += gtr
        gyy += gtr
        # det0 = |k|^2, k = b0 x b1 ; gb0 = b1 x gk, gb1 = gk x b0
        h0 = f32(2) * gdet0 * k0
        h1 = f32(2) * gdet0 * k1
        h2 = f32(2) * gdet0 * k2
        gb00 = b11 * h2 - b12 * h1 + f32(2) * gxx * b00 + gxy_ * b10
        gb01 = b12 * h0 - b10 * h2 + f32(2) * gxx * b01 + gxy_ * b11
        gb02 = b10 * h1 - b11 * h0 + f32(2) * gxx * b02 + gxy_ * b12
        gb10 = h1 * b02 - h2 * b01 + f32(2) * gyy * b10 + gxy_ * b00
        gb11 = h2 * b00 - h0 * b02 + f32(2) * gyy * b11 + gxy_ * b01
        gb12 = h0 * b01 - h1 * b00 + f32(2) * gyy * b12 + gxy_ * b02
        # B = A M
        ga00 = gb00 * m00 + gb01 * m01 + gb02 * m02
        ga01 = gb00 * m10 + gb01 * m11 + gb02 * m12
        ga02 = gb00 * m20 + gb01 * m21 + gb02 * m22
        ga10 = gb10 * m00 + gb11 * m01 + gb12 * m02
        ga11 = gb10 * m10 + gb11 * m11 + gb12 * m12
        ga12 = gb10 * m20 + gb11 * m21 + gb12 * m22
        gm00 = a00 * gb00 + a10 * gb10
        gm01 = a00 * gb01 + a10 * gb11
        gm02 = a00 * gb02 + a10 * gb12
        gm10 = a01 * gb00 + a11 * gb10
        gm11 = a01 * gb01 + a11 * gb11
        gm12 = a01 * gb02 + a11 * gb12
        gm20 = a02 * gb00 + a12 * gb10
        gm21 = a02 * gb01 + a12 * gb11
        gm22 = a02 * gb02 + a12 * gb12
        # A = J R
        gj00 = ga00 * r00 + ga01 * r01 + ga02 * r02
        gj02 = ga00 * r20 + ga01 * r21 + ga02 * r22
        gj11 = ga10 * r10 + ga11 * r11 + ga12 * r12
        gj12 = ga10 * r20 + ga11 * r21 + ga12 * r22
        gV[0, 0] += j00 * ga00
        gV[0, 1] += j00 * ga01
        gV[0, 2] += j00 * ga02
        gV[1, 0] += j11 * ga10
        gV[1, 1] += j11 * ga11
        gV[1, 2] += j11 * ga12
        gV[2, 0] += j02 * ga00 + j12 * ga10
        gV[2, 1] += j02 * ga01 + j12 * ga11
        gV[2, 2] += j02 * ga02 + j12 * ga12
        # camera-space mean
        gu = g_xy[i, 0]
        gv = g_xy[i, 1]
        gx = gu * j00
        gy = gv * j11
        gz = -(gu * fx * xr + gv * fy * yr) * rz + g_depth[i]
        gz -= (gj00 * j00 + gj11 * j11) * rz
        # j02 = -fx*ux/z ; ux = x/z or const
        gux = -fx * rz * gj02
        guy = -fy * rz * gj12
        gz -= (gj02 * j02 + gj12 * j12) * rz
        gx += clx * gux * rz
        gz -= clx * gux * xr * rz
        gy += cly * guy * rz
        gz -= cly * guy * yr * rz
        gmx = r00 * gx + r10 * gy + r20 * gz
        gmy = r01 * gx + r11 * gy + r21 * gz
        gmz = r02 * gx + r12 * gy + r22 * gz
        gV[0, 0] += gx * mx
        gV[0, 1] += gx * my
        gV[0, 2] += gx * mz
        gV[0, 3] += gx
        gV[1, 0] += gy * mx
        gV[1, 1] += gy * my
        gV[1, 2] += gy * mz
        gV[1, 3] += gy
        gV[2, 0] += gz * mx
        gV[2, 1] += gz * my
        gV[2, 2] += gz * mz
        gV[2, 3] += gz
        # M = Rq S
        g_scales[i, 0] = gm00 * q00 + gm10 * q10 + gm20 * q20
        g_scales[i, 1] = gm01 * q01 + gm11 * q11 + gm21 * q21
        g_scales[i, 2] = gm02 * q02 + gm12 * q12 + gm22 * q22
        gm00 *= s0
        gm10 *= s0
        gm20 *= s0
        gm01 *= s1
        gm11 *= s1
        gm21 *= s1
        gm02 *= s2
        gm12 *= s2
        gm22 *= s2
        vw = f32(2) * (qx * (gm21 - gm12) + qy * (gm02 - gm20) + qz * (gm10 - gm01))
        vx = f32(2) * (
            f32(-2) * qx * (gm11 + gm22)
            + qy * (gm01 + gm10)
            + qz * (gm02 + gm20)
            + qw * (gm21 - gm12)
        )
        vy = f32(2) * (
            qx * (gm01 + gm10)
            - f32(2) * qy * (gm00 + gm22)
            + qz * (gm12 + gm21)
            + qw * (gm02 - gm20)
        )
        vz = f32(2) * (
            qx * (gm02 + gm20)
            + qy * (gm12 + gm21)
            - f32(2) * qz * (gm00 + gm11)
            + qw * (gm10 - gm01)
        )
        dt = vw * qw + vx * qx + vy * qy + vz * qz
        g_quats[i, 0] = (vw - dt * qw) * qn
        g_quats[i, 1] = (vx - dt * qx) * qn
        g_quats[i, 2] = (vy - dt * qy) * qn
        g_quats[i, 3] = (vz - dt * qz) * qn
        if deg >= 0:
            dx = mx - eye[0]
            dy = my - eye[1]
            dz = mz - eye[2]
            dn = ONE / math.sqrt(dx * dx + dy * dy + dz * dz)
            dx *= dn
            dy *= dn
            dz *= dn
            sh_basis(deg, dx, dy, dz, b)
            c0 = g_colors[i, 0] if colors[i, 0] > ZERO else ZERO
            c1 = g_colors[i, 1] if colors[i, 1] > ZERO else ZERO
            c2 = g_colors[i, 2] if colors[i, 2] > ZERO else ZERO
            for k in range((deg + 1) * (deg + 1)):
                g_sh[i, k, 0] = b[k] * c0
                g_sh[i, k, 1] = b[k] * c1
                g_sh[i, k, 2] = b[k] * c2
                gb[k] = c0 * sh[i, k, 0] + c1 * sh[i, k, 1] + c2 * sh[i, k, 2]
            if deg > 0:
                ex, ey, ez = sh_gradient(deg, dx, dy, dz, gb)
                dd = ex * dx + ey * dy + ez * dz
                ex = (ex - dd * dx) * dn
                ey = (ey - dd * dy) * dn
                ez = (ez - dd * dz) * dn
                gmx += ex
                gmy += ey
                gmz += ez
                gc[0] -= ex
                gc[1] -= ey
                gc[2] -= ez
        g_means[i, 0] = gmx
        g_means[i, 1] = gmy
        g_means[i, 2] = gmz
    return gV, gc
