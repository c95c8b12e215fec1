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
// grid: x = splits, y = slices of filters. For each tile the block copies the patch of x to shared memory. A
// thread sums the whole windows of CHANNELS channels, for FILTERS filters, over every slots-th chunk of the
// tile, COLUMNS outputs of a row. Their dz it takes straight from memory into registers, where each meets
// CHANNELS * TAPS^2 inputs: with 3 channels and taps 432 multiply-adds for 4 loads of dz and 18 of x, which the
// threads of all filters share. Where there are more channels, other threads find the same dz in the L1 cache.
// The threads that differ in nothing but the slot then add their sums up in ascending order.
// Shared memory: PATCH Accums, 16 KB.
//
// Pooled, three quarters of dz are zeros, and yet it costs less to multiply them, with an input that a
// register holds for all filters, than to fetch for each dy the inputs under its own output: that takes a load from
// shared memory for every multiply-add. So the arithmetic is the forward pass's, for as many bytes.
//
// Macros: see direct.cuh; CHANNELS, which divides those of x.
#include "direct.cuh"

// As in gpucnn/backends/cuda/algorithms/direct_tiles.py.
const int WGRAD_SLICE = 64;  // filters of a block
const int FILTERS = TAPS == 3 ? 4 : 2;
const int MAX_THREADS = 128;
const int COLUMNS = 4;
const int HELD = ((COLUMNS - 1) * STRIDE + TAPS + 3) / 4 * 4;
const int BLOCKS = CHANNELS * TAPS * TAPS * FILTERS > 64 ? 3 : 4;  // whose registers fit

static_assert(TAPS * MAX_THREADS * FILTERS <= PATCH, "the final sums of a row of taps must fit where the patch was");

// The host's twin is `_SPLITTING` in gpucnn/backends/cuda/algorithms/direct.py.
struct Splitting {
    Divisor by_units;   // threads of other channels
    Divisor by_chunks;  // of a row of the tile
    Divisor by_width;   // sums of a block under one tap, of CHANNELS channels at most
};

// Where a thread takes its FILTERS filters of dy or of index from.
template <class Number> struct Filters {
    const Number* map;  // the first of them, of the tile's image
    int rows, columns;  // of the map
    int count;          // of the filters that exist
    int pixel_step, filter_step;
    bool whole;  // they lie side by side, aligned, and all or none exist

    __device__ __forceinline__ Filters(const DirectGeometry& g, const Number* maps, unsigned image, int filter)
        : rows(g.target[0]), columns(g.target[1]), count(g.filters - filter) {
        pixel_step = g.channels_last ? g.filters : 1;
        filter_step = g.channels_last ? 1 : rows * columns;
        const bool aligned = (unsigned long long)maps % (FILTERS * sizeof(Number)) == 0;
        whole = g.channels_last && g.filters % FILTERS == 0 && aligned;
        map = maps + image * image_size(g.target, g.filters) + (long long)filter * filter_step;
    }
    // WIDTH pixels of a row, the first of which exists. What lies beyond the row or the filters may be anything
    // of the map: nobody stores its sums.
    template <int WIDTH>
    __device__ __forceinline__ void load(int row, int column, Number (&values)[WIDTH][FILTERS]) const {
        const Number* from = map + (row * columns + column) * pixel_step;
        const int last = columns - 1 - column;
        if (whole) {
            Neighbours<Number, FILTERS> runs[WIDTH];
#pragma unroll
            for (int j = 0; j < WIDTH; ++j)
                runs[j] = *(const Neighbours<Number, FILTERS>*)(from + min(j, last) * pixel_step);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j)
#pragma unroll
                for (int k = 0; k < FILTERS; ++k) values[j][k] = runs[j].at[k];
        } else {
#pragma unroll
            for (int k = 0; k < FILTERS; ++k)
#pragma unroll
                for (int j = 0; j < WIDTH; ++j)
                    values[j][k] = from[min(j, last) * pixel_step + min(k, count - 1) * filter_step];
        }
    }
};

// dz of a chunk, which begins at a row and column of the convolution's output that exist; the biases' sums
// get what it adds to them.
__device__ __forceinline__ void load_gradients(const DirectGeometry& g, const Filters<Element>& gradients,
                                               const Filters<U8>& indices, int row, int column,
                                               Accum (&dz)[COLUMNS][FILTERS], Accum (&bias_sums)[FILTERS]) {
    if (!g.pooled) {
        Element values[COLUMNS][FILTERS];
        gradients.load(row, column, values);
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
            for (int k = 0; k < FILTERS; ++k) dz[j][k] = widen(values[j][k]);
        return;
    }
#pragma unroll
    for (int i = 0; i < COLUMNS * FILTERS; ++i) dz[i / FILTERS][i % FILTERS] = 0;
    if (row / 2 >= g.target[0] || column / 2 >= g.target[1]) return;
    Element values[COLUMNS / 2][FILTERS];
    U8 places[COLUMNS / 2][FILTERS];
    gradients.load(row / 2, column / 2, values);
    indices.load(row / 2, column / 2, places);
#pragma unroll
    for (int i = 0; i < COLUMNS / 2 * FILTERS; ++i) {
        const int j = i / FILTERS, k = i % FILTERS, place = places[j][k];
        if (column / 2 + j >= g.target[1]) break;
        const Accum gradient = widen(values[j][k]);
        if (row % 2 == 0 && place < 4) bias_sums[k] += gradient;
        if (place == row % 2 * 2) dz[2 * j][k] = gradient;
        if (place == row % 2 * 2 + 1) dz[2 * j + 1][k] = gradient;
    }
}

// sums += a chunk of dz times the inputs under its windows in one channel; only `valid` of its outputs exist,
// unless all do.
template <bool WHOLE>
__device__ __forceinline__ void multiply(const Accum* x, int pitch, const Accum (&dz)[COLUMNS][FILTERS], int valid,
                                         Accum (&sums)[TAPS][TAPS][FILTERS]) {
#pragma unroll
    for (int r = 0; r < TAPS; ++r) {
        Accum held[HELD];
        load_shared<4>(x + r * pitch, held);
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) {
            if (!WHOLE && j >= valid) break;
#pragma unroll
            for (int s = 0; s < TAPS; ++s)
#pragma unroll
                for (int k = 0; k < FILTERS; ++k) sums[r][s][k] += held[j * STRIDE + s] * dz[j][k];
        }
    }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, BLOCKS)
NAME(conv_direct_wgrad)(const Element* __restrict__ x, const Element* __restrict__ dy, const U8* __restrict__ index,
                        Accum* __restrict__ partial, const __grid_constant__ DirectGeometry g,
                        const __grid_constant__ Splitting splitting) {
    after_kernels_before();
    __shared__ __align__(16) Accum patch[PATCH];

    // Neighbouring threads read neighbouring memory.
    int lane, unit, slot;
    if (g.channels_last)
        slot = divide(divide(threadIdx.x, g.by_lanes, lane), splitting.by_units, unit);
    else
        lane = divide(divide(threadIdx.x, g.by_slots, slot), splitting.by_units, unit);
    const int first_filter = blockIdx.y * WGRAD_SLICE, filter = first_filter + lane * FILTERS;
    const bool works = slot < g.slots && lane < g.lanes && filter < g.filters;
    const int across = splitting.by_chunks.value;
    const int begin = blockIdx.x * g.tiles_per_block, end = min(begin + g.tiles_per_block, g.tiles);

    Accum sums[CHANNELS][TAPS][TAPS][FILTERS] = {}, bias_sums[FILTERS] = {};
    for (int i = begin; i < end; ++i) {
        const Tile tile = tile_at(g, i);
        copy_patch(g, x, tile, patch);
        __syncthreads();  // the patch is complete

        const Filters<Element> gradients(g, dy, tile.image, filter);
        const Filters<U8> indices(g, index, tile.image, filter);
        const int rows = min(2 * g.quads[0], g.output[0] - 2 * tile.row), chunks = works ? rows * across : 0;
        for (int chunk = slot; chunk < chunks; chunk += g.slots) {
            int column;
            const int row = divide(chunk, splitting.by_chunks, column);
            column *= COLUMNS;
            const int valid = g.output[1] - 2 * tile.column - column;
            if (valid <= 0) continue;
            Accum dz[COLUMNS][FILTERS];
            load_gradients(g, gradients, indices, 2 * tile.row + row, 2 * tile.column + column, dz, bias_sums);
            const Accum* under = patch + unit * CHANNELS * g.plane + row * STRIDE * g.pitch + column * STRIDE;
            if (valid >= COLUMNS) {
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c) multiply<true>(under + c * g.plane, g.pitch, dz, valid, sums[c]);
            } else {
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c) multiply<false>(under + c * g.plane, g.pitch, dz, valid, sums[c]);
            }
        }
        __syncthreads();  // everyone has read the patch; it may be overwritten
    }

    // patch[tap of a row][slot][unit][lane][filter]
    const int width = splitting.by_width.value, taps = TAPS * TAPS, to = (unit * g.lanes + lane) * FILTERS;
    partial += blockIdx.x * (long long)g.filters * (taps * g.channels + (g.pooled ? 1 : 0));
#pragma unroll
    for (int n = 0; n < CHANNELS * TAPS; ++n) {
        const int c = n / TAPS, r = n % TAPS;
        if (works)
#pragma unroll
            for (int s = 0; s < TAPS; ++s)
#pragma unroll
                for (int k = 0; k < FILTERS; ++k) patch[(s * g.slots + slot) * width + to + k] = sums[c][r][s][k];
        __syncthreads();  // every slot is there
        for (int i = threadIdx.x; i < TAPS * width; i += blockDim.x) {
            int rest, of_lane;
            const int s = divide(i, splitting.by_width, rest);
            const int channel = divide(rest / FILTERS, g.by_lanes, of_lane) * CHANNELS + c;
            const int k = first_filter + of_lane * FILTERS + rest % FILTERS;
            if (k >= g.filters) continue;
            Accum sum = 0;
            for (int z = 0; z < g.slots; ++z) sum += patch[(s * g.slots + z) * width + rest];
            partial[((long long)k * taps + r * TAPS + s) * g.channels + channel] = sum;
        }
        __syncthreads();  // everyone has read them
    }
    if (!g.pooled) return;
    const int filters = g.lanes * FILTERS;
    if (works && unit == 0)
#pragma unroll
        for (int k = 0; k < FILTERS; ++k) patch[slot * filters + lane * FILTERS + k] = bias_sums[k];
    __syncthreads();  // every slot is there
    const int k = first_filter + threadIdx.x;
    if (threadIdx.x >= filters || k >= g.filters) return;
    Accum sum = 0;
    for (int z = 0; z < g.slots; ++z) sum += patch[z * filters + threadIdx.x];
    partial[(long long)g.filters * taps * g.channels + k] = sum;
}
