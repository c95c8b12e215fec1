// The geometry of a convolution, one record passed by value to the fprop, dgrad and wgrad kernels,
// and the index arithmetic that the three share. The host's twin is `geometry_record` in
// gpucnn/backends/cuda/conv.py.
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

// A place that fails every bounds check, whatever valid place is added to it.
const int OUTSIDE_CORNER = -(1 << 30), OUTSIDE_TAP = 1 << 29;

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
