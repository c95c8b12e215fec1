// A map cut into tiles of 2x2 outputs, for the fused kernels of Winograd's F(2x2, 3x3): where a tile's
// patch of 4x4 inputs lies, and how a thread fetches it. Shared memory: none.
//
// Map (N, H, W, channels), or with channels first (N, channels, H, W). Macros: CHANNELS_LAST 0 or 1.
#pragma once
#include "common.cuh"
#include "divisor.cuh"
#include "winograd.cuh"

// The letters are those of the forward pass; the host's twin is `_record` in
// gpucnn/backends/cuda/algorithms/winograd.py.
struct WinogradGeometry {
    int channels, filters, group_channels, group_filters;
    int input[2], output[2], pad[2];
    int tiles;             // of the batch
    Divisor by_tiles[2];   // tiles of an image, down and across
};

// Splits a tile into its place, in tiles, and returns its image.
__device__ __forceinline__ int place_of(const WinogradGeometry& g, int tile, int& row, int& column) {
    return divide(divide(tile, g.by_tiles[1], column), g.by_tiles[0], row);
}

// Where a pixel of image n is, which may lie outside. The pixels of a batch are fewer than 2^31.
template <class Float>
__device__ __forceinline__ Float* address(Float* map, int n, int row, int column, const int (&size)[2], int channels,
                                          int channel) {
    const int pixels = size[0] * size[1], pixel = row * size[1] + column;
    return CHANNELS_LAST ? map + (long long)(n * pixels + pixel) * channels + channel
                         : map + ((long long)n * channels + channel) * pixels + pixel;
}

// Which of PATCH coordinates from `first` on lie in [0, size): coordinate i in bit i * STRIDE.
template <int STRIDE> __device__ __forceinline__ unsigned inside_bits(int first, int size) {
    unsigned bits = 0;
#pragma unroll
    for (int i = 0; i < PATCH; ++i)
        if ((unsigned)(first + i) < (unsigned)size) bits |= 1u << i * STRIDE;
    return bits;
}

// One channel of a tile's patch.
struct Patch {
    const float* source;  // its first element, which may lie outside
    unsigned inside;      // bit 4 i + j: whether element (i, j) exists; none does of a tile beyond the last

    // channel: of all groups'.
    __device__ __forceinline__ Patch(const WinogradGeometry& g, const float* x, int tile, int channel) {
        int row, column;
        const int n = place_of(g, tile < g.tiles ? tile : 0, row, column);
        row = 2 * row - g.pad[0], column = 2 * column - g.pad[1];
        inside = tile < g.tiles ? inside_bits<PATCH>(row, g.input[0]) * inside_bits<1>(column, g.input[1]) : 0;
        source = address(x, n, row, column, g.input, g.channels, channel);
    }
    __device__ __forceinline__ static int column_step(const WinogradGeometry& g) {
        return CHANNELS_LAST ? g.channels : 1;
    }
    // From channel to channel.
    __device__ __forceinline__ static long long depth_step(const WinogradGeometry& g) {
        return CHANNELS_LAST ? 1 : (long long)g.input[0] * g.input[1];
    }
    __device__ __forceinline__ void fetch(const WinogradGeometry& g, float (&values)[PATCH][PATCH]) const {
        const float* row = source;
#pragma unroll
        for (int i = 0; i < PATCH; ++i, row += (long long)g.input[1] * column_step(g)) {
#pragma unroll
            for (int j = 0; j < PATCH; ++j)
                values[i][j] = inside >> (PATCH * i + j) & 1 ? row[j * column_step(g)] : 0;
        }
    }
};
