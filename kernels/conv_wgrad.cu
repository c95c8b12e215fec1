// Convolution, gradient of the filters: implicit GEMM through a shared-memory tile, split over the
// output pixels, because the matrix is small and the sum is long.
//
//   dw[k, r, s, c] = sum over n, p, q of x[n, p*stride - pad + r*dilation, ..., c] * dy[n, p, q, k]
//
// As a matrix product, for each group of channels:
//   GEMM_M = T*R*S*C/groups weights of a filter,  GEMM_N = K/groups filters,  GEMM_K = N*O*P*Q pixels
//   A(m, k) = x gathered under tap (t,r,s) of output pixel k
//   B(n, k) = dy[pixel k][filter n]
//
// Split z of the grid sums the pixels [z, z + 1) * pixels_per_split and writes partial[z][k][t,r,s,c] in
// Accum; split_sum.cu adds the splits.
//
// x, dy: see conv_geometry.cuh.
// grid: x = (tiles of weights) * groups * (tiles of filters), z = splits. One block computes TILE_M
// weights of TILE_N filters, one thread THREAD_M x THREAD_N of them. Shared memory: see tile_gemm.cuh.
#include "conv_geometry.cuh"
#include "tile_gemm.cuh"

// A(m, k): the input under tap m of output pixel k.
struct InputUnderTap {
    static const bool ALONG_K = !CHANNELS_LAST;  // m runs over channels, k over pixels of a row
    static const int WIDTH = CHANNELS_LAST ? VECTOR : 1;
    typedef Tap Row;
    typedef Window Col;
    const Element* x;
    const ConvGeometry& g;
    int group;
    unsigned m_end, k_end;

    __device__ __forceinline__ Row row(unsigned m) const {
        return tap_of(g, m < m_end ? m : 0, true, g.by_group_channels, group * g.group_channels);
    }
    __device__ __forceinline__ Col col(unsigned k) const { return window_of(g, x, k, k < k_end); }
    __device__ __forceinline__ Source source(const Row& tap, const Col& window) const {
        return input_under(g, window, tap);
    }
};

// B(n, k): the gradient of filter n at output pixel k.
struct OutputGradient {
    static const bool ALONG_K = !CHANNELS_LAST;
    static const int WIDTH = VECTOR_N;
    typedef int Row;  // where the filter's gradients begin in an image of dy
    struct Col {
        const Element* pixel;  // of the first filter
        bool exists;
    };
    const Element* dy;
    const ConvGeometry& g;
    int group;
    unsigned k_end;

    __device__ __forceinline__ Row row(unsigned n) const {
        const int filter = group * g.group_filters + (n < g.group_filters ? n : 0);
        return element(0, filter, pixels(g.output), g.filters);
    }
    __device__ __forceinline__ Col col(unsigned k) const {
        const bool exists = k < k_end;
        Place at;
        const unsigned n = split(exists ? k : 0, g.by_output, at);
        const int offset = element(pixel(at, g.output), 0, pixels(g.output), g.filters);
        return {dy + image_offset(n, pixels(g.output), g.filters) + offset, exists};
    }
    __device__ __forceinline__ Source source(Row filter, const Col& col) const { return {col.pixel + filter, col.exists}; }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_wgrad_implicit_gemm)(const Element* __restrict__ x, const Element* __restrict__ dy,
                               Accum* __restrict__ partial, unsigned pixels_per_split,
                               const __grid_constant__ ConvGeometry g) {
    after_kernels_before();
    const BlockTile tile = block_tile(g.groups, g.group_filters);
    const int group = tile.product;
    const unsigned m_end = (unsigned)pixels(g.kernel) * g.group_channels;
    const unsigned all_pixels = (unsigned)g.batch * pixels(g.output);
    const unsigned k_begin = blockIdx.z * pixels_per_split;
    const unsigned k_end = min(k_begin + pixels_per_split, all_pixels);

    Accum acc[THREAD_M][THREAD_N];
    tile_gemm(InputUnderTap{x, g, group, m_end, k_end}, OutputGradient{dy, g, group, k_end}, tile.row0, tile.col0,
              k_begin, k_end, acc);

    partial += blockIdx.z * (unsigned long long)(g.filters * m_end);
    const int WIDTH = CHANNELS_LAST && VECTOR > 1 && THREAD_M % 4 == 0 ? 4 : 1;  // neighbours that are stored together
#pragma unroll
    for (int j = 0; j < THREAD_N; ++j) {
        const int local = tile.col0 + thread_col(j), k = group * g.group_filters + local;
        if (local >= g.group_filters) break;
#pragma unroll
        for (int i = 0; i < THREAD_M; i += WIDTH) {
            const unsigned m = tile.row0 + thread_row(i);
            if (m >= m_end) break;
            Values<WIDTH> values;
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) values.at[e] = acc[i + e][j];
            *(Values<WIDTH>*)(partial + k * m_end + m) = values;
        }
    }
}
