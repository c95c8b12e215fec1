// Pooling in 1, 2 and 3 dimensions: the maximum, minimum, average or sum of each window.
//
//   y[n, p, q, c] = max over r, s of x[n, p*stride - pad + r*dilation, ..., c]
//
// Only the taps that fall on the input count. A maximum or minimum remembers which tap it came from,
// so that the gradient goes there; of several equal ones the first, and a NaN wins:
//
//   index[n, p, q, c] = (t*R + r)*S + s, or T*R*S for a window without any input
//   dx[n, h, w, c]    = sum of dy over the windows that chose (h, w)          max, min
//                     = sum of dy / count over the windows that cover (h, w)  average (sum: count = 1)
//
// Backward gathers: each dx walks the windows over it in ascending order. Nothing is atomic, and the
// result is deterministic where windows overlap, too.
//
// x, dx (N, D, H, W, C) or (N, C, D, H, W); y, dy, index (N, O, P, Q, C) or (N, C, O, P, Q).
// One thread computes one element of y, or of dx. A launch counts fewer than 2^31 elements.
//
// Macros: MODE; INDEX, the index's type; RANK, see spatial.cuh; CHANNELS_LAST 0 or 1.
#include "common.cuh"
#include "math.cuh"
#include "spatial.cuh"

#define MAX 1
#define MIN 2
#define AVERAGE 3
#define SUM 4

typedef unsigned char U8;
typedef unsigned short U16;
typedef unsigned int U32;

const bool SELECTS = MODE == MAX || MODE == MIN;

// The host's twin is `pool_record` in gpucnn/backends/cuda/pool.py.
struct PoolGeometry {
    int channels, count_padding;
    int input[AXES], window[AXES], output[AXES], stride[AXES], dilation[AXES];
    int pad[AXES], pad_after[AXES];
    Divisor by_input[AXES], by_output[AXES], by_stride[AXES], by_dilation[AXES];
    Divisor by_channels;
};

struct Span {
    int begin, end;
};

// Elements from a pixel to the next of the same channel.
__device__ __forceinline__ int pixel_step(const PoolGeometry& g) { return CHANNELS_LAST ? g.channels : 1; }

// Split element i of a map, divided `by` its sizes, into its place and where its channel of its image
// begins in the other map, which has `pixels`.
__device__ __forceinline__ int locate(const PoolGeometry& g, unsigned i, const Divisor (&by)[AXES], int pixels,
                                      Place& at) {
    if (!CHANNELS_LAST) return split(i, by, at) * pixels;  // i = ((n*C + c), place)
    int c;
    const unsigned n = split(divide(i, g.by_channels, c), by, at);
    return n * pixels * g.channels + c;
}

// The taps of a window that fall on [low, high) of axis a; its first tap lies at `corner` < high.
__device__ __forceinline__ Span taps_on(const PoolGeometry& g, int a, int corner, int low, int high) {
    const int before = max(low - corner, 0), until = high - corner, last = g.dilation[a] - 1;
    return {(int)divide(before + last, g.by_dilation[a]),
            min(g.window[a], (int)divide(until + last, g.by_dilation[a]))};
}

// How many taps of the window at output place `at` an average divides by.
__device__ __forceinline__ int taps_counted(const PoolGeometry& g, const Place& at) {
    int count = 1;
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) {
        const int low = g.count_padding ? -g.pad[a] : 0;
        const int high = g.count_padding ? g.input[a] + g.pad_after[a] : g.input[a];
        const Span taps = taps_on(g, a, at.axis[a] * g.stride[a] - g.pad[a], low, high);
        count *= taps.end - taps.begin;
    }
    return count;
}

// The windows along axis a that reach input coordinate h, with a tap or between two.
__device__ __forceinline__ Span windows_over(const PoolGeometry& g, int a, int h) {
    const int padded = h + g.pad[a], before = max(padded - (g.window[a] - 1) * g.dilation[a], 0);
    return {(int)divide(before + g.stride[a] - 1, g.by_stride[a]),
            min(g.output[a], (int)divide(padded, g.by_stride[a]) + 1)};
}

extern "C" __global__ void NAME(pool_forward)(const Element* __restrict__ x, Element* __restrict__ y,
                                              INDEX* __restrict__ index, int count,
                                              const __grid_constant__ PoolGeometry g) {
    const long long i = global_thread();
    if (i >= count) return;
    Place out;
    x += locate(g, i, g.by_output, pixels(g.input), out);

    Place corner;
    Span taps[AXES] = {{0, 1}, {0, 1}, {0, 1}};
    bool empty = false;
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) {
        corner.axis[a] = out.axis[a] * g.stride[a] - g.pad[a];
        taps[a] = taps_on(g, a, corner.axis[a], 0, g.input[a]);
        empty |= taps[a].begin >= taps[a].end;
    }

    Accum result = MODE == MAX ? -math::infinity() : MODE == MIN ? math::infinity() : 0;
    // were all taps infinite, none would be better than the start: the first is chosen
    int chosen = empty ? pixels(g.window) : pixel({taps[0].begin, taps[1].begin, taps[2].begin}, g.window);
    Place tap, in;
    for (tap.axis[0] = taps[0].begin; tap.axis[0] < taps[0].end; ++tap.axis[0])
        for (tap.axis[1] = taps[1].begin; tap.axis[1] < taps[1].end; ++tap.axis[1])
            for (tap.axis[2] = taps[2].begin; tap.axis[2] < taps[2].end; ++tap.axis[2]) {
#pragma unroll
                for (int a = FIRST_AXIS; a < AXES; ++a)
                    in.axis[a] = corner.axis[a] + tap.axis[a] * g.dilation[a];
                const Accum value = widen(x[pixel(in, g.input) * pixel_step(g)]);
                if (!SELECTS) {
                    result += value;
                } else if (result == result && !(MODE == MAX ? value <= result : value >= result)) {
                    result = value;  // better, or the first NaN
                    chosen = pixel(tap, g.window);
                }
            }
    if (MODE == AVERAGE && !empty) result /= taps_counted(g, out);
    y[i] = narrow(result);
    if (SELECTS && index) index[i] = (INDEX)chosen;
}

extern "C" __global__ void NAME(pool_backward)(const Element* __restrict__ dy, const INDEX* __restrict__ index,
                                               Element* __restrict__ dx, int count,
                                               const __grid_constant__ PoolGeometry g) {
    const long long i = global_thread();
    if (i >= count) return;
    Place in;
    const int channel = locate(g, i, g.by_input, pixels(g.output), in);

    Span windows[AXES] = {{0, 1}, {0, 1}, {0, 1}};
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) windows[a] = windows_over(g, a, in.axis[a]);

    Accum sum = 0;
    Place out, tap;
    for (out.axis[0] = windows[0].begin; out.axis[0] < windows[0].end; ++out.axis[0])
        for (out.axis[1] = windows[1].begin; out.axis[1] < windows[1].end; ++out.axis[1])
            for (out.axis[2] = windows[2].begin; out.axis[2] < windows[2].end; ++out.axis[2]) {
                bool hit = true;
#pragma unroll
                for (int a = FIRST_AXIS; a < AXES; ++a) {
                    const int distance = in.axis[a] + g.pad[a] - out.axis[a] * g.stride[a];
                    int remainder;
                    tap.axis[a] = divide(distance, g.by_dilation[a], remainder);
                    hit &= remainder == 0;
                }
                if (!hit) continue;  // this input lies between two taps
                const int o = channel + pixel(out, g.output) * pixel_step(g);
                if (SELECTS && index[o] != pixel(tap, g.window)) continue;
                sum += MODE == AVERAGE ? widen(dy[o]) / taps_counted(g, out) : widen(dy[o]);
            }
    dx[i] = narrow(sum);
}
