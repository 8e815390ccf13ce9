// Which tiles each Gaussian reaches: counted, and then written, by one kernel.
//
// A thread takes one Gaussian, nearest first, and a warp together one with many tiles. WIDE (0 or 1) is
// given to the compiler.

#include "reach.cuh"

#if WIDE  // more tiles than 16 bits can number
using Tile = int;
#else
using Tile = short;
#endif

namespace {

constexpr int THREADS = 256;
constexpr int MOST_ALONE = 32;  // tiles under a Gaussian's box that one thread looks at

__device__ __forceinline__ int within(float value, int limit) {
    return int(clamped(value, 0.0f, float(limit)));
}

}  // namespace

extern "C" __global__ void __launch_bounds__(THREADS) tiles_reached(
    const float4* __restrict__ packed,     // [N, 3]
    const int* __restrict__ radii,         // [N, 2] px; 0 = not visible
    const long long* __restrict__ order,   // [N] Gaussians, nearest first
    const int* __restrict__ ends,          // [N] sums of the counts; null to count
    int* __restrict__ counts,              // [N] in that order; written where ends is null
    Tile* __restrict__ tiles,              // [room]
    int* __restrict__ ids,                 // [room]
    int count, int room, int columns, int rows
) {
    const int nth = blockIdx.x * THREADS + threadIdx.x, lane = threadIdx.x & 31;
    const bool counting = ends == nullptr;
    int left = 0, top = 0, across = 1, area = 0, gaussian = 0, slot = 0;
    float4 place = make_float4(0, 0, 1, 0);
    float c = 1, peak = 0;
    if (nth < count) {
        gaussian = int(order[nth]);
        const int wide = radii[2 * gaussian], high = radii[2 * gaussian + 1];
        if (wide > 0 && high > 0) {
            place = packed[3 * gaussian];
            const float4 look = packed[3 * gaussian + 1];
            c = look.x, peak = look.y;
            const float x = place.x / TILE, y = place.y / TILE;
            const float reach_x = float(wide) / TILE, reach_y = float(high) / TILE;
            left = within(floorf(x - reach_x), columns);
            top = within(floorf(y - reach_y), rows);
            across = within(ceilf(x + reach_x), columns) - left;
            area = across * (within(ceilf(y + reach_y), rows) - top);
        }
        if (!counting) slot = nth == 0 ? 0 : ends[nth - 1];
    }
    int found = 0;
    const auto put = [&](int at, int column, int row, int number) {
        if (counting || at >= room) return;
        tiles[at] = Tile(row * columns + column);
        ids[at] = number;
    };
    if (area <= MOST_ALONE) {
        int column = left, row = top;
        for (int k = 0; k < area; ++k) {
            if (reaches(place, c, peak, column * TILE, row * TILE, TILE, TILE))
                put(slot + found++, column, row, gaussian);
            if (++column == left + across) column = left, ++row;
        }
    }
    unsigned large = __ballot_sync(ALL, area > MOST_ALONE);
    while (large) {
        const int of = __ffs(large) - 1;
        large &= large - 1;
        const float4 its_place = make_float4(
            __shfl_sync(ALL, place.x, of), __shfl_sync(ALL, place.y, of),
            __shfl_sync(ALL, place.z, of), __shfl_sync(ALL, place.w, of));
        const float its_c = __shfl_sync(ALL, c, of), its_peak = __shfl_sync(ALL, peak, of);
        const int its_left = __shfl_sync(ALL, left, of), its_top = __shfl_sync(ALL, top, of);
        const int its_across = __shfl_sync(ALL, across, of), its_area = __shfl_sync(ALL, area, of);
        const int its_slot = __shfl_sync(ALL, slot, of), number = __shfl_sync(ALL, gaussian, of);
        int so_far = 0;
        for (int first = 0; first < its_area; first += 32) {
            const int k = first + lane;
            const int row = its_top + k / its_across, column = its_left + k % its_across;
            const bool hit = k < its_area && reaches(its_place, its_c, its_peak, column * TILE,
                                                     row * TILE, TILE, TILE);
            const unsigned hits = __ballot_sync(ALL, hit);
            if (hit) put(its_slot + so_far + __popc(hits & ((1u << lane) - 1)), column, row, number);
            so_far += __popc(hits);
        }
        if (lane == of) found = so_far;
    }
    if (counting && nth < count) counts[nth] = found;
}
