// What the gradients of filters of 16-bit elements on Hopper's wgmma and TMA share (sm_90a), channels last.
//
//   dw[k, r, s, c] = sum over n, p, q of dy[n, p, q, k] * x[n, p*stride - pad + r*dilation, ..., c]
//
// In memory both operands have pixels, over which the sum goes, as the slow index. TMA brings them like that, 64
// filters of dy or 64 channels of x to a pixel, in rows of 128 bytes with the 128-byte swizzle, and wgmma turns both
// on the way. A consumer multiplies 64 filters, on M, by GROUP_WEIGHTS weights, on N: blocks of 64 channels under a
// tap. A step of the sum is PIXELS pixels.
//
// Split z of the grid sums steps [z, z + 1) * steps_per_split, in ascending order, and writes partial[z][k][r, s, c]
// in float, which split_sum.cu adds; or dw, where `partial` is null and one split is all.
//
// Macros: FILTERS, WEIGHTS (of a block), GROUP_WEIGHTS, PIXELS, STAGES, SHARED_BYTES (the dynamic shared memory of a
// launch).
#pragma once
const int CONSUMERS = FILTERS / 64 * (WEIGHTS / GROUP_WEIGHTS), READERS = CONSUMERS;
#include "wgmma_ring.cuh"

const int BLOCK = 64;                        // filters, or channels under one tap
const int BLOCK_BYTES = PIXELS * ROW_BYTES;  // of a step
const int DY_BYTES = FILTERS / 64 * BLOCK_BYTES;

static_assert(FILTERS % 64 == 0 && WEIGHTS % GROUP_WEIGHTS == 0 && GROUP_WEIGHTS % 64 == 0,
              "warpgroups must cover the tile");
static_assert(PIXELS % 16 == 0, "an instruction sums 16 pixels");

__device__ __forceinline__ int filter_block() { return warpgroup() % (FILTERS / 64); }
__device__ __forceinline__ int weight_group() { return warpgroup() / (FILTERS / 64); }

// The sums of a warpgroup. Lane l of warp w holds, in number 4 * j + 2 * h + e, those of filter
// 16 * w + l / 4 + 8 * h and weight 8 * j + 2 * (l % 4) + e.
typedef float Sums[GROUP_WEIGHTS / 2];

#if ELEMENT == F16
#define WGMMA PASTE(PASTE(wgmma_m64n, GROUP_WEIGHTS), k16_f16_mn)
#else
#define WGMMA PASTE(PASTE(wgmma_m64n, GROUP_WEIGHTS), k16_bf16_mn)
#endif

// sums = dy^T x over so many steps. A stage of `stage_bytes` holds dy, then x, whose blocks of 64 weights lie
// `next_block` bytes behind each other and whose pixels, eight by eight, `next_eight`; the warpgroup's begin at `x`.
__device__ __forceinline__ void sum_steps(Sums& sums, Ring<STAGES>& ring, int steps, int stage_bytes, int x,
                                          int next_block, int next_eight) {
    const uint64_t first_dy = wgmma_desc_sw128(smem + filter_block() * BLOCK_BYTES, BLOCK_BYTES, EIGHT_ROWS);
    const uint64_t first_x = wgmma_desc_sw128(smem + x, next_block, next_eight);
    Reading<> before;
    int onto = 0;
    for (int step = 0; step < steps; ++step, ring.next()) {
        const uint64_t of_dy = further(first_dy, ring.stage * stage_bytes);
        const uint64_t of_x = further(first_x, ring.stage * stage_bytes);
        ring.await();
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < PIXELS / 16; ++i) {
            WGMMA(sums, further(of_dy, i * 2 * EIGHT_ROWS), further(of_x, i * 2 * next_eight), onto);
            onto = 1;
        }
        wgmma_commit();
        wgmma_wait<1>();  // the step before has ended, this one goes on
        before.release();
        before.empty = ring.empty + ring.stage;
    }
    wgmma_wait<0>();
}

// Where 64 weights of every filter lie, and how many of them exist.
struct Weights {
    long long first;
    int count;
};

__device__ __forceinline__ void store_pair(float* to, float first, float second) {
    *(float2*)to = make_float2(first, second);
}
__device__ __forceinline__ void store_pair(Element* to, float first, float second) {
    *(uint32_t*)to = narrow_pair(first, second);
}

// What exists of the sums -> to (K, R, S, C), the warpgroup's filters being `filter` and the next; weights(j) are its
// j-th 64.
template <class Number, class Where>
__device__ __forceinline__ void store_to(const Sums& sums, int filter, const ConvGeometry& g, Number* __restrict__ to,
                                         const Where& weights) {
    const int lane = threadIdx.x % 32;
    const long long row = (long long)pixels(g.kernel) * g.channels;
    filter += threadIdx.x / 32 % 4 * 16 + lane / 4;
    to += filter * row;
#pragma unroll
    for (int j = 0; j < GROUP_WEIGHTS / 64; ++j) {
        const Weights at = weights(j);
#pragma unroll
        for (int i = 0; i < 32; i += 2) {
            const int weight = i / 4 * 8 + lane % 4 * 2, half = i / 2 % 2;
            if (weight < at.count && filter + 8 * half < g.filters)
                store_pair(to + 8 * half * row + at.first + weight, sums[32 * j + i],
                           sums[32 * j + i + 1]);
        }
    }
}

template <class Where>
__device__ __forceinline__ void store(const Sums& sums, int filter, const ConvGeometry& g, Element* dw, float* partial,
                                      const Where& weights) {
    filter += filter_block() * 64;
    const long long count = (long long)g.filters * pixels(g.kernel) * g.channels;
    if (partial)
        store_to(sums, filter, g, partial + blockIdx.z * count, weights);
    else
        store_to(sums, filter, g, dw, weights);
}
