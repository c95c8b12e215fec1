// Convolution, forward: implicit GEMM through a shared-memory tile.
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p*stride - pad + r*dilation, ..., c] * w[k, r, s, c] + residual)
//
// f and the residual: see epilogue.cuh.
//
// As a matrix product, for each group of channels:
//   GEMM_M = N*O*P*Q output pixels,  GEMM_N = K/groups filters,  GEMM_K = T*R*S*C/groups
//   A(m, k) = x gathered under tap (t,r,s) of pixel m, zero where the tap lies in the padding
//   B(n, k) = w[n][t,r,s,c], contiguous in k
//
// Where there are few tiles, GEMM_K is split: split z of the grid sums [z, z + 1) * k_per_split and writes
// partial[z], in y's layout and Accum; split_sum.cu adds the splits, the bias and f.
//
// x, w, y: see conv_geometry.cuh; bias (K,), residual, as y, partial, where there are several splits: or null.
// moments, or null: (parts, K), of what y holds before f and without a residual; a part is what a warp stores, and
// each tile of pixels has WARPS_DOWN of them.
// grid: x = (tiles of pixels) * groups * (tiles of filters), z = splits. One block computes TILE_M pixels
// of TILE_N filters, one thread THREAD_M x THREAD_N of them. Shared memory: see tile_gemm.cuh.
#include "conv_geometry.cuh"
#include "epilogue.cuh"
#include "tile_gemm.cuh"

// A(m, k): the input under tap k of output pixel m.
struct InputUnderTap {
    static const bool ALONG_K = CHANNELS_LAST;  // k runs over channels, m over pixels of a row
    static const int WIDTH = CHANNELS_LAST ? VECTOR : 1;
    typedef Window Row;
    typedef Tap Col;
    const Element* x;
    const ConvGeometry& g;
    int group;
    unsigned m_end, k_end;

    __device__ __forceinline__ Row row(unsigned m) const { return window_of(g, x, m < m_end ? m : 0, true); }
    __device__ __forceinline__ Col col(unsigned k) const {
        return tap_of(g, k, k < k_end, g.by_group_channels, group * g.group_channels);
    }
    __device__ __forceinline__ Source source(const Row& window, const Col& tap) const {
        return input_under(g, window, tap);
    }
};

// B(n, k): weight k of filter n.
struct FilterWeights {
    static const bool ALONG_K = true;
    static const int WIDTH = VECTOR;
    typedef const Element* Row;  // the filter
    typedef unsigned Col;
    const Element* w;
    const ConvGeometry& g;
    int group;
    unsigned k_end, length;  // of the sum over this split, and of a filter

    __device__ __forceinline__ Row row(unsigned n) const {
        return in_register(w + (group * g.group_filters + (n < g.group_filters ? n : 0)) * length);
    }
    __device__ __forceinline__ Col col(unsigned k) const { return k; }
    __device__ __forceinline__ Source source(Row filter, Col k) const { return {filter + k, k < k_end}; }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_fprop_implicit_gemm)(const Element* __restrict__ x, const Element* __restrict__ w,
                               const Element* __restrict__ bias, const Element* __restrict__ residual,
                               int activation, Accum alpha, Moments* __restrict__ moments, Element* __restrict__ y,
                               Accum* __restrict__ partial, unsigned k_per_split,
                               const __grid_constant__ ConvGeometry g) {
    after_kernels_before();
    const BlockTile tile = block_tile(g.groups, g.group_filters);
    const int group = tile.product;
    const unsigned m_end = (unsigned)g.batch * pixels(g.output);
    const unsigned length = (unsigned)pixels(g.kernel) * g.group_channels;
    const unsigned k_begin = blockIdx.z * k_per_split, k_end = min(k_begin + k_per_split, length);

    Accum acc[THREAD_M][THREAD_N];
    tile_gemm(InputUnderTap{x, g, group, m_end, k_end}, FilterWeights{w, g, group, k_end, length}, tile.row0, tile.col0,
              k_begin, k_end, acc);

    const int WIDTH = CHANNELS_LAST && VECTOR_N > 1 && THREAD_N % 4 == 0 ? 4 : 1;  // neighbours that are stored together
    const auto each_run = [&](const auto& function) {  // (acc of WIDTH neighbours, where they lie in y)
#pragma unroll
        for (int i = 0; i < THREAD_M; ++i) {
            const unsigned m = tile.row0 + thread_row(i);
            if (m >= m_end) break;
            Place at;
            const unsigned n = split(m, g.by_output, at);
#pragma unroll
            for (int j = 0; j < THREAD_N; j += WIDTH) {
                const int local = tile.col0 + thread_col(j), k = group * g.group_filters + local;
                if (local >= g.group_filters) break;
                function(acc[i] + j, image_offset(n, pixels(g.output), g.filters) +
                                         element(pixel(at, g.output), k, pixels(g.output), g.filters));
            }
        }
    };
    if (partial) {
        partial += blockIdx.z * image_offset(g.batch, pixels(g.output), g.filters);
        each_run([&](const Accum* sums, long long to) {
            Values<WIDTH> values;
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) values.at[e] = sums[e];
            *(Values<WIDTH>*)(partial + to) = values;
        });
        return;
    }

#pragma unroll
    for (int j = 0; j < THREAD_N; ++j) {
        const int local = tile.col0 + thread_col(j), k = group * g.group_filters + local;
        const Accum added = bias && local < g.group_filters ? widen(bias[k]) : (Accum)0;
#pragma unroll
        for (int i = 0; i < THREAD_M; ++i) acc[i][j] += added;
        if (!moments) continue;
        StoredMoments of_thread;
#pragma unroll
        for (int i = 0; i < THREAD_M; ++i)
            if (tile.row0 + thread_row(i) < m_end) of_thread.add(acc[i][j]);
        const Moments of_warp = of_thread.of_lanes<ROW_LANES>();
        const unsigned part = tile.row0 / TILE_M * WARPS_DOWN + warp_down();
        if (threadIdx.x % 32 & ROW_LANES || local >= g.group_filters) continue;
        moments[(long long)part * g.filters + k] = of_warp;
    }
    const Epilogue epilogue = {bias, residual, activation, alpha};
    if (residual) each_run([&](Accum* sums, long long at) { epilogue.join_residual<WIDTH>(sums, at); });
    epilogue.activate((Accum(&)[THREAD_M * THREAD_N])acc);
    each_run([&](const Accum* sums, long long to) {
        Values<WIDTH> values;
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) values.at[e] = sums[e];
        store_values<WIDTH>(y + to, values);
    });
}
