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
// Macros: TURNED, 0 or 1; CLUSTER, if it is not 1; TEAMS; FILTERS, PIXELS, GROUP_PIXELS, PASS_PIXELS (those that a
// warpgroup rounds and stores at a time, of floats half of them), BUFFERS (for them: while TMA stores one pass, the
// next is rounded into another), STAGES, BLOCKS (that a multiprocessor should hold), SHARED_BYTES (the dynamic shared
// memory of a launch).
#pragma once
const int READERS = FILTERS / 64 * (PIXELS / GROUP_PIXELS), CONSUMERS = TEAMS * READERS;  // warpgroups
#include "wgmma_ring.cuh"
#include "epilogue.cuh"
#include "mask.cuh"

const int DEPTH = ROW_BYTES / sizeof(Element);   // channels of a step
const int FILTER_BYTES = FILTERS * ROW_BYTES;    // of a step
const int PASS_BYTES = PASS_PIXELS * ROW_BYTES;  // of a warpgroup
const int STORED_BYTES = BUFFERS * PASS_BYTES;   // of a warpgroup
const int PARTS = 64 / DEPTH;                    // rows of 128 bytes that the 64 filters of a pixel are
const int PASS = PASS_PIXELS / PARTS;            // pixels of a pass
const int PASSES = GROUP_PIXELS / PASS;
const bool MASKS = !TURNED;                      // gradients have none
const int LANDED_BYTES = CONSUMERS * sizeof(uint64_t);  // a barrier for each warpgroup's residual

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

// Have TMA bring the tile's filters under tap `tap` of `taps`: channels from c on. Where SHARERS have them in common,
// this block's share to all of them.
template <int SHARERS = 1>
__device__ __forceinline__ void load_filters(unsigned char* to, const TensorMap* w, uint64_t* full, int c, int tap,
                                             int taps, int filter) {
    const auto load = [&](unsigned char* to, int c0, int c1, int c2) {
        if (SHARERS > 1)
            tma_load_3d_multicast(to, w, full, c0, c1, c2, ALL_BLOCKS);
        else
            tma_load_3d(to, w, full, c0, c1, c2);
    };
    static_assert(FILTERS % (64 * SHARERS) == 0, "a share is whole boxes of w as it lies");
    const int share = FILTERS / SHARERS, own = SHARERS > 1 ? cluster_rank() * share : 0;
    to += own * ROW_BYTES, filter += own;
#if TURNED
#pragma unroll
    for (int i = 0; i < share; i += 64) load(to + i * ROW_BYTES, filter + i, taps - 1 - tap, c);
#else
    load(to, c, tap, filter);
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
    bool others;       // whether the next tile is the other team's

    static const int BYTES = TEAMS > 1 ? TEAMS * sizeof(uint64_t) : 0;
    static_assert(TEAMS <= 2, "there is one other team");

    __device__ __forceinline__ explicit Turns(unsigned char* barriers)
        : passed((uint64_t*)barriers), parity(team() == 0), others(team() != 0) {}
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
    // Return whether the next of the block's tiles is the other team's; then `ring` passes over its stages.
    template <int SHARERS>
    __device__ __forceinline__ bool pass_over(Ring<STAGES, SHARERS>& ring, int stages) {
        const bool is_others = TEAMS > 1 && others;
        if (is_others) ring.skip(stages);
        others = !others;
        return is_others;
    }
};

// Sums of so many steps, a stage having the filters and behind them the pixels.
template <int SHARERS>
__device__ __forceinline__ void sum_steps(Sums& sums, Ring<STAGES, SHARERS>& ring, Turns& turns, int steps) {
    const int stage_bytes = FILTER_BYTES + PIXELS * ROW_BYTES;
    const uint64_t filters = rows_at(smem + first_filter() * ROW_BYTES);
    const uint64_t pixels = rows_at(smem + FILTER_BYTES + first_pixel() * ROW_BYTES);
    int onto = 0;
    Reading<SHARERS> before;
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

// The sums of a pass, and where they go in shared memory: as [part][pixel][DEPTH filters], swizzled.
typedef float PassSums[PASS / 2];

#if ELEMENT == F32
__device__ __forceinline__ float* place_of(unsigned char* buffer, int i) {
    const int lane = threadIdx.x % 32, filter = threadIdx.x / 32 % 4 * 16 + lane / 4, pixel = lane % 4 * 2;
    const int first = (filter / DEPTH * PASS + pixel) * ROW_BYTES + ((filter % DEPTH / 4) ^ pixel) * 16 + filter % 4 * 4;
    // 8 filters further is two pieces of 16 bytes, the next pixel swaps neighbours
    const int swapped = first ^ (i / 2 % 2 * 32 + i % 2 * 16);
    return (float*)(buffer + swapped + i % 2 * ROW_BYTES + i / 4 * EIGHT_ROWS);
}
template <class Join> __device__ __forceinline__ void join_pass(PassSums& sums, unsigned char* buffer, const Join& join) {
#pragma unroll
    for (int i = 0; i < PASS / 2; ++i) sums[i] = join(sums[i], *place_of(buffer, i));
}
__device__ __forceinline__ void write_pass(unsigned char* buffer, const PassSums& sums) {
#pragma unroll
    for (int i = 0; i < PASS / 2; ++i) *place_of(buffer, i) = sums[i];
}
#else
// Of the four matrices that are moved at once: two of 8 pixels by two of 8 filters.
__device__ __forceinline__ unsigned char* matrices_at(unsigned char* buffer) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, matrix = lane / 8;
    return buffer + (lane % 8 + matrix / 2 * 8) * ROW_BYTES + ((2 * warp + matrix % 2) ^ lane % 8) * 16;
}
template <class Join> __device__ __forceinline__ void join_pass(PassSums& sums, unsigned char* buffer, const Join& join) {
    buffer = matrices_at(buffer);
#pragma unroll
    for (int pixel = 0; pixel < PASS; pixel += 16) {
        uint32_t pairs[4];
        ldmatrix_x4_trans(pairs, buffer + pixel * ROW_BYTES);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Elements<2> both = *(const Elements<2>*)&pairs[i];
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                float& sum = sums[pixel / 2 + 2 * i + e];
                sum = join(sum, widen(both.at[e]));
            }
        }
    }
}
__device__ __forceinline__ void write_pass(unsigned char* buffer, const PassSums& sums) {
    buffer = matrices_at(buffer);
#pragma unroll
    for (int pixel = 0; pixel < PASS; pixel += 16) {
        uint32_t pairs[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[i] = narrow_pair(sums[pixel / 2 + 2 * i], sums[pixel / 2 + 2 * i + 1]);
        stmatrix_x4_trans(buffer + pixel * ROW_BYTES, pairs);
    }
}
#endif

// Those of the warpgroup's sums that are of a pass.
__device__ __forceinline__ PassSums& of_pass(Sums& sums, int pass) { return *(PassSums*)(sums + pass * (PASS / 2)); }

// What is turned are gradients; of floats, both directions are the same kernel. Only gradients are multiplied by g'(y).
const bool IS_GRADIENT = TURNED, MAY_BE_GRADIENT = IS_GRADIENT || sizeof(Element) == 4;
__device__ __forceinline__ void join_pass(PassSums& sums, unsigned char* buffer, const Epilogue& epilogue) {
    const auto with = [&](const auto& join) { join_pass(sums, buffer, join); };
    if (MAY_BE_GRADIENT)
        epilogue.joining(with);
    else
        epilogue.adding(with);
}

// Store the mask of a pass that a warpgroup has written to its buffer, `filter` being its first of `filters`, both
// multiples of 8: of the pixels for which exists(i), which are number(i) of y.
template <class Exists, class Number>
__device__ __forceinline__ void store_mask(const unsigned char* buffer, int of_pixels, int filter, int filters,
                                           Accum ceiling, U8* __restrict__ mask, const Exists& exists,
                                           const Number& number) {
    const int OCTETS = 64 / OCTET, CHUNK = 16 / sizeof(Element), CHUNKS = OCTET / CHUNK;
    for (int i = threadIdx.x % 128; i < PASS * OCTETS; i += 128) {
        const int octet = i % OCTETS, pixel = i / OCTETS, own = filter + octet * OCTET;
        if (own >= filters || !exists(of_pixels + pixel)) continue;
        const unsigned char* of_pixel = buffer + (octet * OCTET / DEPTH * PASS + pixel) * ROW_BYTES;
        unsigned bits = 0;
#pragma unroll
        for (int k = 0; k < CHUNKS; ++k) {
            const int chunk = (octet * CHUNKS + k) % 8 ^ pixel % 8;
            bits |= bits_of(*(const Elements<CHUNK>*)(of_pixel + chunk * 16), ceiling) << (k * CHUNK);
        }
        mask[((long long)number(of_pixels + pixel) * filters + own) / OCTET] = bits;
    }
}

// A warpgroup's way to store its sums, a pass at a time: by way of its buffers, from which TMA stores them. A residual
// comes the same way: TMA brings it to the buffer, FETCHED bytes for a pass, and the sums take its place. For each part
// of a pass one thread calls store(where it lies, its first of the 64 filters, its first pixel), or load, with the
// barrier as well. Where `reads`, all threads call read(where the pass lies, its first pixel); unless `stores`, no one
// calls store.
template <int FETCHED = PASS_BYTES> struct Storing {
    unsigned char* buffers;
    uint64_t* landed;
    unsigned parity = 0;

    __device__ __forceinline__ Storing(unsigned char* stored, unsigned char* landed)
        : buffers(stored + warpgroup() * STORED_BYTES), landed((uint64_t*)landed + warpgroup()) {}

    // By one thread, before anyone uses them.
    __device__ __forceinline__ void init() const {
        for (int i = 0; i < CONSUMERS; ++i) mbarrier_init(landed - warpgroup() + i, 1);
    }
    // By a warpgroup, where a residual's passes leave gaps: those are joined, too, though never stored.
    __device__ __forceinline__ void clear() const {
        for (int i = threadIdx.x % 128 * 16; i < STORED_BYTES; i += 128 * 16) *(uint4*)(buffers + i) = uint4{};
        fence_proxy_async();
        sync();
    }
    __device__ __forceinline__ static bool is_one() { return threadIdx.x % 128 == 0; }
    __device__ __forceinline__ unsigned char* buffer(int pass) const { return buffers + pass % BUFFERS * PASS_BYTES; }
    __device__ __forceinline__ static void sync() { bar_sync(1 + warpgroup(), 128); }

    // Have a pass of the residual brought once TMA has read what was in its buffer. Everyone has seen the pass before.
    template <class Load> __device__ __forceinline__ void fetch(int pass, const Load& load) const {
        if (!is_one()) return;
        tma_store_wait<0>();
        mbarrier_arrive_expect_tx(landed, FETCHED);
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
            load(buffer(pass) + part * PASS * ROW_BYTES, part * DEPTH, pass * PASS, landed);
    }

    // Join the residual, of which pass 0 is under way, apply f, round and store. The bias is among the sums.
    template <class Store, class Load, class Read>
    __device__ __forceinline__ void operator()(Sums& sums, const Epilogue& epilogue, bool residual, const Store& store,
                                               const Load& load, bool reads, const Read& read, bool stores = true) {
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
            PassSums& own = of_pass(sums, pass);
            if (residual) join_pass(own, buffer(pass), epilogue);
            if (!IS_GRADIENT) epilogue.activate(own);
            write_pass(buffer(pass), own);
            fence_proxy_async();
            sync();  // the pass is complete
            if (stores && is_one()) {
#pragma unroll
                for (int part = 0; part < PARTS; ++part)
                    store(buffer(pass) + part * PASS * ROW_BYTES, part * DEPTH, pass * PASS);
                tma_store_commit();
            }
            if (reads) {
                read(buffer(pass), pass * PASS);
                if (residual) sync();  // everyone has read the pass, over which the next residual may come
            }
            if (residual && BUFFERS == 1 && pass + 1 < PASSES) fetch(pass + 1, load);
        }
    }
};
