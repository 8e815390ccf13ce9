// Gaussians of the world to ellipses on the screen with their colours, and back: a thread a Gaussian.
//
// The formulas and their names are those of stages/splat/cpu (project, ellipse and sh): see there for
// their sources. Harmonics pass through shared memory, because threads that read rows of 48 numbers
// each would use one number of each sector that they fetch.
//
// COEFFICIENTS (1, 4, 9 or 16), CHANNELS (3 or 4), ABSOLUTE and LEARNT (0 or 1) are given to the
// compiler. With LEARNT, scales are logarithms and opacities logits.

namespace {

constexpr int THREADS = 128, WARPS = THREADS / 32;
constexpr int WIDTH = 3 * COEFFICIENTS, STRIDE = WIDTH | 1;  // odd, so that rows start in all banks
constexpr int VALUES = 12;  // of a packed Gaussian, and of its gradient
constexpr float MARGIN = 0.15f, MAX_SIGMAS = 3.33f, LEAST_ALPHA = 1.0f / 255;
constexpr float MAX_DETERMINANT = 3e38f, MAX_RADIUS = 1073741824.0f;
constexpr float LOG2_E = 1.4426950408889634f;
constexpr float C0 = 0.28209479177387814f, C1 = 0.4886025119029199f, C2 = 1.0925484305920792f;
constexpr float C20 = 0.31539156525252005f, C22 = 0.5462742152960396f, C30 = 0.3731763325901154f;
constexpr float C31 = 0.4570457994644658f, C32 = 1.4453057213202771f, C33 = 0.5900435899266435f;
constexpr unsigned ALL = 0xffffffffu;

struct Vector {
    float x, y, z;
};
struct Matrix {
    Vector x, y, z;  // rows
};

#define INLINE __device__ __forceinline__
INLINE Vector operator+(Vector a, Vector b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
INLINE Vector operator-(Vector a, Vector b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
INLINE Vector operator*(Vector a, Vector b) { return {a.x * b.x, a.y * b.y, a.z * b.z}; }
INLINE Vector operator*(Vector a, float k) { return {a.x * k, a.y * k, a.z * k}; }
INLINE float dot(Vector a, Vector b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
INLINE Vector cross(Vector a, Vector b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
INLINE Vector transform(const Matrix& m, Vector a) { return {dot(m.x, a), dot(m.y, a), dot(m.z, a)}; }
// M^T a, which is also the row a M.
INLINE Vector transform_back(const Matrix& m, Vector a) { return m.x * a.x + m.y * a.y + m.z * a.z; }
INLINE Vector vector(const float* at) { return {at[0], at[1], at[2]}; }

struct Lens {
    Matrix rotation;
    Vector shift;
    float fx, fy, cx, cy;
    float least_u, most_u, least_v, most_v;  // of x / z and y / z in the Jacobian
};

INLINE Lens lens_of(const float* view, const float* K, int width, int height) {
    Lens lens;
    lens.rotation = {vector(view), vector(view + 4), vector(view + 8)};
    lens.shift = {view[3], view[7], view[11]};
    lens.fx = K[0], lens.fy = K[4], lens.cx = K[2], lens.cy = K[5];
    const float more_x = MARGIN * width, more_y = MARGIN * height;
    lens.least_u = -(lens.cx + more_x) / lens.fx;
    lens.most_u = (width - lens.cx + more_x) / lens.fx;
    lens.least_v = -(lens.cy + more_y) / lens.fy;
    lens.most_v = (height - lens.cy + more_y) / lens.fy;
    return lens;
}

// Rows of the projection's Jacobian at p, px per unit of length.
INLINE void jacobian(const Lens& lens, Vector p, Vector& j0, Vector& j1) {
    const float k = 1 / p.z;
    const float u = fminf(lens.most_u, fmaxf(lens.least_u, p.x * k));
    const float v = fminf(lens.most_v, fmaxf(lens.least_v, p.y * k));
    j0 = {lens.fx * k, 0, -lens.fx * k * u};
    j1 = {0, lens.fy * k, -lens.fy * k * v};
}

struct Quaternion {
    float w, x, y, z, length;  // of unit length; and the length before
};

INLINE Quaternion unit(const float* at) {
    const float w = at[0], x = at[1], y = at[2], z = at[3];
    const float length = sqrtf(w * w + x * x + y * y + z * z), k = 1 / length;
    return {w * k, x * k, y * k, z * k, length};
}

INLINE Matrix rotation_of(Quaternion q) {
    return {{1 - 2 * (q.y * q.y + q.z * q.z), 2 * (q.x * q.y - q.w * q.z), 2 * (q.x * q.z + q.w * q.y)},
            {2 * (q.x * q.y + q.w * q.z), 1 - 2 * (q.x * q.x + q.z * q.z), 2 * (q.y * q.z - q.w * q.x)},
            {2 * (q.x * q.z - q.w * q.y), 2 * (q.y * q.z + q.w * q.x), 1 - 2 * (q.x * q.x + q.y * q.y)}};
}

INLINE Vector scales_at(const float* at) {
    if (LEARNT) return {expf(at[0]), expf(at[1]), expf(at[2])};
    return vector(at);
}

INLINE float opacity_at(const float* at) { return LEARNT ? 1 / (1 + expf(-*at)) : *at; }

struct Ellipse {
    float xx, xy, yy, det, compensation;
};

// The covariance of B = (b0, b1), blurred. det(B B^T) is |b0 x b1|^2: without cancellation.
INLINE Ellipse ellipse_of(Vector b0, Vector b1, float eps2d) {
    const Vector k = cross(b0, b1);
    const float sharp = dot(k, k), xx = dot(b0, b0), yy = dot(b1, b1);
    const float det = sharp + eps2d * (xx + yy) + eps2d * eps2d;
    return {xx + eps2d, dot(b0, b1), yy + eps2d, det, sqrtf(sharp / det)};
}

INLINE void fill_basis(int degree, Vector d, float* b) {
    const float x = d.x, y = d.y, z = d.z;
    b[0] = C0;
    if (COEFFICIENTS > 1 && degree > 0) b[1] = -C1 * y, b[2] = C1 * z, b[3] = -C1 * x;
    if (COEFFICIENTS > 4 && degree > 1) {
        b[4] = C2 * x * y, b[5] = -C2 * y * z, b[7] = -C2 * x * z;
        b[6] = C20 * (3 * z * z - 1), b[8] = C22 * (x * x - y * y);
    }
    if (COEFFICIENTS > 9 && degree > 2) {
        const float band = 5 * z * z - 1;
        b[9] = -C33 * y * (3 * x * x - y * y), b[15] = -C33 * x * (x * x - 3 * y * y);
        b[10] = 2 * C32 * x * y * z, b[14] = C32 * z * (x * x - y * y);
        b[11] = -C31 * y * band, b[13] = -C31 * x * band;
        b[12] = C30 * z * (5 * z * z - 3);
    }
}

// Derivative of sum_k g_k b_k along x, y and z.
INLINE Vector basis_gradient(int degree, Vector d, const float* g) {
    const float x = d.x, y = d.y, z = d.z;
    Vector to = {0, 0, 0};
    if (COEFFICIENTS > 1 && degree > 0) to = {-C1 * g[3], -C1 * g[1], C1 * g[2]};
    if (COEFFICIENTS > 4 && degree > 1) {
        to.x += C2 * (y * g[4] - z * g[7]) + 2 * C22 * x * g[8];
        to.y += C2 * (x * g[4] - z * g[5]) - 2 * C22 * y * g[8];
        to.z += -C2 * (y * g[5] + x * g[7]) + 6 * C20 * z * g[6];
    }
    if (COEFFICIENTS > 9 && degree > 2) {
        const float band = 5 * z * z - 1, square = 3 * (x * x - y * y), product = 6 * x * y;
        to.x += -C33 * (product * g[9] + square * g[15]) - C31 * band * g[13];
        to.y += -C33 * (square * g[9] - product * g[15]) - C31 * band * g[11];
        to.x += 2 * C32 * z * (y * g[10] + x * g[14]);
        to.y += 2 * C32 * z * (x * g[10] - y * g[14]);
        to.z += C32 * (2 * x * y * g[10] + (x * x - y * y) * g[14]);
        to.z += -10 * C31 * z * (y * g[11] + x * g[13]);
        to.z += C30 * (15 * z * z - 3) * g[12];
    }
    return to;
}

// Copy the rows of a warp's Gaussians whose bit is set; `rows` is the warp's own.
INLINE void read_rows(const float* from, float* rows, unsigned wanted, int lane) {
    for (int at = lane; at < 32 * WIDTH; at += 32) {
        const int row = at / WIDTH;
        if (wanted >> row & 1) rows[row * STRIDE + at - row * WIDTH] = from[at];
    }
    __syncwarp();
}

INLINE float warp_sum(float value) {
    for (int k = 16; k > 0; k >>= 1) value += __shfl_xor_sync(ALL, value, k);
    return value;
}

}  // namespace

extern "C" {

__global__ void __launch_bounds__(THREADS) project(
    const float* __restrict__ means,       // [N, 3]
    const float* __restrict__ quats,       // [N, 4] wxyz, any length
    const float* __restrict__ scales,      // [N, 3]
    const float* __restrict__ opacities,   // [N]
    const float* __restrict__ harmonics,   // [N, COEFFICIENTS, 3]
    const float* __restrict__ view,        // [4, 4] cam_from_world
    const float* __restrict__ eye,         // [3]
    const float* __restrict__ K,           // [3, 3] px
    float4* __restrict__ packed,           // [N, 3], as blend.cu reads it; the rows of invisible ones are not written
    float* __restrict__ means2d,           // [N, 2] px
    int* __restrict__ radii,               // [N, 2] px; 0 = not visible
    float* __restrict__ depths,            // [N]
    float* __restrict__ conics,            // [N, 3] px^-2
    float* __restrict__ drawn,             // [N] opacities, compensated
    int count, int degree, int antialiased, int width, int height,
    float near, float far, float eps2d
) {
    __shared__ float rows[WARPS][32 * STRIDE];
    const int n = blockIdx.x * THREADS + threadIdx.x;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    bool visible = false;
    float x = 0, y = 0, depth = 0, opacity = 0;
    Ellipse e = {1, 0, 1, 1, 1};
    int radius_x = 0, radius_y = 0;
    Vector mean = {0, 0, 0};
    if (n < count) {
        const Lens lens = lens_of(view, K, width, height);
        mean = vector(means + 3 * n);
        const Vector p = transform(lens.rotation, mean) + lens.shift;
        depth = p.z;
        if (p.z >= near && p.z <= far) {
            Vector j0, j1;
            jacobian(lens, p, j0, j1);
            const Matrix r = rotation_of(unit(quats + 4 * n));
            const Vector s = scales_at(scales + 3 * n);
            const Vector a0 = transform_back(lens.rotation, j0), a1 = transform_back(lens.rotation, j1);
            e = ellipse_of(transform_back(r, a0) * s, transform_back(r, a1) * s, eps2d);
            opacity = opacity_at(opacities + n) * (antialiased ? e.compensation : 1.0f);
            if (e.det > 0 && e.det < MAX_DETERMINANT && opacity >= LEAST_ALPHA) {
                x = lens.fx * p.x / p.z + lens.cx;
                y = lens.fy * p.y / p.z + lens.cy;
                const float reach = fminf(MAX_SIGMAS, sqrtf(2 * logf(opacity / LEAST_ALPHA)));
                const float rx = fminf(ceilf(reach * sqrtf(e.xx)), MAX_RADIUS);
                const float ry = fminf(ceilf(reach * sqrtf(e.yy)), MAX_RADIUS);
                visible = x + rx > 0 && x - rx < width && y + ry > 0 && y - ry < height;
                if (visible) radius_x = int(rx), radius_y = int(ry);
            }
        }
    }
    const unsigned seen = __ballot_sync(ALL, visible);
    if (seen) read_rows(harmonics + WIDTH * (n - lane), rows[warp], seen, lane);
    Vector color = {0, 0, 0};
    if (visible) {
        const Vector from_eye = mean - vector(eye);
        const float distance = sqrtf(dot(from_eye, from_eye));
        float basis[16];
        fill_basis(degree, from_eye * (1 / distance), basis);
        const float* row = rows[warp] + lane * STRIDE;
        color = {0.5f, 0.5f, 0.5f};
#pragma unroll
        for (int k = 0; k < COEFFICIENTS; ++k)
            if (k < (degree + 1) * (degree + 1)) color = color + vector(row + 3 * k) * basis[k];
        color = {fmaxf(color.x, 0), fmaxf(color.y, 0), fmaxf(color.z, 0)};
    }
    if (n >= count) return;
    const float inverse = 1 / e.det;
    const float conic_xx = e.yy * inverse, conic_xy = -e.xy * inverse, conic_yy = e.xx * inverse;
    depths[n] = depth;
    drawn[n] = visible ? opacity : 0.0f;
    means2d[2 * n] = x, means2d[2 * n + 1] = y;
    radii[2 * n] = radius_x, radii[2 * n + 1] = radius_y;
    conics[3 * n] = conic_xx, conics[3 * n + 1] = conic_xy, conics[3 * n + 2] = conic_yy;
    if (!visible) return;
    packed[3 * n] = make_float4(x, y, 0.5f * LOG2_E * conic_xx, LOG2_E * conic_xy);
    packed[3 * n + 1] = make_float4(0.5f * LOG2_E * conic_yy, log2f(opacity), color.x, color.y);
    packed[3 * n + 2] = make_float4(color.z, CHANNELS > 3 ? depth : 0.0f, 0, 0);
}

__global__ void __launch_bounds__(THREADS) project_backward(
    const float* __restrict__ means,
    const float* __restrict__ quats,
    const float* __restrict__ scales,
    const float* __restrict__ opacities,
    const float* __restrict__ harmonics,
    const float* __restrict__ view,
    const float* __restrict__ eye,
    const float* __restrict__ K,
    const float4* __restrict__ packed,
    const int* __restrict__ radii,
    const float* __restrict__ sums,     // [N, VALUES] of blend_backward
    float* __restrict__ by_means,       // [N, 3]
    float* __restrict__ by_quats,       // [N, 4]
    float* __restrict__ by_scales,      // [N, 3]
    float* __restrict__ by_opacities,   // [N]
    float* __restrict__ by_harmonics,   // [N, COEFFICIENTS, 3]
    float* __restrict__ by_means2d,     // [N, 2]
    float* __restrict__ absolute,       // [N, 2], with ABSOLUTE
    float* __restrict__ by_camera,      // [15] by view[:3] [3, 4] and eye, added to; or null
    int count, int degree, int antialiased, int width, int height, float eps2d
) {
    __shared__ float rows[WARPS][32 * STRIDE];
    __shared__ float of_camera[WARPS][16];
    const int n = blockIdx.x * THREADS + threadIdx.x;
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
    const Lens lens = lens_of(view, K, width, height);
    float4 first = make_float4(0, 0, 0, 0), second = first, third = first;
    if (n < count && radii[2 * n] > 0 && radii[2 * n + 1] > 0) {
        const float4* in = reinterpret_cast<const float4*>(sums + VALUES * n);
        first = in[0], second = in[1], third = in[2];
    }
    // One that no pixel shows, or by which the loss does not change, has no gradients.
    const bool seen = first.x != 0 || first.y != 0 || first.z != 0 || first.w != 0 || second.x != 0 ||
                      second.y != 0 || second.z != 0 || second.w != 0 || third.x != 0 || third.y != 0;
    const unsigned any = __ballot_sync(ALL, seen);
    float* row = rows[warp] + lane * STRIDE;
    if (any) read_rows(harmonics + WIDTH * (n - lane), rows[warp], any, lane);
    Vector by_mean = {0, 0, 0}, by_scale = {0, 0, 0}, by_eye = {0, 0, 0};
    float by_quat[4] = {0, 0, 0, 0}, by_opacity = 0, by_x = 0, by_y = 0;
    Matrix by_rotation = {{0, 0, 0}, {0, 0, 0}, {0, 0, 0}};
    Vector by_shift = {0, 0, 0};
    if (seen) {
        const Vector mean = vector(means + 3 * n), s = scales_at(scales + 3 * n);
        const Vector p = transform(lens.rotation, mean) + lens.shift;
        const Quaternion q = unit(quats + 4 * n);
        const Matrix r = rotation_of(q);
        Vector j0, j1;
        jacobian(lens, p, j0, j1);
        const Vector a0 = transform_back(lens.rotation, j0), a1 = transform_back(lens.rotation, j1);
        const Vector c0 = transform_back(r, a0), c1 = transform_back(r, a1);
        const Vector b0 = c0 * s, b1 = c1 * s;
        const Ellipse e = ellipse_of(b0, b1, eps2d);
        const float inverse = 1 / e.det;
        const float conic_xx = e.yy * inverse, conic_xy = -e.xy * inverse, conic_yy = e.xx * inverse;
        by_x = conic_xx * first.y + conic_xy * first.z;
        by_y = conic_xy * first.y + conic_yy * first.z;

        // Through the inverse of the covariance and, antialiased, through the opacity.
        const float g_xx = -0.5f * first.w, g_xy = -second.x, g_yy = -0.5f * second.y;
        float g_det = -(g_xx * e.yy - g_xy * e.xy + g_yy * e.xx) * inverse * inverse, g_sharp = 0;
        if (antialiased && e.compensation > 1e-6f) {
            // first.x is the derivative by the logarithm of the opacity that is drawn.
            const float half = 0.5f * first.x / (e.compensation * e.compensation);
            g_sharp = half * inverse;
            g_det -= half * e.compensation * e.compensation * inverse;
        }
        if (LEARNT) by_opacity = first.x * (1 - opacity_at(opacities + n));
        else by_opacity = first.x / opacities[n];
        g_sharp += g_det;
        const float by_xx = g_yy * inverse + g_det * eps2d, by_yy = g_xx * inverse + g_det * eps2d;
        const float by_xy = -g_xy * inverse;
        const Vector by_k = cross(b0, b1) * (2 * g_sharp);
        const Vector gb0 = b0 * (2 * by_xx) + b1 * by_xy + cross(b1, by_k);
        const Vector gb1 = b1 * (2 * by_yy) + b0 * by_xy + cross(by_k, b0);

        // A row of B is b = c s, with c = a R and a = j W.
        by_scale = c0 * gb0 + c1 * gb1;
        if (LEARNT) by_scale = by_scale * s;
        const Vector gc0 = gb0 * s, gc1 = gb1 * s;
        const Vector ga0 = transform(r, gc0), ga1 = transform(r, gc1);
        const Matrix g = {gc0 * a0.x + gc1 * a1.x, gc0 * a0.y + gc1 * a1.y, gc0 * a0.z + gc1 * a1.z};
        const float gw = 2 * (q.x * (g.z.y - g.y.z) + q.y * (g.x.z - g.z.x) + q.z * (g.y.x - g.x.y));
        const float gx = 2 * (q.w * (g.z.y - g.y.z) + q.y * (g.x.y + g.y.x) + q.z * (g.x.z + g.z.x) -
                              2 * q.x * (g.y.y + g.z.z));
        const float gy = 2 * (q.w * (g.x.z - g.z.x) + q.x * (g.x.y + g.y.x) + q.z * (g.y.z + g.z.y) -
                              2 * q.y * (g.x.x + g.z.z));
        const float gz = 2 * (q.w * (g.y.x - g.x.y) + q.x * (g.x.z + g.z.x) + q.y * (g.y.z + g.z.y) -
                              2 * q.z * (g.x.x + g.y.y));
        const float along = gw * q.w + gx * q.x + gy * q.y + gz * q.z, k_quat = 1 / q.length;
        by_quat[0] = (gw - along * q.w) * k_quat, by_quat[1] = (gx - along * q.x) * k_quat;
        by_quat[2] = (gy - along * q.y) * k_quat, by_quat[3] = (gz - along * q.z) * k_quat;

        // By p: through the Jacobian, the place on the screen and the depth.
        const Vector gj0 = transform(lens.rotation, ga0), gj1 = transform(lens.rotation, ga1);
        const float k = 1 / p.z, u = p.x * k, v = p.y * k;
        const float g_u = by_x * lens.fx + (u > lens.least_u && u < lens.most_u ? -j0.x * gj0.z : 0.0f);
        const float g_v = by_y * lens.fy + (v > lens.least_v && v < lens.most_v ? -j1.y * gj1.z : 0.0f);
        const float through_j = gj0.x * j0.x + gj0.z * j0.z + gj1.y * j1.y + gj1.z * j1.z;
        const float by_depth = CHANNELS > 3 ? third.y : 0.0f;
        const Vector g_p = {g_u * k, g_v * k, by_depth - (g_u * u + g_v * v + through_j) * k};
        by_mean = transform_back(lens.rotation, g_p);
        by_rotation = {ga0 * j0.x + ga1 * j1.x + mean * g_p.x, ga0 * j0.y + ga1 * j1.y + mean * g_p.y,
                       ga0 * j0.z + ga1 * j1.z + mean * g_p.z};
        by_shift = g_p;

        // Through the colour.
        const float4 look = packed[3 * n + 1];
        const Vector by_color = {look.z > 0 ? second.z : 0.0f, look.w > 0 ? second.w : 0.0f,
                                 packed[3 * n + 2].x > 0 ? third.x : 0.0f};
        const Vector from_eye = mean - vector(eye);
        const float closeness = 1 / sqrtf(dot(from_eye, from_eye));
        const Vector direction = from_eye * closeness;
        float basis[16], by_basis[16];
        fill_basis(degree, direction, basis);
#pragma unroll
        for (int k_sh = 0; k_sh < COEFFICIENTS; ++k_sh) {
            const bool used = k_sh < (degree + 1) * (degree + 1);
            float* at = row + 3 * k_sh;
            by_basis[k_sh] = used ? dot(by_color, vector(at)) : 0.0f;
            const Vector g_sh = used ? by_color * basis[k_sh] : Vector{0, 0, 0};
            at[0] = g_sh.x, at[1] = g_sh.y, at[2] = g_sh.z;
        }
        const Vector g_direction = basis_gradient(degree, direction, by_basis);
        const Vector moved = (g_direction - direction * dot(g_direction, direction)) * closeness;
        by_mean = by_mean + moved;
        by_eye = {-moved.x, -moved.y, -moved.z};
    }
    __syncwarp();
    float* to = by_harmonics + WIDTH * (n - lane);
    const int left = WIDTH * min(32, count - (n - lane));
    for (int at = lane; at < left; at += 32) {
        const int of = at / WIDTH;
        to[at] = any >> of & 1 ? rows[warp][of * STRIDE + at - of * WIDTH] : 0.0f;
    }
    if (n < count) {
        by_means[3 * n] = by_mean.x, by_means[3 * n + 1] = by_mean.y, by_means[3 * n + 2] = by_mean.z;
        by_scales[3 * n] = by_scale.x, by_scales[3 * n + 1] = by_scale.y;
        by_scales[3 * n + 2] = by_scale.z;
        *reinterpret_cast<float4*>(by_quats + 4 * n) =
            make_float4(by_quat[0], by_quat[1], by_quat[2], by_quat[3]);
        by_opacities[n] = by_opacity;
        by_means2d[2 * n] = by_x, by_means2d[2 * n + 1] = by_y;
        if (ABSOLUTE) absolute[2 * n] = third.z, absolute[2 * n + 1] = third.w;
    }
    if (by_camera == nullptr) return;
    const float own[15] = {by_rotation.x.x, by_rotation.x.y, by_rotation.x.z, by_shift.x,
                           by_rotation.y.x, by_rotation.y.y, by_rotation.y.z, by_shift.y,
                           by_rotation.z.x, by_rotation.z.y, by_rotation.z.z, by_shift.z,
                           by_eye.x, by_eye.y, by_eye.z};
    for (int k = 0; k < 15; ++k) {
        const float sum = any ? warp_sum(own[k]) : 0.0f;
        if (lane == k) of_camera[warp][k] = sum;
    }
    __syncthreads();
    if (threadIdx.x < 15) {
        float sum = 0;
        for (int k = 0; k < WARPS; ++k) sum += of_camera[k][threadIdx.x];
        if (sum != 0) atomicAdd(by_camera + threadIdx.x, sum);
    }
}

}  // extern "C"
