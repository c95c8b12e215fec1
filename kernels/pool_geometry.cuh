// Windows over maps, as the pooling kernels see them: in units. A unit is what a thread moves at
// once; UNIT says what lies in it.
//
//   ONE       an element
//   CHANNELS  16 bytes of neighbouring channels of a pixel
//   PAIRS     16 bytes of a row of one channel, which windows of two halve: 8 bytes of y
//
// To all of them a map is (N, D, H, W, depth) units. Channels first, each channel is a map of its own
// and the depth is 1. Of PAIRS, W counts units, and the window's two columns lie inside one: the
// record's window has one column. The host's twin is `pool_record` in gpucnn/backends/cuda/pool.py.
//
// Macros: MODE; UNIT.
#pragma once
#define RANK 3  // leading axes that a shape leaves out have size 1
#include "math.cuh"
#include "neighbours.cuh"
#include "spatial.cuh"

#define MAX 1
#define MIN 2
#define SUM 3  // an average, too

#define ONE 1
#define CHANNELS 2
#define PAIRS 3

typedef unsigned char U8;
typedef unsigned short U16;
typedef unsigned int U32;

const bool SELECTS = MODE != SUM;
const int WIDTH = UNIT == ONE ? 1 : 16 / sizeof(Element);  // elements of a unit of x
const int ACROSS = UNIT == PAIRS ? 2 : 1;                  // columns of a window inside a unit
const int RESULTS = WIDTH / ACROSS;                        // elements of a unit of y

typedef Elements<WIDTH> Input;
typedef Elements<RESULTS> Output;

struct PoolGeometry {
    int depth, average, count_padding, index_bytes, relu;
    int input[AXES], window[AXES], output[AXES], stride[AXES], dilation[AXES];
    int cells[AXES];  // into which the strides cut the map and the padding before it
    int reach[AXES];  // inputs from a window's first to its last
    int pad[AXES], pad_after[AXES];
    Divisor by_input[AXES], by_output[AXES], by_stride[AXES], by_dilation[AXES], by_cells[AXES];
    Divisor by_depth;
};

struct Span {
    int begin, end;
};

// Split unit i of a map, divided `by` its sizes, into its place and where the same channels of its
// image begin in the other map, which has `pixels`.
__device__ __forceinline__ int locate(const PoolGeometry& g, unsigned i, const Divisor (&by)[AXES], int pixels,
                                      Place& at) {
    int column;
    const unsigned n = split(divide(i, g.by_depth, column), by, at);
    return n * pixels * g.depth + column;
}

// Input coordinate of the first tap of window o along axis a; it may lie in the padding.
__device__ __forceinline__ int corner_of(const PoolGeometry& g, int a, int o) {
    return o * g.stride[a] - g.pad[a];
}

// The taps of a window that fall on [low, high) of axis a; its first tap lies at `corner` < high.
__device__ __forceinline__ Span taps_on(const PoolGeometry& g, int a, int corner, int low, int high) {
    if (corner >= low && corner + g.reach[a] <= high) return {0, g.window[a]};
    const int before = max(low - corner, 0), until = high - corner, last = g.dilation[a] - 1;
    return {(int)divide(before + last, g.by_dilation[a]),
            min(g.window[a], (int)divide(until + last, g.by_dilation[a]))};
}

// How many taps of the window at output place `at` an average divides by.
__device__ __forceinline__ int taps_counted(const PoolGeometry& g, const Place& at) {
    int count = ACROSS;
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
        const int low = g.count_padding ? -g.pad[a] : 0;
        const int high = g.count_padding ? g.input[a] + g.pad_after[a] : g.input[a];
        const Span taps = taps_on(g, a, corner_of(g, a, at.axis[a]), low, high);
        count *= taps.end - taps.begin;
    }
    return count;
}

// Number of a window's tap: of PAIRS, of the first one in its unit.
__device__ __forceinline__ int number_of(const PoolGeometry& g, const Place& tap) {
    return pixel(tap, g.window) * ACROSS;
}
