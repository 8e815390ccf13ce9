// Blending of projected Gaussians into an image, and the gradients of that.
//
// A block blends a tile of 16 x 16 px, a warp a strip of 8 x 4 px of it, a thread a pixel. Gaussians
// are loaded in batches, and whether one reaches a strip is decided at loading, by the least value of
// its exponent there, so that a warp never looks at those that it cannot see.
//
// Backward, a warp goes through its Gaussians twice, 16 at a time: by pixel, back to front, for the
// two numbers per pixel and Gaussian that all gradients are sums of; and by Gaussian, half a strip a
// thread, for these sums. So nothing is reduced across threads but two halves, and one addition to
// memory is left for each Gaussian and strip instead of for each pixel. That the sums of gradients
// should go by Gaussian rather than by pixel is an idea of Mallick et al., Taming 3DGS (2024).
//
// CHANNELS (3 or 4) and ABSOLUTE (0 or 1) are given to the compiler.

namespace {

constexpr int TILE = 16, STRIP_WIDTH = 8, STRIP_HEIGHT = 4, STRIPS = 8, THREADS = 256;
constexpr int FORWARD_BATCH = 256, BACKWARD_BATCH = 128;
constexpr int GROUP = 16;    // Gaussians whose gradients are summed at a time
constexpr int ROW = 34;      // pairs of a row of GROUP; 32, and 2 against bank conflicts
constexpr int VALUES = 12;   // of a packed Gaussian, and of its sums
constexpr float MOST_ALPHA = 0.999f, LEAST_ALPHA = 1.0f / 255, LEAST_LEFT = 1e-4f;
constexpr float LN_2 = 0.6931471805599453f;
constexpr float FAINTEST = -7.9954f;  // log2(LEAST_ALPHA), and a margin of 1e-3 for rounding
constexpr unsigned ALL = 0xffffffffu;

// A packed Gaussian: place {x, y, a, b}, look {c, peak, red, green}, rest {blue, depth, -, -}.
// Its alpha at (x + u, y + v) is 2 ^ (peak - (a u u + b u v + c v v)).

__device__ __forceinline__ float exponent(float4 place, float4 look, float px, float py) {
    // Every product has one place to go, so that both directions round alike.
    const float u = px - place.x, v = py - place.y;
    const float across = fmaf(place.z, u, place.w * v);
    return fmaf(look.x * v, v, across * u);
}

__device__ __forceinline__ float clamped(float value, float low, float high) {
    return fminf(fmaxf(value, low), high);
}

// Which of `count` strips of a tile, from strip `first`, a Gaussian reaches, as bits. The exponent is
// least on the sides of a strip that face the Gaussian, or is zero.
__device__ __forceinline__ unsigned reached(
    float4 place, float4 look, int left, int top, int first, int count
) {
    const float a = place.z, b = place.w, c = look.x;
    const float by_u = -0.5f * b / c, by_v = -0.5f * b / a;
    const float most = look.y - FAINTEST;
    unsigned bits = 0;
    for (int k = first; k < first + count; ++k) {
        const float u0 = left + (k & 1) * STRIP_WIDTH + 0.5f - place.x, u1 = u0 + STRIP_WIDTH - 1;
        const float v0 = top + (k >> 1) * STRIP_HEIGHT + 0.5f - place.y, v1 = v0 + STRIP_HEIGHT - 1;
        const float u = clamped(0.0f, u0, u1), v = clamped(0.0f, v0, v1);
        const float v_at_u = clamped(by_u * u, v0, v1), u_at_v = clamped(by_v * v, u0, u1);
        const float side = a * u * u + b * u * v_at_u + c * v_at_u * v_at_u;
        const float other = a * u_at_v * u_at_v + b * u_at_v * v + c * v * v;
        bits |= unsigned(fminf(side, other) <= most) << k;
    }
    return bits;
}

__device__ __forceinline__ void add4(float* to, float x, float y, float z, float w) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    asm volatile("red.global.add.v4.f32 [%0], {%1, %2, %3, %4};"
                 :: "l"(to), "f"(x), "f"(y), "f"(z), "f"(w) : "memory");
#else
    atomicAdd(to, x);
    atomicAdd(to + 1, y);
    atomicAdd(to + 2, z);
    atomicAdd(to + 3, w);
#endif
}

}  // namespace

extern "C" {

__global__ void __launch_bounds__(THREADS) blend(
    const float4* __restrict__ packed,     // [N, 3]
    const int* __restrict__ ids,           // Gaussians by tile, front to back
    const int* __restrict__ offsets,       // [tiles + 1] in ids
    const float* __restrict__ background,  // [CHANNELS]
    float* __restrict__ image,             // [H, W, CHANNELS]
    float* __restrict__ left,              // [H, W] light that passes all Gaussians
    int* __restrict__ last,                // [H, W] one past the last Gaussian blended, in ids
    int width, int height
) {
    __shared__ float4 places[FORWARD_BATCH], looks[FORWARD_BATCH], rests[FORWARD_BATCH];
    __shared__ unsigned char reach[FORWARD_BATCH];
    const int thread = threadIdx.x, lane = thread & 31, strip = thread >> 5;
    const int tile_x = blockIdx.x * TILE, tile_y = blockIdx.y * TILE;
    const int x = tile_x + (strip & 1) * STRIP_WIDTH + (lane & 7);
    const int y = tile_y + (strip >> 1) * STRIP_HEIGHT + (lane >> 3);
    const float px = x + 0.5f, py = y + 0.5f;
    const int tile = blockIdx.y * gridDim.x + blockIdx.x;
    const int begin = offsets[tile], end = offsets[tile + 1];
    const bool inside = x < width && y < height;
    bool done = !inside;
    float light = 1, red = 0, green = 0, blue = 0, depth = 0;
    int blended = begin;
    for (int from = begin; from < end; from += FORWARD_BATCH) {
        // Also keeps a batch until every warp has left it.
        if (__syncthreads_and(done)) break;
        const int here = from + thread;
        unsigned bits = 0;
        if (here < end) {
            const float4* one = packed + 3 * ids[here];
            const float4 place = one[0], look = one[1];
            places[thread] = place;
            looks[thread] = look;
            rests[thread] = one[2];
            bits = reached(place, look, tile_x, tile_y, 0, STRIPS);
        }
        reach[thread] = bits;
        __syncthreads();
        for (int group = 0; group < FORWARD_BATCH && from + group < end; group += 32) {
            unsigned seen = __ballot_sync(ALL, (reach[group + lane] >> strip) & 1);
            if (__all_sync(ALL, done)) break;
            while (seen) {
                const int slot = group + __ffs(seen) - 1;
                seen &= seen - 1;
                const float4 place = places[slot], look = looks[slot];
                const float away = exponent(place, look, px, py);
                const float alpha = fminf(MOST_ALPHA, exp2f(look.y - away));
                const float passed = light * (1 - alpha);
                const bool seen_here = !done && away >= 0 && alpha >= LEAST_ALPHA;
                done = done || (seen_here && passed <= LEAST_LEFT);
                if (seen_here && !done) {
                    const float4 rest = rests[slot];
                    const float weight = alpha * light;
                    red += weight * look.z;
                    green += weight * look.w;
                    blue += weight * rest.x;
                    if (CHANNELS > 3) depth += weight * rest.y;
                    light = passed;
                    blended = from + slot + 1;
                }
            }
        }
    }
    if (!inside) return;
    const int pixel = y * width + x;
    float* out = image + CHANNELS * pixel;
    out[0] = red + light * background[0];
    out[1] = green + light * background[1];
    out[2] = blue + light * background[2];
    if (CHANNELS > 3) out[CHANNELS - 1] = depth + light * background[CHANNELS - 1];
    left[pixel] = light;
    last[pixel] = blended;
}

// Adds to each Gaussian of a tile the sums over pixels of s, su, sv, suu, suv, svv and of w times the
// gradient of the image, where s is the gradient by the logarithm of alpha, (u, v) the way from the
// Gaussian to the pixel, and w the weight with which the pixel shows the Gaussian.
__global__ void __launch_bounds__(THREADS, 4) blend_backward(
    const float4* __restrict__ packed,     // [N, 3]
    const int* __restrict__ ids,
    const int* __restrict__ offsets,       // [tiles + 1]
    const float* __restrict__ background,  // [CHANNELS]
    const float* __restrict__ left,        // [H, W]
    const int* __restrict__ last,          // [H, W]
    const float* __restrict__ by_image,    // [H, W, CHANNELS]
    const float* __restrict__ by_left,     // [H, W], or null
    float* __restrict__ sums,              // [N, VALUES]
    int width, int height
) {
    __shared__ float4 places[BACKWARD_BATCH], looks[BACKWARD_BATCH], rests[BACKWARD_BATCH];
    __shared__ int numbers[BACKWARD_BATCH];
    __shared__ unsigned char reach[2][BACKWARD_BATCH];
    __shared__ float4 slopes[STRIPS][33];  // of the image; the second half one further, for the banks
    __shared__ float2 pairs[STRIPS][GROUP * ROW];
    __shared__ int ends[STRIPS];
    const int thread = threadIdx.x, lane = thread & 31, strip = thread >> 5;
    const int tile_x = blockIdx.x * TILE, tile_y = blockIdx.y * TILE;
    const int strip_x = tile_x + (strip & 1) * STRIP_WIDTH;
    const int strip_y = tile_y + (strip >> 1) * STRIP_HEIGHT;
    const int x = strip_x + (lane & 7), y = strip_y + (lane >> 3);
    const float px = x + 0.5f, py = y + 0.5f;
    const int tile = blockIdx.y * gridDim.x + blockIdx.x;
    const int begin = offsets[tile];
    const bool inside = x < width && y < height;
    const int pixel = y * width + x;
    float light = 1, behind = 0;
    int until = begin;
    float4 slope = make_float4(0, 0, 0, 0);
    if (inside) {
        light = left[pixel];
        until = last[pixel];
        const float* in = by_image + CHANNELS * pixel;
        slope = make_float4(in[0], in[1], in[2], CHANNELS > 3 ? in[CHANNELS - 1] : 0.0f);
        behind = slope.x * background[0] + slope.y * background[1] + slope.z * background[2];
        if (CHANNELS > 3) behind += slope.w * background[CHANNELS - 1];
        if (by_left != nullptr) behind += by_left[pixel];
        behind *= light;
    }
    slopes[strip][lane + (lane >> 4)] = slope;
    int strip_end = until;
    for (int k = 16; k > 0; k >>= 1) strip_end = max(strip_end, __shfl_xor_sync(ALL, strip_end, k));
    if (lane == 0) ends[strip] = strip_end;
    __syncthreads();
    int end = begin;
    for (int k = 0; k < STRIPS; ++k) end = max(end, ends[k]);

    float2* own = pairs[strip];
    int filled = 0;  // rows of `own`
    int mine = 0;    // batch slot of the Gaussian of row lane % 16

    // Sums of the filled rows, a Gaussian by two threads.
    auto flush = [&]() {
        __syncwarp();
        const int row = lane & 15, half = lane >> 4;
        float s = 0, su = 0, sv = 0, suu = 0, suv = 0, svv = 0;
        float red = 0, green = 0, blue = 0, depth = 0, abs_x = 0, abs_y = 0;
        if (row < filled) {
            const float4 place = places[mine];
            const float c = ABSOLUTE ? 2 * LN_2 * looks[mine].x : 0;
            const float a = 2 * LN_2 * place.z, b = LN_2 * place.w;
            const float u0 = strip_x + 0.5f - place.x;
            const float v0 = strip_y + 2 * half + 0.5f - place.y;
            const float4* from = reinterpret_cast<const float4*>(own + row * ROW + 16 * half);
            const float4* by = slopes[strip] + 17 * half;
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float v = v0 + j;
                float line = 0, line_u = 0;
#pragma unroll
                for (int i = 0; i < STRIP_WIDTH; i += 2) {
                    const float4 two = from[4 * j + i / 2];
#pragma unroll
                    for (int k = 0; k < 2; ++k) {
                        const float share = k ? two.z : two.x, weight = k ? two.w : two.y;
                        const float u = u0 + (i + k);
                        const float by_u = share * u;
                        line += share;
                        line_u += by_u;
                        suu += by_u * u;
                        const float4 color = by[STRIP_WIDTH * j + i + k];
                        red += weight * color.x;
                        green += weight * color.y;
                        blue += weight * color.z;
                        if (CHANNELS > 3) depth += weight * color.w;
                        if (ABSOLUTE) {
                            abs_x += fabsf(share * (a * u + b * v));
                            abs_y += fabsf(share * (b * u + c * v));
                        }
                    }
                }
                s += line;
                su += line_u;
                const float line_v = line * v;
                sv += line_v;
                svv += line_v * v;
                suv += line_u * v;
            }
        }
        auto both = [](float value) { return value + __shfl_xor_sync(ALL, value, 16); };
        s = both(s), su = both(su), sv = both(sv), suu = both(suu), suv = both(suv), svv = both(svv);
        red = both(red), green = both(green), blue = both(blue);
        if (CHANNELS > 3) depth = both(depth);
        if (ABSOLUTE) abs_x = both(abs_x), abs_y = both(abs_y);
        if (row < filled) {
            float* to = sums + VALUES * numbers[mine];
            if (half == 0) add4(to, s, su, sv, suu);
            else add4(to + 4, suv, svv, red, green);
            if (half == 0) {
                if (CHANNELS > 3 || ABSOLUTE) add4(to + 8, blue, depth, abs_x, abs_y);
                else atomicAdd(to + 8, blue);
            }
        }
        __syncwarp();
        filled = 0;
    };

    for (int batch = (end - begin - 1) / BACKWARD_BATCH; end > begin && batch >= 0; --batch) {
        const int from = begin + batch * BACKWARD_BATCH;
        // Two threads a Gaussian, four strips each.
        const int slot = thread & (BACKWARD_BATCH - 1), part = thread / BACKWARD_BATCH;
        __syncthreads();
        unsigned bits = 0;
        if (from + slot < end) {
            const int number = ids[from + slot];
            const float4* one = packed + 3 * number;
            const float4 place = one[0], look = one[1];
            if (part == 0) {
                numbers[slot] = number;
                places[slot] = place;
                looks[slot] = look;
            } else {
                rests[slot] = one[2];
            }
            bits = reached(place, look, tile_x, tile_y, 4 * part, 4);
        }
        reach[part][slot] = bits;
        __syncthreads();
        for (int group = BACKWARD_BATCH - 32; group >= 0; group -= 32) {
            if (from + group >= strip_end) continue;
            unsigned seen = __ballot_sync(ALL, (reach[strip >> 2][group + lane] >> strip) & 1);
            while (seen) {
                const int bit = 31 - __clz(seen), at = group + bit;
                seen ^= 1u << bit;
                const float4 place = places[at], look = looks[at];
                const float away = exponent(place, look, px, py);
                const float raw = exp2f(look.y - away);
                const float alpha = fminf(MOST_ALPHA, raw);
                const bool seen_here = from + at < until && away >= 0 && alpha >= LEAST_ALPHA;
                if (!__any_sync(ALL, seen_here)) continue;
                float2 pair = make_float2(0, 0);
                if (seen_here) {
                    const float4 rest = rests[at];
                    const float more = 1 / (1 - alpha);
                    light *= more;
                    const float weight = alpha * light;
                    float shown = slope.x * look.z + slope.y * look.w + slope.z * rest.x;
                    if (CHANNELS > 3) shown += slope.w * rest.y;
                    const float by_alpha = light * shown - behind * more;
                    behind += weight * shown;
                    pair = make_float2(raw <= MOST_ALPHA ? alpha * by_alpha : 0.0f, weight);
                }
                own[filled * ROW + lane] = pair;
                if ((lane & 15) == filled) mine = at;
                if (++filled == GROUP) flush();
            }
        }
        if (filled) flush();
    }
}

}  // extern "C"
