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
#include "epilogue.cuh"

const int DEPTH = 64;                            // channels of a step
const int FILTER_BYTES = FILTERS * ROW_BYTES;    // of a step
const int PASS_BYTES = PASS_PIXELS * ROW_BYTES;  // of a warpgroup
const int STORED_BYTES = BUFFERS * PASS_BYTES;   // of a warpgroup
const int PASSES = GROUP_PIXELS / PASS_PIXELS;
const int LANDED_BYTES = CONSUMERS * sizeof(uint64_t);  // a barrier for each warpgroup's residual

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

// A warpgroup's way to store its sums, PASS_PIXELS at a time, as [pixel][64 filters]: by way of its buffers, from
// which TMA stores them. A residual comes the same way: TMA brings it to the buffer, and the sums take its place.
// One thread calls store(buffer, first pixel of the pass) and load(buffer, first pixel, barrier).
struct Storing {
    unsigned char* buffers;
    uint64_t* landed;
    unsigned parity = 0;

    __device__ __forceinline__ Storing(unsigned char* stored, unsigned char* landed)
        : buffers(stored + warpgroup() * STORED_BYTES), landed((uint64_t*)landed + warpgroup()) {}

    // By one thread, before anyone uses them.
    __device__ __forceinline__ static void init(unsigned char* landed) {
        for (int i = 0; i < CONSUMERS; ++i) mbarrier_init((uint64_t*)landed + i, 1);
    }
    __device__ __forceinline__ static bool is_one() { return threadIdx.x % 128 == 0; }
    __device__ __forceinline__ unsigned char* buffer(int pass) const { return buffers + pass % BUFFERS * PASS_BYTES; }
    __device__ __forceinline__ static void sync() { bar_sync(1 + warpgroup(), 128); }

    // Have a pass of the residual brought once TMA has read what was in its buffer. Everyone has seen the pass before.
    template <class Load> __device__ __forceinline__ void fetch(int pass, const Load& load) const {
        if (!is_one()) return;
        tma_store_wait<0>();
        mbarrier_arrive_expect_tx(landed, PASS_BYTES);
        load(buffer(pass), pass * PASS_PIXELS, landed);
    }

    // Add the residual, of which pass 0 is under way, apply f, round and store. The bias is among the sums.
    template <class Store, class Load>
    __device__ __forceinline__ void operator()(Sums& sums, const Epilogue& epilogue, bool residual, const Store& store,
                                               const Load& load) {
        const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, matrix = lane / 8;
        // of the four matrices that are stored at once: two of 8 pixels by two of 8 filters
        const int row = (lane % 8 + matrix / 2 * 8) * ROW_BYTES + ((2 * warp + matrix % 2) ^ lane % 8) * 16;
#pragma unroll
        for (int pass = 0; pass < PASSES; ++pass) {
            if (residual) {
                mbarrier_wait(landed, parity);
                parity ^= 1;
            } else if (is_one()) {
                if (pass == 0) tma_store_wait<0>();  // the tile before, long since
                if (pass > 0) tma_store_wait<BUFFERS - 1>();
            }
            sync();  // TMA has read what was in the buffer, or everyone has seen that it brought the residual
            if (residual && BUFFERS > 1 && pass + 1 < PASSES) fetch(pass + 1, load);
            float(&part)[PASS_PIXELS / 2] = *(float(*)[PASS_PIXELS / 2])(sums + pass * (PASS_PIXELS / 2));
            unsigned char* first = buffer(pass) + row;
            if (residual) {
#pragma unroll
                for (int pixel = 0; pixel < PASS_PIXELS; pixel += 16) {
                    uint32_t pairs[4];
                    ldmatrix_x4_trans(pairs, first + pixel * ROW_BYTES);
#pragma unroll
                    for (int i = 0; i < 4; ++i) {
                        const Elements<2> both = *(const Elements<2>*)&pairs[i];
                        part[pixel / 2 + 2 * i] += widen(both.at[0]);
                        part[pixel / 2 + 2 * i + 1] += widen(both.at[1]);
                    }
                }
            }
            epilogue.activate(part);
#pragma unroll
            for (int pixel = 0; pixel < PASS_PIXELS; pixel += 16) {
                uint32_t pairs[4];
#pragma unroll
                for (int i = 0; i < 4; ++i)
                    pairs[i] = narrow_pair(part[pixel / 2 + 2 * i], part[pixel / 2 + 2 * i + 1]);
                stmatrix_x4_trans(first + pixel * ROW_BYTES, pairs);
            }
            fence_proxy_async();
            sync();  // the pass is complete
            if (is_one()) {
                store(buffer(pass), pass * PASS_PIXELS);
                tma_store_commit();
            }
            if (residual && BUFFERS == 1 && pass + 1 < PASSES) fetch(pass + 1, load);
        }
    }
};

// Add the bias to the sums of a warpgroup, `filter` being its first. Where `moments` (K,) is not null, it gets those
// of the warpgroup's pixels for which exists(pixel).
template <class Exists>
__device__ __forceinline__ void add_bias(Sums& sums, const Element* __restrict__ bias, int filter, int filters,
                                         Moments* __restrict__ moments, const Exists& exists) {
    const int lane = threadIdx.x % 32, first = filter + threadIdx.x / 32 % 4 * 16 + lane / 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int own = first + 8 * half;
        const float added = bias && own < filters ? widen(bias[own]) : 0;
#pragma unroll
        for (int i = 0; i < GROUP_PIXELS / 4; ++i) sums[i / 2 * 4 + 2 * half + i % 2] += added;
        if (!moments) continue;
        StoredMoments of_lane;
#pragma unroll
        for (int i = 0; i < GROUP_PIXELS / 4; ++i)
            if (exists(i / 2 * 8 + lane % 4 * 2 + i % 2)) of_lane.add(sums[i / 2 * 4 + 2 * half + i % 2]);
        const Moments of_warp = of_lane.of_lanes<1 + 2>();
        if (lane % 4 == 0 && own < filters) moments[own] = of_warp;
    }
}
