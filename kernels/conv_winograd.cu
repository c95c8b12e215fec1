// Convolution with a 3x3 window and stride 1, forward and gradient of the input: Winograd's
// F(2x2, 3x3), fused. 4 multiplications an output where the direct sum takes 9.
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p + r - pad, q + s - pad, c] * w[k, r, s, c] + residual)
//
// f and the residual: see epilogue.cuh.
//
// The outputs are cut into tiles of 2x2; each is reached by a patch of 4x4 inputs. In the transformed
// space (winograd.cuh) the window is gone, and each of the 16 points is a matrix product of its own:
//   M[point][tile][k] = sum over c of V[point][tile][c] * U[point][c][k]
// The gradient of the input is the same convolution, of dy, with the filters turned by 180 degrees,
// their channels and filters exchanged, and padding 2 - pad (which may be negative).
//
// conv_winograd_filters: w -> U, a small pass before. grid: x = slabs of SLAB channels, y = blocks of
//   COLS filters, z = groups. One thread transforms one channel of one filter.
// conv_winograd: all the rest. grid: x = blocks of ROWS tiles, y = blocks of COLS filters, z = groups. A
//   block walks the channels in slabs of SLAB: it transforms the patches of its tiles on their way to
//   shared memory and multiplies there, see winograd_gemm.cuh. The next slab is fetched into registers
//   while the present one is being multiplied. At the end a thread turns the 16 points of a tile and
//   filter into 2x2 outputs.
//
// Channels are summed in ascending order, whatever the launch: deterministic. On random data
// the error is smaller than the direct sum's, whose sums are nine times as long: 0.67 of its root mean
// square with 64 channels, 0.60 with 512. But an infinity or NaN in x reaches all four outputs of each
// tile whose patch holds it, also those whose window does not.
//
// x (N, H, W, C), y (N, P, Q, K), or channels first. w (K, 3, 3, C / groups), or for the gradient
// (C, 3, 3, K / groups). U (groups, blocks of filters, slabs, POINTS, SLAB, COLS), zero beyond
// the last filter and channel. bias (K,), residual, as y: or null.
//
// Macros: ROWS, COLS, CORNER, see winograd_gemm.cuh; CHANNELS_LAST 0 or 1. Shared memory: see there.
#include "epilogue.cuh"
#include "winograd_gemm.cuh"
#include "winograd_tiles.cuh"

const int PATCHES = ROWS * SLAB;  // of a slab; one a thread
const int FILTER_SLAB = POINTS * SLAB * COLS;
const int PACKS = FILTER_SLAB / (THREADS * PACK);  // of filters, that one thread fetches

static_assert(PATCHES <= THREADS, "a thread transforms at most one patch of a slab");

union Shared {
    Slab slabs[2];
    Exchange<CHANNELS_LAST> exchange;
};

// One thread's share in the input: a channel of the patch of one tile.
struct InputPatch {
    Patch patch;
    int channel;  // within the group
    float values[PATCH][PATCH];

    // Within the slab and the block; neighbouring threads take neighbours in memory.
    __device__ __forceinline__ static int channel_of() {
        return CHANNELS_LAST ? threadIdx.x % SLAB : threadIdx.x / ROWS;
    }
    __device__ __forceinline__ static int tile_of() {
        return CHANNELS_LAST ? threadIdx.x / SLAB : threadIdx.x % ROWS;
    }

    __device__ __forceinline__ InputPatch(const WinogradGeometry& g, const float* x)
        : patch(g, x, blockIdx.x * ROWS + tile_of(), blockIdx.z * g.group_channels + channel_of()),
          channel(channel_of()) {}
    // Fetches the present slab's channel and goes on to the next one's.
    __device__ __forceinline__ void fetch(const WinogradGeometry& g) {
        if (channel >= g.group_channels) patch.inside = 0;
        patch.fetch(g, values);
        channel += SLAB;
        patch.source += SLAB * Patch::depth_step(g);
    }
    __device__ __forceinline__ void put(Slab& slab) {
        float points[PATCH][PATCH];
        transform<InputLine>(values, points);
        const int row = tile_of() ^ swizzle<ROWS>(channel_of());
#pragma unroll
        for (int i = 0; i < PATCH; ++i)
#pragma unroll
            for (int j = 0; j < PATCH; ++j) slab.rows[PATCH * i + j][channel_of()][row] = points[i][j];
    }
};

// One thread's share in the transformed filters, whose slabs lie in memory as they do in shared memory.
struct FilterPacks {
    const Pack<float>* source;
    Pack<float> values[PACKS];

    __device__ __forceinline__ FilterPacks(const float* u, int slabs) {
        const long long first = ((long long)blockIdx.z * gridDim.y + blockIdx.y) * slabs;
        source = (const Pack<float>*)(u + first * FILTER_SLAB) + threadIdx.x;
    }
    __device__ __forceinline__ void fetch() {
#pragma unroll
        for (int i = 0; i < PACKS; ++i) values[i] = source[i * THREADS];
        source += FILTER_SLAB / PACK;
    }
    __device__ __forceinline__ void put(Slab& slab) const {
#pragma unroll
        for (int i = 0; i < PACKS; ++i) ((Pack<float>*)slab.columns)[threadIdx.x + i * THREADS] = values[i];
    }
};

// The 2x2 outputs of a tile and a filter, both counted within the block.
__device__ __forceinline__ void store_tile(const WinogradGeometry& g, const float (&m)[PATCH][PATCH], int tile,
                                           int filter, const Epilogue& epilogue, float* y) {
    tile += blockIdx.x * ROWS, filter += blockIdx.y * COLS;
    if (tile >= g.tiles || filter >= g.group_filters) return;
    const int k = blockIdx.z * g.group_filters + filter;
    float outputs[2][2];
    transform<OutputLine>(m, outputs);
    int row, column;
    const int n = place_of(g, tile, row, column), step = CHANNELS_LAST ? g.filters : 1;
    row *= 2, column *= 2;
    float* first = address(y, n, row, column, g.output, g.filters, k);
    const long long next_row = (long long)g.output[1] * step;
    const bool two_columns = column + 1 < g.output[1];
    const bool in_pairs = !CHANNELS_LAST && g.output[1] % 2 == 0;  // then a row's pairs lie at multiples of 8 bytes
    if (epilogue.bias) {
        const float added = epilogue.bias[k];
#pragma unroll
        for (int i = 0; i < 4; ++i) outputs[i / 2][i % 2] += added;
    }
    if (epilogue.residual) {
        epilogue.joining([&](const auto& join) {
            const float* other = epilogue.residual + (first - y);
#pragma unroll
            for (int i = 0; i < 2; ++i, other += next_row) {
                if (row + i >= g.output[0]) break;
                outputs[i][0] = join(outputs[i][0], other[0]);
                if (two_columns) outputs[i][1] = join(outputs[i][1], other[step]);
            }
        });
    }
    epilogue.activate((float(&)[4])outputs);
#pragma unroll
    for (int i = 0; i < 2; ++i, first += next_row) {
        if (row + i >= g.output[0]) break;
        if (in_pairs) {
            *(float2*)first = make_float2(outputs[i][0], outputs[i][1]);
            continue;
        }
        first[0] = outputs[i][0];
        if (two_columns) first[step] = outputs[i][1];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_winograd)(const float* __restrict__ x, const float* __restrict__ u, const float* __restrict__ bias,
                    const float* __restrict__ residual, int activation, float alpha, float* __restrict__ y, int slabs,
                    const __grid_constant__ WinogradGeometry g) {
    after_kernels_before();
    __shared__ __align__(16) Shared shared;
    const bool has_patch = threadIdx.x < PATCHES;
    InputPatch patch(g, x);
    FilterPacks filters(u, slabs);
    Multiplier<false> multiplier(shared.slabs);
    Accumulators acc = {};

    if (has_patch) patch.fetch(g), patch.put(shared.slabs[0]);
    filters.fetch(), filters.put(shared.slabs[0]);
    __syncthreads();  // the first slab is complete
    for (int slab = 0; slab < slabs; ++slab) {
        const bool more = slab + 1 < slabs;
        if (more) filters.fetch();
        if (more && has_patch) patch.fetch(g);
        __syncwarp();  // the compiler would multiply first, and then wait for the loads
        multiplier.multiply<0, SLAB - 1>(acc);
        // before the last channel, that the warps which are not at it have something to multiply
        if (more && has_patch) patch.put(shared.slabs[(slab + 1) % 2]);
        if (more) filters.put(shared.slabs[(slab + 1) % 2]);
        multiplier.multiply<SLAB - 1, SLAB>(acc);
        multiplier.next_slab();
        __syncthreads();  // the next slab is complete, the present one read
    }

    const Epilogue epilogue = {bias, residual, activation, alpha};
    shared.exchange.run(acc, [&](const float (&points)[PATCH][PATCH], int tile, int filter) {
        store_tile(g, points, tile, filter, epilogue, y);
    });
}

// turn: the gradient of the input, whose filters are (C, 3, 3, K / groups), read from the last tap on.
extern "C" __global__ void __launch_bounds__(SLAB * COLS)
NAME(conv_winograd_filters)(const float* __restrict__ w, float* __restrict__ u, int turn,
                            const __grid_constant__ WinogradGeometry g) {
    after_kernels_before();
    const int local_c = threadIdx.x % SLAB, local_k = threadIdx.x / SLAB;
    const int c = blockIdx.x * SLAB + local_c, k = blockIdx.y * COLS + local_k;
    float taps[3][3] = {}, transformed[PATCH][PATCH];
    if (c < g.group_channels && k < g.group_filters) {
        const long long outer = turn ? blockIdx.z * g.group_channels + c : blockIdx.z * g.group_filters + k;
        const int depth = turn ? g.group_filters : g.group_channels, inner = turn ? k : c;
        w += outer * 9 * depth + inner;
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) taps[tap / 3][tap % 3] = w[(turn ? 8 - tap : tap) * depth];
    }
    transform<FilterLine>(taps, transformed);
    u += (((long long)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * FILTER_SLAB;
#pragma unroll
    for (int point = 0; point < POINTS; ++point)
        u[(point * SLAB + local_c) * COLS + local_k] = transformed[point / PATCH][point % PATCH];
}
