// What the convolutions on tensor cores share, forward and backward: how the rows of a tile gather the pixels of
// a map under the taps of a window, and how the tile is stored. Channels last, any rank: RANK is 3.
//
// All that depends on a row of the tile, or on a tap, is worked out once by a block and kept in shared memory
// (Tables). In the loop, a chunk of channels under a tap of a row then costs an addition and a test: each row has
// the bits of the taps that lie outside of its map, one bit for each place of the window along each axis.
//
// Macros: those of tile_mma.cuh; SHARED_BYTES, the dynamic shared memory of a launch; BLOCKS, how many of them a
// multiprocessor should hold.
#pragma once
#include "conv_geometry.cuh"
#include "tile_mma.cuh"

// A tile's row: where, in chunks, its map lies under tap 0, which may be outside; and the pixel that it computes,
// -1 beyond the last.
struct TileRow {
    int source;
    unsigned outside;
    int target;
};
// A tap: how far, in chunks, its map lies from that of tap 0, and its place along each axis.
struct alignas(8) TileTap {
    int offset;
    unsigned places;
};
// Set in every row's `outside`: taps behind the last are there.
const unsigned NOWHERE = 1u << 31;
const int MAX_TAPS = 256 - TILE_K / CHUNK;  // as in gpucnn/backends/cuda/algorithms/mma.py

struct Tables {
    TileTap taps[MAX_TAPS + TILE_K / CHUNK];     // a slab may reach so far behind the last
    int tap_weights[MAX_TAPS + TILE_K / CHUNK];  // where those of a tap begin in a filter; only for dgrad
    TileRow rows[TILE_M];
};

extern __shared__ __align__(16) unsigned char smem[];

const int SLABS_BYTES = STAGES * (TILE_M + TILE_N) * TILE_K * sizeof(Element);
static_assert(SHARED_BYTES == SLABS_BYTES + sizeof(Tables), "the launch must ask for what there is");
// Of floats, what the lanes of a warp have side by side is a whole sector of memory: they store it themselves.
const bool BY_WAY_OF_SLABS = sizeof(Element) == 2;
static_assert(!BY_WAY_OF_SLABS || SLABS_BYTES >= TILE_M * TILE_N * 2, "the tile is stored by way of the slabs");

__device__ __forceinline__ Tables& tables() { return *(Tables*)(smem + SLABS_BYTES); }

// The bits of the places of a window along each axis, `counts` of them, for which is_outside(axis, place).
template <class Counts, class IsOutside>
__device__ __forceinline__ unsigned outside_bits(const Counts& counts, const IsOutside& is_outside) {
    unsigned bits = NOWHERE, bit = 1;
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a)
        for (int place = 0; place < counts(a); ++place, bit <<= 1)
            if (is_outside(a, place)) bits |= bit;
    return bits;
}

// The bits of one place along each axis.
template <class Counts> __device__ __forceinline__ unsigned place_bits(const Counts& counts, const Place& place) {
    unsigned bits = 0;
    int first = 0;
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) {
        bits |= 1u << (first + place.axis[a]);
        first += counts(a);
    }
    return bits;
}

// Fill the tables by row_of(i), of the tile, and tap_of(i, weights), which sets where its weights begin. All threads
// of a block call this.
template <class RowOf, class TapOf>
__device__ __forceinline__ void fill_tables(int taps, const RowOf& row_of, const TapOf& tap_of) {
    Tables& table = tables();
    for (int i = threadIdx.x; i < TILE_M; i += THREADS) table.rows[i] = row_of(i);
    for (int i = threadIdx.x; i < taps + TILE_K / CHUNK; i += THREADS) {
        int weights = 0;
        table.taps[i] = i < taps ? tap_of(i, weights) : TileTap{0, NOWHERE};
        table.tap_weights[i] = weights;
    }
    __syncthreads();  // the tables are complete
}

// The terms that a split sums, slab by slab, `depth` of each tap. Where slabs are of one tap each, all taps of TILE_K
// channels come before the next channels: what one tap of a row has read is still near for the next one.
struct Terms {
    unsigned begin, end;       // of the first slab, and of what exists
    int slabs;
    unsigned step, wrap, back;  // from a slab to the next, and what that goes back by once it reaches `wrap`

    __device__ __forceinline__ Terms(unsigned k_per_split, unsigned taps, unsigned depth) {
        const unsigned length = taps * depth, first = blockIdx.z * k_per_split;
        end = min(first + k_per_split, length);
        slabs = first < end ? (end - first + TILE_K - 1) / TILE_K : 0;
        if (depth % TILE_K == 0 && taps > 0) {
            const unsigned slab = first / TILE_K;
            begin = slab % taps * depth + slab / taps * TILE_K;
            end = length;
            step = depth, wrap = length, back = length - TILE_K;
        } else {
            begin = first;
            step = TILE_K, wrap = ~0u, back = 0;
        }
    }
    __device__ __forceinline__ unsigned next(unsigned k) const {
        k += step;
        return k >= wrap ? k - back : k;
    }
};

// A(m, k): a chunk of channels of the map under a tap of row m, k counting (tap, channel) with `depth` channels to a tap.
struct GatheredRows {
    static const bool ALONG_K = true;
    typedef SlabOf<true, TILE_M> Slab;
    const Elements<CHUNK>* map;  // from the group's first channel on
    const Divisor& depth;
    const Terms& terms;
    int to;      // where this thread's first chunk goes in a slab
    unsigned k;  // of this thread's chunks in the next slab
    const TileRow* rows;  // in the tables
    // A thread with many rows has no registers for them: it reads them again for each slab.
    static const bool KEPT = Slab::LOADS <= 4;
    int source[KEPT ? Slab::LOADS : 1];
    unsigned outside[KEPT ? Slab::LOADS : 1];

    // Called when the tables are complete.
    __device__ __forceinline__ GatheredRows(const Element* map, const Divisor& depth, const Terms& terms)
        : map((const Elements<CHUNK>*)map), depth(depth), terms(terms), to(in_register(Slab::thread_offset())),
          k(terms.begin + CHUNK * Slab::thread_chunk()), rows(tables().rows + Slab::thread_row()) {
        if (!KEPT) return;
#pragma unroll
        for (int i = 0; i < Slab::LOADS; ++i) {
            source[i] = rows[i * Slab::STEP].source;
            outside[i] = rows[i * Slab::STEP].outside;
        }
    }
    __device__ __forceinline__ void fetch(unsigned char* slab) {
        int channel;
        const TileTap tap = tables().taps[divide(k, depth, channel)];
        const int offset = tap.offset + (unsigned)channel / CHUNK;
#pragma unroll
        for (int i = 0; i < Slab::LOADS; ++i) {
            const int first = KEPT ? source[i] : rows[i * Slab::STEP].source;
            const unsigned bits = KEPT ? outside[i] : rows[i * Slab::STEP].outside;
            cp_async_16(slab + to + i * Slab::STEP_BYTES, map + (first + offset), bits & tap.places ? 0 : 16);
        }
        k = terms.next(k);
    }
};

// Round the tile, with the bias and ReLU, and store it 16 bytes at a time by way of the slabs, which nobody reads
// any more; or store the sums themselves into `partial`. A row of the result has `depth` numbers; the tile's
// columns, of which `columns` exist, begin at number `first` of it.
__device__ __forceinline__ void store_tile(const Sums& acc, int col0, int columns, int first, int depth,
                                           const Element* __restrict__ bias, int relu, Element* __restrict__ result,
                                           float* __restrict__ partial) {
    typedef Swizzled<WARP_M, WARP_N> Stage;
    const TileRow* rows = tables().rows + warp_row();
    const int lane = threadIdx.x % 32;
    col0 += warp_col();
    unsigned char* stage = smem + threadIdx.x / 32 * Stage::BYTES;
#pragma unroll
    for (int j = 0; j < WARP_N / 8; ++j) {
        const int column = col0 + 8 * j + 2 * (lane % 4);
        float added[2] = {};
#pragma unroll
        for (int e = 0; e < 2; ++e)
            if (bias && column + e < columns) added[e] = widen(bias[first + column + e]);
#pragma unroll
        for (int i = 0; i < WARP_M / 16; ++i)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = 16 * i + 8 * half + lane / 4;
                Values<2> pair = {acc[i][j][2 * half], acc[i][j][2 * half + 1]};
                const auto store_here = [&](float* result) {
                    const int target = rows[row].target;
                    if (target < 0) return;
                    float* to = result + (long long)target * depth + first + column;
                    if (depth % 2 == 0 && columns % 2 == 0) {
                        if (column < columns) *(Values<2>*)to = pair;
                    } else {
#pragma unroll
                        for (int e = 0; e < 2; ++e)
                            if (column + e < columns) to[e] = pair.at[e];
                    }
                };
                if (partial) {
                    store_here(partial);
                    continue;
                }
#pragma unroll
                for (int e = 0; e < 2; ++e) {
                    const float value = pair.at[e] + added[e];
                    pair.at[e] = relu && value <= 0 ? 0.f : value;
                }
                if (!BY_WAY_OF_SLABS) {
                    store_here((float*)result);
                    continue;
                }
                store_values<2>((Element*)(stage + Stage::offset(row, j)) + 2 * (lane % 4), pair);
            }
    }
    if (partial || !BY_WAY_OF_SLABS) return;
    __syncwarp();  // the warp's part is complete
    const bool whole = depth % CHUNK == 0 && columns % CHUNK == 0;
    const int chunk = lane % Stage::CHUNKS, column = col0 + CHUNK * chunk;
    if (column >= columns) return;
    result += first + column;
#pragma unroll 4
    for (int row = lane / Stage::CHUNKS; row < WARP_M; row += 32 / Stage::CHUNKS) {
        const int target = rows[row].target;
        if (target < 0) break;
        const Elements<CHUNK> values = *(const Elements<CHUNK>*)(stage + Stage::offset(row, chunk));
        Element* to = result + (long long)target * depth;
        if (whole) {
            *(Elements<CHUNK>*)to = values;
        } else {
#pragma unroll
            for (int e = 0; e < CHUNK; ++e)
                if (column + e < columns) to[e] = values.at[e];
        }
    }
}
