// Convolution with a 3x3 window and stride 1, gradient of the filters: Winograd's F(3x3, 2x2), fused. 4
// multiplications a tile of 2x2 outputs where the direct sum takes 36 / 4 = 9 an output.
//
//   dw[k, r, s, c] = sum over n, p, q of x[n, p + r - pad, q + s - pad, c] * dy[n, p, q, k]
//
// It is the forward pass of conv_winograd.cu seen from the other side: the outputs are cut into the same
// tiles of 2x2, and in the transformed space (winograd.cuh) each of the 16 points is a matrix product,
//   dU[point][c][k] = sum over tiles of V[point][tile][c] * W[point][tile][k]
// of the patches V = B^T x B and the tiles W = A dy A^T. At the end dw = G^T dU G.
//
// grid: x = blocks of ROWS channels, y = blocks of COLS filters, z = splits. A block walks its split's
// tiles in slabs of SLAB: it transforms patches and tiles on their way to shared memory and multiplies
// there, see winograd_gemm.cuh; the next slab is fetched into registers while the present one is being
// multiplied. Split z sums tiles [z, z + 1) * tiles_per_split in ascending order and writes
// partial[z][k][r][s][c]; split_sum.cu adds the splits. On random data the error is that of a direct sum
// over as many pixels.
//
// x (N, H, W, C), dy (N, P, Q, K), or channels first. partial (splits, K, 3, 3, C).
//
// Macros: ROWS, COLS, CORNER, see winograd_gemm.cuh; CHANNELS_LAST 0 or 1. Shared memory: see there.
#include "winograd_gemm.cuh"
#include "winograd_tiles.cuh"

static_assert(ROWS == 32 && COLS == 64, "the threads' shares below are those of 32 channels and 64 filters");

union Shared {
    Slab slabs[2];
    Exchange<false> exchange;
};

// Which tile of a slab a thread fetches, and which channel and filter of it: neighbouring threads take
// neighbours in memory. Half the threads fetch a patch, each of them 2x2 outputs.
__device__ __forceinline__ int tile_of() { return CHANNELS_LAST ? threadIdx.x / 32 % SLAB : threadIdx.x % SLAB; }
__device__ __forceinline__ int channel_of() { return CHANNELS_LAST ? threadIdx.x % 32 : threadIdx.x / SLAB; }
__device__ __forceinline__ int filter_of() {
    return CHANNELS_LAST ? threadIdx.x % 32 + threadIdx.x / (32 * SLAB) * 32 : threadIdx.x / SLAB;
}

// The 2x2 gradients of a tile, zero outside the map and beyond the last tile.
__device__ __forceinline__ void fetch_tile(const WinogradGeometry& g, const float* dy, int tile, int filter,
                                           float (&values)[2][2]) {
    int row, column;
    const int n = place_of(g, tile < g.tiles ? tile : 0, row, column);
    row *= 2, column *= 2;
    const int step = CHANNELS_LAST ? g.filters : 1;
    dy = address(dy, n, row, column, g.output, g.filters, filter);
    const bool exists = tile < g.tiles && filter < g.filters, two_columns = column + 1 < g.output[1];
#pragma unroll
    for (int i = 0; i < 2; ++i, dy += (long long)g.output[1] * step) {
        const bool row_exists = exists && row + i < g.output[0];
        values[i][0] = row_exists ? dy[0] : 0;
        values[i][1] = row_exists && two_columns ? dy[step] : 0;
    }
}

// A thread's share of the slab whose first tile is `first`.
struct Share {
    float patch[PATCH][PATCH], tile[2][2];

    __device__ __forceinline__ static bool has_patch() { return threadIdx.x < ROWS * SLAB; }
    __device__ __forceinline__ void fetch(const WinogradGeometry& g, const float* x, const float* dy, int first,
                                          int end) {
        const int t = first + tile_of() < end ? first + tile_of() : g.tiles;
        const int c = blockIdx.x * ROWS + channel_of();
        fetch_tile(g, dy, t, blockIdx.y * COLS + filter_of(), tile);
        if (!has_patch()) return;
        Patch from(g, x, t, c < g.channels ? c : 0);
        if (c >= g.channels) from.inside = 0;
        from.fetch(g, patch);
    }
    __device__ __forceinline__ void put(Slab& slab) const {
        float points[PATCH][PATCH];
        transform<OutputGradientLine>(tile, points);
        const int d = tile_of(), column = filter_of() ^ swizzle<COLS>(d), row = channel_of() ^ swizzle<ROWS>(d);
#pragma unroll
        for (int point = 0; point < POINTS; ++point)
            slab.columns[point][d][column] = points[point / PATCH][point % PATCH];
        if (!has_patch()) return;
        transform<InputLine>(patch, points);
#pragma unroll
        for (int point = 0; point < POINTS; ++point) slab.rows[point][d][row] = points[point / PATCH][point % PATCH];
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_winograd_wgrad)(const float* __restrict__ x, const float* __restrict__ dy, float* __restrict__ partial,
                          int tiles_per_split, const __grid_constant__ WinogradGeometry g) {
    after_kernels_before();
    __shared__ __align__(16) Shared shared;
    const int begin = blockIdx.z * tiles_per_split, end = min(begin + tiles_per_split, g.tiles);
    Share share;
    Multiplier<true> multiplier(shared.slabs);
    Accumulators acc = {};

    share.fetch(g, x, dy, begin, end);
    share.put(shared.slabs[0]);
    __syncthreads();  // the first slab is complete
    int other = 1;
    for (int first = begin; first < end; first += SLAB, other ^= 1) {
        const bool more = first + SLAB < end;
        if (more) share.fetch(g, x, dy, first + SLAB, end);
        __syncwarp();  // the compiler would multiply first, and then wait for the loads
        multiplier.multiply<0, SLAB - 1>(acc);
        // before the last tile, that the warps which are not at it have something to multiply
        if (more) share.put(shared.slabs[other]);
        multiplier.multiply<SLAB - 1, SLAB>(acc);
        multiplier.next_slab();
        __syncthreads();  // the next slab is complete, the present one read
    }

    partial += (long long)blockIdx.z * g.filters * 9 * g.channels;
    shared.exchange.run(acc, [&](const float (&points)[PATCH][PATCH], int row, int column) {
        const int c = blockIdx.x * ROWS + row, k = blockIdx.y * COLS + column;
        if (c >= g.channels || k >= g.filters) return;
        float taps[3][3];
        transform<FilterGradientLine>(points, taps);
#pragma unroll
        for (int tap = 0; tap < 9; ++tap)
            partial[((long long)k * 9 + tap) * g.channels + c] = taps[tap / 3][tap % 3];
    });
}
