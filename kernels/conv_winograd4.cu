// Convolution with a 3x3 window and stride 1 by Winograd's F(4x4, 3x3): the transforms around the
// matrix products, which are those of the implicit GEMM. 2.25 multiplications an output, not 9.
//
//   y  = f(A^T [ sum over c of U V ] A + bias + residual), f and the residual: see epilogue.cuh
//                                         V = B^T x B of each patch, U = G w G^T of each filter
//   dx = the same of dy, whose products are summed over k, with the filters turned by 180 degrees
//   dw = G^T [ sum over tiles of W V ] G  W = A dy A^T of each tile
//
// A map (N, P, Q, depth) is cut into tiles of 4x4 outputs, each with a patch of 6x6 inputs. What the
// sums run over is then, for each of the 36 points, a matrix product of its own: a 1x1 convolution in
// as many groups, over the tiles as its pixels.
//
// The products M and dU come in `parts` of their sums, which are added up in ascending order.
//
// winograd4_patches: x -> V or dy -> V. winograd4_tiles: dy -> W. winograd4_outputs: M -> y or dx.
//   One thread transforms one channel of one tile. grid: x covers the tiles times the channels.
// winograd4_filters: w -> U. winograd4_filter_gradient: dU -> dw.
//   One thread transforms one channel of one filter. grid: x covers the filters times channels.
//
// Map (N, H, W, depth), V, W (tiles, POINTS, depth), M (parts, tiles, POINTS, depth); or with channels
// first (N, depth, H, W), (POINTS, depth, tiles), (parts, POINTS, depth, tiles). w, dw (K, 3, 3, C),
// U (POINTS, K, C), dU (parts, POINTS, K, C). bias (depth,), residual, as the map: or null.
//
// Macros: CHANNELS_LAST 0 or 1. Shared memory: none.
#include "divisor.cuh"
#include "epilogue.cuh"
#include "winograd4.cuh"

// A map cut into tiles; the host's twin is `_record` in gpucnn/backends/cuda/algorithms/winograd4.py.
struct TileGeometry {
    int batch, depth;
    int tiles;             // of all images, and up to three that are empty
    int size[2];           // of an image
    int pad[2];            // how far the first patch begins outside
    Divisor by_tiles[2];   // tiles of an image, down and across
    Divisor by_fast;       // the axis that is contiguous: depth with channels last, else tiles
};

// The tile and channel of this thread, in the order of memory.
struct Lane {
    int tile, channel, row, column;  // row and column of its first pixel
    bool exists, empty;  // empty: a tile beyond the last image, whose pixels are all zero
    long long first, row_step, column_step;  // in the map: of its first pixel, from pixel to pixel
    long long point, point_step;             // in the transformed space

    __device__ __forceinline__ Lane(const TileGeometry& g) {
        exists = global_thread() < (long long)g.tiles * g.depth;
        int fast;
        const int slow = divide(exists ? global_thread() : 0, g.by_fast, fast);
        tile = CHANNELS_LAST ? slow : fast, channel = CHANNELS_LAST ? fast : slow;
        const int n = divide(divide(tile, g.by_tiles[1], column), g.by_tiles[0], row);
        empty = n >= g.batch;
        row = TILE * row - g.pad[0], column = TILE * column - g.pad[1];
        const long long pixels = (long long)g.size[0] * g.size[1];
        column_step = CHANNELS_LAST ? g.depth : 1;
        row_step = g.size[1] * column_step;
        first = n * pixels * g.depth + (CHANNELS_LAST ? channel : channel * pixels) + row * row_step +
                column * column_step;
        point = CHANNELS_LAST ? (long long)tile * POINTS * g.depth + channel : (long long)channel * g.tiles + tile;
        point_step = CHANNELS_LAST ? g.depth : (long long)g.depth * g.tiles;
    }
    __device__ __forceinline__ bool inside(const TileGeometry& g, int i, int j) const {
        return !empty && (unsigned)(row + i) < (unsigned)g.size[0] && (unsigned)(column + j) < (unsigned)g.size[1];
    }
};

// SIZE x SIZE pixels of the map, zero outside, turned into points.
template <class Line, int SIZE>
__device__ __forceinline__ void into_points(const float* map, float* points, const TileGeometry& g) {
    const Lane lane(g);
    if (!lane.exists) return;
    float pixels[SIZE][SIZE], turned[PATCH][PATCH];
#pragma unroll
    for (int i = 0; i < SIZE; ++i)
#pragma unroll
        for (int j = 0; j < SIZE; ++j)
            pixels[i][j] = lane.inside(g, i, j) ? map[lane.first + i * lane.row_step + j * lane.column_step] : 0;
    transform<Line>(pixels, turned);
    points += lane.point;
#pragma unroll
    for (int i = 0; i < PATCH; ++i)
#pragma unroll
        for (int j = 0; j < PATCH; ++j, points += lane.point_step) *points = turned[i][j];
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(winograd4_patches)(const float* __restrict__ map, float* __restrict__ v,
                        const __grid_constant__ TileGeometry g) {
    after_kernels_before();
    into_points<InputLine, PATCH>(map, v, g);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(winograd4_tiles)(const float* __restrict__ map, float* __restrict__ w, const __grid_constant__ TileGeometry g) {
    after_kernels_before();
    into_points<OutputGradientLine, TILE>(map, w, g);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)  // or the compiler takes too few registers
NAME(winograd4_outputs)(const float* __restrict__ m, const float* __restrict__ bias,
                        const float* __restrict__ residual, int activation, float alpha, float* __restrict__ map, int parts,
                        const __grid_constant__ TileGeometry g) {
    after_kernels_before();
    const Lane lane(g);
    if (!lane.exists) return;
    float sums[PATCH][PATCH] = {}, outputs[TILE][TILE];
    m += lane.point;
    for (int part = 0; part < parts; ++part, m += (long long)POINTS * g.tiles * g.depth)
#pragma unroll
        for (int point = 0; point < POINTS; ++point)
            sums[point / PATCH][point % PATCH] += m[point * lane.point_step];
    transform<OutputLine>(sums, outputs);
    const float offset = bias ? bias[lane.channel] : 0;
#pragma unroll
    for (int i = 0; i < TILE * TILE; ++i) outputs[i / TILE][i % TILE] += offset;
    map += lane.first;
    const Epilogue epilogue = {bias, residual, activation, alpha};
    if (residual)
        epilogue.joining([&](const auto& join) {
            const float* other = residual + lane.first;
#pragma unroll
            for (int i = 0; i < TILE; ++i, other += lane.row_step)
#pragma unroll
                for (int j = 0; j < TILE; ++j)
                    if (lane.inside(g, i, j)) outputs[i][j] = join(outputs[i][j], other[j * lane.column_step]);
        });
    epilogue.activate((float(&)[TILE * TILE])outputs);
    const bool in_packs = !CHANNELS_LAST && g.size[1] % TILE == 0;  // then a tile's row is 16 bytes, aligned
#pragma unroll
    for (int i = 0; i < TILE; ++i, map += lane.row_step) {
#pragma unroll
        for (int j = 0; j < TILE; ++j)
            if (!in_packs && lane.inside(g, i, j)) map[j * lane.column_step] = outputs[i][j];
        if (in_packs && lane.inside(g, i, 0))
            *(float4*)map = make_float4(outputs[i][0], outputs[i][1], outputs[i][2], outputs[i][3]);
    }
}

// count: K * C. turn: read each filter from its last tap on.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(winograd4_filters)(const float* __restrict__ w, float* __restrict__ u, int turn, int count,
                        const __grid_constant__ Divisor by_channels) {
    after_kernels_before();
    const int i = (int)global_thread();
    if (i >= count) return;
    int c;
    const int k = divide(i, by_channels, c), channels = by_channels.value;
    w += (long long)k * 9 * channels + c;
    float taps[3][3], turned[PATCH][PATCH];
#pragma unroll
    for (int tap = 0; tap < 9; ++tap) taps[tap / 3][tap % 3] = w[(long long)(turn ? 8 - tap : tap) * channels];
    transform<FilterLine>(taps, turned);
#pragma unroll
    for (int point = 0; point < POINTS; ++point)
        u[(long long)point * count + i] = turned[point / PATCH][point % PATCH];
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(winograd4_filter_gradient)(const float* __restrict__ du, float* __restrict__ dw, int parts, int count,
                                const __grid_constant__ Divisor by_channels) {
    after_kernels_before();
    const int i = (int)global_thread();
    if (i >= count) return;
    float sums[PATCH][PATCH] = {}, taps[3][3];
    for (int part = 0; part < parts; ++part)
#pragma unroll
        for (int point = 0; point < POINTS; ++point)
            sums[point / PATCH][point % PATCH] += du[((long long)part * POINTS + point) * count + i];
    transform<FilterGradientLine>(sums, taps);
    int c;
    const int k = divide(i, by_channels, c), channels = by_channels.value;
    dw += (long long)k * 9 * channels + c;
#pragma unroll
    for (int tap = 0; tap < 9; ++tap) dw[(long long)tap * channels] = taps[tap / 3][tap % 3];
}
