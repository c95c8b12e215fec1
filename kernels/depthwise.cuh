// What the three directions of a depthwise convolution share: every channel has a window of its own,
// so nothing is a matrix product, each byte is used TAPS^2 times at most, and memory sets the pace.
//
// A thread computes a tile of the map for CHANNELS neighbouring channels:
//   channels last    16 bytes of channels; neighbouring threads hold neighbouring channels
//   channels first   one channel, one column; neighbouring threads hold neighbouring columns
// Columns that several taps of a row need are read once, into registers.
//
// Macros: CHANNELS_LAST; VECTOR 1 for 16 bytes of channels a thread (their number must be a multiple,
// and the arrays must be aligned), else 0.
//   TAPS    taps of a row of the window, with dilation 1, known when compiling; 0: any row, any dilation,
//           one tap after another
//   STRIDE  along that row; 1 where TAPS is 0, for any
#pragma once
#define RANK 3  // always: an axis of size 1 is a loop of one step for each row of a window
#include "conv_geometry.cuh"

static_assert(CHANNELS_LAST || !VECTOR, "channels first, neighbours in memory are columns");

const int CHANNELS = VECTOR ? 16 / sizeof(Element) : 1;
const int ROW_TAPS = TAPS ? TAPS : 1;  // taps of a row that are computed at once
// Threads of a block at most: 128, so that those which keep many sums leave room for other blocks.
const int MAX_THREADS = 128;

typedef Elements<CHANNELS> Channels;

// The channels of one place, or zeros.
__device__ __forceinline__ void load(const Element* at, bool exists, Accum (&values)[CHANNELS]) {
    Channels raw = {};
    if (exists) raw = *(const Channels*)at;
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) values[c] = widen(raw.at[c]);
}

// How many tiles there are, and how threads and blocks are laid over them.
// The host's twin is `_TILING` in gpucnn/backends/cuda/algorithms/depthwise.py.
struct Tiling {
    int rows, block_rows;  // tiles down the map, those of all images in one sequence; those of a block
    Divisor by_lanes;      // threads of a block side by side along the channels
    Divisor by_columns;    // tiles of a block along a row
    Divisor by_channel_blocks, by_column_blocks;  // of the grid
    Divisor by_row_tiles;                         // tiles down one map
    Divisor by_taps;                              // of a window
};

__device__ __forceinline__ int pixel_step(int depth) { return CHANNELS_LAST ? depth : 1; }

// From where a map begins to a pixel of a channel, which may lie before the map or behind it.
__device__ __forceinline__ long long offset_of(unsigned n, const Place& at, int channel, const int (&size)[AXES],
                                               int depth) {
    return image_offset(n, pixels(size), depth) + element(0, channel, pixels(size), depth) +
           (long long)pixel(at, size) * pixel_step(depth);
}

// From a pixel to the one below it.
__device__ __forceinline__ long long row_step(const int (&size)[AXES], int depth) {
    return (long long)size[2] * pixel_step(depth);
}

// The input coordinate under a tap of output place `at` along axis a; false in the padding.
__device__ __forceinline__ bool input_of(const ConvGeometry& g, int a, int at, int tap, int& input) {
    input = at * g.stride[a] - g.pad[a] + tap * g.dilation[a];
    return (unsigned)input < (unsigned)g.input[a];
}
