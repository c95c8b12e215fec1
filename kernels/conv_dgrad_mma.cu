// Convolution, gradient of the input, with channels last: implicit GEMM on tensor cores (sm_80), of 16-bit elements, or
// of floats taken as TF32 (tensor_cores.cuh), by gather as in conv_dgrad.cu.
//
//   dx[n, h, w, c] = bias[c] + sum over r, s, k of dy[n, (h + pad - r*dilation) / stride, ..., k] * w[k, r, s, c]
//
// where only the taps count whose division leaves no remainder and whose place lies in dy. The classes of pixels,
// the matrix product, its splits, `residual` and `partial` are those of conv_dgrad.cu, the sums in float:
//   GEMM_M = the pixels of the class in all images,  GEMM_N = C/groups channels,
//   GEMM_K = the taps of the class * K/groups
//   A(m, k) = dy where pixel m and tap (t,r,s) meet,  B(n, k) = w[k][t,r,s][n]
//
// dy, w, dx: see conv_geometry.cuh; dy and w begin at multiples of 16 bytes; C/groups and K/groups are multiples of a
// chunk; bias (C,), residual or null; partial null where there is one split; residues as for conv_dgrad.cu. A window has
// at most MAX_TAPS taps, and 31 places along all axes together.
// grid: x = (tiles of the largest class) * classes * groups * (tiles of channels), z = splits. One block computes
// TILE_M pixels of TILE_N channels, one warp WARP_M x WARP_N of them. Shared memory: see tile_mma.cuh, the tables of
// conv_mma.cuh, and the class.
#include "residues.cuh"
#include "conv_mma.cuh"

// B(n, k): what a chunk of channels weighs in tap and filter k. Beyond the last channel that may be anything.
struct ChannelWeights {
    static const bool ALONG_K = false;
    typedef SlabOf<false, TILE_N> Slab;
    const Elements<CHUNK>* w;  // of the group, from this thread's channels on
    const Divisor& filters;
    int filter_chunks;  // of a filter
    int to;             // where this thread's first chunk goes in a slab
    const Terms& terms;
    unsigned k;  // of that chunk

    __device__ __forceinline__ ChannelWeights(const Element* group, const ConvGeometry& g, int first,
                                              const Terms& terms)
        : filters(g.by_group_filters), filter_chunks(pixels(g.kernel) * (g.group_channels / CHUNK)),
          to(in_register(Slab::thread_offset())), terms(terms), k(terms.begin + Slab::thread_row()) {
        const int channel = first + CHUNK * Slab::thread_chunk();
        w = in_register((const Elements<CHUNK>*)(group + (channel < g.group_channels ? channel : 0)));
    }
    __device__ __forceinline__ void fetch(unsigned char* slab) {
#pragma unroll
        for (int i = 0; i < Slab::LOADS; ++i) {
            const unsigned term = k + i * Slab::STEP;
            int filter;
            const int weights = tables().tap_weights[divide(term, filters, filter)];
            cp_async_16(slab + to + i * Slab::STEP_BYTES, w + (filter * filter_chunks + weights),
                        term < terms.end ? 16 : 0);
        }
        k = terms.next(k);
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
NAME(conv_dgrad_mma)(const Element* __restrict__ dy, const Element* __restrict__ w, const Element* __restrict__ bias,
                     const Element* __restrict__ residual, int activation, float alpha, Element* __restrict__ dx,
                     float* __restrict__ partial, unsigned k_per_split, const Residue* __restrict__ residues,
                     int classes, const __grid_constant__ ConvGeometry g) {
    after_kernels_before();
    const BlockTile tile = block_tile(classes * g.groups, g.group_channels);
    const int group = tile.product % g.groups;
    __shared__ ResidueClass residue;
    residue.load(g, residues, tile.product / g.groups);
    const unsigned m_end = g.batch * residue.pixels();
    if (tile.row0 >= m_end) return;  // a class smaller than the largest one
    const Terms terms(k_per_split, residue.taps(), g.group_filters);

    const int chunks = g.filters / CHUNK;  // of a pixel of dy
    const auto counts = [&](int axis) { return residue.axis[axis].taps; };
    const auto row_of = [&](int i) -> TileRow {
        const unsigned m = tile.row0 + i;
        if (m >= m_end) return {0, ~0u, -1};
        Place from, to;
        const unsigned n = residue.split_pixel(m, to);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) {
            const Residue& along = residue.axis[a];
            from.axis[a] = along.first_output + to.axis[a];
            to.axis[a] = along.first_pixel + g.stride[a] * to.axis[a];
        }
        const unsigned outside = outside_bits(counts, [&](int a, int place) {
            return (unsigned)(from.axis[a] - place * residue.axis[a].output_step) >= (unsigned)g.output[a];
        });
        return {(int)(image_offset(n, pixels(g.output), chunks) + pixel(from, g.output) * chunks), outside,
                (int)(n * pixels(g.input)) + pixel(to, g.input)};
    };
    const auto tap_of = [&](int i, int& weights) -> TileTap {
        Place back, tap;
        int rest = i;
#pragma unroll
        for (int a = AXES - 1; a >= FIRST_AXIS; --a) rest = divide(rest, residue.axis[a].by_taps, back.axis[a]);
        const unsigned places = place_bits(counts, back);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) {
            const Residue& along = residue.axis[a];
            tap.axis[a] = along.first_tap + along.tap_step * back.axis[a];
            back.axis[a] *= along.output_step;
        }
        weights = pixel(tap, g.kernel) * (g.group_channels / CHUNK);
        return {-pixel(back, g.output) * chunks, places};
    };
    fill_tables(residue.taps(), row_of, tap_of);

    GatheredRows a(dy + group * g.group_filters, g.by_group_filters, terms);
    ChannelWeights b(w + (long long)group * g.group_filters * pixels(g.kernel) * g.group_channels, g, tile.col0, terms);
    Sums acc;
    tile_gemm(a, b, smem, terms.slabs, acc);

    if (partial) partial += blockIdx.z * image_offset(g.batch, pixels(g.input), g.channels);
    const Columns at = {(int)tile.col0, g.group_channels, group * g.group_channels, g.channels};
    store_tile(acc, at, Epilogue{bias, residual, activation, alpha}, nullptr, dx, partial);
}
