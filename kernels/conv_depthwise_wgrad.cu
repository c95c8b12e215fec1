// Depthwise convolution, gradient of the windows: the output pixels are split among blocks, whose sums
// split_sum.cu then adds, all in a fixed order: deterministic.
//
//   dw[k, r, s] = sum over n, p, q of x[n, p*stride - pad + r*dilation, ..., k / M] * dy[n, p, q, k],  M = K / C
//
// x, dy: see conv_geometry.cuh; partial (splits, K, T, R, S) in Accum.
// grid: x = blocks of channels, y = blocks of tap groups, z = splits. A thread sums a group of taps,
// WINDOW_ROWS x ROW_TAPS of them, for CHANNELS channels, over every slots-th tile of its split, a tile being
// ROWS x COLUMNS pixels. The threads that differ in nothing but the slot then add theirs up in ascending
// order through shared memory, a row of taps at a time: ROW_TAPS * MAX_THREADS * CHANNELS * sizeof(Accum)
// bytes, 28 KB at most. The floor is one read of x and of dy: what other tap groups read again comes out of
// the caches.
//
// Macros: see depthwise.cuh; ROWS and WINDOW_ROWS, 1 unless the window's rows have dilation 1 and
// STRIDE is theirs, too.
#include "depthwise.cuh"

const int COLUMNS = CHANNELS_LAST ? 4 / STRIDE : 1;
const int INPUT_ROWS = (ROWS - 1) * STRIDE + WINDOW_ROWS;
const int INPUTS = TAPS ? (COLUMNS - 1) * STRIDE + TAPS : COLUMNS;
const int COLUMN_STRIDE = TAPS ? STRIDE : 1;  // of the inputs that were loaded

// The host's twin is `_SPLITTING` in gpucnn/backends/cuda/algorithms/depthwise.py.
struct Splitting {
    int tiles, tiles_per_split;             // of the batch, and of a split
    int groups;                             // tap groups of a block
    Divisor by_lanes, by_slots;             // threads of a block along the channels, and those that share its tiles
    Divisor by_row_tiles, by_column_tiles;  // tiles down a map and across it
    Divisor by_down, by_across;             // tap groups down a window and across it
    Divisor by_sums;                        // threads of a block that differ in more than the slot
};

// The first tap of a group; behind the last group it lies outside the window.
__device__ __forceinline__ void first_tap(const Splitting& splitting, unsigned group, Place& tap) {
    tap.axis[0] = divide(divide(group, splitting.by_across, tap.axis[2]), splitting.by_down, tap.axis[1]);
    tap.axis[1] *= WINDOW_ROWS;
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1)
NAME(conv_depthwise_wgrad)(const Element* __restrict__ x, const Element* __restrict__ dy, Accum* __restrict__ partial,
                           const __grid_constant__ ConvGeometry g, const __grid_constant__ Splitting splitting) {
    after_kernels_before();
    int lane, slot;
    const int group = divide(divide(threadIdx.x, splitting.by_lanes, lane), splitting.by_slots, slot);
    const int slots = splitting.by_slots.value, width = splitting.by_lanes.value * CHANNELS;
    const int channel = blockIdx.x * width + lane * CHANNELS;
    const int input_channel = VECTOR ? channel : divide(channel, g.by_group_filters);

    Place tap, at;
    first_tap(splitting, blockIdx.y * splitting.groups + group, tap);
    const bool works = group < splitting.groups && channel < g.filters && tap.axis[0] < g.kernel[0];
    const int begin = blockIdx.z * splitting.tiles_per_split;
    const int end = works ? min(begin + splitting.tiles_per_split, splitting.tiles) : begin;

    Accum sums[WINDOW_ROWS][ROW_TAPS][CHANNELS] = {};
    for (int tile = begin + slot; tile < end; tile += slots) {
        Place first;
        const unsigned map = divide(divide(tile, splitting.by_column_tiles, first.axis[2]), splitting.by_row_tiles,
                                    first.axis[1]);
        const unsigned n = divide(map, g.by_output[0], first.axis[0]);
        if (!input_of(g, 0, first.axis[0], tap.axis[0], at.axis[0])) continue;
        first.axis[1] *= ROWS;
        first.axis[2] *= COLUMNS;

        Accum gradients[ROWS][COLUMNS][CHANNELS];
        const Element* dy_row = dy + offset_of(n, first, channel, g.output, g.filters);
#pragma unroll
        for (int j = 0; j < ROWS; ++j, dy_row += row_step(g.output, g.filters))
#pragma unroll
            for (int i = 0; i < COLUMNS; ++i)
                load(dy_row + (long long)i * pixel_step(g.filters),
                     inside({{first.axis[0], first.axis[1] + j, first.axis[2] + i}}, g.output), gradients[j][i]);

        at.axis[1] = first.axis[1] * g.stride[1] - g.pad[1] + tap.axis[1] * g.dilation[1];
        at.axis[2] = TAPS ? first.axis[2] * STRIDE - g.pad[2] : 0;
        const Element* x_row = x + offset_of(n, at, input_channel, g.input, g.channels);
#pragma unroll
        for (int row = 0; row < INPUT_ROWS; ++row, x_row += row_step(g.input, g.channels)) {
            Accum inputs[INPUTS][CHANNELS];
#pragma unroll
            for (int i = 0; i < INPUTS; ++i) {
                int column = i;
                const bool in_row = TAPS ? (unsigned)(at.axis[2] + i) < (unsigned)g.input[2]
                                         : input_of(g, 2, first.axis[2] + i, tap.axis[2], column);
                load(x_row + (long long)column * pixel_step(g.channels),
                     in_row && (unsigned)(at.axis[1] + row) < (unsigned)g.input[1], inputs[i]);
            }
#pragma unroll
            for (int j = 0; j < ROWS; ++j) {
                const int r = row - j * STRIDE;
                if (r < 0 || r >= WINDOW_ROWS) continue;
#pragma unroll
                for (int k = 0; k < COLUMNS * ROW_TAPS * CHANNELS; ++k) {
                    const int c = k % CHANNELS, s = k / CHANNELS % ROW_TAPS, i = k / CHANNELS / ROW_TAPS;
                    sums[r][s][c] += inputs[i * COLUMN_STRIDE + s][c] * gradients[j][i][c];
                }
            }
        }
    }

    __shared__ Accum shared[ROW_TAPS][MAX_THREADS * CHANNELS];  // [tap of a row][group][slot][channel of the block]
    const int taps = pixels(g.kernel), all = splitting.by_sums.value * CHANNELS;
#pragma unroll
    for (int r = 0; r < WINDOW_ROWS; ++r) {
        __syncthreads();  // the row before has been added up
#pragma unroll
        for (int i = 0; i < ROW_TAPS * CHANNELS; ++i)
            shared[i / CHANNELS][threadIdx.x * CHANNELS + i % CHANNELS] = sums[r][i / CHANNELS][i % CHANNELS];
        __syncthreads();  // every slot is there
        for (int i = threadIdx.x; i < ROW_TAPS * all; i += blockDim.x) {
            int rest, of_lane;
            const int s = divide(i / CHANNELS, splitting.by_sums, rest);
            const int local = divide(rest, splitting.by_lanes, of_lane);
            const int at = of_lane * CHANNELS + i % CHANNELS, k = blockIdx.x * width + at;
            first_tap(splitting, blockIdx.y * splitting.groups + local, tap);
            tap.axis[1] += r;
            tap.axis[2] += s;
            if (k >= g.filters || !inside(tap, g.kernel)) continue;
            Accum sum = 0;
            for (int z = 0; z < slots; ++z) sum += shared[s][(local * slots + z) * width + at];
            partial[((long long)blockIdx.z * g.filters + k) * taps + pixel(tap, g.kernel)] = sum;
        }
    }
}
