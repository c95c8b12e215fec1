// Convolution, gradient of the input (and the forward pass of a transposed convolution): implicit
// GEMM through a shared-memory tile, by gather: each dx element collects its terms in fixed order,
// so nothing is atomic and the result is deterministic.
//
//   dx[n, h, w, c] = bias[c] + sum over r, s, k of dy[n, (h + pad - r*dilation) / stride, ..., k] * w[k, r, s, c]
//
// where only the taps count whose division leaves no remainder and whose place lies in dy. To walk no
// others, the input pixels are sorted into classes by (h + pad) mod stride along each axis, stride^2 of
// them in two dimensions: within a class the same taps count, and no division is left (residues.cuh).
// As a matrix product, for each group of channels and each class:
//   GEMM_M = the pixels of the class in all images,  GEMM_N = C/groups channels,
//   GEMM_K = the taps of the class * K/groups
//   A(m, k) = dy gathered at the output pixel where pixel m and tap (t,r,s) meet
//   B(n, k) = w[k][t,r,s][n], contiguous in n
//
// Where there are few tiles, GEMM_K is split: split z of the grid sums [z, z + 1) * k_per_split and writes
// partial[z], in dx's layout and Accum; split_sum.cu adds the splits and ends them.
//
// dy, w, dx: see conv_geometry.cuh; bias (C,) or null; partial null where there is one split. residual, as dx, or
// null: it is added, or dx multiplied by the derivative that it tells (epilogue.cuh).
// residues: for axis 0, 1, 2 in turn, one for each remainder (of the axes that RANK has).
// grid: x = (tiles of the largest class) * classes * groups * (tiles of channels), z = splits. One block
// computes TILE_M pixels of TILE_N channels, one thread THREAD_M x THREAD_N of them. Shared memory: see
// tile_gemm.cuh.
#include "epilogue.cuh"
#include "residues.cuh"
#include "tile_gemm.cuh"

// A(m, k): the output gradient that reaches pixel m of the class through tap k of the class.
struct OutputThroughTap {
    static const bool ALONG_K = CHANNELS_LAST;
    static const int WIDTH = CHANNELS_LAST ? VECTOR : 1;
    struct Row {
        const Element* first;
        Place place;  // of the output that tap 0 reaches
    };
    typedef Tap Col;  // how far back from there, and the filter
    const Element* dy;
    const ConvGeometry& g;
    const ResidueClass& residue;
    int group;
    unsigned m_end, k_end;

    __device__ __forceinline__ Row row(unsigned m) const {
        Row row;
        const unsigned n = residue.split_pixel(m < m_end ? m : 0, row.place);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) row.place.axis[a] += residue.axis[a].first_output;
        row.first = in_register(dy + image_offset(n, pixels(g.output), g.filters) +
                                element(pixel(row.place, g.output), 0, pixels(g.output), g.filters));
        return row;
    }
    __device__ __forceinline__ Col col(unsigned k) const {
        Col tap;
        int filter;
        residue.split_tap(g, k < k_end ? k : 0, tap.distance, filter);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) tap.distance.axis[a] *= residue.axis[a].output_step;
        tap.offset = element(0, group * g.group_filters + filter, pixels(g.output), g.filters) -
                     element(pixel(tap.distance, g.output), 0, pixels(g.output), g.filters);
        if (k >= k_end) tap.distance.axis[FIRST_AXIS] = OUTSIDE_TAP;
        return tap;
    }
    __device__ __forceinline__ Source source(const Row& row, const Col& tap) const {
        Place at;
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) at.axis[a] = row.place.axis[a] - tap.distance.axis[a];
        return {row.first + tap.offset, inside(at, g.output)};
    }
};

// B(n, k): what channel n weighs in tap and filter k.
struct ChannelWeights {
    static const bool ALONG_K = false;
    static const int WIDTH = VECTOR_N;
    typedef int Row;  // the channel
    struct Col {
        const Element* weights;  // of all channels of the group
        bool exists;
    };
    const Element* w;
    const ConvGeometry& g;
    const ResidueClass& residue;
    int group;
    unsigned k_end;

    __device__ __forceinline__ Row row(unsigned n) const { return n < g.group_channels ? n : 0; }
    __device__ __forceinline__ Col col(unsigned k) const {
        const bool exists = k < k_end;
        int filter;
        Place tap;
        residue.split_tap(g, exists ? k : 0, tap, filter);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a)
            tap.axis[a] = residue.axis[a].first_tap + residue.axis[a].tap_step * tap.axis[a];
        filter += group * g.group_filters;
        return {w + (filter * pixels(g.kernel) + (exists ? pixel(tap, g.kernel) : 0)) * g.group_channels, exists};
    }
    __device__ __forceinline__ Source source(Row channel, const Col& col) const {
        return {col.weights + channel, col.exists};
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_dgrad_implicit_gemm)(const Element* __restrict__ dy, const Element* __restrict__ w,
                               const Element* __restrict__ bias, const Element* __restrict__ residual,
                               int activation, Accum alpha, Element* __restrict__ dx, Accum* __restrict__ partial,
                               unsigned k_per_split,
                               const Residue* __restrict__ residues, int classes,
                               const __grid_constant__ ConvGeometry g) {
    after_kernels_before();
    const BlockTile tile = block_tile(classes * g.groups, g.group_channels);
    const int group = tile.product % g.groups;
    __shared__ ResidueClass residue;
    residue.load(g, residues, tile.product / g.groups);
    const unsigned m_end = g.batch * residue.pixels();
    if (tile.row0 >= m_end) return;  // a class smaller than the largest one
    const unsigned k_begin = blockIdx.z * k_per_split;
    const unsigned k_end = min(k_begin + k_per_split, residue.taps() * g.group_filters);

    Accum acc[THREAD_M][THREAD_N];
    tile_gemm(OutputThroughTap{dy, g, residue, group, m_end, k_end}, ChannelWeights{w, g, residue, group, k_end},
              tile.row0, tile.col0, k_begin, k_end, acc);

    if (partial) partial += blockIdx.z * image_offset(g.batch, pixels(g.input), g.channels);
    const Epilogue epilogue = {bias, residual, activation, alpha};
    const int WIDTH = CHANNELS_LAST && VECTOR_N > 1 && THREAD_N % 4 == 0 ? 4 : 1;  // neighbours that are stored together
#pragma unroll
    for (int i = 0; i < THREAD_M; ++i) {
        const unsigned m = tile.row0 + thread_row(i);
        if (m >= m_end) break;
        Place at;
        const unsigned n = residue.split_pixel(m, at);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a)
            at.axis[a] = residue.axis[a].first_pixel + g.stride[a] * at.axis[a];
#pragma unroll
        for (int j = 0; j < THREAD_N; j += WIDTH) {
            const int local = tile.col0 + thread_col(j), c = group * g.group_channels + local;
            if (local >= g.group_channels) break;
            const int size = pixels(g.input);
            const long long to = image_offset(n, size, g.channels) + element(pixel(at, g.input), c, size, g.channels);
            Values<WIDTH> values;
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) values.at[e] = acc[i][j + e];
            if (partial) {
                *(Values<WIDTH>*)(partial + to) = values;
                continue;
            }
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) values.at[e] += bias ? widen(bias[c + e]) : (Accum)0;
            if (residual) epilogue.join_residual<WIDTH>(values.at, to);
            store_values<WIDTH>(dx + to, values);
        }
    }
}
