// What the two directions of the direct convolution share: windows of TAPS x TAPS over few channels
// (MAX_CHANNELS at most: the first layer of a network), and behind them, if asked, the maximum of
// each 2x2 of the outputs. Where an implicit GEMM gathers each input once for every tap, here a block
// copies a patch of x to shared memory once, and threads hold pieces of its rows in registers.
//
// The unit of work is a quad, 2x2 neighbouring outputs of the convolution: what a pooling window
// covers. A tile is a rectangle of quads of one image.
//
// Memory (channels last / channels first), the layout being known at run time only, for nothing but
// the copies in and out depends on it:
//   x  (N, H, W, C) / (N, C, H, W)
//   w  (K, TAPS, TAPS, C)
//   y, dy, index  (N, P, Q, K) / (N, K, P, Q), P and Q being halved where they are pooled
//
// Macros: TAPS, of a row and of a column of the window; STRIDE, along both. The dilation is 1.
#pragma once
#include "divisor.cuh"
#include "neighbours.cuh"

typedef unsigned char U8;

// As in gpucnn/backends/cuda/algorithms/direct_tiles.py.
const int MAX_CHANNELS = 4;
const int SLICE = 32;    // filters of a block
const int PATCH = 4096;  // elements of a patch, all its channels together
const int SKEW = 4;      // keeps rows of a slice 16-byte aligned and spreads a column over the banks
const int SLICE_PITCH = SLICE + SKEW;

// The host's twin is `_GEOMETRY` in gpucnn/backends/cuda/algorithms/direct.py. Pairs are rows, columns.
struct DirectGeometry {
    int channels, filters, channels_last, pooled;
    int interleaved;                     // x has several channels, and last
    int input[2], output[2], target[2];  // sizes of x, of the convolution's output, of y and dy
    int pad[2], quads[2];                // the padding before x; the quads of a tile
    int pitch, plane;                    // elements of a row of a patch, and of a channel
    int lanes;                           // threads of a block along the filters
    int slots;                           // and those that share a tile's outputs
    int tiles, tiles_per_block;          // of all images
    Divisor by_channels, by_plane;
    Divisor by_copied;                      // what a row of a patch copies: interleaved, of all channels
    Divisor by_row_tiles, by_column_tiles;  // of an image
    Divisor by_lanes, by_slots;
    Divisor by_columns;  // forward, threads along a row of a tile
};

// Copy COUNT numbers from shared memory, WIDTH at a time.
template <int WIDTH, int COUNT>
__device__ __forceinline__ void load_shared(const Accum* from, Accum (&values)[COUNT]) {
    static_assert(COUNT % WIDTH == 0, "runs must be whole");
#pragma unroll
    for (int i = 0; i < COUNT; i += WIDTH) {
        const Neighbours<Accum, WIDTH> run = *(const Neighbours<Accum, WIDTH>*)(from + i);
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) values[i + j] = run.at[j];
    }
}

// A tile: its image and its first quad.
struct Tile {
    unsigned image;
    int row, column;
};

__device__ __forceinline__ Tile tile_at(const DirectGeometry& g, unsigned i) {
    Tile tile;
    tile.image = divide(divide(i, g.by_column_tiles, tile.column), g.by_row_tiles, tile.row);
    tile.row *= g.quads[0];
    tile.column *= g.quads[1];
    return tile;
}

// Elements of one image of a map.
__device__ __forceinline__ long long image_size(const int (&size)[2], int depth) {
    return (long long)size[0] * size[1] * depth;
}

// Offset inside one image of a map; below 2^31, as the launcher checks.
__device__ __forceinline__ int element(const DirectGeometry& g, const int (&size)[2], int row, int column, int channel,
                                       int depth) {
    const int pixel = row * size[1] + column;
    return g.channels_last ? pixel * depth + channel : channel * size[0] * size[1] + pixel;
}

// Copy the inputs under a tile to patch[channel][row][column]; zeros in the padding and beyond.
// Neighbouring threads read neighbouring memory. INTERLEAVED: of a pixel the channels lie side by side.
template <bool INTERLEAVED>
__device__ __forceinline__ void copy_patch(const DirectGeometry& g, const Element* __restrict__ image, int first_row,
                                           int first_column, Accum (&patch)[PATCH]) {
    const int step = INTERLEAVED ? g.channels : 1, before = first_column * step, of_row = g.input[1] * step;
#pragma unroll 4  // that many loads are under way at once
    for (int i = threadIdx.x; i < g.channels * g.plane; i += blockDim.x) {
        int channel, along = i;  // element `along` of a row
        if (!INTERLEAVED) channel = divide(i, g.by_plane, along);
        int row = divide(along, g.by_copied, along), at = i;
        if (INTERLEAVED) {
            const int column = divide(along, g.by_channels, channel);
            at = channel * g.plane + row * g.pitch + column;
        }
        row += first_row;
        along += before;
        const bool inside = (unsigned)row < (unsigned)g.input[0] && (unsigned)along < (unsigned)of_row;
        if (!INTERLEAVED) row += channel * g.input[0];
        patch[at] = inside ? widen(image[row * of_row + along]) : 0;
    }
}

__device__ __forceinline__ void copy_patch(const DirectGeometry& g, const Element* __restrict__ x, const Tile& tile,
                                           Accum (&patch)[PATCH]) {
    x += tile.image * image_size(g.input, g.channels);
    const int first_row = 2 * STRIDE * tile.row - g.pad[0], first_column = 2 * STRIDE * tile.column - g.pad[1];
    if (g.interleaved)
        copy_patch<true>(g, x, first_row, first_column, patch);
    else
        copy_patch<false>(g, x, first_row, first_column, patch);
}
