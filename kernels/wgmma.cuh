// What the convolutions of 16-bit elements on Hopper's wgmma and TMA share (sm_90a), channels last.
//
// A block computes FILTERS x PIXELS sums. Its last warp is the producer: one thread of it has TMA copy 64 channels
// of a tap at a time to shared memory, in rows of 128 bytes with the 128-byte swizzle. Every other warpgroup is a
// consumer: it multiplies 64 filters, on M, by GROUP_PIXELS pixels, on N. That way round even 64 filters keep the
// tensor cores busy, for N may be large: with 64 of them on N, and the pixels on M, reading shared memory would take
// as long as multiplying.
//
// The block is persistent: it takes tiles until none is left, and the producer is already at the next one while the
// consumers store.
//
// Macros: FILTERS, PIXELS, GROUP_PIXELS, PASS_PIXELS (those that a warpgroup rounds and stores at a time), BUFFERS (for
// them: while TMA stores one pass, the next is rounded into another), STAGES, BLOCKS (that a multiprocessor should
// hold), SHARED_BYTES (the dynamic shared memory of a launch).
#pragma once
const int CONSUMERS = FILTERS / 64 * (PIXELS / GROUP_PIXELS);
#include "wgmma_ring.cuh"

const int DEPTH = 64;                            // channels of a step
const int FILTER_BYTES = FILTERS * ROW_BYTES;    // of a step
const int PASS_BYTES = PASS_PIXELS * ROW_BYTES;  // of a warpgroup
const int STORED_BYTES = BUFFERS * PASS_BYTES;   // of a warpgroup

static_assert(FILTERS % 64 == 0 && PIXELS % GROUP_PIXELS == 0, "warpgroups must cover the tile");
static_assert(GROUP_PIXELS % PASS_PIXELS == 0 && PASS_PIXELS % 16 == 0, "passes must cover a warpgroup's pixels");

__device__ __forceinline__ int first_filter() { return warpgroup() % (FILTERS / 64) * 64; }
__device__ __forceinline__ int first_pixel() { return warpgroup() / (FILTERS / 64) * GROUP_PIXELS; }

// The sums of a warpgroup. Lane l of warp w holds, in number 4 * j + 2 * h + e, those of filter
// 16 * w + l / 4 + 8 * h and pixel 8 * j + 2 * (l % 4) + e.
typedef float Sums[GROUP_PIXELS / 2];

#if ELEMENT == F16
#define WGMMA PASTE(PASTE(wgmma_m64n, GROUP_PIXELS), k16_f16)
#else
#define WGMMA PASTE(PASTE(wgmma_m64n, GROUP_PIXELS), k16_bf16)
#endif

// Describes rows to wgmma of which every eight lie `pitch` bytes behind the eight before.
__device__ __forceinline__ uint64_t rows_at(const unsigned char* first, unsigned pitch = EIGHT_ROWS) {
    return wgmma_desc_sw128(first, 16, pitch);
}

// Start sums = filters * pixels^T + (onto ? sums : 0) for one step.
__device__ __forceinline__ void multiply(Sums& sums, uint64_t filters, uint64_t pixels, int& onto) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < ROW_BYTES; k += 32) {
        WGMMA(sums, further(filters, k), further(pixels, k), onto);
        onto = 1;
    }
    wgmma_commit();
}

// Add the bias, apply ReLU, round, and hand the sums to TMA by way of the warpgroup's buffers, PASS_PIXELS at a time,
// as [pixel][64 filters]; one thread calls store(the pass's buffer, its first pixel). `filter` is the warpgroup's
// first.
template <class Store>
__device__ __forceinline__ void store_sums(const Sums& sums, const Element* __restrict__ bias, int relu, int filter,
                                           int filters, unsigned char* buffers, const Store& store) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, matrix = lane / 8;
    const bool stores = threadIdx.x % 128 == 0;
    float added[2] = {};
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int own = filter + 16 * warp + lane / 4 + 8 * half;
        if (bias && own < filters) added[half] = widen(bias[own]);
    }
    // of the four matrices that are stored at once: two of 8 pixels by two of 8 filters
    const int row = (lane % 8 + matrix / 2 * 8) * ROW_BYTES + ((2 * warp + matrix % 2) ^ lane % 8) * 16;
#pragma unroll
    for (int pass = 0; pass < GROUP_PIXELS / PASS_PIXELS; ++pass) {
        unsigned char* buffer = buffers + pass % BUFFERS * PASS_BYTES;
        if (stores && pass == 0) tma_store_wait<0>();  // the tile before, long since
        if (stores && pass > 0) tma_store_wait<BUFFERS - 1>();
        bar_sync(1 + warpgroup(), 128);  // TMA has read what was in the buffer
#pragma unroll
        for (int pixel = 0; pixel < PASS_PIXELS; pixel += 16) {
            const int first = (pass * PASS_PIXELS + pixel) / 2;
            uint32_t pairs[4];
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                float values[2];
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const float value = sums[first + 2 * i + e] + added[i % 2];
                    values[e] = relu && value <= 0 ? 0.f : value;
                }
                pairs[i] = narrow_pair(values[0], values[1]);
            }
            stmatrix_x4_trans(buffer + row + pixel * ROW_BYTES, pairs);
        }
        fence_proxy_async();
        bar_sync(1 + warpgroup(), 128);  // the pass is complete
        if (stores) {
            store(buffer, pass * PASS_PIXELS);
            tma_store_commit();
        }
    }
}
