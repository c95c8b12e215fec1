// Grouped convolution with few channels a group, forward, with bias and ReLU; also the gradient of the
// input, which at stride 1 is the same with dy as x, the filters turned and their axes swapped (`turned`).
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p*stride - pad + r*dilation, ..., c] * w[k, r, s, c])
//
// c counting the channels of k's group; f is the identity or, with `relu`, max(v, 0), a NaN staying one.
//
// x, w, y: see grouped.cuh, w being (C, R, S, K / groups) where it is turned; bias (K,) or null.
// grid: x = blocks of tiles, y = blocks of slices. A thread computes a tile of a slice, ROWS * FILTERS sums.
// Its block copies the weights of its slices to shared memory, CHANNELS channels at a time: WEIGHTS Accums,
// 16 KB. Under a column of a window of TAPS rows a thread's loads, SOURCES of x out of the L1 cache and
// TAPS * CHANNELS of weights, 16 bytes each in float32, feed TAPS * ROWS * CHANNELS * FILTERS multiply-adds:
// 21 feed 336 with 3x3 and stride 1. The floor is one read of x and one write of y.
//
// Macros: see grouped.cuh.
#include "grouped.cuh"

// As in gpucnn/backends/cuda/algorithms/grouped.py.
const int WEIGHTS = 4096;
const int MAX_THREADS = 256;  // of a block: two blocks leave each thread 128 registers

// Rows of the weights in shared memory, (tap, channel), hold the filters of the block. One is 16-byte
// aligned, and 4 banks from the next one, so that what is copied along the rows meets few banks twice.
__device__ __forceinline__ int pitch_of(int lanes) { return (lanes * FILTERS + 31) / 32 * 32 + 4; }

// The weights of the channels from `first` on; zeros for filters that a group has not.
// Threads follow memory: (filter, tap, channel), or where it is turned (channel, tap, filter).
__device__ __forceinline__ void copy_weights(const GroupedGeometry& g, const Element* __restrict__ w, int turned,
                                             int first, Accum (&weights)[WEIGHTS]) {
    const int lanes = g.by_lanes.value, taps = g.by_taps.value, pitch = pitch_of(lanes);
#pragma unroll 4  // that many loads are under way at once
    for (int i = threadIdx.x; i < lanes * FILTERS * taps * CHANNELS; i += blockDim.x) {
        int lane, k, tap, c;
        if (turned) {
            k = i % FILTERS;
            const int above = divide(i / FILTERS, g.by_taps, tap);
            c = above % CHANNELS, lane = above / CHANNELS;
        } else {
            c = i % CHANNELS;
            const int above = divide(i / CHANNELS, g.by_taps, tap);
            k = above % FILTERS, lane = above / FILTERS;
        }
        const Slice slice = slice_at(g, blockIdx.y * lanes + lane);
        const int filter = slice.filter + k, channel = first + c;
        const bool exists = slice.exists && filter < g.group_filters;
        const unsigned at =
            turned ? ((slice.group * g.group_channels + channel) * taps + tap) * g.group_filters + filter
                   : ((slice.group * g.group_filters + filter) * taps + tap) * g.group_channels + channel;
        weights[((turned ? taps - 1 - tap : tap) * CHANNELS + c) * pitch + lane * FILTERS + k] =
            exists ? widen(w[at]) : (Accum)0;
    }
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, 2)
NAME(conv_grouped)(const Element* __restrict__ x, const Element* __restrict__ w, const Element* __restrict__ bias,
                   Element* __restrict__ y, int turned, int relu, const __grid_constant__ GroupedGeometry g) {
    after_kernels_before();
    __shared__ __align__(16) Accum weights[WEIGHTS];
    // Neighbouring threads read neighbouring memory: channels, or columns.
    int lane, slot;
    if (CHANNELS_LAST)
        slot = divide(threadIdx.x, g.by_lanes, lane);
    else
        lane = divide(threadIdx.x, g.by_slots, slot);
    const int lanes = g.by_lanes.value, slots = g.by_slots.value, pitch = pitch_of(lanes);
    const Slice slice = slice_at(g, blockIdx.y * lanes + lane);
    const unsigned i = blockIdx.x * slots + slot;
    const bool works = lane < lanes && slot < slots && slice.exists && i < g.tiles;
    const Tile tile = tile_at(g, works ? i : 0);

    const int first_filter = slice.group * g.group_filters + slice.filter;
    const bool whole = g.group_filters % FILTERS == 0;
    Accum sums[ROWS][FILTERS];
#pragma unroll
    for (int k = 0; k < FILTERS; ++k) {
        const bool exists = works && bias && slice.filter + k < g.group_filters;
        const Accum start = exists ? widen(bias[first_filter + k]) : (Accum)0;
#pragma unroll
        for (int j = 0; j < ROWS; ++j) sums[j][k] = start;
    }

    x += image_offset(g.input, g.channels, tile.n);
    const int row = tile.row * g.stride[0] - g.pad[0];
    const unsigned down = row_step(g.input, g.channels), deep = channel_step(g.input);
    for (int first = 0; first < g.group_channels; first += CHANNELS) {
        __syncthreads();  // everyone has read the weights before
        copy_weights(g, w, turned, first, weights);
        __syncthreads();  // the weights are complete
        if (!works) continue;
        const int channel = slice.group * g.group_channels + first;
        for (int s = 0; s < g.kernel[1]; ++s) {
            const int column = tile.column * g.stride[1] - g.pad[1] + s * g.dilation[1];
            if ((unsigned)column >= (unsigned)g.input[1]) continue;
            for (int r = 0; r < (TAPS ? 1 : g.kernel[0]); ++r) {
                const int begin = row + (TAPS ? 0 : r * g.dilation[0]), step = TAPS ? 1 : g.stride[0];
                const Element* source = x + (int)offset_of(g.input, g.channels, channel, begin, column);
                Accum held[SOURCES][CHANNELS];
#pragma unroll
                for (int i = 0; i < SOURCES; ++i, source += step * down)
                    load(source, deep, (unsigned)(begin + i * step) < (unsigned)g.input[0], held[i]);
#pragma unroll
                for (int tap = 0; tap < ROW_TAPS; ++tap) {
                    const Accum* of_tap =
                        weights + (((TAPS ? tap : r) * g.kernel[1] + s) * CHANNELS) * pitch + lane * FILTERS;
#pragma unroll
                    for (int c = 0; c < CHANNELS; ++c) {
                        const float4 weight = *(const float4*)(of_tap + c * pitch);
#pragma unroll
                        for (int j = 0; j < ROWS; ++j) {
                            const Accum value = held[j * (TAPS ? STRIDE : 1) + tap][c];
                            sums[j][0] += value * weight.x;
                            sums[j][1] += value * weight.y;
                            sums[j][2] += value * weight.z;
                            sums[j][3] += value * weight.w;
                        }
                    }
                }
            }
        }
    }
    if (!works) return;

    y += image_offset(g.output, g.filters, tile.n);
    unsigned target = offset_of(g.output, g.filters, first_filter, tile.row, tile.column);
#pragma unroll
    for (int j = 0; j < ROWS; ++j, target += row_step(g.output, g.filters)) {
        if (tile.row + j >= g.output[0]) break;
        Elements<FILTERS> run;
#pragma unroll
        for (int k = 0; k < FILTERS; ++k) run.at[k] = narrow(relu && sums[j][k] <= 0 ? (Accum)0 : sums[j][k]);
        if (CHANNELS_LAST && whole) {
            *(Elements<FILTERS>*)(y + target) = run;
        } else {
#pragma unroll
            for (int k = 0; k < FILTERS; ++k)
                if (slice.filter + k < g.group_filters) y[target + k * channel_step(g.output)] = run.at[k];
        }
    }
}
