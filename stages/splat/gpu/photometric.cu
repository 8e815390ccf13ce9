// L1 and structural dissimilarity of two images with the gradient by the first: two kernels.
//
// An image [H, W, 3] is taken as H rows of 3 W numbers, so that a window's taps lie 3 apart in a row
// and kernels need not know the channels. A thread goes down a column: it weighs a row's taps from
// shared memory and keeps what it found for the last 11 rows in registers, to weigh these.

namespace {

constexpr int TAPS = 11, REACH = 3 * (TAPS - 1);  // numbers from the first to the last tap of a row
constexpr int COLUMNS = 128, ROWS = 32;           // of a block
constexpr float C1 = 0.0001f, C2 = 0.0009f;
// exp(-k k / 4.5) for k from -5 to 5, of sum 1.
constexpr float TAP[TAPS] = {0.0010283801f, 0.0075987581f, 0.0360007721f, 0.1093606895f,
                             0.2130055377f, 0.2660117249f, 0.2130055377f, 0.1093606895f,
                             0.0360007721f, 0.0075987581f, 0.0010283801f};

// Add a block's sum to *to.
__device__ __forceinline__ void add_block(float value, float* to) {
    __shared__ float of_warps[COLUMNS / 32];
    for (int k = 16; k > 0; k >>= 1) value += __shfl_xor_sync(0xffffffffu, value, k);
    if ((threadIdx.x & 31) == 0) of_warps[threadIdx.x / 32] = value;
    __syncthreads();
    if (threadIdx.x == 0) {
        float sum = 0;
        for (int k = 0; k < COLUMNS / 32; ++k) sum += of_warps[k];
        atomicAdd(to, sum);
    }
}

}  // namespace

extern "C" {

// SSIM of each window, subtracted from the loss; its derivatives by the means of a, aa and ab.
__global__ void __launch_bounds__(COLUMNS) window_slopes(
    const float* __restrict__ image,   // [height, width], width = 3 W
    const float* __restrict__ target,  // [height, width]
    float* __restrict__ slopes,        // [3, height - 10, width - 30]
    float* __restrict__ loss,          // []
    float share, int height, int width
) {
    __shared__ float2 lines[2][COLUMNS + REACH];
    const int across = width - REACH, down = height - TAPS + 1;
    const int thread = threadIdx.x, left = blockIdx.x * COLUMNS, x = left + thread;
    const int top = blockIdx.y * ROWS, rows = min(ROWS, down - top) + TAPS - 1;
    float a[TAPS], b[TAPS], aa[TAPS], bb[TAPS], ab[TAPS];
    float similarity = 0;
    const auto at = [&](int row, int column) {
        if (row >= rows || column >= width) return make_float2(0, 0);
        const int from = (top + row) * width + column;
        return make_float2(image[from], target[from]);
    };
    float2 next = at(0, x), beyond = thread < REACH ? at(0, x + COLUMNS) : make_float2(0, 0);
    for (int base = 0; base < rows; base += TAPS) {
#pragma unroll
        for (int k = 0; k < TAPS; ++k) {
            const int row = base + k;
            if (row >= rows) break;
            float2* line = lines[row & 1];
            line[thread] = next;
            if (thread < REACH) line[thread + COLUMNS] = beyond;
            __syncthreads();
            next = at(row + 1, x);
            if (thread < REACH) beyond = at(row + 1, x + COLUMNS);
            a[k] = b[k] = aa[k] = bb[k] = ab[k] = 0;
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
                const float2 both = line[thread + 3 * tap];
                const float of_a = TAP[tap] * both.x, of_b = TAP[tap] * both.y;
                a[k] += of_a;
                b[k] += of_b;
                aa[k] += of_a * both.x;
                bb[k] += of_b * both.y;
                ab[k] += of_a * both.y;
            }
            if (row < TAPS - 1 || x >= across) continue;
            float mean_a = 0, mean_b = 0, mean_aa = 0, mean_bb = 0, mean_ab = 0;
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
                const int from = (k + 1 + tap) % TAPS;
                mean_a += TAP[tap] * a[from];
                mean_b += TAP[tap] * b[from];
                mean_aa += TAP[tap] * aa[from];
                mean_bb += TAP[tap] * bb[from];
                mean_ab += TAP[tap] * ab[from];
            }
            const float above = 2 * mean_a * mean_b + C1;
            const float below = mean_a * mean_a + mean_b * mean_b + C1;
            const float above2 = 2 * (mean_ab - mean_a * mean_b) + C2;
            const float below2 = (mean_aa - mean_a * mean_a) + (mean_bb - mean_b * mean_b) + C2;
            const float inverse = 1 / (below * below2), ssim = above * above2 * inverse;
            float* out = slopes + (top + row - TAPS + 1) * across + x;
            const int plane = down * across;
            out[0] = 2 * (mean_b * (above2 - above) * inverse +
                          mean_a * ssim * (below - below2) * inverse);
            out[plane] = -ssim * below * inverse;
            out[2 * plane] = 2 * above * inverse;
            similarity += ssim;
        }
    }
    add_block(-share * similarity, loss);
}

// Gradient by each number of the image; L1 is added to the loss.
__global__ void __launch_bounds__(COLUMNS) pixel_slopes(
    const float* __restrict__ image,
    const float* __restrict__ target,
    const float* __restrict__ slopes,  // [3, height - 10, width - 30]
    float* __restrict__ slope,         // [height, width]
    float* __restrict__ loss,
    float of_windows, float of_pixels, int height, int width
) {
    __shared__ float lines[2][3][COLUMNS + REACH];
    const int across = width - REACH, down = height - TAPS + 1, plane = across * down;
    const int thread = threadIdx.x, left = blockIdx.x * COLUMNS, x = left + thread;
    const int top = blockIdx.y * ROWS, rows = min(ROWS, height - top) + TAPS - 1;
    float by_mean[TAPS], by_aa[TAPS], by_ab[TAPS];
    float away = 0, next[3], beyond[3];
    // Of the windows that end in a row of pixels; none is beyond the first or the last window.
    const auto read = [&](int row, int column, float* to) {
        const int y = top + row - (TAPS - 1);
        const bool there = row < rows && y >= 0 && y < down && column >= 0 && column < across;
#pragma unroll
        for (int n = 0; n < 3; ++n) to[n] = there ? slopes[n * plane + y * across + column] : 0.0f;
    };
    read(0, x - REACH, next);
    if (thread < REACH) read(0, x - REACH + COLUMNS, beyond);
    for (int base = 0; base < rows; base += TAPS) {
#pragma unroll
        for (int k = 0; k < TAPS; ++k) {
            const int row = base + k;
            if (row >= rows) break;
            float(*line)[COLUMNS + REACH] = lines[row & 1];
#pragma unroll
            for (int n = 0; n < 3; ++n) {
                line[n][thread] = next[n];
                if (thread < REACH) line[n][thread + COLUMNS] = beyond[n];
            }
            __syncthreads();
            read(row + 1, x - REACH, next);
            if (thread < REACH) read(row + 1, x - REACH + COLUMNS, beyond);
            by_mean[k] = by_aa[k] = by_ab[k] = 0;
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
                by_mean[k] += TAP[tap] * line[0][thread + 3 * tap];
                by_aa[k] += TAP[tap] * line[1][thread + 3 * tap];
                by_ab[k] += TAP[tap] * line[2][thread + 3 * tap];
            }
            if (row < TAPS - 1 || x >= width) continue;
            float mean = 0, aa = 0, ab = 0;
#pragma unroll
            for (int tap = 0; tap < TAPS; ++tap) {
                const int from = (k + 1 + tap) % TAPS;
                mean += TAP[tap] * by_mean[from];
                aa += TAP[tap] * by_aa[from];
                ab += TAP[tap] * by_ab[from];
            }
            const int pixel = (top + row - TAPS + 1) * width + x;
            const float a = image[pixel], b = target[pixel], difference = a - b;
            const float sign = difference > 0 ? 1.0f : difference < 0 ? -1.0f : 0.0f;
            slope[pixel] = of_pixels * sign - of_windows * (mean + 2 * a * aa + b * ab);
            away += fabsf(difference);
        }
    }
    add_block(of_pixels * away, loss);
}

}  // extern "C"
