// Convolution, forward: implicit GEMM through a shared-memory tile.
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p*stride - pad + r*dilation, ..., c] * w[k, r, s, c])
//
// f is the identity, or with `relu` max(v, 0), a NaN staying one.
//
// As a matrix product, for each group of channels:
//   GEMM_M = N*O*P*Q output pixels,  GEMM_N = K/groups filters,  GEMM_K = T*R*S*C/groups
//   A(m, k) = x gathered under tap (t,r,s) of pixel m, zero where the tap lies in the padding
//   B(n, k) = w[n][t,r,s,c], contiguous in k
//
// x, w, y: see conv_geometry.cuh; bias (K,) or null.
// grid: x = (tiles of pixels) * groups, y = tiles of filters. One block computes TILE_M pixels of
// TILE_N filters, one thread THREAD_M x THREAD_N of them. Shared memory: see tile_gemm.cuh.
#include "conv_geometry.cuh"
#include "tile_gemm.cuh"

// A(m, k): the input under tap k of output pixel m.
struct InputUnderTap {
    static const bool LANES_ALONG_K = CHANNELS_LAST;  // k runs over channels, m over pixels of a row
    typedef Window Row;
    typedef Tap Col;
    const Element* x;
    const ConvGeometry& g;
    int group;
    unsigned m_end, k_end;

    __device__ __forceinline__ Row row(unsigned m) const { return window_of(g, x, m, m < m_end); }
    __device__ __forceinline__ Col col(unsigned k) const {
        return tap_of(g, k, k < k_end, g.by_group_channels, group * g.group_channels);
    }
    __device__ __forceinline__ Accum load(const Row& window, const Col& tap) const {
        return input_under(g, window, tap);
    }
};

// B(n, k): weight k of filter n.
struct FilterWeights {
    static const bool LANES_ALONG_K = true;
    struct Row {
        const Element* filter;
        bool exists;
    };
    typedef unsigned Col;
    const Element* w;
    const ConvGeometry& g;
    int group;
    unsigned k_end;

    __device__ __forceinline__ Row row(unsigned n) const {
        const bool exists = n < g.group_filters;
        return {w + (long long)(group * g.group_filters + (exists ? n : 0)) * k_end, exists};
    }
    __device__ __forceinline__ Col col(unsigned k) const { return k; }
    __device__ __forceinline__ Accum load(const Row& row, Col k) const {
        return row.exists && k < k_end ? widen(row.filter[k]) : (Accum)0;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_fprop_implicit_gemm)(const Element* __restrict__ x, const Element* __restrict__ w,
                               const Element* __restrict__ bias, int relu, Element* __restrict__ y,
                               const __grid_constant__ ConvGeometry g) {
    const int group = blockIdx.x % g.groups;
    const unsigned row0 = blockIdx.x / g.groups * TILE_M, col0 = blockIdx.y * TILE_N;
    const unsigned m_end = (unsigned)g.batch * pixels(g.output);
    const unsigned k_end = (unsigned)pixels(g.kernel) * g.group_channels;

    Accum acc[THREAD_M][THREAD_N];
    tile_gemm(InputUnderTap{x, g, group, m_end, k_end}, FilterWeights{w, g, group, k_end}, row0, col0, 0, k_end, acc);

#pragma unroll
    for (int i = 0; i < THREAD_M; ++i) {
        const unsigned m = row0 + thread_row(i);
        if (m >= m_end) break;
        Place at;
        const unsigned n = split(m, g.by_output, at);
        Element* image = y + n * image_size(pixels(g.output), g.filters);
#pragma unroll
        for (int j = 0; j < THREAD_N; ++j) {
            const int local = col0 + thread_col(j), k = group * g.group_filters + local;
            if (local >= g.group_filters) break;
            const Accum value = acc[i][j] + (bias ? widen(bias[k]) : (Accum)0);
            image[element(pixel(at, g.output), k, pixels(g.output), g.filters)] =
                narrow(relu && value <= 0 ? (Accum)0 : value);
        }
    }
}
