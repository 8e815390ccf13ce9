// What tiles.cu and blend.cu share: packed Gaussians, and where one can be seen.
//
// A packed Gaussian is three float4: place {x, y, a, b}, look {c, peak, red, green}, rest {blue, depth,
// -, -}. Its alpha at (x + u, y + v) is 2 ^ (peak - (a u u + b u v + c v v)).
#pragma once

namespace {

constexpr int TILE = 16;              // px
constexpr float FAINTEST = -7.9954f;  // log2(1 / 255), the least alpha, and a margin for rounding
constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ float clamped(float value, float low, float high) {
    return fminf(fmaxf(value, low), high);
}

// Whether a Gaussian is seen at a point between the first and the last pixel centre of a rectangle,
// whose first pixel is (left, top). Its exponent is least in the rectangle, or on sides that face it.
__device__ __forceinline__ bool reaches(
    float4 place, float c, float peak, int left, int top, int width, int height
) {
    const float a = place.z, b = place.w;
    const float u0 = left + 0.5f - place.x, u1 = u0 + (width - 1);
    const float v0 = top + 0.5f - place.y, v1 = v0 + (height - 1);
    const float u = clamped(0.0f, u0, u1), v = clamped(0.0f, v0, v1);
    const float v_at_u = clamped(-0.5f * b / c * u, v0, v1);
    const float u_at_v = clamped(-0.5f * b / a * v, u0, u1);
    const float side = a * u * u + b * u * v_at_u + c * v_at_u * v_at_u;
    const float other = a * u_at_v * u_at_v + b * u_at_v * v + c * v * v;
    return fminf(side, other) <= peak - FAINTEST;
}

}  // namespace
