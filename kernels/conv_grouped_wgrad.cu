// Grouped convolution with few channels a group, gradient of the filters: the output pixels are split
// among blocks, whose sums split_sum.cu then adds, all in a fixed order: deterministic.
//
//   dw[k, r, s, c] = sum over n, p, q of x[n, p*stride - pad + r*dilation, ..., c] * dy[n, p, q, k]
//
// x, dy: see grouped.cuh; partial (splits, K, R, S, C / groups) in Accum.
// grid: x = blocks of slices, y = blocks of units, z = splits. A unit is CHANNELS channels under a column of
// the window (under one tap, where TAPS is 0). A thread sums one unit for one slice, ROW_TAPS * CHANNELS *
// FILTERS numbers, over every slots-th tile of its split: SOURCES + ROWS loads, 16 bytes each in float32,
// feed TAPS * ROWS * CHANNELS * FILTERS multiply-adds, 16 feed 336 with 3x3 and stride 1; what other units
// read again comes out of the caches. The threads that differ in nothing but the slot then add what they
// have by a tree. Shared memory: THREADS * FILTERS Accums, 2 KB.
//
// `whole` says that slices are whole and, channels last, that dy is aligned: four of its numbers are one load.
// Macros: see grouped.cuh.
#include "grouped.cuh"

const int THREADS = 128;  // of a block at most: three blocks leave each thread 168 registers

extern "C" __global__ void __launch_bounds__(THREADS, 3)
NAME(conv_grouped_wgrad)(const Element* __restrict__ x, const Element* __restrict__ dy, Accum* __restrict__ partial,
                         int tiles_per_split, int whole, const __grid_constant__ GroupedGeometry g) {
    after_kernels_before();
    __shared__ __align__(16) Accum tree[THREADS][FILTERS];
    // Neighbouring threads read neighbouring memory: channels, or columns.
    const int lanes = g.by_lanes.value, units = g.by_units.value, slots = g.by_slots.value;
    int lane, unit, slot;
    if (CHANNELS_LAST)
        slot = divide(divide(threadIdx.x, g.by_lanes, lane), g.by_units, unit);
    else
        lane = divide(divide(threadIdx.x, g.by_slots, slot), g.by_units, unit);
    const Slice slice = slice_at(g, blockIdx.x * lanes + lane);

    // Unit: channels, then rows of the window where they are units of their own, then its columns.
    const int rows = TAPS ? 1 : g.kernel[0];
    unit += blockIdx.y * units;
    const int s = unit % g.kernel[1], r = unit / g.kernel[1] % rows, first = unit / (g.kernel[1] * rows) * CHANNELS;
    const bool works = lane < lanes && slot < slots && slice.exists && first < g.group_channels;
    const int begin = blockIdx.z * tiles_per_split, end = works ? min(begin + tiles_per_split, g.tiles) : begin;

    const int channel = slice.group * g.group_channels + first, filter = slice.group * g.group_filters + slice.filter;
    const int filters = min(FILTERS, g.group_filters - slice.filter);
    const unsigned down = row_step(g.input, g.channels), output_down = row_step(g.output, g.filters);
    const unsigned deep = channel_step(g.input), output_deep = channel_step(g.output);
    const int step = TAPS ? 1 : g.stride[0];

    Accum sums[ROW_TAPS][CHANNELS][FILTERS] = {};
    for (int i = begin + slot; i < end; i += slots) {
        const Tile tile = tile_at(g, i);
        const int column = tile.column * g.stride[1] - g.pad[1] + s * g.dilation[1];
        if ((unsigned)column >= (unsigned)g.input[1]) continue;
        const int row = tile.row * g.stride[0] - g.pad[0] + (TAPS ? 0 : r * g.dilation[0]);

        Accum gradients[ROWS][FILTERS];
        const Element* gradient = dy + image_offset(g.output, g.filters, tile.n) +
                                  offset_of(g.output, g.filters, filter, tile.row, tile.column);
        if (whole) {
#pragma unroll
            for (int j = 0; j < ROWS; ++j, gradient += output_down)
                load(gradient, output_deep, tile.row + j < g.output[0], gradients[j]);
        } else {
#pragma unroll
            for (int j = 0; j < ROWS; ++j, gradient += output_down)
#pragma unroll
                for (int k = 0; k < FILTERS; ++k)
                    gradients[j][k] =
                        tile.row + j < g.output[0] && k < filters ? widen(gradient[k * output_deep]) : (Accum)0;
        }
        const Element* source = x + image_offset(g.input, g.channels, tile.n) +
                                (int)offset_of(g.input, g.channels, channel, row, column);
#pragma unroll
        for (int i = 0; i < SOURCES; ++i, source += step * down) {
            Accum held[CHANNELS];
            load(source, deep, (unsigned)(row + i * step) < (unsigned)g.input[0], held);
#pragma unroll
            for (int tap = 0; tap < ROW_TAPS; ++tap) {
                const int j = TAPS ? (i - tap) / STRIDE : i;
                if (TAPS && (i < tap || (i - tap) % STRIDE || j >= ROWS)) continue;
#pragma unroll
                for (int c = 0; c < CHANNELS; ++c)
#pragma unroll
                    for (int k = 0; k < FILTERS; ++k) sums[tap][c][k] += held[c] * gradients[j][k];
            }
        }
    }

    partial += (long long)blockIdx.z * g.filters * g.by_taps.value * g.group_channels;
    const int next = CHANNELS_LAST ? lanes * units : 1;  // from a slot to the next
    int top = 1;
    while (top < slots) top *= 2;
#pragma unroll
    for (int tap = 0; tap < ROW_TAPS; ++tap)
#pragma unroll
        for (int c = 0; c < CHANNELS; ++c) {
            __syncthreads();  // the channel before has been added up
#pragma unroll
            for (int k = 0; k < FILTERS; ++k) tree[threadIdx.x][k] = sums[tap][c][k];
            for (int half = top / 2; half > 0; half /= 2) {
                __syncthreads();  // the level below is complete
                if (lane < lanes && slot < half && slot + half < slots)
#pragma unroll
                    for (int k = 0; k < FILTERS; ++k) tree[threadIdx.x][k] += tree[threadIdx.x + half * next][k];
            }
            if (slot != 0 || !works) continue;
            // this thread itself made the last addition
            const int at_tap = (TAPS ? tap : r) * g.kernel[1] + s;
#pragma unroll
            for (int k = 0; k < FILTERS; ++k)
                if (k < filters)
                    partial[((long long)(filter + k) * g.by_taps.value + at_tap) * g.group_channels + first + c] =
                        tree[threadIdx.x][k];
        }
}
