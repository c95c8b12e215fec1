// Convolution of few channels, forward, with bias, ReLU and, if asked, the 2x2 maximum of the outputs
// behind it, in one pass: what the convolution itself gives is never written.
//
//   z[n, p, q, k] = bias[k] + sum over c, r, s of x[n, p*STRIDE - pad + r, q*STRIDE - pad + s, c] * w[k, r, s, c]
//
//   not pooled    y[n, p, q, k] = f(z[n, p, q, k])
//   pooled        y[n, p, q, k] = f(max over i, j of z[n, 2p + i, 2q + j, k])
//             index[n, p, q, k] = 2i + j, the first of equal ones; 4 where f cuts: there no gradient comes through
//
// f is the identity or, with `relu`, max(v, 0), a NaN staying one; a NaN is greater than any number.
// z counts as rounded to Element, as a convolution without the pooling would have written it, and
// windows at the end may stick out (`output` says what exists).
//
// x, w, y, index: see direct.cuh; bias (K,) or null; index null if nobody wants it.
// grid: x = tiles of all images, tiles_per_block of them to a block, y = slices of filters. A thread
// computes QUADS neighbouring quads of FILTERS filters, 32 sums: a row of its patch and the weights of its
// filters under one tap come from shared memory, TAPS * 32 multiply-adds for about TAPS + 4 loads of 16
// bytes. Shared memory: PATCH and MAX_CHANNELS * TAPS^2 * SLICE_PITCH Accums, 21 KB for 3x3, 44 KB for 7x7.
//
// In float32 a byte that moves comes to 6.5 multiply-adds with 3x3x1 windows, 32 filters and pooling, and
// to 6.4 with 3x3x3, 64 filters and none. An H200 does 7 in a byte's time: memory and arithmetic are as busy.
//
// Macros: see direct.cuh.
#include "direct.cuh"

const int MAX_THREADS = 128;
const int FILTERS = 16 / sizeof(Element);  // that 16 bytes of y hold, with channels last
const int QUADS = 8 / FILTERS;
const int COLUMNS = 2 * QUADS;
// Elements of a patch's row that a thread needs at once, and how many it may load at a time.
const int WIDTH = COLUMNS * STRIDE % 4 == 0 ? 4 : 2;
const int HELD = ((COLUMNS - 1) * STRIDE + TAPS + WIDTH - 1) / WIDTH * WIDTH;

static_assert(FILTERS % 4 == 0, "weights are read 16 bytes at a time");
static_assert(SLICE % FILTERS == 0, "threads must cover the slice");

// weights[(channel, r, s)][filter of the slice]; zeros beyond the last filter.
__device__ __forceinline__ void copy_weights(const DirectGeometry& g, const Element* __restrict__ w, int first_filter,
                                             Accum (&weights)[MAX_CHANNELS * TAPS * TAPS][SLICE_PITCH]) {
    const int of_filter = TAPS * TAPS * g.channels;
    w += (long long)first_filter * of_filter;
#pragma unroll 4  // that many loads are under way at once
    for (int i = threadIdx.x; i < g.lanes * FILTERS * of_filter; i += blockDim.x) {
        int channel;
        const int filter_tap = divide(i, g.by_channels, channel);
        const int filter = filter_tap / (TAPS * TAPS), tap = filter_tap % (TAPS * TAPS);
        weights[channel * TAPS * TAPS + tap][filter] = first_filter + filter < g.filters ? widen(w[i]) : 0;
    }
}

// A run that begins where memory is aligned, if `whole`, and has `valid` numbers that exist.
template <class Number, int COUNT>
__device__ __forceinline__ void store_run(Number* to, const Neighbours<Number, COUNT>& run, int valid, bool whole) {
    if (whole) {
        *(Neighbours<Number, COUNT>*)to = run;
        return;
    }
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
        if (i < valid) to[i] = run.at[i];
}

// Store HIGH x WIDE pixels of FILTERS filters where they exist in an image of y or index.
template <class Number, int HIGH, int WIDE>
__device__ __forceinline__ void store(const DirectGeometry& g, Number* image, int row, int column, int filter,
                                      const Number (&values)[HIGH][WIDE][FILTERS]) {
    const int rows = g.target[0], columns = g.target[1];
    if (g.channels_last) {
#pragma unroll
        for (int i = 0; i < HIGH; ++i)
#pragma unroll
            for (int j = 0; j < WIDE; ++j) {
                if (row + i >= rows || column + j >= columns) continue;
                Neighbours<Number, FILTERS> run;
#pragma unroll
                for (int k = 0; k < FILTERS; ++k) run.at[k] = values[i][j][k];
                store_run(image + element(g, g.target, row + i, column + j, filter, g.filters), run,
                          g.filters - filter, g.filters % FILTERS == 0);
            }
        return;
    }
#pragma unroll
    for (int i = 0; i < HIGH; ++i)
#pragma unroll
        for (int k = 0; k < FILTERS; ++k) {
            if (row + i >= rows || column >= columns || filter + k >= g.filters) continue;
            Neighbours<Number, WIDE> run;
#pragma unroll
            for (int j = 0; j < WIDE; ++j) run.at[j] = values[i][j][k];
            store_run(image + element(g, g.target, row + i, column, filter + k, g.filters), run, columns - column,
                      columns % WIDE == 0);
        }
}

// The outputs of a thread: from the patch at `source` and the weights of its filters.
__device__ __forceinline__ void convolve(const DirectGeometry& g, const Accum* source, const Accum* weight_row,
                                         const Element* bias, int filter, Accum (&sums)[2][COLUMNS][FILTERS]) {
#pragma unroll
    for (int k = 0; k < FILTERS; ++k) {
        const Accum start = bias && filter + k < g.filters ? widen(bias[filter + k]) : (Accum)0;
#pragma unroll
        for (int i = 0; i < 2 * COLUMNS; ++i) sums[i / COLUMNS][i % COLUMNS][k] = start;
    }
    for (int c = 0; c < g.channels; ++c, source += g.plane) {
#pragma unroll(TAPS == 3 ? TAPS : 1)  // unrolled, the rows that two taps share are read once
        for (int r = 0; r < TAPS; ++r, weight_row += TAPS * SLICE_PITCH) {
            Accum held[2][HELD];
#pragma unroll
            for (int i = 0; i < 2; ++i) load_shared<WIDTH>(source + (i * STRIDE + r) * g.pitch, held[i]);
#pragma unroll
            for (int s = 0; s < TAPS; ++s) {
                Accum weight[FILTERS];
                load_shared<4>(weight_row + s * SLICE_PITCH, weight);
#pragma unroll
                for (int i = 0; i < 2; ++i)
#pragma unroll
                    for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
                        for (int k = 0; k < FILTERS; ++k) sums[i][j][k] += held[i][j * STRIDE + s] * weight[k];
            }
        }
    }
}

// Store f of a thread's outputs; row and column count quads.
__device__ __forceinline__ void store_all(const DirectGeometry& g, const Accum (&sums)[2][COLUMNS][FILTERS], int relu,
                                          Element* y, int row, int column, int filter) {
    Element values[2][COLUMNS][FILTERS];
#pragma unroll
    for (int i = 0; i < 2; ++i)
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j)
#pragma unroll
            for (int k = 0; k < FILTERS; ++k)
                values[i][j][k] = narrow(relu && sums[i][j][k] <= 0 ? (Accum)0 : sums[i][j][k]);
    store(g, y, 2 * row, 2 * column, filter, values);
}

// Store f of the largest output of each quad, and which one that is.
__device__ __forceinline__ void store_largest(const DirectGeometry& g, const Accum (&sums)[2][COLUMNS][FILTERS],
                                              int relu, Element* y, U8* index, int row, int column, int filter) {
    Element values[1][QUADS][FILTERS];
    U8 places[1][QUADS][FILTERS];
    const bool below = 2 * row + 1 < g.output[0];
#pragma unroll
    for (int q = 0; q < QUADS; ++q) {
        const bool beside = 2 * (column + q) + 1 < g.output[1];
#pragma unroll
        for (int k = 0; k < FILTERS; ++k) {
            Accum largest = widen(narrow(sums[0][2 * q][k]));
            int chosen = 0;
#pragma unroll
            for (int i = 1; i < 4; ++i) {
                const Accum value = widen(narrow(sums[i / 2][2 * q + i % 2][k]));
                const bool exists = (i < 2 || below) && (i % 2 == 0 || beside);
                if (exists && largest == largest && !(value <= largest)) {
                    largest = value;  // greater, or the first NaN
                    chosen = i;
                }
            }
            values[0][q][k] = narrow(relu && largest <= 0 ? (Accum)0 : largest);
            places[0][q][k] = relu && !(largest > 0) ? 4 : chosen;
        }
    }
    store(g, y, row, column, filter, values);
    if (index) store(g, index, row, column, filter, places);
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, 5)
NAME(conv_direct)(const Element* __restrict__ x, const Element* __restrict__ w, const Element* __restrict__ bias,
                  int relu, Element* __restrict__ y, U8* __restrict__ index,
                  const __grid_constant__ DirectGeometry g) {
    after_kernels_before();
    __shared__ __align__(16) Accum patch[PATCH];
    __shared__ __align__(16) Accum weights[MAX_CHANNELS * TAPS * TAPS][SLICE_PITCH];

    const int first_filter = blockIdx.y * SLICE;
    copy_weights(g, w, first_filter, weights);

    // The threads of a warp store to neighbouring memory. Channels last, threads that differ in bit 0 alone
    // share their weights, in bit 1 alone their inputs: see tile_fma.cuh for what that spares shared memory.
    int lane, place, column;
    if (g.channels_last)
        place = divide(threadIdx.x & ~15u | threadIdx.x % 2 * 8 | threadIdx.x % 16 / 2, g.by_lanes, lane);
    else
        lane = divide(threadIdx.x, g.by_slots, place);
    const int row = divide(place, g.by_columns, column), filter = first_filter + lane * FILTERS;
    const bool works = place < g.slots && lane < g.lanes && filter < g.filters;
    const Accum* source = patch + 2 * STRIDE * row * g.pitch + COLUMNS * STRIDE * column;

    const int begin = blockIdx.x * g.tiles_per_block, end = min(begin + g.tiles_per_block, g.tiles);
    for (int i = begin; i < end; ++i) {
        const Tile tile = tile_at(g, i);
        copy_patch(g, x, tile, patch);
        __syncthreads();  // the patch and the weights are complete
        if (works) {
            Accum sums[2][COLUMNS][FILTERS];
            convolve(g, source, weights[0] + lane * FILTERS, bias, filter, sums);
            Element* image = y + tile.image * image_size(g.target, g.filters);
            U8* index_image = index ? index + tile.image * image_size(g.target, g.filters) : index;
            const int first_row = tile.row + row, first_column = tile.column + column * QUADS;
            if (g.pooled)
                store_largest(g, sums, relu, image, index_image, first_row, first_column, filter);
            else
                store_all(g, sums, relu, image, first_row, first_column, filter);
        }
        __syncthreads();  // everyone has read the patch; it may be overwritten
    }
}
