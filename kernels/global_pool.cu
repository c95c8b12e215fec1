// The maximum, minimum, average or sum of each whole map.
//
//   y[n, c] = max over l of x[n, l, c]        index[n, c] = the first l of it; a NaN wins
//
// x (N, L, C) or (N, C, L); y, index (N, C), index of index_bytes each and maybe null. A unit is `width`
// neighbours of x: channels of a pixel, or positions of a row. A column is what is reduced to a unit of
// results: L units of channels, or a row.
//
// global_pool: block (x, y) reduces split y of its columns, with `slots` threads a column, each of which
//   walks every slots-th unit; then a tree combines the slots. With one split, that is the result; with
//   more, it is partial[split][n*C + c]. Shared memory: WIDEST results a thread, 16 KB at most.
// global_pool_finish: one thread combines the splits of a result in ascending order.
//
// The order of a sum follows from the shape alone: where x is not `aligned` to 16 bytes, a unit is loaded
// element by element.
// Macros: MODE, MAX or SUM; a minimum is the maximum of -x; CHANNELS_LAST 0 or 1.
#include "divisor.cuh"
#include "math.cuh"
#include "neighbours.cuh"

#define MAX 1
#define SUM 3

const bool SELECTS = MODE == MAX;
const int WIDEST = 16 / sizeof(Element);
const int UNDER_WAY = 4;  // units that a thread asks for before it uses the first

// The host's twin is in gpucnn/backends/cuda/global_pool.py.
struct GlobalGeometry {
    int units;      // of a column
    int pitch;      // elements from a unit of a column to the next
    int per_split;  // units
    int columns, width, slots, splits, aligned;
    int minimum, average, index_bytes, relu;
    Divisor by_lanes;  // neighbouring threads: columns of a block, or slots of a row
    Divisor by_units;  // units of a pixel: columns of an image
};

struct Found {
    Accum value;
    int index;
};

__device__ __forceinline__ Found nothing() { return {SELECTS ? -math::infinity() : (Accum)0, 0x7fffffff}; }

// Of two results of different places, in any order.
__device__ __forceinline__ Found combine(const Found& a, const Found& b) {
    if (!SELECTS) return {a.value + b.value, 0};
    const bool nan = a.value != a.value, other_nan = b.value != b.value;
    const bool alike = nan == other_nan && (nan || a.value == b.value);
    return (alike ? b.index < a.index : other_nan || (!nan && b.value > a.value)) ? b : a;
}

template <int COUNT, bool AT_ONCE> __device__ __forceinline__ Elements<COUNT> load(const Element* from) {
    if (AT_ONCE) return *(const Elements<COUNT>*)from;
    Elements<COUNT> unit;
#pragma unroll
    for (int e = 0; e < COUNT; ++e) unit.at[e] = from[e];
    return unit;
}

// Every slots-th unit from `begin` on; element e of a unit goes to found[e].
template <int COUNT, bool AT_ONCE>
__device__ __forceinline__ void walk(const GlobalGeometry& g, const Element* column, int begin, int end,
                                     Found (&found)[WIDEST]) {
    const int apart = CHANNELS_LAST ? 1 : COUNT, along = CHANNELS_LAST ? 0 : 1;  // index = u * apart + e * along
    const Accum sign = g.minimum ? -1 : 1;
#pragma unroll
    for (int e = 0; e < COUNT; ++e)  // were all infinite, none would be better: the first is chosen
        if (begin < end) found[e].index = begin * apart + e * along;
    for (int u = begin; u < end; u += UNDER_WAY * g.slots) {
        Elements<COUNT> held[UNDER_WAY];
#pragma unroll
        for (int k = 0; k < UNDER_WAY; ++k)  // beyond the end the last one again
            held[k] = load<COUNT, AT_ONCE>(column + (long long)min(u + k * g.slots, end - 1) * g.pitch);
        bool better = false;
#pragma unroll
        for (int e = 0; e < COUNT; ++e) {
            Accum best = sign * widen(held[0].at[e]), sum = best;
#pragma unroll
            for (int k = 1; k < UNDER_WAY; ++k) {
                const Accum value = sign * widen(held[k].at[e]);
                best = math::larger(best, value);
                sum += SELECTS || u + k * g.slots < end ? value : 0;
            }
            if (!SELECTS) found[e].value += sum;
            better |= !(best <= found[e].value) || sum != sum;  // that may be a NaN's
        }
        if (!SELECTS || !better) continue;
#pragma unroll 1
        for (int k = 0; k < UNDER_WAY; ++k) {  // seldom: which is it?
            const int place = u + k * g.slots;
            if (place >= end) break;
            const Elements<COUNT> unit = load<COUNT, AT_ONCE>(column + (long long)place * g.pitch);
#pragma unroll
            for (int e = 0; e < COUNT; ++e) {
                const Accum value = sign * widen(unit.at[e]), best = found[e].value;
                if (best == best && !(value <= best)) found[e] = {value, place * apart + e * along};
            }
        }
    }
}

__device__ __forceinline__ void store(const GlobalGeometry& g, Element* y, void* index, long long i,
                                      Found found) {
    const int length = g.units * (CHANNELS_LAST ? 1 : g.width);
    if (!SELECTS) {
        y[i] = narrow(g.average ? found.value / (Accum)length : found.value);
        return;
    }
    if (g.minimum) found.value = -found.value;
    if (g.relu && !(found.value > 0)) found.index = length;  // no input gets the gradient
    y[i] = narrow(g.relu && found.value <= 0 ? (Accum)0 : found.value);
    if (!index) return;
    if (g.index_bytes == 1)
        ((unsigned char*)index)[i] = (unsigned char)found.index;
    else if (g.index_bytes == 2)
        ((unsigned short*)index)[i] = (unsigned short)found.index;
    else
        ((unsigned*)index)[i] = found.index;
}

// Without __launch_bounds__: told of them, ptxas spills registers of which there are enough.
extern "C" __global__ void NAME(global_pool)(const Element* __restrict__ x, Element* __restrict__ y,
                                             void* __restrict__ index, Accum* __restrict__ partial,
                                             int* __restrict__ partial_index,
                                             const __grid_constant__ GlobalGeometry g) {
    after_kernels_before();
    __shared__ Accum values[WIDEST][BLOCK_THREADS];
    __shared__ int places[SELECTS ? WIDEST : 1][BLOCK_THREADS];
    const int lanes = BLOCK_THREADS / g.slots;  // columns of a block
    int fast, unit;
    const int slow = divide(threadIdx.x, g.by_lanes, fast);
    const int lane = CHANNELS_LAST ? fast : slow, slot = CHANNELS_LAST ? slow : fast;
    const int column = blockIdx.x * lanes + lane;
    const int n = divide(column, g.by_units, unit);
    const int results = CHANNELS_LAST ? g.width : 1;  // of a column

    Found found[WIDEST];
#pragma unroll
    for (int e = 0; e < WIDEST; ++e) found[e] = nothing();
    if (column < g.columns) {
        const Element* first = x + (CHANNELS_LAST ? (long long)n * g.units * g.pitch + unit * g.width
                                                  : (long long)column * g.units * g.width);
        const int begin = blockIdx.y * g.per_split + slot, end = min((blockIdx.y + 1) * g.per_split, g.units);
        if (g.width == 1)
            walk<1, true>(g, first, begin, end, found);
        else if (g.aligned)
            walk<WIDEST, true>(g, first, begin, end, found);
        else
            walk<WIDEST, false>(g, first, begin, end, found);
    }
    if (!CHANNELS_LAST)
#pragma unroll
        for (int e = 1; e < WIDEST; ++e) found[0] = combine(found[0], found[e]);

    const int next = CHANNELS_LAST ? lanes : 1;  // from a thread to that of the next slot
#pragma unroll
    for (int e = 0; e < WIDEST; ++e)
        if (e < results) {
            values[e][threadIdx.x] = found[e].value;
            if (SELECTS) places[e][threadIdx.x] = found[e].index;
        }
    for (int half = g.slots / 2; half > 0; half /= 2) {
        __syncthreads();  // the level below is complete
        if (slot < half)
#pragma unroll 1
            for (int e = 0; e < results; ++e) {
                const int other = threadIdx.x + half * next;
                const Found both = combine({values[e][threadIdx.x], SELECTS ? places[e][threadIdx.x] : 0},
                                           {values[e][other], SELECTS ? places[e][other] : 0});
                values[e][threadIdx.x] = both.value;
                if (SELECTS) places[e][threadIdx.x] = both.index;
            }
    }
    if (slot > 0 || column >= g.columns) return;
#pragma unroll 1
    for (int e = 0; e < results; ++e) {  // this thread itself made the last step
        const Found all = {values[e][threadIdx.x], SELECTS ? places[e][threadIdx.x] : 0};
        const long long i = (long long)column * results + e;
        if (g.splits == 1) {
            store(g, y, index, i, all);
        } else {
            const long long p = (long long)blockIdx.y * g.columns * results + i;
            partial[p] = all.value;
            if (SELECTS) partial_index[p] = all.index;
        }
    }
}

extern "C" __global__ void NAME(global_pool_finish)(const Accum* __restrict__ partial,
                                                    const int* __restrict__ partial_index, Element* __restrict__ y,
                                                    void* __restrict__ index, int count,
                                                    const __grid_constant__ GlobalGeometry g) {
    after_kernels_before();
    const long long i = global_thread();
    if (i >= count) return;
    Found found = nothing();
    for (int split = 0; split < g.splits; ++split) {
        const long long p = (long long)split * count + i;
        found = combine(found, {partial[p], SELECTS ? partial_index[p] : 0});
    }
    store(g, y, index, i, found);
}
