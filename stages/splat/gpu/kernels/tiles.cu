// Which tiles each Gaussian reaches, and the sort of that by tile.
//
// One kernel counts and then writes the tiles: a thread takes one Gaussian, nearest first, and a warp
// together one with many tiles. The sort is by one digit of the tile's number after the other, each of
// which keeps the order of equal ones: a block takes CHUNK slots, a warp 512 of them, 32 at a time. WIDE (0 or 1) is
// given to the compiler.

#include "reach.cuh"

#if WIDE  // more tiles than 16 bits can number
using Tile = int;
#else
using Tile = short;
#endif

namespace {

constexpr int THREADS = 256;
constexpr int WARPS = THREADS / 32, ROUNDS = 16, CHUNK = THREADS * ROUNDS;  // slots of a block
constexpr int MOST_BINS = 128;  // values of a digit
constexpr int MOST_ALONE = 32;  // tiles under a Gaussian's box that one thread looks at

__device__ __forceinline__ int within(float value, int limit) {
    return int(clamped(value, 0.0f, float(limit)));
}

}  // namespace

extern "C" {

__global__ void __launch_bounds__(THREADS) tiles_reached(
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

// How many slots of each chunk have each value of a digit.
__global__ void __launch_bounds__(THREADS) count_digits(
    const Tile* __restrict__ tiles,
    const int* __restrict__ filled,  // [] slots in use, if no more than room
    int* __restrict__ counts,        // [bins, chunks]
    int room, int shift, int bins
) {
    __shared__ int of_chunk[MOST_BINS];
    const int used = min(*filled, room);
    if (threadIdx.x < bins) of_chunk[threadIdx.x] = 0;
    __syncthreads();
    for (int round = 0; round < ROUNDS; ++round) {
        const int slot = blockIdx.x * CHUNK + round * THREADS + threadIdx.x;
        if (slot < used) atomicAdd(of_chunk + (tiles[slot] >> shift & (bins - 1)), 1);
    }
    __syncthreads();
    if (threadIdx.x < bins) counts[threadIdx.x * gridDim.x + blockIdx.x] = of_chunk[threadIdx.x];
}

// Moves slots to their places by a digit.
__global__ void __launch_bounds__(THREADS) move_by_digit(
    const Tile* __restrict__ tiles,
    const int* __restrict__ ids,
    const int* __restrict__ filled,
    const int* __restrict__ ends,  // [bins, chunks] sums of the counts
    Tile* __restrict__ moved_tiles,
    int* __restrict__ moved_ids,
    int room, int shift, int bins
) {
    __shared__ int places[WARPS][MOST_BINS];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, used = min(*filled, room);
    const int first = blockIdx.x * CHUNK + warp * 32 * ROUNDS + lane;
    for (int digit = lane; digit < bins; digit += 32) places[warp][digit] = 0;
    __syncwarp();
    Tile own[ROUNDS];
    int before[ROUNDS];  // slots of this warp with the same digit before this one
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const int slot = first + 32 * round;
        own[round] = slot < used ? tiles[slot] : Tile(0);
        const int digit = own[round] >> shift & (bins - 1);
        unsigned same = __ballot_sync(ALL, slot < used);
        for (int bit = 1; bit < bins; bit <<= 1) {
            const unsigned set = __ballot_sync(ALL, digit & bit);
            same &= digit & bit ? set : ~set;
        }
        const int ahead = __popc(same & ((1u << lane) - 1));
        before[round] = places[warp][digit] + ahead;
        __syncwarp();
        if (slot < used && ahead == 0) places[warp][digit] += __popc(same);
        __syncwarp();
    }
    __syncthreads();
    if (threadIdx.x < bins) {
        int of_chunk = 0;
        for (int k = 0; k < WARPS; ++k) of_chunk += places[k][threadIdx.x];
        int next = ends[threadIdx.x * gridDim.x + blockIdx.x] - of_chunk;
        for (int k = 0; k < WARPS; ++k) {
            const int of_warp = places[k][threadIdx.x];
            places[k][threadIdx.x] = next;
            next += of_warp;
        }
    }
    __syncthreads();
#pragma unroll
    for (int round = 0; round < ROUNDS; ++round) {
        const int slot = first + 32 * round;
        if (slot >= used) continue;
        const int to = places[warp][own[round] >> shift & (bins - 1)] + before[round];
        moved_tiles[to] = own[round];
        moved_ids[to] = ids[slot];
    }
}

}  // extern "C"
