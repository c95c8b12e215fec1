// What the convolutions on Hopper's wgmma and TMA share that go over output pixels (sm_90a), channels last: forward,
// and of dy, for the gradient of the input.
//
// A block computes FILTERS x PIXELS sums. Its last warp is the producer: one thread of it has TMA copy DEPTH channels
// of a tap at a time to shared memory, in rows of 128 bytes with the 128-byte swizzle. Every other warpgroup is a
// consumer: it multiplies 64 filters, on M, by GROUP_PIXELS pixels, on N. That way round even 64 filters keep the
// tensor cores busy, for N may be large: with 64 of them on N, and the pixels on M, reading shared memory would take
// as long as multiplying.
//
// The gradient of the input sums over filters and has channels for its outputs: "channels" and "filters" are then
// those of w the other way round, and its taps from the last on. Of 16 bits, w is read as it lies (TURNED): wgmma
// takes an operand whose sum goes along its slow index. Of floats it does not: turn_filters.cu has turned them.
//
// Floats are multiplied as TF32: wgmma leaves out the lower 13 bits of each. What is cut off is less than 2^-10 of a
// number, twice what rounding would leave, and always towards zero; the sums are float.
//
// The block is persistent: it takes tiles until none is left, and the producer is already at the next one while the
// consumers store. Where there are two TEAMS of consumers they take tiles in turn, and one multiplies while the other
// stores.
//
// Macros: TURNED, 0 or 1; TEAMS; FILTERS, PIXELS, GROUP_PIXELS, PASS_PIXELS (those that a warpgroup rounds and stores at a
// time, of floats half of them), BUFFERS (for them: while TMA stores one pass, the next is rounded into another),
// STAGES, BLOCKS (that a multiprocessor should hold), SHARED_BYTES (the dynamic shared memory of a launch).
#pragma once
const int READERS = FILTERS / 64 * (PIXELS / GROUP_PIXELS), CONSUMERS = TEAMS * READERS;  // warpgroups
#include "wgmma_ring.cuh"

const int DEPTH = ROW_BYTES / sizeof(Element);   // channels of a step
const int FILTER_BYTES = FILTERS * ROW_BYTES;    // of a step
const int PASS_BYTES = PASS_PIXELS * ROW_BYTES;  // of a warpgroup
const int STORED_BYTES = BUFFERS * PASS_BYTES;   // of a warpgroup
const int PARTS = 64 / DEPTH;                    // rows of 128 bytes that the 64 filters of a pixel are
const int PASS = PASS_PIXELS / PARTS;            // pixels of a pass

static_assert(FILTERS % 64 == 0 && PIXELS % GROUP_PIXELS == 0, "warpgroups must cover the tile");
static_assert(GROUP_PIXELS % PASS == 0 && PASS_PIXELS % 16 == 0, "passes must cover a warpgroup's pixels");

__device__ __forceinline__ int first_filter() { return warpgroup() % (FILTERS / 64) * 64; }
__device__ __forceinline__ int first_pixel() { return warpgroup() % READERS / (FILTERS / 64) * GROUP_PIXELS; }

// The sums of a warpgroup. Lane l of warp w holds, in number 4 * j + 2 * h + e, those of filter
// 16 * w + l / 4 + 8 * h and pixel 8 * j + 2 * (l % 4) + e.
typedef float Sums[GROUP_PIXELS / 2];

#if ELEMENT == F32
static_assert(!TURNED, "wgmma takes 32-bit operands along the sum alone");
#define KIND k8_tf32
#elif ELEMENT == F16
#define KIND PASTE(k16_f16, MAJOR)
#else
#define KIND PASTE(k16_bf16, MAJOR)
#endif
#if TURNED
#define MAJOR _mk
const int NEXT_FILTERS = 2 * EIGHT_ROWS;  // bytes to what the next instruction of a step multiplies
#else
#define MAJOR
const int NEXT_FILTERS = 32;
#endif
#define WGMMA PASTE(PASTE(wgmma_m64n, GROUP_PIXELS), KIND)

// Have TMA bring the tile's filters under tap `tap` of `taps`: channels from c on.
__device__ __forceinline__ void load_filters(unsigned char* to, const TensorMap* w, uint64_t* full, int c, int tap,
                                             int taps, int filter) {
#if TURNED
#pragma unroll
    for (int i = 0; i < FILTERS; i += 64) tma_load_3d(to + i * ROW_BYTES, w, full, filter + i, taps - 1 - tap, c);
#else
    tma_load_3d(to, w, full, c, tap, filter);
#endif
}

// Describes rows to wgmma of which every eight lie `pitch` bytes behind the eight before.
__device__ __forceinline__ uint64_t rows_at(const unsigned char* first, unsigned pitch = EIGHT_ROWS) {
    return wgmma_desc_sw128(first, 16, pitch);
}

// Start sums = filters * pixels^T + (onto ? sums : 0) for one step.
__device__ __forceinline__ void multiply(Sums& sums, uint64_t filters, uint64_t pixels, int& onto) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        WGMMA(sums, further(filters, k * NEXT_FILTERS), further(pixels, k * 32), onto);
        onto = 1;
    }
    wgmma_commit();
}

// Whose turn it is to multiply. A team begins a tile when the other one has come to the last step of the tile before:
// earlier it could take a stage that is full for that one's own.
struct Turns {
    uint64_t* passed;  // by each team: a phase for each of its tiles
    unsigned parity;   // of the phase to wait for; the first tile's need not have been

    static const int BYTES = TEAMS > 1 ? TEAMS * sizeof(uint64_t) : 0;
    static_assert(TEAMS <= 2, "there is one other team");

    __device__ __forceinline__ explicit Turns(unsigned char* barriers)
        : passed((uint64_t*)barriers), parity(team() == 0) {}
    static __device__ __forceinline__ int team() { return warpgroup() / READERS; }
    __device__ __forceinline__ void init() const {
        for (int i = 0; i < BYTES / sizeof(uint64_t); ++i) mbarrier_init(passed + i, 4 * READERS);
    }
    __device__ __forceinline__ void await() const {
        if (TEAMS > 1) mbarrier_wait(passed + 1 - team(), parity);
    }
    __device__ __forceinline__ void pass() {
        if (TEAMS > 1 && threadIdx.x % 32 == 0) mbarrier_arrive(passed + team());
        parity ^= 1;
    }
    // Call take(number) for those of the block's tiles that are the team's; `ring` passes over steps_of(number) stages
    // of the others.
    template <class StepsOf, class Take>
    __device__ __forceinline__ void take(Ring<STAGES>& ring, int tiles, const StepsOf& steps_of, const Take& take) {
        int turn = team();
        for (int number = blockIdx.x; number < tiles; number += gridDim.x) {
            if (TEAMS == 1 || turn == 0)
                take(number);
            else
                ring.skip(steps_of(number));
            turn ^= 1;
        }
    }
};

// Sums of so many steps, a stage having the filters and behind them the pixels.
__device__ __forceinline__ void sum_steps(Sums& sums, Ring<STAGES>& ring, Turns& turns, int steps) {
    const int stage_bytes = FILTER_BYTES + PIXELS * ROW_BYTES;
    const uint64_t filters = rows_at(smem + first_filter() * ROW_BYTES);
    const uint64_t pixels = rows_at(smem + FILTER_BYTES + first_pixel() * ROW_BYTES);
    int onto = 0;
    Reading before;
    turns.await();
    for (int step = 0; step < steps; ++step, ring.next()) {
        ring.await();
        const int stage = ring.stage * stage_bytes;
        multiply(sums, further(filters, stage), further(pixels, stage), onto);
        wgmma_wait<1>();  // the step before has ended, this one goes on
        before.release();
        before.empty = ring.empty + ring.stage;
    }
    turns.pass();
    wgmma_wait<0>();
    before.release();
}

// What is added to the sums of this thread's two filters.
__device__ __forceinline__ void bias_of(float (&added)[2], const Element* __restrict__ bias, int filter, int filters) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        const int own = filter + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + 8 * half;
        added[half] = bias && own < filters ? widen(bias[own]) : 0;
    }
}

// Add, apply ReLU, round, and write PASS pixels from `first` on to shared memory: as [part][pixel][DEPTH filters],
// swizzled.
__device__ __forceinline__ void write_pass(unsigned char* buffer, const Sums& sums, int first,
                                           const float (&added)[2], int relu) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    const auto result = [&](int i) {
        const float value = sums[first / 2 + i] + added[i / 2 % 2];
        return relu && value <= 0 ? 0.f : value;
    };
#if ELEMENT == F32
#pragma unroll
    for (int i = 0; i < PASS / 2; ++i) {
        const int filter = 16 * warp + lane / 4 + i / 2 % 2 * 8, pixel = lane % 4 * 2 + i % 2;
        const int row = filter / DEPTH * PASS + i / 4 * 8 + pixel, piece = (filter % DEPTH / 4) ^ pixel;
        *(float*)(buffer + row * ROW_BYTES + piece * 16 + filter % 4 * 4) = result(i);
    }
#else
    // of the four matrices that are stored at once: two of 8 pixels by two of 8 filters
    const int matrix = lane / 8;
    const int row = (lane % 8 + matrix / 2 * 8) * ROW_BYTES + ((2 * warp + matrix % 2) ^ lane % 8) * 16;
#pragma unroll
    for (int pixel = 0; pixel < PASS; pixel += 16) {
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; ++i)
            pairs[i] = narrow_pair(result(pixel / 2 + 2 * i), result(pixel / 2 + 2 * i + 1));
        stmatrix_x4_trans(buffer + row + pixel * ROW_BYTES, pairs);
    }
#endif
}

// Hand the results to TMA by way of the warpgroup's buffers, a pass at a time; for each part of it, one thread calls
// store(where it lies, its first of the 64 filters, its first pixel). `filter` is the warpgroup's first.
template <class Store>
__device__ __forceinline__ void store_sums(const Sums& sums, const Element* __restrict__ bias, int relu, int filter,
                                           int filters, unsigned char* buffers, const Store& store) {
    const bool stores = threadIdx.x % 128 == 0;
    float added[2];
    bias_of(added, bias, filter, filters);
#pragma unroll
    for (int pass = 0; pass < GROUP_PIXELS / PASS; ++pass) {
        unsigned char* buffer = buffers + pass % BUFFERS * PASS_BYTES;
        if (stores && pass == 0) tma_store_wait<0>();  // the tile before, long since
        if (stores && pass > 0) tma_store_wait<BUFFERS - 1>();
        bar_sync(1 + warpgroup(), 128);  // TMA has read what was in the buffer
        write_pass(buffer, sums, pass * PASS, added, relu);
        fence_proxy_async();
        bar_sync(1 + warpgroup(), 128);  // the pass is complete
        if (stores) {
#pragma unroll
            for (int part = 0; part < PARTS; ++part)
                store(buffer + part * PASS * ROW_BYTES, part * DEPTH, pass * PASS);
            tma_store_commit();
        }
    }
}
