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
#include "common.cuh"
#include "spatial.cuh"

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

// Elements of one image: the step from image to image, 64-bit.
__device__ __forceinline__ long long image_size(int pixels, int depth) {
    return (long long)pixels * depth;
}

// A coordinate for what does not exist: it fails every bounds check, whatever place of a map and
// whatever tap it meets, for the host refuses maps that reach 2^29 along an axis.
const int OUTSIDE_CORNER = -(1 << 30), OUTSIDE_TAP = 1 << 29;

// A tap of the window, as a distance from the first one, and a channel (or filter) under it.
struct Tap {
    Place offset;
    int channel;
};

// Tap k, k counting (t, r, s, channel) with `by_depth` channels to a tap, the first being first_channel.
__device__ __forceinline__ Tap tap_of(const ConvGeometry& g, unsigned k, bool exists, const Divisor& by_depth,
                                      int first_channel) {
    Tap tap;
    split(divide(exists ? k : 0, by_depth, tap.channel), g.by_kernel, tap.offset);
    tap.channel += first_channel;
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a)
        tap.offset.axis[a] = exists ? tap.offset.axis[a] * g.dilation[a] : OUTSIDE_TAP;
    return tap;
}

// The window of an output pixel: where its image of x begins, and the input coordinates of its first tap.
struct Window {
    const Element* image;
    Place corner;
};

__device__ __forceinline__ Window window_of(const ConvGeometry& g, const Element* x, unsigned output, bool exists) {
    Window window;
    const unsigned n = split(exists ? output : 0, g.by_output, window.corner);
    window.image = x + n * image_size(pixels(g.input), g.channels);
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a)
        window.corner.axis[a] = exists ? window.corner.axis[a] * g.stride[a] - g.pad[a] : OUTSIDE_CORNER;
    return window;
}

// The input under a tap of a window; zero in the padding.
__device__ __forceinline__ Accum input_under(const ConvGeometry& g, const Window& window, const Tap& tap) {
    Place at;
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) at.axis[a] = window.corner.axis[a] + tap.offset.axis[a];
    if (!inside(at, g.input)) return 0;
    return widen(window.image[element(pixel(at, g.input), tap.channel, pixels(g.input), g.channels)]);
}
