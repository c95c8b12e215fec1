// Convolution with a 3x3 window and stride 1, forward and gradient of the input: Winograd's
// F(2x2, 3x3), fused. 4 multiplications an output where the direct sum takes 9.
//
//   y[n, p, q, k] = bias[k] + sum over r, s, c of x[n, p + r - pad, q + s - pad, c] * w[k, r, s, c]
//
// The outputs are cut into tiles of 2x2; each is reached by a patch of 4x4 inputs. In the transformed
// space (winograd.cuh) the window is gone, and each of the 16 points is a matrix product of its own:
//   M[point][tile][k] = sum over c of V[point][tile][c] * U[point][c][k]
// The gradient of the input is the same convolution, of dy, with the filters turned by 180 degrees,
// their channels and filters exchanged, and padding 2 - pad (which may be negative).
//
// conv_winograd_filters: w -> U, a small pass before. grid: x = slabs of SLAB channels, y = blocks of
//   FILTERS filters, z = groups. One thread transforms one channel of one filter.
// conv_winograd: all the rest. grid: x = blocks of TILES tiles, y = blocks of FILTERS filters, z =
//   groups. A block walks the channels in slabs of SLAB: it transforms the patches of its tiles on
//   their way to shared memory and multiplies there. A warp owns 2 of the 16 points; a thread
//   accumulates CORNER tiles x CORNER filters of both. The next slab is fetched into registers while
//   the present one is being multiplied. At the end the accumulators change hands through shared
//   memory, a few rows in a pass, and a thread turns the 16 points of a tile and filter into 2x2 outputs.
//
// Channels are summed in ascending order, whatever the launch: deterministic. On random data
// the error is smaller than the direct sum's, whose sums are nine times as long: 0.67 of its root mean
// square with 64 channels, 0.60 with 512. But an infinity or NaN in x reaches all four outputs of each
// tile whose patch holds it, also those whose window does not.
//
// x (N, H, W, C), y (N, P, Q, K), or channels first. w (K, 3, 3, C / groups), or for the gradient
// (C, 3, 3, K / groups). U (groups, blocks of filters, slabs, POINTS, SLAB, FILTERS), zero beyond
// the last filter and channel. bias (K,) or null.
//
// Macros: TILES, FILTERS, CORNER: TILES * FILTERS = 32 * CORNER^2; CHANNELS_LAST 0 or 1.
// Shared memory: two slabs, 512 * (TILES + FILTERS) bytes, and the exchange over it; 48 KB for
// 32 x 64 and 64 x 32.
#include "common.cuh"
#include "divisor.cuh"
#include "pack.cuh"
#include "winograd.cuh"

const int SLAB = 4;  // channels
const int THREADS = BLOCK_THREADS;
const int WARPS = THREADS / 32;
const int WARP_POINTS = POINTS / WARPS;
const int MIN_BLOCKS = CORNER == 8 ? 1 : 2;  // on one multiprocessor, as the accumulators allow
const int TILE_LANES = TILES / CORNER, FILTER_LANES = FILTERS / CORNER;
const int PATCHES = TILES * SLAB;  // of a slab; one a thread
const int FILTER_SLAB = POINTS * SLAB * FILTERS;
const int PACKS = FILTER_SLAB / (THREADS * PACK);  // of filters, that one thread fetches

static_assert(TILE_LANES * FILTER_LANES == 32, "a warp must cover the block's tiles and filters");
static_assert(TILE_LANES >= 4 && FILTER_LANES >= 4, "lanes zigzag in squares of 4 x 4");
static_assert(CORNER % PACK == 0, "operands are read 16 bytes at a time");
static_assert(PATCHES <= THREADS, "a thread transforms at most one patch of a slab");

// The letters are those of the forward pass; the host's twin is `_record` in
// gpucnn/backends/cuda/algorithms/winograd.py.
struct WinogradGeometry {
    int channels, filters, group_channels, group_filters;
    int input[2], output[2], pad[2];
    int tiles;             // of the batch
    Divisor by_tiles[2];   // tiles of an image, down and across
};

struct Slab {
    float inputs[POINTS][SLAB][TILES];  // columns swizzled, see swizzle()
    float filters[POINTS][SLAB][FILTERS];
};

// Accumulators on their way to other threads. Outputs are stored with neighbouring threads along the
// "fast" axis, that of memory: filters with channels last, tiles with channels first. A pass moves
// PASS_ROWS rows of the slow axis.
const int FAST = CHANNELS_LAST ? FILTERS : TILES;
const int FAST_LANES = CHANNELS_LAST ? FILTER_LANES : TILE_LANES;
const int SLOW_LANES = CHANNELS_LAST ? TILE_LANES : FILTER_LANES;
const int REGISTERS = 2;  // of a thread's slow axis, in a pass
const int PASS_ROWS = REGISTERS * SLOW_LANES;
// Eight lanes write 16 bytes each at once: 4 x 2 of them with channels last (slow x fast), else 2 x 4.
const int EXCHANGE_ROW = CHANNELS_LAST ? FAST + 8 : FAST + (FAST + 16) % 32;

union Shared {
    Slab slabs[2];
    float exchange[POINTS][PASS_ROWS][EXCHANGE_ROW];
};

// Where a warp's lane stands among the tile lanes and filter lanes. They zigzag: any 16 lanes in a row
// ask for 4 packs of tiles and 4 of filters, 64 bytes of each and not 128 of one of them.
__device__ __forceinline__ int tile_lane() {
    const int lane = threadIdx.x % 32;
    return (lane & 1) | (lane >> 1 & 2) | (TILE_LANES == 8 ? lane >> 2 & 4 : 0);
}
__device__ __forceinline__ int filter_lane() {
    const int lane = threadIdx.x % 32;
    return (lane >> 1 & 1) | (lane >> 2 & 2) | (FILTER_LANES == 8 ? lane >> 2 & 4 : 0);
}

// The tile or filter, within the block, of register i of a lane: CORNER of them, in packs of 4.
__device__ __forceinline__ int of_register(int i, int lane, int lanes) {
    return i / PACK * lanes * PACK + lane * PACK + i % PACK;
}

// What a channel's columns are displaced by (exclusive or), so that 4 channels of 8 tiles, which a
// warp writes at once with channels last, fall on 32 banks. Keeps packs whole.
__device__ __forceinline__ int swizzle(int channel) { return 8 * (channel * (TILES < 32 ? TILES : 32) / 32); }

// Splits a tile into its place, in tiles, and returns its image.
__device__ __forceinline__ int place_of(const WinogradGeometry& g, int tile, int& row, int& column) {
    return divide(divide(tile, g.by_tiles[1], column), g.by_tiles[0], row);
}

// One thread's share in the input: a channel of the patch of one tile.
struct Patch {
    const float* source;  // its first element, which may lie outside
    unsigned inside;      // bit 4 i + j: whether element (i, j) exists
    int channel;          // within the group
    long long row_step, column_step;
    float values[PATCH][PATCH];

    // Within the slab and the block; neighbouring threads take neighbours in memory.
    __device__ __forceinline__ static int channel_of() {
        return CHANNELS_LAST ? threadIdx.x % SLAB : threadIdx.x / TILES;
    }
    __device__ __forceinline__ static int tile_of() {
        return CHANNELS_LAST ? threadIdx.x / SLAB : threadIdx.x % TILES;
    }

    __device__ __forceinline__ Patch(const WinogradGeometry& g, const float* x) : inside(0), channel(channel_of()) {
        const int tile = blockIdx.x * TILES + tile_of();
        int row, column;
        const int n = place_of(g, tile < g.tiles ? tile : 0, row, column);
        row = 2 * row - g.pad[0], column = 2 * column - g.pad[1];
#pragma unroll
        for (int i = 0; i < PATCH; ++i)
#pragma unroll
            for (int j = 0; j < PATCH; ++j)
                if ((unsigned)(row + i) < (unsigned)g.input[0] && (unsigned)(column + j) < (unsigned)g.input[1])
                    inside |= 1u << (PATCH * i + j);
        if (tile >= g.tiles) inside = 0;

        const int pixels = g.input[0] * g.input[1], c = blockIdx.z * g.group_channels + channel;
        column_step = CHANNELS_LAST ? g.channels : 1;
        row_step = g.input[1] * column_step;
        source = x + (long long)n * g.channels * pixels + (long long)row * row_step + (long long)column * column_step +
                 (CHANNELS_LAST ? c : (long long)c * pixels);
    }
    // Fetches the present slab's channel and goes on to the next one's.
    __device__ __forceinline__ void fetch(const WinogradGeometry& g) {
        const unsigned exists = channel < g.group_channels ? inside : 0;
        const float* row = source;
#pragma unroll
        for (int i = 0; i < PATCH; ++i, row += row_step) {
            const float* at = row;
#pragma unroll
            for (int j = 0; j < PATCH; ++j, at += column_step)
                values[i][j] = exists >> (PATCH * i + j) & 1 ? *at : 0;
        }
        channel += SLAB;
        source += CHANNELS_LAST ? SLAB : SLAB * (long long)g.input[0] * g.input[1];
    }
    __device__ __forceinline__ void put(Slab& slab) {
        transform_input(values);
        const int column = tile_of() ^ swizzle(channel_of());
#pragma unroll
        for (int i = 0; i < PATCH; ++i)
#pragma unroll
            for (int j = 0; j < PATCH; ++j) slab.inputs[PATCH * i + j][channel_of()][column] = values[i][j];
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
        for (int i = 0; i < PACKS; ++i) ((Pack<float>*)slab.filters)[threadIdx.x + i * THREADS] = values[i];
    }
};

typedef float Accumulators[WARP_POINTS][CORNER][CORNER];  // [point][tile][filter]

__device__ __forceinline__ void multiply(const Slab& slab, Accumulators& acc) {
    const int tile = tile_lane() * PACK, filter = filter_lane() * PACK, point0 = threadIdx.x / 32 * WARP_POINTS;
    const int lane_bits = TILE_LANES * PACK - 1;  // of a column; the others are known to the compiler
#pragma unroll
    for (int c = 0; c < SLAB; ++c)
#pragma unroll
        for (int s = 0; s < WARP_POINTS; ++s) {
            Pack<float> tiles[CORNER / PACK], filters[CORNER / PACK];
            const float *inputs = slab.inputs[point0 + s][c] + (tile ^ (swizzle(c) & lane_bits)),
                        *weights = slab.filters[point0 + s][c] + filter;
#pragma unroll
            for (int h = 0; h < CORNER / PACK; ++h) {
                tiles[h] = *(const Pack<float>*)(inputs + ((h * TILE_LANES * PACK) ^ (swizzle(c) & ~lane_bits)));
                filters[h] = *(const Pack<float>*)(weights + h * FILTER_LANES * PACK);
            }
#pragma unroll
            for (int i = 0; i < CORNER; ++i)
#pragma unroll
                for (int j = 0; j < CORNER; ++j)
                    acc[s][i][j] += tiles[i / PACK].at[i % PACK] * filters[j / PACK].at[j % PACK];
        }
}

// Writes registers [first, first + REGISTERS) of this thread's slow axis.
__device__ __forceinline__ void hand_over(float (&exchange)[POINTS][PASS_ROWS][EXCHANGE_ROW], int first,
                                          const Accumulators& acc) {
    const int slow_lane = CHANNELS_LAST ? tile_lane() : filter_lane();
    const int fast_lane = CHANNELS_LAST ? filter_lane() : tile_lane();
#pragma unroll
    for (int s = 0; s < WARP_POINTS; ++s)
#pragma unroll
        for (int i = 0; i < REGISTERS; ++i)
#pragma unroll
            for (int h = 0; h < CORNER / PACK; ++h) {
                Pack<float> pack;
#pragma unroll
                for (int j = 0; j < PACK; ++j)
                    pack.at[j] = CHANNELS_LAST ? acc[s][first + i][h * PACK + j] : acc[s][h * PACK + j][first + i];
                const int point = threadIdx.x / 32 * WARP_POINTS + s, row = i * SLOW_LANES + slow_lane;
                *(Pack<float>*)&exchange[point][row][of_register(h * PACK, fast_lane, FAST_LANES)] = pack;
            }
}

// The 2x2 outputs of a tile and a filter, both counted within the block.
__device__ __forceinline__ void store_tile(const WinogradGeometry& g, const float (&m)[PATCH][PATCH], int tile,
                                           int filter, const float* bias, float* y, int relu) {
    tile += blockIdx.x * TILES, filter += blockIdx.y * FILTERS;
    if (tile >= g.tiles || filter >= g.group_filters) return;
    const int k = blockIdx.z * g.group_filters + filter;
    float outputs[2][2];
    transform_output(m, outputs);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        float& v = outputs[i / 2][i % 2];
        if (bias) v += bias[k];
        if (relu) v = v <= 0 ? 0 : v;
    }
    int row, column;
    const int n = place_of(g, tile, row, column), pixels = g.output[0] * g.output[1];
    row *= 2, column *= 2;
    y += (long long)n * g.filters * pixels + (CHANNELS_LAST ? k : (long long)k * pixels);
    const int step = CHANNELS_LAST ? g.filters : 1;
    const bool two_columns = column + 1 < g.output[1];
    const bool in_pairs = !CHANNELS_LAST && g.output[1] % 2 == 0;  // then a row's pairs lie at multiples of 8 bytes
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        if (row + i >= g.output[0]) break;
        float* at = y + (row + i) * (g.output[1] * step) + column * step;
        if (in_pairs) {
            *(float2*)at = make_float2(outputs[i][0], outputs[i][1]);
            continue;
        }
        at[0] = outputs[i][0];
        if (two_columns) at[step] = outputs[i][1];
    }
}

extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)
NAME(conv_winograd)(const float* __restrict__ x, const float* __restrict__ u, const float* __restrict__ bias,
                    float* __restrict__ y, int slabs, int relu, const __grid_constant__ WinogradGeometry g) {
    __shared__ __align__(16) Shared shared;
    const bool has_patch = threadIdx.x < PATCHES;
    Patch patch(g, x);
    FilterPacks filters(u, slabs);
    Accumulators acc = {};

    if (has_patch) patch.fetch(g), patch.put(shared.slabs[0]);
    filters.fetch(), filters.put(shared.slabs[0]);
    __syncthreads();  // the first slab is complete
    for (int slab = 0; slab < slabs; ++slab) {
        const bool more = slab + 1 < slabs;
        if (more && has_patch) patch.fetch(g);
        if (more) filters.fetch();
        multiply(shared.slabs[slab % 2], acc);
        if (more && has_patch) patch.put(shared.slabs[(slab + 1) % 2]);
        if (more) filters.put(shared.slabs[(slab + 1) % 2]);
        __syncthreads();  // the next slab is complete, the present one read
    }

#pragma unroll
    for (int first = 0; first < CORNER; first += REGISTERS) {
        hand_over(shared.exchange, first, acc);
        __syncthreads();  // the rows of this pass are complete
        for (int e = threadIdx.x; e < PASS_ROWS * FAST; e += THREADS) {
            const int slow = e / FAST, fast = e % FAST;
            float m[PATCH][PATCH];
#pragma unroll
            for (int point = 0; point < POINTS; ++point)
                m[point / PATCH][point % PATCH] = shared.exchange[point][slow][fast];
            const int row = of_register(first + slow / SLOW_LANES, slow % SLOW_LANES, SLOW_LANES);
            store_tile(g, m, CHANNELS_LAST ? row : fast, CHANNELS_LAST ? fast : row, bias, y, relu);
        }
        __syncthreads();  // everyone has read them
    }
}

// turn: the gradient of the input, whose filters are (C, 3, 3, K / groups), read from the last tap on.
extern "C" __global__ void __launch_bounds__(SLAB * FILTERS)
NAME(conv_winograd_filters)(const float* __restrict__ w, float* __restrict__ u, int turn,
                            const __grid_constant__ WinogradGeometry g) {
    const int local_c = threadIdx.x % SLAB, local_k = threadIdx.x / SLAB;
    const int c = blockIdx.x * SLAB + local_c, k = blockIdx.y * FILTERS + local_k;
    float taps[3][3] = {}, transformed[PATCH][PATCH];
    if (c < g.group_channels && k < g.group_filters) {
        const long long outer = turn ? blockIdx.z * g.group_channels + c : blockIdx.z * g.group_filters + k;
        const int depth = turn ? g.group_filters : g.group_channels, inner = turn ? k : c;
        w += outer * 9 * depth + inner;
#pragma unroll
        for (int tap = 0; tap < 9; ++tap) taps[tap / 3][tap % 3] = w[(turn ? 8 - tap : tap) * depth];
    }
    transform_filter(taps, transformed);
    u += (((long long)blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x) * FILTER_SLAB;
#pragma unroll
    for (int point = 0; point < POINTS; ++point)
        u[(point * SLAB + local_c) * FILTERS + local_k] = transformed[point / PATCH][point % PATCH];
}
