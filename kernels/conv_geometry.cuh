// The geometry of a convolution, one record passed by value to the fprop, dgrad and wgrad kernels,
// and the index arithmetic that the three share. The host's twin is `geometry_record` in
// gpucnn/backends/cuda/geometry.py.
//
// Memory (channels last / channels first):
//   x  (N, D, H, W, C) / (N, C, D, H, W)      D = 1 in two dimensions, D = H = 1 in one
//   w  (K, T, R, S, C / groups)
//   y  (N, O, P, Q, K) / (N, K, O, P, Q)
//
// Macros: RANK, see spatial.cuh; CHANNELS_LAST 0 or 1.
#pragma once
#include "ptx.cuh"
#include "spatial.cuh"
#include "neighbours.cuh"

struct ConvGeometry {
    int batch, channels, filters, groups;
    int group_channels, group_filters;  // C / groups, K / groups
    int input[AXES], kernel[AXES], output[AXES], stride[AXES], pad[AXES], dilation[AXES];
    Divisor by_input[AXES], by_kernel[AXES], by_output[AXES], by_stride[AXES];
    Divisor by_group_channels, by_group_filters;
};

// Offset inside one image of a map with `depth` channels; below 2^31, as the launcher checks.
__device__ __forceinline__ int element(int pixel, int channel, int pixels, int depth) {
    return CHANNELS_LAST ? pixel * depth + channel : channel * pixels + pixel;
}

// Elements of one image, and where image n begins, which may be beyond 2^31.
__device__ __forceinline__ unsigned image_size(int pixels, int depth) { return (unsigned)pixels * depth; }
__device__ __forceinline__ long long image_offset(unsigned n, int pixels, int depth) {
    return (unsigned long long)n * image_size(pixels, depth);
}

// A coordinate for what does not exist: it fails every bounds check, whatever place of a map and
// whatever tap it meets, for the host refuses maps that reach 2^29 along an axis.
const int OUTSIDE_CORNER = -(1 << 30), OUTSIDE_TAP = 1 << 29;

// A tap of the window, as a distance from the first one, with a channel (or filter) under it.
struct Tap {
    Place distance;
    int offset;  // in memory, the channel's included
};

// Tap k, k counting (t, r, s, channel) with `by_depth` channels to a tap, the first being first_channel.
__device__ __forceinline__ Tap tap_of(const ConvGeometry& g, unsigned k, bool exists, const Divisor& by_depth,
                                      int first_channel) {
    Tap tap;
    int channel;
    split(divide(exists ? k : 0, by_depth, channel), g.by_kernel, tap.distance);
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) tap.distance.axis[a] *= g.dilation[a];
    tap.offset = element(pixel(tap.distance, g.input), first_channel + channel, pixels(g.input), g.channels);
    if (!exists) tap.distance.axis[FIRST_AXIS] = OUTSIDE_TAP;
    return tap;
}

// The window of an output pixel: the input coordinates of its first tap, and where that lies in memory
// (it may lie in the padding, before the image or beside it).
struct Window {
    const Element* first;
    Place corner;
};

__device__ __forceinline__ Window window_of(const ConvGeometry& g, const Element* x, unsigned output, bool exists) {
    Window window;
    const unsigned n = split(exists ? output : 0, g.by_output, window.corner);
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) window.corner.axis[a] = window.corner.axis[a] * g.stride[a] - g.pad[a];
    window.first = in_register(x + image_offset(n, pixels(g.input), g.channels) +
                               element(pixel(window.corner, g.input), 0, pixels(g.input), g.channels));
    if (!exists) window.corner.axis[FIRST_AXIS] = OUTSIDE_CORNER;
    return window;
}

// The input under a tap of a window; the padding does not exist.
__device__ __forceinline__ Source input_under(const ConvGeometry& g, const Window& window, const Tap& tap) {
    Place at;
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) at.axis[a] = window.corner.axis[a] + tap.distance.axis[a];
    return {window.first + tap.offset, inside(at, g.input)};
}
