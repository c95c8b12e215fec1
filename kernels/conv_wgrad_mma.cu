// Convolution, gradient of the filters, on tensor cores (mma.sync, from sm_80 on), of 16-bit elements, or of floats
// taken as TF32 (tensor_cores.cuh): implicit GEMM, split over the output pixels, because the matrix is small and the
// sum is long.
//
//   dw[k, r, s, c] = sum over n, p, q of x[n, p*stride - pad + r*dilation, ..., c] * dy[n, p, q, k]
//
// As a matrix product, for each group of channels:
//   GEMM_M = T*R*S*C/groups weights of a filter,  GEMM_N = K/groups filters,  GEMM_K = N*O*P*Q pixels
//
// In memory both operands have pixels as the slow index. A block walks its pixels in slabs of SLAB: of each
// pixel, cp.async brings TILE_N filters of dy and TILE_M weights' worth of x, 16 bytes of neighbours (a chunk) at a
// time, zeros in the padding and beyond the last of anything; ldmatrix turns 16-bit ones on the way to the tensor
// cores, floats are loaded word by word. STAGES slabs are on their way or being multiplied, and a slab costs one
// barrier; what a warp multiplies of MMA_K pixels is loaded while those before are multiplied. mma.sync's rows are
// filters and its columns weights, so that a thread has neighbours in memory to store.
//
// What a block copies for each of its multiply-adds falls as its tile grows, hence the large ones. A pixel's place
// costs a thread a division an axis for each slab, by numbers known on the host; tensor cores work meanwhile.
//
// Split z of the grid sums the pixels [z, z + 1) * pixels_per_split, in ascending order, and writes
// partial[z][k][t,r,s,c] in float, which split_sum.cu adds; or dw, where `partial` is null and one split is all.
//
// x, dy: see conv_geometry.cuh, channels last; C/groups and K/groups are multiples of a chunk, addresses of 16 bytes.
// grid: x = (tiles of weights) * groups * (tiles of filters), z = splits. One block computes TILE_M weights of
// TILE_N filters, one warp WARP_M x WARP_N of them. Shared memory: STAGES * SLAB * (TILE_M + TILE_N) elements, 48 KB
// for 3 stages of 128 x 128 in 16 bits.
// A window of one tap, without padding or groups, can read x through a batch norm and its ReLU: see norm_on_load.cuh.
// Macros: TILE_M, TILE_N, WARP_M, WARP_N, SLAB, STAGES; BLOCKS, how many of them a multiprocessor should hold; NORMS,
// whether x is read so; those of tensor_cores.cuh.
#define CHANNELS_LAST 1
#include "conv_geometry.cuh"
#include "norm_on_load.cuh"
#include "tensor_cores.cuh"

const int THREADS = (TILE_M / WARP_M) * (TILE_N / WARP_N) * 32;
// Threads that copy neighbouring chunks: 8 for 128 bytes, a line of the cache, more where there are so many.
const int LANES = THREADS / SLAB > 8 ? THREADS / SLAB : 8;
const int STEP = THREADS / LANES;  // pixels that all threads copy at once
const int PIXELS = SLAB / STEP;    // of a slab, that one thread copies

static_assert(TILE_M % WARP_M == 0 && TILE_N % WARP_N == 0, "warps must cover the tile");
static_assert(WARP_M % 16 == 0 && WARP_N % 16 == 0, "a warp loads 16 weights and 16 filters at once");
static_assert(TILE_M % (LANES * CHUNK) == 0 && TILE_N % (LANES * CHUNK) == 0, "lanes must cover the tile");
static_assert(SLAB % STEP == 0 && STEP % TURNED_PERIOD == 0, "a thread's pixels must be alike: see dy_chunk");

// A slab in shared memory: SLAB pixels of dy, TILE_N filters each, then of x, TILE_M weights each. They lie turned:
// chunk c of pixel p at c ^ turned_swizzle(p), so that what a warp reads at once, and eight chunks of a pixel, as
// cp.async writes them, meet no bank twice.
const int DY_ROW = TILE_N * sizeof(Element), X_ROW = TILE_M * sizeof(Element);  // bytes of a pixel
const int X_SLAB = SLAB * DY_ROW;                                               // where x begins
const int STAGE = X_SLAB + SLAB * X_ROW;

__device__ __forceinline__ int dy_chunk(int pixel, int c) { return pixel * DY_ROW + (c ^ turned_swizzle(pixel)) * 16; }
__device__ __forceinline__ int x_chunk(int pixel, int c) {
    return X_SLAB + pixel * X_ROW + (c ^ turned_swizzle(pixel)) * 16;
}

__device__ __forceinline__ int warp_weight() { return threadIdx.x / 32 % (TILE_M / WARP_M) * WARP_M; }
__device__ __forceinline__ int warp_filter() { return threadIdx.x / 32 / (TILE_M / WARP_M) * WARP_N; }

// What one thread copies of each slab: chunks that lie LANES apart, of every STEP-th pixel.
struct Copies {
    const ConvGeometry& g;
    const Element* x;
    const Element* dy;  // at this thread's first pixel of the next slab, and its first filter
    unsigned k, k_end;  // that pixel; the end of the split
    Tap taps[TILE_M / CHUNK / LANES];
    bool filter_exists[TILE_N / CHUNK / LANES];

    __device__ __forceinline__ Copies(const ConvGeometry& g, const Element* x, const Element* dy, int group,
                                      unsigned first_weight, int first_filter, unsigned k_begin, unsigned k_end)
        : g(g), x(x), k(k_begin + threadIdx.x / LANES), k_end(k_end) {
        const int column = threadIdx.x % LANES * CHUNK;
        const unsigned m_end = (unsigned)pixels(g.kernel) * g.group_channels;
        this->dy = dy + (unsigned long long)k * g.filters + group * g.group_filters + first_filter + column;
#pragma unroll
        for (int i = 0; i < TILE_M / CHUNK / LANES; ++i) {
            const unsigned m = first_weight + column + i * LANES * CHUNK;
            taps[i] = tap_of(g, m, m < m_end, g.by_group_channels, group * g.group_channels);
        }
#pragma unroll
        for (int i = 0; i < TILE_N / CHUNK / LANES; ++i)
            filter_exists[i] = first_filter + column + i * LANES * CHUNK < g.group_filters;
    }

    // Copy the next slab.
    __device__ __forceinline__ void start(unsigned char* slab) {
        const int row = threadIdx.x / LANES, lane = threadIdx.x % LANES;
#pragma unroll
        for (int j = 0; j < PIXELS; ++j) {
            const bool exists = k + j * STEP < k_end;
#pragma unroll
            for (int i = 0; i < TILE_N / CHUNK / LANES; ++i)
                cp_async_16(slab + dy_chunk(row, lane) + j * STEP * DY_ROW + i * LANES * 16,
                            dy + j * STEP * (long long)g.filters + i * LANES * CHUNK,
                            exists && filter_exists[i] ? 16 : 0);
            const Window window = window_of(g, x, k + j * STEP, exists);
#pragma unroll
            for (int i = 0; i < TILE_M / CHUNK / LANES; ++i) {
                Place at;
#pragma unroll
                for (int a = FIRST_AXIS; a < AXES; ++a)
                    at.axis[a] = window.corner.axis[a] + taps[i].distance.axis[a];
                cp_async_16(slab + x_chunk(row, lane) + j * STEP * X_ROW + i * LANES * 16,
                            window.first + taps[i].offset, inside(at, g.input) ? 16 : 0);
            }
        }
        k += SLAB;
        dy += SLAB * (long long)g.filters;
    }
};

// 16 filters by 8 weights: a thread has filters lane / 4 + {0, 8}, weights 2 * (lane % 4) + {0, 1}.
typedef float Sums[WARP_N / 16][WARP_M / 8][4];

// What a warp multiplies of MMA_K pixels of a slab.
struct Fragments {
    uint32_t dy[WARP_N / 16][4], x[WARP_M / 16][4];

    __device__ __forceinline__ void load(const unsigned char* slab, int pixel) {
        const int lane = threadIdx.x % 32;
        if (sizeof(Element) == 4) {
            const auto word = [&](int at) { return *(const uint32_t*)(slab + at + lane / 4 % CHUNK * 4); };
#pragma unroll
            for (int q = 0; q < 4; ++q) {
#pragma unroll
                for (int i = 0; i < WARP_N / 16; ++i)
                    dy[i][q] = word((pixel + q / 2 * CHUNK) * DY_ROW +
                                    dy_chunk(lane % 4, (warp_filter() + 16 * i + q % 2 * 8 + lane / 4) / CHUNK));
#pragma unroll
                for (int i = 0; i < WARP_M / 16; ++i)
                    x[i][q] = word((pixel + q % 2 * CHUNK) * X_ROW +
                                   x_chunk(lane % 4, (warp_weight() + 16 * i + q / 2 * 8 + lane / 4) / CHUNK));
            }
            return;
        }
#pragma unroll
        for (int i = 0; i < WARP_N / 16; ++i)  // filters 0 and 8 of pixel 0, then of pixel 8
            ldmatrix_x4_trans(dy[i], slab + pixel * DY_ROW +
                                         dy_chunk(lane / 16 * 8 + lane % 8, warp_filter() / 8 + 2 * i + lane / 8 % 2));
#pragma unroll
        for (int i = 0; i < WARP_M / 16; ++i)  // pixels 0 and 8 of weight 0, then of weight 8
            ldmatrix_x4_trans(x[i], slab + pixel * X_ROW + x_chunk(lane % 16, warp_weight() / 8 + 2 * i + lane / 16));
    }

    // make(j, loaded): the factor of weights 16 * j on of a warp.
    template <class MakeFactor> __device__ __forceinline__ void multiply(const MakeFactor& make, Sums& sums) const {
        Factor columns[WARP_M / 16];
#pragma unroll
        for (int j = 0; j < WARP_M / 16; ++j) columns[j] = make(j, x[j]);
#pragma unroll
        for (int i = 0; i < WARP_N / 16; ++i) {
            const Factor rows = factor_of(dy[i]);
#pragma unroll
            for (int j = 0; j < WARP_M / 8; ++j) multiply_add(sums[i][j], rows, columns[j / 2], j % 2);
        }
    }
};

#if NORMS
// Makes factors of pixels of x, normalised. A lane's channels, lane / 4 + {0, 8} of each 16, are the same for all.
struct NormedWeights {
    const NormOnLoad& norm;
    Normaliser of[WARP_M / 8];

    __device__ __forceinline__ NormedWeights(const NormOnLoad& norm, int first, int channels) : norm(norm) {
#pragma unroll
        for (int i = 0; i < WARP_M / 8; ++i) of[i] = norm.of(first + 8 * i + threadIdx.x % 32 / 4, channels);
    }
    // Of MMA_K pixels, of which `exist` exist: what lies behind them is zero and must stay so, for of other numbers
    // the norm can make an infinity, which is no number times dy's zero.
    __device__ __forceinline__ auto of_pixels(int exist) const {
        const auto kept = [&](int first) {  // of this lane's two pixels
            const int left = exist - first - (int)threadIdx.x % 4 * 2;
            return left > 1 ? ~0u : left > 0 ? 0xffffu : 0u;
        };
        return [this, near = kept(0), far = kept(CHUNK)](int j, const uint32_t (&loaded)[4]) {
            Factor factor;
#pragma unroll
            for (int q = 0; q < 4; ++q) {
                const Normaliser& own = of[2 * j + q / 2];
                factor.large[q] = norm(loaded[q], own, own) & (q % 2 ? far : near);
            }
            return factor;
        };
    }
};
#endif

__device__ __forceinline__ void store_four(float* to, const Values<4>& four) { *(Values<4>*)to = four; }
#if ELEMENT != F32
__device__ __forceinline__ void store_four(Element* to, const Values<4>& four) { store_values<4>(to, four); }
#endif

// What exists of a warp's sums -> to (K, T, R, S, C / groups). Of two pairs of weights, 8 apart, a thread gives
// one to its neighbour for the one that continues the other, and stores four that lie side by side.
template <class Number>
__device__ __forceinline__ void store(const ConvGeometry& g, const Sums& sums, int group, unsigned first_weight,
                                      int first_filter, Number* to) {
    const unsigned m_end = (unsigned)pixels(g.kernel) * g.group_channels;
    const int lane = threadIdx.x % 32;
    const bool odd = lane % 2;
#pragma unroll
    for (int i = 0; i < WARP_N / 8; ++i) {
        const int local = first_filter + warp_filter() + i * 8 + lane / 4;
        const unsigned filter = group * g.group_filters + local;
#pragma unroll
        for (int j = 0; j < WARP_M / 8; j += 2) {
            const float* near = &sums[i / 2][j][i % 2 * 2];
            const float* far = &sums[i / 2][j + 1][i % 2 * 2];
            Values<4> four;
#pragma unroll
            for (int e = 0; e < 2; ++e) {
                const float received = __shfl_xor_sync(0xffffffff, odd ? near[e] : far[e], 1);
                four.at[e] = odd ? received : near[e];
                four.at[e + 2] = odd ? far[e] : received;
            }
            const unsigned m = first_weight + warp_weight() + (j + odd) * 8 + lane % 4 / 2 * 4;
            if (local < g.group_filters && m < m_end) store_four(to + filter * m_end + m, four);
        }
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
NAME(conv_wgrad_mma)(const Element* __restrict__ x, const Element* __restrict__ dy, Element* __restrict__ dw,
                     float* __restrict__ partial, unsigned pixels_per_split, NORM_PARAMETERS
                     const __grid_constant__ ConvGeometry g) {
    after_kernels_before();
    __shared__ __align__(128) unsigned char stages[STAGES * STAGE];
    // Blocks that read the same weights' input are neighbours and find it in the cache.
    const unsigned across = (g.group_filters + TILE_N - 1) / TILE_N, rest = blockIdx.x / across;
    const int group = rest % g.groups, first_filter = blockIdx.x % across * TILE_N;
    const unsigned first_weight = rest / g.groups * TILE_M;
    const unsigned k_begin = blockIdx.z * pixels_per_split;
    const unsigned k_end = min(k_begin + pixels_per_split, (unsigned)g.batch * pixels(g.output));

    Copies copies(g, x, dy, group, first_weight, first_filter, k_begin, k_end);
#pragma unroll
    for (int s = 0; s < STAGES; ++s) {
        copies.start(stages + s * STAGE);
        cp_async_commit();
    }
#if NORMS
    const NormOnLoad norm(gamma, beta, mean, var, epsilon, lowest, highest);
    const NormedWeights normed(norm, first_weight + warp_weight(), g.channels);
#endif
    Sums sums = {};
    Fragments parts[2];  // one that is being multiplied, and the next
    cp_async_wait<STAGES - 1>();
    __syncthreads();  // the first slab is complete
    parts[0].load(stages, 0);
    int now = 0;  // where the next part's slab lies
    for (unsigned k = k_begin; k < k_end; k += 2 * MMA_K) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int pixel = (i + 1) * MMA_K % SLAB;
            unsigned char* read = stages + now;
            if (pixel == 0) {
                now = now < (STAGES - 1) * STAGE ? now + STAGE : 0;
                cp_async_wait<STAGES - 2>();
                __syncthreads();  // the next slab is complete, this one has been read
            }
            parts[1 - i].load(stages + now, pixel);
            if (pixel == 0) {
                copies.start(read);
                cp_async_commit();
            }
#if NORMS
            parts[i].multiply(normed.of_pixels(k_end - k - i * MMA_K), sums);
#else
            parts[i].multiply([](int, const uint32_t (&loaded)[4]) { return factor_of(loaded); }, sums);
#endif
        }
    }
    cp_async_wait<0>();  // of the zeros beyond the last pixel

    if (partial)
        store(g, sums, group, first_weight, first_filter,
              partial + blockIdx.z * ((unsigned long long)g.filters * pixels(g.kernel) * g.group_channels));
    else
        store(g, sums, group, first_weight, first_filter, dw);
}
