// What the convolutions of 16-bit elements on Hopper's wgmma and TMA share (sm_90a), channels last.
//
// A block computes FILTERS x PIXELS sums. Its last warp is the producer: one thread of it has TMA copy 64 channels
// of a tap at a time to shared memory, in rows of 128 bytes with the 128-byte swizzle. Every other warpgroup is a
// consumer: it multiplies 64 filters, on M, by GROUP_PIXELS pixels, on N. That way round even 64 filters keep the
// tensor cores busy, for N may be large: with 64 of them on N, and the pixels on M, reading shared memory would take
// as long as multiplying.
//
// Both sides go through rings of stages: `full` ends a phase when a stage's bytes are there, `empty` when every warp
// of the consumers has read them. The block is persistent: it takes tiles until none is left, and the producer is
// already at the next one while the consumers store.
//
// Macros: FILTERS, PIXELS, GROUP_PIXELS, PASS_PIXELS (those that a warpgroup rounds and stores at a time), BUFFERS (for
// them: while TMA stores one pass, the next is rounded into another), STAGES, BLOCKS (that a multiprocessor should
// hold), SHARED_BYTES (the dynamic shared memory of a launch).
#pragma once
#include "conv_geometry.cuh"

const int DEPTH = 64;  // channels of a step: 128 bytes, as far as the swizzle reaches
const int ROW_BYTES = 128;
const int CONSUMERS = FILTERS / 64 * (PIXELS / GROUP_PIXELS);
const int THREADS = 128 * CONSUMERS + 32;
const int FILTER_BYTES = FILTERS * ROW_BYTES;    // of a step
const int PASS_BYTES = PASS_PIXELS * ROW_BYTES;  // of a warpgroup
const int STORED_BYTES = BUFFERS * PASS_BYTES;   // of a warpgroup
const int EIGHT_ROWS = 8 * ROW_BYTES;            // the pattern of the swizzle

static_assert(sizeof(Element) == 2, "a row is 64 elements");
static_assert(FILTERS % 64 == 0 && PIXELS % GROUP_PIXELS == 0, "warpgroups must cover the tile");
static_assert(GROUP_PIXELS % PASS_PIXELS == 0 && PASS_PIXELS % 16 == 0, "passes must cover a warpgroup's pixels");

extern __shared__ __align__(1024) unsigned char smem[];

__device__ __forceinline__ int warpgroup() { return threadIdx.x / 128; }
__device__ __forceinline__ bool is_consumer() { return warpgroup() < CONSUMERS; }
__device__ __forceinline__ bool is_producer() { return threadIdx.x == 128 * CONSUMERS; }
__device__ __forceinline__ int first_filter() { return warpgroup() % (FILTERS / 64) * 64; }
__device__ __forceinline__ int first_pixel() { return warpgroup() / (FILTERS / 64) * GROUP_PIXELS; }

// One side's way round the stages of a ring.
template <int COUNT> struct Ring {
    uint64_t *full, *empty;  // of each stage
    int stage = 0;
    unsigned parity = 0;

    static const int BYTES = 2 * COUNT * sizeof(uint64_t);
    __device__ __forceinline__ explicit Ring(unsigned char* barriers)
        : full((uint64_t*)barriers), empty(full + COUNT) {}
    // By one thread, before anyone uses it.
    __device__ __forceinline__ void init() const {
        for (int i = 0; i < COUNT; ++i) {
            mbarrier_init(full + i, 1);
            mbarrier_init(empty + i, 4 * CONSUMERS);
        }
    }
    // The producer: wait until everyone has read what is in the stage, then announce what will come.
    __device__ __forceinline__ uint64_t* refill(unsigned bytes) const {
        mbarrier_wait(empty + stage, parity ^ 1);
        mbarrier_arrive_expect_tx(full + stage, bytes);
        return full + stage;
    }
    // A consumer: wait until the stage is full.
    __device__ __forceinline__ void await() const { mbarrier_wait(full + stage, parity); }
    __device__ __forceinline__ void next() {
        if (++stage == COUNT) stage = 0, parity ^= 1;
    }
};

// A stage that its warpgroup's multiplications may still be reading: released when they have ended.
struct Reading {
    uint64_t* empty = nullptr;

    __device__ __forceinline__ void release() {
        if (empty && threadIdx.x % 32 == 0) mbarrier_arrive(empty);
        empty = nullptr;
    }
};

// The sums of a warpgroup. Lane l of warp w holds, in number 4 * j + 2 * h + e, those of filter
// 16 * w + l / 4 + 8 * h and pixel 8 * j + 2 * (l % 4) + e.
typedef float Sums[GROUP_PIXELS / 2];

#if ELEMENT == F16
#define WGMMA PASTE(PASTE(wgmma_m64n, GROUP_PIXELS), k16_f16)
__device__ __forceinline__ uint32_t narrow_pair(float low, float high) { return cvt_f16x2(low, high); }
#else
#define WGMMA PASTE(PASTE(wgmma_m64n, GROUP_PIXELS), k16_bf16)
__device__ __forceinline__ uint32_t narrow_pair(float low, float high) { return cvt_bf16x2(low, high); }
#endif

// Describes rows to wgmma of which every eight lie `pitch` bytes behind the eight before.
__device__ __forceinline__ uint64_t rows_at(const unsigned char* first, unsigned pitch = EIGHT_ROWS) {
    return wgmma_desc_sw128(first, 16, pitch);
}

// The same rows, or 16 channels of them, so many bytes further.
__device__ __forceinline__ uint64_t further(uint64_t rows, unsigned bytes) { return rows + bytes / 16; }

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
