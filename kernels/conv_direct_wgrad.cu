// Convolution of few channels, gradient of the filters, from the gradient of its output or, POOLED at
// run time, of the 2x2 maximum behind it, and then of the bias, too: the gradient that the maximum
// passes on to the convolution is never written.
//
//   dw[k, r, s, c] = sum over n, p, q of dz[n, p, q, k] * x[n, p*STRIDE - pad + r, q*STRIDE - pad + s, c]
//   db[k]          = sum over n, p, q of dz[n, p, q, k]
//
//   not pooled    dz = dy (and no db)
//   pooled        dz[n, 2p + i, 2q + j, k] = dy[n, p, q, k] if index[n, p, q, k] is 2i + j, else 0
//
// x, dy, index: see direct.cuh. Split z of the grid sums the tiles [z, z + 1) * tiles_per_block and writes
// partial[z][(k, r, s, c), then k] in Accum; split_sum.cu adds the splits. All orders are fixed: deterministic.
//
// grid: x = splits, y = slices of filters. For each tile the block copies the patch of x and dz to shared
// memory. A thread sums one row of one channel's window, TAPS weights of FILTERS filters, over every
// slots-th chunk of the tile, COLUMNS outputs of a row: TAPS * 32 multiply-adds for about TAPS / 4 + 9
// loads of 16 bytes. The threads that differ in nothing but the slot then add theirs up in ascending order.
// Shared memory: PATCH + TILE * SLICE_PITCH Accums, 34 KB.
//
// Pooled, three quarters of dz are zeros, and yet it costs less to multiply them, with an input that a
// register holds for all filters, than to fetch for each dy the inputs under its own output: that takes a load from
// shared memory for every multiply-add. So the arithmetic is the forward pass's, for as many bytes.
//
// Macros: see direct.cuh.
#include "direct.cuh"

const int MAX_THREADS = 256;
const int TILE = 128;  // outputs of the convolution, at most
const int VECTOR = 4;  // filters that a thread copies at once
const int FILTERS = 2 * VECTOR;
const int COLUMNS = 4;
const int HELD = ((COLUMNS - 1) * STRIDE + TAPS + 3) / 4 * 4;

static_assert(TILE * SLICE_PITCH >= MAX_THREADS * FILTERS, "the final sums must fit where dz was");

// The host's twin is `_SPLITTING` in gpucnn/backends/cuda/algorithms/direct.py.
struct Splitting {
    int units;                         // rows of all channels' windows
    int copiers;                       // threads that copy the same filters
    Divisor by_units, by_chunks;       // threads that differ in what they sum; chunks across a tile
    Divisor by_vectors, by_copiers, by_items;  // filters of a slice, 4 at once; and what is copied, across a tile
};

// What a thread copies of dy or of index: VECTOR filters of every pixel.
template <class Number> struct Filters {
    const Number* map;  // the first of them, of the tile's image
    int rows, columns;  // of the map
    int count;          // of those that exist
    int pixel_step, filter_step;
    bool whole;  // they lie side by side, aligned, and all or none exist

    __device__ __forceinline__ Filters(const DirectGeometry& g, const Number* maps, unsigned image, int filter)
        : rows(g.target[0]), columns(g.target[1]), count(g.filters - filter) {
        pixel_step = g.channels_last ? g.filters : 1;
        filter_step = g.channels_last ? 1 : rows * columns;
        whole = g.channels_last && g.filters % VECTOR == 0 && (unsigned long long)maps % (VECTOR * sizeof(Number)) == 0;
        map = maps + image * image_size(g.target, g.filters) + (long long)filter * filter_step;
    }
    __device__ __forceinline__ Neighbours<Number, VECTOR> at(int row, int column) const {
        Neighbours<Number, VECTOR> run = {};
        if (row >= rows || column >= columns) return run;
        const Number* from = map + (row * columns + column) * pixel_step;
        if (whole) {
            if (count > 0) run = *(const Neighbours<Number, VECTOR>*)from;
            return run;
        }
#pragma unroll
        for (int k = 0; k < VECTOR; ++k)
            if (k < count) run.at[k] = from[k * filter_step];
        return run;
    }
};

// Copy dz of a tile to gradients[output][filter of the slice]: `to` is the first of this thread's filters,
// which it copies of every copiers-th pixel and, pooled, adds to the sums of the bias.
__device__ __forceinline__ void copy_gradients(const DirectGeometry& g, const Splitting& splitting, const Element* dy,
                                               const U8* index, const Tile& tile, int filter, int copier, Accum* to,
                                               Accum (&bias_sums)[VECTOR]) {
    const Filters<Element> gradients(g, dy, tile.image, filter);
    if (!g.pooled) {
#pragma unroll 4  // that many loads are under way at once
        for (int i = copier; i < 4 * g.quads[0] * g.quads[1]; i += splitting.copiers) {
            int column;
            const int row = divide(i, splitting.by_items, column);
            const Neighbours<Element, VECTOR> run = gradients.at(2 * tile.row + row, 2 * tile.column + column);
            Neighbours<Accum, VECTOR> values;
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) values.at[k] = widen(run.at[k]);
            *(Neighbours<Accum, VECTOR>*)(to + i * SLICE_PITCH) = values;
        }
        return;
    }
    const Filters<U8> places(g, index, tile.image, filter);
    const int across = 2 * g.quads[1];
#pragma unroll 2  // that many loads are under way at once
    for (int i = copier; i < g.quads[0] * g.quads[1]; i += splitting.copiers) {
        int column;
        const int row = divide(i, splitting.by_items, column);
        const Neighbours<Element, VECTOR> run = gradients.at(tile.row + row, tile.column + column);
        const Neighbours<U8, VECTOR> chosen = places.at(tile.row + row, tile.column + column);
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) bias_sums[k] += chosen.at[k] < 4 ? widen(run.at[k]) : (Accum)0;
#pragma unroll
        for (int q = 0; q < 4; ++q) {
            Neighbours<Accum, VECTOR> values;
#pragma unroll
            for (int k = 0; k < VECTOR; ++k) values.at[k] = chosen.at[k] == q ? widen(run.at[k]) : (Accum)0;
            *(Neighbours<Accum, VECTOR>*)(to + ((2 * row + q / 2) * across + 2 * column + q % 2) * SLICE_PITCH) = values;
        }
    }
}

// sums += a chunk of dz times the inputs under one row of the window; only `valid` of its outputs
// exist, unless all do.
template <bool WHOLE>
__device__ __forceinline__ void multiply(const Accum* x, const Accum* dz, int next_vector, int valid,
                                         Accum (&sums)[TAPS][FILTERS]) {
    Accum held[HELD];
    load_shared<4>(x, held);
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
        if (!WHOLE && j >= valid) break;
        Accum gradient[2][VECTOR];
#pragma unroll
        for (int half = 0; half < 2; ++half)
            load_shared<VECTOR>(dz + j * SLICE_PITCH + half * next_vector, gradient[half]);
#pragma unroll
        for (int s = 0; s < TAPS; ++s)
#pragma unroll
            for (int k = 0; k < FILTERS; ++k) sums[s][k] += held[j * STRIDE + s] * gradient[k / VECTOR][k % VECTOR];
    }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, TAPS == 3 ? 3 : 2)
NAME(conv_direct_wgrad)(const Element* __restrict__ x, const Element* __restrict__ dy, const U8* __restrict__ index,
                        Accum* __restrict__ partial, const __grid_constant__ DirectGeometry g,
                        const __grid_constant__ Splitting splitting) {
    __shared__ __align__(16) Accum patch[PATCH];
    __shared__ __align__(16) Accum gradients[TILE][SLICE_PITCH];

    int lane, unit, vector, copier;
    const int slot = divide(divide(threadIdx.x, g.by_lanes, lane), splitting.by_units, unit);
    if (g.channels_last)  // neighbouring threads copy neighbouring memory
        copier = divide(threadIdx.x, splitting.by_vectors, vector);
    else
        vector = divide(threadIdx.x, splitting.by_copiers, copier);
    const bool copies = vector < 2 * g.lanes && copier < splitting.copiers;
    const int first_filter = blockIdx.y * SLICE, next_vector = g.lanes * VECTOR;
    const int window_row = unit % TAPS, channel = unit / TAPS;
    const int begin = blockIdx.x * g.tiles_per_block, end = min(begin + g.tiles_per_block, g.tiles);

    Accum sums[TAPS][FILTERS] = {}, bias_sums[VECTOR] = {};
    for (int i = begin; i < end; ++i) {
        const Tile tile = tile_at(g, i);
        copy_patch(g, x, tile, patch);
        if (copies)
            copy_gradients(g, splitting, dy, index, tile, first_filter + vector * VECTOR, copier,
                           gradients[0] + vector * VECTOR, bias_sums);
        __syncthreads();  // the patch and dz are complete

        const int rows = min(2 * g.quads[0], g.output[0] - 2 * tile.row), across = splitting.by_chunks.value;
        const int chunks = slot < g.slots ? rows * across : 0;
        for (int chunk = slot; chunk < chunks; chunk += g.slots) {
            int column;
            const int row = divide(chunk, splitting.by_chunks, column);
            column *= COLUMNS;
            const int valid = g.output[1] - 2 * tile.column - column;
            const Accum* under = patch + channel * g.plane + (row * STRIDE + window_row) * g.pitch + column * STRIDE;
            const Accum* dz = gradients[row * across * COLUMNS + column] + lane * VECTOR;
            if (valid >= COLUMNS)
                multiply<true>(under, dz, next_vector, valid, sums);
            else
                multiply<false>(under, dz, next_vector, valid, sums);
        }
        __syncthreads();  // everyone has read them; they may be overwritten
    }

    Accum* shared = gradients[0];  // [slot][unit][lane][filter], then [copier][filter]
    const int weights = splitting.units * TAPS;
    partial += blockIdx.x * (long long)g.filters * (weights + (g.pooled ? 1 : 0));
#pragma unroll
    for (int s = 0; s < TAPS; ++s) {
#pragma unroll
        for (int k = 0; k < FILTERS; ++k) shared[threadIdx.x * FILTERS + k] = sums[s][k];
        __syncthreads();  // every slot is there
        const int width = splitting.units * g.lanes * FILTERS;
        for (int i = threadIdx.x; i < width; i += blockDim.x) {
            const int k = i % FILTERS;
            unit = divide(i / FILTERS, g.by_lanes, lane);
            const int filter = first_filter + (k / VECTOR * g.lanes + lane) * VECTOR + k % VECTOR;
            if (filter >= g.filters) continue;
            Accum sum = 0;
            for (int z = 0; z < g.slots; ++z) sum += shared[z * width + i];
            const int tap = unit % TAPS * TAPS + s;
            partial[(long long)filter * weights + tap * g.channels + unit / TAPS] = sum;
        }
        __syncthreads();  // everyone has read them
    }
    if (!g.pooled) return;
    const int width = 2 * g.lanes * VECTOR;
    if (copies)
#pragma unroll
        for (int k = 0; k < VECTOR; ++k) shared[copier * width + vector * VECTOR + k] = bias_sums[k];
    __syncthreads();  // every copier's sums are there
    const int filter = first_filter + threadIdx.x;
    if (threadIdx.x >= width || filter >= g.filters) return;
    Accum sum = 0;
    for (int z = 0; z < splitting.copiers; ++z) sum += shared[z * width + threadIdx.x];
    partial[(long long)g.filters * weights + filter] = sum;
}
