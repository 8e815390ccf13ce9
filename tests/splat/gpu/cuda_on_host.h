// CUDA's kernels on a processor, for tests: a thread is a fibre, and blocks run one by one.
//
// Threads of a block take turns whenever one waits for others: at barriers, votes and shuffles, in
// which all threads of a block or warp must take part. Threads that have ended count as present.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

using std::max;
using std::min;

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

namespace host {

constexpr int STACK = 64 * 1024;

struct Meeting {
    int present = 0, ended = 0, size = 0;
    long round = 0;
};

struct Fibre {
    ucontext_t context;
    std::vector<char> stack = std::vector<char>(STACK);
    bool ended = false;
};

inline dim3 block_index, grid_size, block_size, thread_index;
inline std::vector<Fibre> fibres;
inline std::vector<Meeting> warps;
inline Meeting block;
inline ucontext_t scheduler;
inline int current;
inline unsigned slots[1024];
inline int sum;
inline std::function<void()> body;

inline void wait() { swapcontext(&fibres[current].context, &scheduler); }

inline void meet(Meeting& meeting) {
    const long round = meeting.round;
    if (++meeting.present + meeting.ended == meeting.size) {
        meeting.present = 0;
        ++meeting.round;
    } else {
        while (meeting.round == round) wait();
    }
}

inline void leave(Meeting& meeting) {
    ++meeting.ended;
    if (meeting.present && meeting.present + meeting.ended == meeting.size) {
        meeting.present = 0;
        ++meeting.round;
    }
}

inline void run_one() {
    body();
    fibres[current].ended = true;
    leave(warps[current / 32]);
    leave(block);
    while (true) wait();
}

// Every thread's word, exchanged within a warp.
template <typename Value>
Value exchanged(Value value, const std::function<Value(const unsigned*)>& read) {
    std::memcpy(&slots[current], &value, 4);
    meet(warps[current / 32]);
    const Value found = read(slots + current / 32 * 32);
    meet(warps[current / 32]);
    return found;
}

inline void launch(dim3 grid, dim3 size, const std::function<void()>& kernel) {
    grid_size = grid, block_size = size, body = kernel;
    const int threads = size.x * size.y * size.z;
    for (unsigned z = 0; z < grid.z; ++z)
        for (unsigned y = 0; y < grid.y; ++y)
            for (unsigned x = 0; x < grid.x; ++x) {
                block_index = {x, y, z};
                fibres.assign(threads, {});
                warps.assign((threads + 31) / 32, {});
                for (int k = 0; k < threads; ++k) ++warps[k / 32].size;
                block = {};
                block.size = threads;
                std::memset(slots, 0, sizeof slots);
                for (auto& fibre : fibres) {
                    getcontext(&fibre.context);
                    fibre.context.uc_stack.ss_sp = fibre.stack.data();
                    fibre.context.uc_stack.ss_size = STACK;
                    makecontext(&fibre.context, run_one, 0);
                }
                for (bool left = true; left;) {
                    left = false;
                    for (current = 0; current < threads; ++current) {
                        if (fibres[current].ended) continue;
                        left = true;
                        thread_index.x = current;
                        swapcontext(&scheduler, &fibres[current].context);
                    }
                }
            }
}

// Run a kernel whose arguments are given by their addresses, as CUDA's driver takes them.
template <typename... Arguments, std::size_t... Place>
void launch_with(void (*kernel)(Arguments...), void** values, dim3 grid, dim3 size,
                 std::index_sequence<Place...>) {
    launch(grid, size, [=] { kernel(*static_cast<std::decay_t<Arguments>*>(values[Place])...); });
}
template <typename... Arguments>
void launch_with(void (*kernel)(Arguments...), void** values, dim3 grid, dim3 size) {
    launch_with(kernel, values, grid, size, std::index_sequence_for<Arguments...>{});
}

}  // namespace host

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define blockIdx host::block_index
#define gridDim host::grid_size
#define blockDim host::block_size
#define threadIdx dim3{unsigned(host::current), 0, 0}

inline void __syncthreads() { host::meet(host::block); }
inline int __syncthreads_and(int value) {
    host::meet(host::block);
    if (host::current == 0) host::sum = 0;
    host::meet(host::block);
    host::sum += !value;
    host::meet(host::block);
    return host::sum == 0;
}
inline void __syncwarp() { host::meet(host::warps[host::current / 32]); }
inline unsigned __ballot_sync(unsigned, int value) {
    return host::exchanged<unsigned>(value != 0, [](const unsigned* slots) {
        unsigned bits = 0;
        for (int k = 0; k < 32; ++k) bits |= (slots[k] & 1) << k;
        return bits;
    });
}
inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
inline int __all_sync(unsigned mask, int value) { return __ballot_sync(mask, value) == mask; }
template <typename Value>
Value __shfl_xor_sync(unsigned, Value value, int lanes) {
    const int lane = host::current & 31;
    return host::exchanged<Value>(value, [=](const unsigned* slots) {
        Value found;
        std::memcpy(&found, &slots[lane ^ lanes], 4);
        return found;
    });
}
inline int __ffs(unsigned bits) { return __builtin_ffs(int(bits)); }
inline int __clz(unsigned bits) { return bits ? __builtin_clz(bits) : 32; }
template <typename Value>
Value atomicAdd(Value* to, Value value) {
    const Value before = *to;
    *to += value;
    return before;
}
