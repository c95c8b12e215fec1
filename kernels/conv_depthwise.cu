// Depthwise convolution, forward and gradient of the input, by gather: deterministic.
//
//   y[n, p, q, k]  = f(bias[k] + sum over r, s of x[n, p*stride - pad + r*dilation, ..., k / M] * w[k, r, s])
//   dx[n, h, w, c] = bias[c] + sum over r, s of dy[n, (h + pad - r*dilation) / stride, ..., c] * w[c, r, s]
//
// with M = K / C filters a channel (1 for dx), f(v) = min(max(v, floor), ceiling), a NaN staying one: ReLU's and
// ReLU6's. Of dx only the taps count whose division leaves no remainder. With stride 1 it is the first formula with the
// window turned (`turned`) and the padding (R - 1)*dilation - pad, which may be negative.
//
// source, w, target: x, w, y or, TRANSPOSED, dy, w, dx; see conv_geometry.cuh; bias (K,) or null.
// grid: x = tiles of rows * blocks along a row * blocks of channels, the last being the fastest. A
// thread computes ROWS x COLUMNS pixels of CHANNELS channels. Its block first copies the windows of its
// channels to shared memory: WINDOW_BYTES. The floor is one read of the source and one write of the target.
//
// Macros: see depthwise.cuh; TRANSPOSED 0 or 1; ROWS. Where TAPS is not 0, the window's rows must
//   channels last, not TRANSPOSED   have dilation 1 if ROWS > 1
//   otherwise                       be TAPS, of dilation 1 and STRIDE
#include "depthwise.cuh"
#include "math.cuh"

// Whether the window is square and known: a tile's source pixels are then held in registers all at
// once. If not, they are read row by row, of any number of rows.
const bool SQUARE = TAPS && (TRANSPOSED || !CHANNELS_LAST);
// Strided, vectors would need twice as many registers for their sources: fewer columns then.
const int COLUMNS = CHANNELS_LAST ? (TRANSPOSED ? 4 : 4 / STRIDE) : TRANSPOSED && TAPS ? STRIDE : 1;
// TRANSPOSED, a tile begins where a window's first tap lies on a source pixel; BEHIND that lie those
// that its further taps reach.
const int BEHIND = TRANSPOSED && TAPS ? (TAPS - 1) / STRIDE : 0;
const int WINDOW_BYTES = 12 * 1024;

// Source pixels along one axis for `targets` of a tile.
__device__ constexpr int sources(int targets) {
    return !TAPS ? targets : TRANSPOSED ? (targets - 1) / STRIDE + BEHIND + 1 : (targets - 1) * STRIDE + TAPS;
}
const int SOURCES = sources(COLUMNS), SOURCE_ROWS = SQUARE ? sources(ROWS) : 1;

static_assert(!TRANSPOSED || !TAPS || (COLUMNS % STRIDE == 0 && ROWS % STRIDE == 0), "tiles must begin alike");
static_assert(!TRANSPOSED || TAPS || ROWS == 1, "neighbouring rows of a gradient meet different taps");

// The target of the tile that source i meets through tap s; none if it lies outside the tile.
__device__ constexpr int target_of(int i, int s) {
    if (!TAPS) return i;
    if (TRANSPOSED) return (i - BEHIND) * STRIDE + s;
    return i >= s && (i - s) % STRIDE == 0 ? (i - s) / STRIDE : -1;
}

// Where the sources of a tile begin that itself begins at target place `at` along axis a.
__device__ __forceinline__ int first_source(const ConvGeometry& g, int a, int at) {
    return TRANSPOSED ? (at + g.pad[a]) / STRIDE - BEHIND : at * STRIDE - g.pad[a];
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
                     const Element* __restrict__ bias, Element* __restrict__ target, int turned, Accum floor,
                     Accum ceiling,
                     const __grid_constant__ ConvGeometry g, const __grid_constant__ Tiling tiling) {
    after_kernels_before();
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
    if (block_row >= tiling.block_rows || row_tile >= tiling.rows || channel >= depth) return;
    Place first;  // of the tile; TRANSPOSED, it may lie before the map, by less than STRIDE
    const unsigned map = divide(row_tile, tiling.by_row_tiles, first.axis[1]);
    const unsigned n = divide(map, TRANSPOSED ? g.by_input[0] : g.by_output[0], first.axis[0]);
    first.axis[1] = first.axis[1] * ROWS - (TRANSPOSED && TAPS ? g.pad[1] % STRIDE : 0);
    first.axis[2] = (column_block * tiling.by_columns.value + column) * COLUMNS -
                    (TRANSPOSED && TAPS ? g.pad[2] % STRIDE : 0);
    if (first.axis[2] >= to[2]) return;

    Accum sums[ROWS][COLUMNS][CHANNELS];
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
        const Accum start = bias ? widen(bias[channel + c]) : (Accum)0;
#pragma unroll
        for (int i = 0; i < ROWS * COLUMNS; ++i) sums[i / COLUMNS][i % COLUMNS][c] = start;
    }

    const int source_channel = TRANSPOSED || VECTOR ? channel : divide(channel, g.by_group_filters);
    const int first_column = TAPS ? first_source(g, 2, first.axis[2]) : 0;
    const int source_rows = SQUARE ? 1 : (ROWS - 1) * g.stride[1] + g.kernel[1];
    Place at, tap;
    for (tap.axis[0] = 0; tap.axis[0] < g.kernel[0]; ++tap.axis[0]) {
        // of a tap in the padding no row is read
        const int height = source_of(g, 0, first.axis[0], tap.axis[0], at.axis[0]) ? from[1] : 0;
        for (int row = 0; row < source_rows; ++row) {
            if (SQUARE)
                at.axis[1] = first_source(g, 1, first.axis[1]);
            else if (!height || !source_of(g, 1, first.axis[1], row, at.axis[1]))
                continue;
            for (tap.axis[2] = 0; tap.axis[2] < (TAPS ? 1 : g.kernel[2]); ++tap.axis[2]) {
                Accum held[SOURCE_ROWS][SOURCES][CHANNELS];
                at.axis[2] = first_column;
                const Element* source_row = source + offset_of(n, at, source_channel, from, source_depth);
#pragma unroll
                for (int h = 0; h < SOURCE_ROWS; ++h, source_row += row_step(from, source_depth)) {
                    const bool in_map = !SQUARE || (unsigned)(at.axis[1] + h) < (unsigned)height;
#pragma unroll
                    for (int i = 0; i < SOURCES; ++i) {
                        int column = i;
                        const bool in_row = TAPS ? (unsigned)(first_column + i) < (unsigned)from[2]
                                                 : source_of(g, 2, first.axis[2] + i, tap.axis[2], column);
                        load(source_row + (long long)column * pixel_step(source_depth), in_map && in_row, held[h][i]);
                    }
                }
#pragma unroll
                for (int m = 0; m < (SQUARE ? TAPS : ROWS); ++m) {  // rows of the window, or of the tile
                    tap.axis[1] = SQUARE ? m : row - m * g.stride[1];
                    if (!SQUARE && (unsigned)tap.axis[1] >= (unsigned)g.kernel[1]) continue;
                    const Element* weights = windows + pixel(tap, g.kernel) * width + lane * CHANNELS;
#pragma unroll
                    for (int s = 0; s < ROW_TAPS; ++s) {
                        Accum weight[CHANNELS];
                        load(weights + s * width, true, weight);
#pragma unroll
                        for (int k = 0; k < SOURCE_ROWS * SOURCES * CHANNELS; ++k) {
                            const int c = k % CHANNELS, i = k / CHANNELS % SOURCES, h = k / CHANNELS / SOURCES;
                            const int j = SQUARE ? target_of(h, m) : m, q = target_of(i, s);
                            if (0 <= j && j < ROWS && 0 <= q && q < COLUMNS) sums[j][q][c] += held[h][i][c] * weight[c];
                        }
                    }
                }
            }
        }
    }

    target += offset_of(n, first, channel, to, depth);
#pragma unroll
    for (int j = 0; j < ROWS; ++j, target += row_step(to, depth)) {
#pragma unroll
        for (int q = 0; q < COLUMNS; ++q) {
            if (!inside({{first.axis[0], first.axis[1] + j, first.axis[2] + q}}, to)) continue;
            Channels values;
#pragma unroll
            for (int c = 0; c < CHANNELS; ++c) {
                const Accum v = sums[j][q][c];
                values.at[c] = narrow(v <= floor ? floor : v >= ceiling ? ceiling : v);
            }
            *(Channels*)(target + (long long)q * pixel_step(depth)) = values;
        }
    }
}
