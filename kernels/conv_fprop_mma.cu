// Convolution, forward, with channels last: implicit GEMM on tensor cores (sm_80), of 16-bit elements, or of floats
// taken as TF32 (tensor_cores.cuh).
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p*stride - pad + r*dilation, ..., c] * w[k, r, s, c]
//                          + residual)
//
// f and the residual: see epilogue.cuh. The matrix product, its splits, `partial` and `moments` are those of
// conv_fprop.cu, the sums in float:
//   GEMM_M = N*O*P*Q output pixels,  GEMM_N = K/groups filters,  GEMM_K = T*R*S*C/groups
//   A(m, k) = x gathered under tap (t,r,s) of pixel m,  B(n, k) = w[n][t,r,s,c]
//
// x, w, y: see conv_geometry.cuh; x and w begin at multiples of 16 bytes, C/groups is a multiple of a chunk, and y
// begins at one where K and K/groups are, as the residual, of y's shape or null, does in any case; bias (K,) or null;
// partial null where there is one split. A window has at most
// MAX_TAPS taps, and 31 places along all axes together.
// Where `pools`, O = 1, P and Q are even, and y (N, P/2, Q/2, K) gets the maxima of 2x2 outputs, and `kept`, as y or
// null, their places (quads.cuh). Pixels are then numbered window by window, so that a tile has whole ones. Otherwise
// `kept` gets y's mask (mask.cuh), or is null; K and K/groups are then multiples of 8, and there is one split.
// grid: x = (tiles of pixels) * groups * (tiles of filters), z = splits. One block computes TILE_M pixels of TILE_N
// filters, one warp WARP_M x WARP_N of them. Shared memory: see tile_mma.cuh, and the tables of conv_mma.cuh.
// A window of one tap, without padding or groups, can read x through a batch norm and its ReLU: see norm_on_load.cuh.
// Macros: those of conv_mma.cuh; NORMS, whether it does.
#include "conv_mma.cuh"
#include "norm_on_load.cuh"

// B(n, k): a chunk of weights of filter n. What is beyond the last filter may be anything: nobody stores its sums.
struct FilterWeights {
    static const bool ALONG_K = true;
    typedef SlabOf<true, TILE_N> Slab;
    const Elements<CHUNK>* w;  // of the group
    int to;                    // where this thread's first chunk goes in a slab
    const Terms& terms;
    unsigned k;                // of this thread's chunks in the next slab
    int filters[Slab::LOADS];  // where each begins, in chunks

    __device__ __forceinline__ FilterWeights(const Element* w, unsigned length, int first, int count,
                                             const Terms& terms)
        : w((const Elements<CHUNK>*)w), to(in_register(Slab::thread_offset())), terms(terms),
          k(terms.begin + CHUNK * Slab::thread_chunk()) {
#pragma unroll
        for (int i = 0; i < Slab::LOADS; ++i) {
            const int filter = first + Slab::thread_row() + i * Slab::STEP;
            filters[i] = in_register((filter < count ? filter : 0) * (length / CHUNK));
        }
    }
    __device__ __forceinline__ void fetch(unsigned char* slab) {
        const int bytes = k < terms.end ? 16 : 0, offset = k / CHUNK;
#pragma unroll
        for (int i = 0; i < Slab::LOADS; ++i)
            cp_async_16(slab + to + i * Slab::STEP_BYTES, w + (filters[i] + offset), bytes);
        k = terms.next(k);
    }
};

#if NORMS
// Makes factors of pixels of x, normalised. A lane has, of 16 channels, those of 2 * (lane % 4) + {0, 1} and 8 more;
// what they need lies side by side in shared memory, worked out once by a block, for all channels.
class NormedPixels {
    struct alignas(16) Numbers {  // of four channels
        float mean[4], scale[4], shift[4];
    };
    Numbers* const table;  // for each 16 channels four
    const NormOnLoad& norm;
    const int channels;
    const unsigned begin;  // the first channel of the first slab

public:
    __device__ __forceinline__ NormedPixels(const NormOnLoad& norm, int channels, unsigned begin)
        : table((Numbers*)(smem + SLABS_BYTES + sizeof(Tables))), norm(norm), channels(channels), begin(begin) {
        static_assert((SLABS_BYTES + sizeof(Tables)) % 16 == 0, "the table is read 16 bytes at a time");
        static_assert(NORM_BYTES == MOST_CHANNELS / 4 * sizeof(Numbers), "the table is for so many channels");
    }
    __device__ __forceinline__ void prepare() const {
        const int behind = (channels + TILE_K - 1) / TILE_K * TILE_K;  // the last slab
        for (int c = threadIdx.x; c < behind; c += THREADS) {
            const Normaliser of = norm.of(c, channels);
            Numbers& four = table[c / 16 * 4 + c % 8 / 2];
            const int place = c % 16 / 8 * 2 + c % 2;
            four.mean[place] = of.mean;
            four.scale[place] = of.scale;
            four.shift[place] = of.shift;
        }
    }
    // Called when a barrier has followed prepare().
    __device__ __forceinline__ auto at(int slab, int step) const {
        const unsigned channel = begin + slab * TILE_K + step * MMA_K;
        return [this, four = table[channel / 16 * 4 + threadIdx.x % 4]](const uint32_t (&loaded)[4]) {
            const auto of = [&](int c) { return Normaliser{four.mean[c], 0, four.scale[c], four.shift[c]}; };
            Factor factor;
#pragma unroll
            for (int q = 0; q < 4; ++q) factor.large[q] = norm(loaded[q], of(q / 2 * 2), of(q / 2 * 2 + 1));
            return factor;
        };
    }
};
#endif

// The number, in the order of memory, of pixel m of those that are numbered window by window.
__device__ __forceinline__ unsigned of_windows(unsigned m, const ConvGeometry& g) {
    int pair;  // in two rows of pixels: of one window the upper, then the lower one
    const unsigned rows = 2 * divide(m / 2, g.by_output[2], pair);
    return (rows + pair % 2) * g.output[2] + pair / 2 * 2 + m % 2;
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
NAME(conv_fprop_mma)(const Element* __restrict__ x, const Element* __restrict__ w, const Element* __restrict__ bias,
                     const Element* __restrict__ residual, int activation, float alpha, Moments* __restrict__ moments,
                     Element* __restrict__ y, U8* __restrict__ kept, int pools, float* __restrict__ partial,
                     unsigned k_per_split, NORM_PARAMETERS
                     const __grid_constant__ ConvGeometry g) {
    after_kernels_before();
    const BlockTile tile = block_tile(g.groups, g.group_filters);
    const int group = tile.product;
    const unsigned m_end = (unsigned)g.batch * pixels(g.output);
    const unsigned length = (unsigned)pixels(g.kernel) * g.group_channels;
    const Terms terms(k_per_split, pixels(g.kernel), g.group_channels);

    const int chunks = g.channels / CHUNK;  // of a pixel
    const auto counts = [&](int axis) { return g.kernel[axis]; };
    const auto row_of = [&](int i) -> TileRow {
        const unsigned m = tile.row0 + i;
        if (m >= m_end) return {0, ~0u, -1};
        Place corner;
        const unsigned n = split(pools ? of_windows(m, g) : m, g.by_output, corner);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) corner.axis[a] = corner.axis[a] * g.stride[a] - g.pad[a];
        const unsigned outside = outside_bits(counts, [&](int a, int place) {
            return (unsigned)(corner.axis[a] + place * g.dilation[a]) >= (unsigned)g.input[a];
        });
        return {(int)(image_offset(n, pixels(g.input), chunks) + pixel(corner, g.input) * chunks), outside, (int)m};
    };
    const auto tap_of = [&](int i, int&) -> TileTap {
        Place place;
        split(i, g.by_kernel, place);
        const unsigned places = place_bits(counts, place);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) place.axis[a] *= g.dilation[a];
        return {pixel(place, g.input) * chunks, places};
    };
    fill_tables(pixels(g.kernel), row_of, tap_of);
    GatheredRows a(x + group * g.group_channels, g.by_group_channels, terms);
    FilterWeights b(w + (long long)group * g.group_filters * length, length, tile.col0, g.group_filters, terms);
    Sums acc;
#if NORMS
    const NormOnLoad norm(gamma, beta, mean, var, epsilon, lowest, highest);
    tile_gemm(a, b, smem, terms.slabs, acc, NormedPixels(norm, g.channels, terms.begin));
#else
    tile_gemm(a, b, smem, terms.slabs, acc);
#endif

    if (partial) partial += blockIdx.z * image_offset(g.batch, pixels(g.output), g.filters);
    if (moments) moments += (long long)(tile.row0 / TILE_M * WARPS_DOWN) * g.filters;
    const Columns at = {(int)tile.col0, g.group_filters, group * g.group_filters, g.filters};
    store_tile(acc, at, Epilogue{bias, residual, activation, alpha}, moments, y, partial, {pools != 0, kept});
}
