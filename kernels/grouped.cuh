// What the directions of a grouped convolution with few channels a group share. Its matrices are too
// small for the tiles of an implicit GEMM; here a thread computes ROWS pixels, one below the other, for
// FILTERS filters of one group, and holds the inputs under a column of the window, CHANNELS of them, in
// registers: each is used by all of the filters and by up to TAPS pixels.
//
// Memory (channels last / channels first); maps have two axes, a sequence being a map of one column:
//   x  (N, H, W, C) / (N, C, H, W)
//   w  (K, R, S, C / groups)
//   y  (N, P, Q, K) / (N, K, P, Q)
//
// Macros: CHANNELS_LAST; CHANNELS, 4 or 1, that a thread takes at once: those of a group must be a multiple;
// channels last they are one load, and the arrays must be aligned.
//   TAPS    rows of the window, with dilation 1, known when compiling; 0: any window, one tap after another
//   STRIDE  down the map; 1 where TAPS is 0, for any
#pragma once
#include "divisor.cuh"
#include "neighbours.cuh"

// As in gpucnn/backends/cuda/algorithms/grouped.py.
const int ROWS = 7;  // the maps of most networks have a multiple of 7
const int FILTERS = 4;

const int ROW_TAPS = TAPS ? TAPS : 1;  // taps of a column that are computed at once
const int SOURCES = TAPS ? (ROWS - 1) * STRIDE + TAPS : ROWS;

// Pairs are rows, columns. The host's twin is `_GEOMETRY` in gpucnn/backends/cuda/algorithms/grouped.py.
struct GroupedGeometry {
    int channels, filters, group_channels, group_filters;
    int input[2], kernel[2], output[2], stride[2], pad[2], dilation[2];
    int slices, tiles;              // pieces of FILTERS filters, of all groups; tiles of ROWS pixels, of all images
    Divisor by_group_slices;        // pieces of one group
    Divisor by_rows, by_columns;    // tiles of an image, down and across
    Divisor by_lanes, by_slots;     // threads of a block along the slices, and along the tiles
    Divisor by_taps, by_units;      // of a window; see conv_grouped_wgrad.cu
};

// FILTERS filters of one group; `filter` counts inside the group.
struct Slice {
    int group, filter;
    bool exists;
};

__device__ __forceinline__ Slice slice_at(const GroupedGeometry& g, int i) {
    Slice slice;
    slice.exists = i < g.slices;
    slice.group = divide(slice.exists ? i : 0, g.by_group_slices, slice.filter);
    slice.filter *= FILTERS;
    return slice;
}

// ROWS pixels of the output of image n, from `row` down, in `column`.
struct Tile {
    unsigned n;
    int row, column;
};

__device__ __forceinline__ Tile tile_at(const GroupedGeometry& g, unsigned i) {
    Tile tile;
    tile.n = divide(divide(i, g.by_columns, tile.column), g.by_rows, tile.row);
    tile.row *= ROWS;
    return tile;
}

// Where image n of a tensor of maps with `depth` channels begins, which may be beyond 2^31.
__device__ __forceinline__ long long image_offset(const int (&size)[2], int depth, unsigned n) {
    return (long long)n * size[0] * size[1] * depth;
}

// Offset inside one image, below 2^31 for the pixels that exist; and the step from a row to the next, and
// from a channel.
__device__ __forceinline__ unsigned offset_of(const int (&size)[2], int depth, int channel, int row, int column) {
    const unsigned pixel = (unsigned)row * size[1] + column;
    return CHANNELS_LAST ? pixel * depth + channel : (unsigned)channel * size[0] * size[1] + pixel;
}
__device__ __forceinline__ unsigned row_step(const int (&size)[2], int depth) {
    return size[1] * (CHANNELS_LAST ? depth : 1);
}
__device__ __forceinline__ unsigned channel_step(const int (&size)[2]) {
    return CHANNELS_LAST ? 1 : size[0] * size[1];
}

// WIDTH channels of a pixel, `step` apart; zeros if it does not exist. Channels last they are one load.
template <int WIDTH>
__device__ __forceinline__ void load(const Element* at, unsigned step, bool exists, Accum (&values)[WIDTH]) {
    Elements<WIDTH> run = {};
    if (CHANNELS_LAST) {
        if (exists) run = *(const Elements<WIDTH>*)at;
    } else {
#pragma unroll
        for (int i = 0; i < WIDTH; ++i)
            if (exists) run.at[i] = at[i * step];
    }
#pragma unroll
    for (int i = 0; i < WIDTH; ++i) values[i] = widen(run.at[i]);
}
