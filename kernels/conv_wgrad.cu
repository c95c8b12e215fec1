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
// grid: x = (tiles of weights) * groups, y = tiles of filters, z = splits. One block computes TILE_M
// weights of TILE_N filters, one thread THREAD_M x THREAD_N of them. Shared memory: see tile_gemm.cuh.
#include "conv_geometry.cuh"
#include "tile_gemm.cuh"

// A(m, k): the input under tap m of output pixel k.
struct InputUnderTap {
    static const bool LANES_ALONG_K = !CHANNELS_LAST;  // m runs over channels, k over pixels of a row
    typedef Tap Row;
    typedef Window Col;
    const Element* x;
    const ConvGeometry& g;
    int group;
    unsigned m_end, k_end;

    __device__ __forceinline__ Row row(unsigned m) const {
        return tap_of(g, m, m < m_end, g.by_group_channels, group * g.group_channels);
    }
    __device__ __forceinline__ Col col(unsigned k) const { return window_of(g, x, k, k < k_end); }
    __device__ __forceinline__ Accum load(const Row& tap, const Col& window) const {
        return input_under(g, window, tap);
    }
};

// B(n, k): the gradient of filter n at output pixel k.
struct OutputGradient {
    static const bool LANES_ALONG_K = !CHANNELS_LAST;
    typedef int Row;  // the filter inside the group
    struct Col {
        const Element* image;
        int pixel;
        bool exists;
    };
    const Element* dy;
    const ConvGeometry& g;
    int group;
    unsigned k_end;

    __device__ __forceinline__ Row row(unsigned n) const { return n; }
    __device__ __forceinline__ Col col(unsigned k) const {
        const bool exists = k < k_end;
        Place at;
        const unsigned n = split(exists ? k : 0, g.by_output, at);
        return {dy + n * image_size(pixels(g.output), g.filters), pixel(at, g.output), exists};
    }
    __device__ __forceinline__ Accum load(Row filter, const Col& col) const {
        if (!col.exists || filter >= g.group_filters) return 0;
        return widen(
            col.image[element(col.pixel, group * g.group_filters + filter, pixels(g.output), g.filters)]);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_wgrad_implicit_gemm)(const Element* __restrict__ x, const Element* __restrict__ dy,
                               Accum* __restrict__ partial, unsigned pixels_per_split,
                               const __grid_constant__ ConvGeometry g) {
    const int group = blockIdx.x % g.groups;
    const unsigned row0 = blockIdx.x / g.groups * TILE_M, col0 = blockIdx.y * TILE_N;
    const unsigned m_end = (unsigned)pixels(g.kernel) * g.group_channels;
    const unsigned all_pixels = (unsigned)g.batch * pixels(g.output);
    const unsigned k_begin = blockIdx.z * pixels_per_split;
    const unsigned k_end = min(k_begin + pixels_per_split, all_pixels);

    Accum acc[THREAD_M][THREAD_N];
    tile_gemm(InputUnderTap{x, g, group, m_end, k_end}, OutputGradient{dy, g, group, k_end}, row0, col0, k_begin, k_end,
              acc);

    partial += (long long)blockIdx.z * g.filters * m_end;
#pragma unroll
    for (int j = 0; j < THREAD_N; ++j) {
        const int local = col0 + thread_col(j), k = group * g.group_filters + local;
        if (local >= g.group_filters) break;
#pragma unroll
        for (int i = 0; i < THREAD_M; ++i) {
            const unsigned m = row0 + thread_row(i);
            if (m >= m_end) break;
            partial[(long long)k * m_end + m] = acc[i][j];
        }
    }
}
