// Convolution, gradient of the input (and the forward pass of a transposed convolution): implicit
// GEMM through a shared-memory tile, by gather: each dx element collects its terms in fixed order,
// so nothing is atomic and the result is deterministic.
//
//   dx[n, h, w, c] = bias[c] + sum over r, s, k of dy[n, (h + pad - r*dilation) / stride, ..., k] * w[k, r, s, c]
//
// where only the taps count whose division leaves no remainder and whose place lies in dy.
// As a matrix product, for each group of channels:
//   GEMM_M = N*D*H*W input pixels,  GEMM_N = C/groups channels,  GEMM_K = T*R*S*K/groups
//   A(m, k) = dy gathered at the output pixel that tap (t,r,s) connects to input pixel m
//   B(n, k) = w[k][t,r,s][n], contiguous in n
//
// dy, w, dx: see conv_geometry.cuh; bias (C,) or null.
// grid: x = (tiles of pixels) * groups, y = tiles of channels. One block computes TILE_M pixels of
// TILE_N channels, one thread THREAD_M x THREAD_N of them. Shared memory: see tile_gemm.cuh.
#include "conv_geometry.cuh"
#include "tile_gemm.cuh"

// A(m, k): the output gradient that reaches input pixel m through tap k.
struct OutputThroughTap {
    static const bool LANES_ALONG_K = CHANNELS_LAST;
    struct Row {
        const Element* image;
        Place corner;  // of the input pixel, pad added
    };
    typedef Tap Col;  // its channel is the filter
    const Element* dy;
    const ConvGeometry& g;
    int group;
    unsigned m_end, k_end;

    __device__ __forceinline__ Row row(unsigned m) const {
        Row row;
        const unsigned n = split(m < m_end ? m : 0, g.by_input, row.corner);
        row.image = dy + n * image_size(pixels(g.output), g.filters);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a)
            row.corner.axis[a] = m < m_end ? row.corner.axis[a] + g.pad[a] : OUTSIDE_CORNER;
        return row;
    }
    __device__ __forceinline__ Col col(unsigned k) const {
        return tap_of(g, k, k < k_end, g.by_group_filters, group * g.group_filters);
    }
    __device__ __forceinline__ Accum load(const Row& row, const Col& tap) const {
        Place at;
        bool hit = true;
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) {
            const int distance = row.corner.axis[a] - tap.offset.axis[a];
            int remainder;
            at.axis[a] = divide(distance < 0 ? 0 : distance, g.by_stride[a], remainder);
            hit &= distance >= 0 && remainder == 0;
        }
        if (!hit || !inside(at, g.output)) return 0;
        return widen(row.image[element(pixel(at, g.output), tap.channel, pixels(g.output), g.filters)]);
    }
};

// B(n, k): what channel n weighs in tap and filter k.
struct ChannelWeights {
    static const bool LANES_ALONG_K = false;
    typedef int Row;  // the channel
    struct Col {
        const Element* weights;  // of all channels of the group
        bool exists;
    };
    const Element* w;
    const ConvGeometry& g;
    int group;
    unsigned k_end;

    __device__ __forceinline__ Row row(unsigned n) const { return n; }
    __device__ __forceinline__ Col col(unsigned k) const {
        const bool exists = k < k_end;
        int filter;
        const unsigned tap = divide(exists ? k : 0, g.by_group_filters, filter);
        return {w + ((long long)(group * g.group_filters + filter) * pixels(g.kernel) + tap) * g.group_channels,
                exists};
    }
    __device__ __forceinline__ Accum load(Row channel, const Col& col) const {
        return col.exists && channel < g.group_channels ? widen(col.weights[channel]) : (Accum)0;
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_dgrad_implicit_gemm)(const Element* __restrict__ dy, const Element* __restrict__ w,
                               const Element* __restrict__ bias, Element* __restrict__ dx,
                               const __grid_constant__ ConvGeometry g) {
    const int group = blockIdx.x % g.groups;
    const unsigned row0 = blockIdx.x / g.groups * TILE_M, col0 = blockIdx.y * TILE_N;
    const unsigned m_end = (unsigned)g.batch * pixels(g.input);
    const unsigned k_end = (unsigned)pixels(g.kernel) * g.group_filters;

    Accum acc[THREAD_M][THREAD_N];
    tile_gemm(OutputThroughTap{dy, g, group, m_end, k_end}, ChannelWeights{w, g, group, k_end}, row0, col0, 0, k_end,
              acc);

#pragma unroll
    for (int i = 0; i < THREAD_M; ++i) {
        const unsigned m = row0 + thread_row(i);
        if (m >= m_end) break;
        Place at;
        const unsigned n = split(m, g.by_input, at);
        Element* image = dx + n * image_size(pixels(g.input), g.channels);
#pragma unroll
        for (int j = 0; j < THREAD_N; ++j) {
            const int local = col0 + thread_col(j), c = group * g.group_channels + local;
            if (local >= g.group_channels) break;
            image[element(pixel(at, g.input), c, pixels(g.input), g.channels)] =
                narrow(acc[i][j] + (bias ? widen(bias[c]) : (Accum)0));
        }
    }
}
