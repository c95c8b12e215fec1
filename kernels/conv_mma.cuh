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
#include "epilogue.cuh"
#include "mask.cuh"
#include "quads.cuh"
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
// As in algorithms/mma_tiles.py. A norm on load is for windows of one tap, and has a table of its own.
#if NORMS
const int TABLE_TAPS = 8, MOST_CHANNELS = 1024, NORM_BYTES = MOST_CHANNELS * 3 * sizeof(float);
#else
const int TABLE_TAPS = 256, NORM_BYTES = 0;
#endif
const int MAX_TAPS = TABLE_TAPS - TILE_K / CHUNK;  // a slab may reach so far behind the last

struct Tables {
    TileTap taps[TABLE_TAPS];
    int tap_weights[TABLE_TAPS];  // where those of a tap begin in a filter; only for dgrad
    TileRow rows[TILE_M];
};

extern __shared__ __align__(16) unsigned char smem[];

const int SLABS_BYTES = STAGES * (TILE_M + TILE_N) * TILE_K * sizeof(Element);
static_assert(SHARED_BYTES == SLABS_BYTES + sizeof(Tables) + NORM_BYTES, "the launch must ask for what there is");
// Of floats, what the lanes of a warp have side by side is a whole sector of memory: they store it themselves.
const bool BY_WAY_OF_SLABS = sizeof(Element) == 2;
// Whether the tile finds room in the slabs, by way of which it is pooled, too. As in algorithms/mma_tiles.py.
const bool HAS_ROOM = SLABS_BYTES >= TILE_M * TILE_N * sizeof(Element);
static_assert(!BY_WAY_OF_SLABS || HAS_ROOM, "the tile is stored by way of the slabs");

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

// A(m, k): a chunk of channels of the map under a tap of row m, k counting (tap, channel), `depth` channels to a tap.
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

const int WARPS_DOWN = TILE_M / WARP_M;

// Where a tile's columns, of which `columns` exist, begin: at number `first` of a row of the result, of `depth`.
struct Columns {
    int col0, columns, first, depth;
};

// What a lane knows of a column, sums[..][j][2 * half + e] of its warp: the moments of `part` of the result.
__device__ __forceinline__ void store_moments(const Sums& sums, const Columns& at, const TileRow* rows,
                                              Moments* __restrict__ moments) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int j = 0; j < WARP_N / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            StoredMoments of_lane;
#pragma unroll
            for (int i = 0; i < WARP_M / 8; ++i)
                if (rows[8 * i + lane / 4].target >= 0) of_lane.add(sums[i / 2][j][2 * (i % 2) + e]);
            const Moments of_warp = of_lane.of_lanes<4 + 8 + 16>();
            const int column = at.col0 + 8 * j + 2 * (lane % 4) + e;
            if (lane < 4 && column < at.columns) moments[at.first + column] = of_warp;
        }
}

// The mask of the result, as memory will hold it. Of the bits of eight columns a lane has two: of those of four times
// eight the lanes of a row each store a byte.
__device__ __forceinline__ void store_mask(const Sums& sums, const Columns& at, const TileRow* rows, float ceiling,
                                           U8* __restrict__ mask) {
    static_assert(WARP_N % (4 * OCTET) == 0, "each lane has a byte to store");
    const int lane = threadIdx.x % 32, own = lane % 4;
#pragma unroll
    for (int i = 0; i < WARP_M / 8; ++i) {
        const int target = rows[8 * i + lane / 4].target;
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j += 4) {
            unsigned bits = 0;
#pragma unroll
            for (int octet = 0; octet < 4; ++octet)
#pragma unroll
                for (int e = 0; e < 2; ++e)
                    bits |= (unsigned)passes(narrow(sums[i / 2][j + octet][2 * (i % 2) + e]), ceiling)
                            << (octet * OCTET + e);
            bits <<= 2 * own;
            bits |= __shfl_xor_sync(~0u, bits, 1);
            bits |= __shfl_xor_sync(~0u, bits, 2);
            const int column = at.col0 + OCTET * (j + own);
            if (target >= 0 && column < at.columns)
                mask[((long long)target * at.depth + at.first + column) / OCTET] = bits >> (own * OCTET);
        }
    }
}

// Whether every four rows of a tile are a window, of which the maximum alone is stored; and `kept`, null or what the
// way back needs: the places of the maxima, or the mask of the result.
struct Stored {
    bool pools;
    U8* kept;
};

// End the sums by the epilogue, round them, and store them 16 bytes at a time by way of the slabs, which nobody reads
// any more; or, not rounded, into `partial`. `moments` is null or those of the tile's rows of warps.
__device__ __forceinline__ void store_tile(Sums& acc, Columns at, const Epilogue& epilogue,
                                           Moments* __restrict__ moments, Element* __restrict__ result,
                                           float* __restrict__ partial, Stored stored = {}) {
    typedef Swizzled<WARP_M, WARP_N> Stage;
    const TileRow* rows = tables().rows + warp_row();
    const int lane = threadIdx.x % 32;
    unsigned char* stage = smem + threadIdx.x / 32 * Stage::BYTES;
    at.col0 += warp_col();
    const int first = at.first + at.col0 + 2 * (lane % 4);  // this lane's first column
    // (the pair of sums of this lane in two columns, where the first of them lies in the result, how many exist)
    const auto each_pair = [&](const auto& function) {
#pragma unroll
        for (int j = 0; j < WARP_N / 8; ++j) {
            const int exist = at.columns - at.col0 - 8 * j - 2 * (lane % 4);
            if (exist <= 0) break;
#pragma unroll
            for (int i = 0; i < WARP_M / 8; ++i) {
                const int target = rows[8 * i + lane / 4].target;
                if (target < 0) break;
                function(&acc[i / 2][j][2 * (i % 2)], (long long)target * at.depth + first + 8 * j, exist);
            }
        }
    };
    const bool in_pairs = at.depth % 2 == 0 && at.columns % 2 == 0;
    const auto store_floats = [&](float* target) {
        each_pair([&](const float* sums, long long to, int exist) {
            if (in_pairs) {
                *(Values<2>*)(target + to) = Values<2>{sums[0], sums[1]};
            } else {
                target[to] = sums[0];
                if (exist > 1) target[to + 1] = sums[1];
            }
        });
    };

#pragma unroll
    for (int j = 0; j < WARP_N / 8; ++j)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const bool exists = at.col0 + 8 * j + 2 * (lane % 4) + e < at.columns;
            const float added = epilogue.bias && exists ? widen(epilogue.bias[first + 8 * j + e]) : 0;
#pragma unroll
            for (int i = 0; i < WARP_M / 8; ++i) acc[i / 2][j][2 * (i % 2) + e] += added;
        }
    if (moments) store_moments(acc, at, rows, moments + (long long)(warp_row() / WARP_M) * at.depth);
    if (epilogue.residual)
        each_pair([&](float* sums, long long from, int exist) {
            if (in_pairs) {
                epilogue.join_residual<2>(sums, from);
            } else {
                epilogue.join_residual<1>(sums, from);
                if (exist > 1) epilogue.join_residual<1>(sums + 1, from + 1);
            }
        });
    epilogue.activate((float(&)[sizeof(acc) / sizeof(float)])acc);
    if (partial) return store_floats(partial);
    const bool pools = HAS_ROOM && stored.pools;
    if (stored.kept && !pools) store_mask(acc, at, rows, epilogue.ceiling(), stored.kept);
    if (!BY_WAY_OF_SLABS && !pools) return store_floats((float*)result);

#pragma unroll
    for (int j = 0; j < WARP_N / 8; ++j)
#pragma unroll
        for (int i = 0; i < WARP_M / 8; ++i) {
            const float* sums = &acc[i / 2][j][2 * (i % 2)];
            const int pair = 2 * (lane % 4);  // of 8 columns
            unsigned char* to = stage + Stage::offset(8 * i + lane / 4, j * 8 / CHUNK + pair / CHUNK);
            store_values<2>((Element*)to + pair % CHUNK, Values<2>{sums[0], sums[1]});
        }
    __syncwarp();  // the warp's part is complete
    const bool whole = at.depth % CHUNK == 0 && at.columns % CHUNK == 0;
    const int chunk = lane % Stage::CHUNKS, column = at.col0 + CHUNK * chunk;
    if (column >= at.columns) return;
    result += at.first + column;
    if (pools) {
        for (int row = lane / Stage::CHUNKS * PLACES; row < WARP_M; row += 32 / Stage::CHUNKS * PLACES) {
            if (rows[row].target < 0) break;
            const Largest largest([&](int place) {
                return *(const Largest::Chunk*)(stage + Stage::offset(row + place, chunk));
            });
            const long long to = (long long)(rows[row].target / PLACES) * at.depth;
            U8* index = stored.kept ? stored.kept + at.first + column + to : nullptr;
            largest.store(result + to, index, epilogue.activation == RELU, whole, at.columns - column);
        }
        return;
    }
#pragma unroll 4
    for (int row = lane / Stage::CHUNKS; row < WARP_M; row += 32 / Stage::CHUNKS) {
        const int target = rows[row].target;
        if (target < 0) break;
        const Elements<CHUNK> values = *(const Elements<CHUNK>*)(stage + Stage::offset(row, chunk));
        Element* to = result + (long long)target * at.depth;
        if (whole) {
            *(Elements<CHUNK>*)to = values;
        } else {
#pragma unroll
            for (int e = 0; e < CHUNK; ++e)
                if (column + e < at.columns) to[e] = values.at[e];
        }
    }
}
