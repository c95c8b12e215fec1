// Depthwise convolution, forward and gradient of the input, by gather: deterministic.
//
//   y[n, p, q, k]  = f(bias[k] + sum over r, s of x[n, p*stride - pad + r*dilation, ..., k / M] * w[k, r, s])
//   dx[n, h, w, c] = bias[c] + sum over r, s of dy[n, (h + pad - r*dilation) / stride, ..., c] * w[c, r, s]
//
// with M = K / C filters a channel (1 for dx), f the identity or, with `relu`, max(v, 0), a NaN staying one.
// Of dx only the taps count whose division leaves no remainder. With stride 1 it is the first formula
// with the window turned (`turned`) and the padding (R - 1)*dilation - pad, which may be negative.
//
// source, w, target: x, w, y or, TRANSPOSED, dy, w, dx; see conv_geometry.cuh; bias (K,) or null.
// grid: x = tiles of rows * blocks along a row * blocks of channels, the last being the fastest. A
// thread computes ROWS x COLUMNS pixels of CHANNELS channels. Its block first copies the windows of its
// channels to shared memory: WINDOW_BYTES. The floor is one read of the source and one write of the target.
//
// Macros: see depthwise.cuh; TRANSPOSED 0 or 1; ROWS, 1 where the window's rows are dilated or TRANSPOSED.
#include "depthwise.cuh"

const int COLUMNS = CHANNELS_LAST ? 4 : TRANSPOSED && TAPS ? STRIDE : 1;
// Source columns of a tile. TRANSPOSED, a tile begins where a window's first tap lies on a source
// column, BEHIND it lie those that further taps reach.
const int BEHIND = TAPS && TRANSPOSED ? (TAPS - 1) / STRIDE : 0;
const int SOURCES = !TAPS        ? COLUMNS
                    : TRANSPOSED ? (COLUMNS - 1) / STRIDE + BEHIND + 1
                                 : (COLUMNS - 1) * STRIDE + TAPS;
// Source rows whose loads are in flight at once: scalars need more of them than vectors do.
const int HELD = CHANNELS_LAST || !TAPS ? 1 : ROWS + 2;
const int WINDOW_BYTES = 12 * 1024;

static_assert(!(TAPS && TRANSPOSED) || COLUMNS % STRIDE == 0, "every tile must begin at the same phase");
static_assert(!TRANSPOSED || ROWS == 1, "neighbouring rows of a gradient meet different taps");

// The column of the tile that source column i reaches through tap s; none if it is not below COLUMNS.
__device__ constexpr int reached(int i, int s) {
    if (!TAPS) return i;
    if (TRANSPOSED) return (i - BEHIND) * STRIDE + s;
    return i >= s && (i - s) % STRIDE == 0 ? (i - s) / STRIDE : -1;
}

// The source coordinate that a tap connects to target place `at` along axis a; false if there is none.
__device__ __forceinline__ bool source_of(const ConvGeometry& g, int a, int at, int tap, int& source) {
    if (!TRANSPOSED) return input_of(g, a, at, tap, source);
    const int distance = at + g.pad[a] - tap * g.dilation[a];
    int remainder;
    source = divide(distance < 0 ? 0 : distance, g.by_stride[a], remainder);
    return distance >= 0 && remainder == 0 && source < g.output[a];
}

extern "C" __global__ void __launch_bounds__(MAX_THREADS, 1)
NAME(conv_depthwise)(const Element* __restrict__ source, const Element* __restrict__ w,
                     const Element* __restrict__ bias, Element* __restrict__ target, int turned, int relu,
                     const __grid_constant__ ConvGeometry g, const __grid_constant__ Tiling tiling) {
    const int(&from)[AXES] = TRANSPOSED ? g.output : g.input;
    const int(&to)[AXES] = TRANSPOSED ? g.input : g.output;
    const int source_depth = TRANSPOSED ? g.filters : g.channels, depth = TRANSPOSED ? g.channels : g.filters;
    const int taps = pixels(g.kernel), width = tiling.by_lanes.value * CHANNELS;

    int channel_block, column_block, lane, column;
    const unsigned row_block = divide(divide(blockIdx.x, tiling.by_channel_blocks, channel_block),
                                      tiling.by_column_blocks, column_block);
    const int block_row = divide(divide(threadIdx.x, tiling.by_lanes, lane), tiling.by_columns, column);
    const int first_channel = channel_block * width;

    __shared__ __align__(16) Element windows[WINDOW_BYTES / sizeof(Element)];  // [tap][channel of the block]
    for (int i = threadIdx.x; i < min(width, depth - first_channel) * taps; i += blockDim.x) {
        int tap;
        const int channel = divide(i, tiling.by_taps, tap);
        windows[(turned ? taps - 1 - tap : tap) * width + channel] = w[(long long)first_channel * taps + i];
    }
    __syncthreads();  // the windows are complete

    const int row_tile = row_block * tiling.block_rows + block_row, channel = first_channel + lane * CHANNELS;
    const int phase = TRANSPOSED && TAPS ? g.pad[2] % STRIDE : 0;
    Place first;  // of the tile; its column may lie before the map, by less than STRIDE
    first.axis[2] = (column_block * tiling.by_columns.value + column) * COLUMNS - phase;
    if (block_row >= tiling.block_rows || row_tile >= tiling.rows || channel >= depth || first.axis[2] >= to[2]) return;
    const unsigned map = divide(row_tile, tiling.by_row_tiles, first.axis[1]);
    const unsigned n = divide(map, TRANSPOSED ? g.by_input[0] : g.by_output[0], first.axis[0]);
    first.axis[1] *= ROWS;

    source += n * image_size(pixels(from), source_depth);
    const int source_channel = TRANSPOSED || VECTOR ? channel : divide(channel, g.by_group_filters);
    const int first_source = TRANSPOSED ? (first.axis[2] + g.pad[2]) / STRIDE - BEHIND : first.axis[2] * STRIDE - g.pad[2];

    Accum sums[ROWS][COLUMNS][CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
        const Accum start = bias ? widen(bias[channel + c]) : (Accum)0;
#pragma unroll
        for (int i = 0; i < ROWS * COLUMNS; ++i) sums[i / COLUMNS][i % COLUMNS][c] = start;
    }

    const int source_rows = (ROWS - 1) * g.stride[1] + g.kernel[1];
    Place at, tap;
    for (tap.axis[0] = 0; tap.axis[0] < g.kernel[0]; ++tap.axis[0]) {
        if (!source_of(g, 0, first.axis[0], tap.axis[0], at.axis[0])) continue;
        for (int row = 0; row < source_rows; row += HELD) {
            for (tap.axis[2] = 0; tap.axis[2] < (TAPS ? 1 : g.kernel[2]); ++tap.axis[2]) {
                Accum held[HELD][SOURCES][CHANNELS];
#pragma unroll
                for (int h = 0; h < HELD; ++h) {
                    const bool in_map = row + h < source_rows && source_of(g, 1, first.axis[1], row + h, at.axis[1]);
                    at.axis[2] = 0;
                    const Element* source_row =
                        source + (in_map ? element(pixel(at, from), source_channel, pixels(from), source_depth) : 0);
#pragma unroll
                    for (int i = 0; i < SOURCES; ++i) {
                        int from_column = first_source + i;
                        const bool in_row = TAPS ? (unsigned)from_column < (unsigned)from[2]
                                                 : source_of(g, 2, first.axis[2] + i, tap.axis[2], from_column);
                        load(source_row + from_column * pixel_step(source_depth), in_map && in_row, held[h][i]);
                    }
                }
#pragma unroll
                for (int h = 0; h < HELD; ++h)
#pragma unroll
                    for (int j = 0; j < ROWS; ++j) {
                        tap.axis[1] = row + h - j * g.stride[1];
                        if ((unsigned)tap.axis[1] >= (unsigned)g.kernel[1]) continue;
                        const Element* weights = windows + pixel(tap, g.kernel) * width + lane * CHANNELS;
#pragma unroll
                        for (int s = 0; s < ROW_TAPS; ++s) {
                            Accum weight[CHANNELS];
                            load(weights + s * width, true, weight);
#pragma unroll
                            for (int i = 0; i < SOURCES; ++i) {
                                if ((unsigned)reached(i, s) >= COLUMNS) continue;
#pragma unroll
                                for (int c = 0; c < CHANNELS; ++c)
                                    sums[j][reached(i, s)][c] += held[h][i][c] * weight[c];
                            }
                        }
                    }
            }
        }
    }

    target += n * image_size(pixels(to), depth);
#pragma unroll
    for (int j = 0; j < ROWS; ++j) {
        at = first;
        at.axis[1] += j;
        if (at.axis[1] >= to[1]) break;
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i, ++at.axis[2]) {
            if ((unsigned)at.axis[2] >= (unsigned)to[2]) continue;
            Channels out;
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c)
                out.at[c] = narrow(relu && sums[j][i][c] <= 0 ? (Accum)0 : sums[j][i][c]);
            *(Channels*)(target + element(pixel(at, to), channel, pixels(to), depth)) = out;
        }
    }
}
