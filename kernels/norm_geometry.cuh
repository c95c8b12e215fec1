// How the normalisation kernels see a tensor: N samples, L positions, C channels in G groups.
// The host's twin is `norm_record` in gpucnn/backends/cuda/channels.py.
//
// Memory: (N, L, C) with channels last, (N, C, L) with channels first. Macro: CHANNELS_LAST.
#pragma once
#include "common.cuh"
#include "divisor.cuh"

struct NormGeometry {
    int batch, channels, length, groups, group_channels;
    Divisor by_channels, by_length, by_group_channels;
};

// Channel of element i of the tensor.
__device__ __forceinline__ int channel(const NormGeometry& g, unsigned i) {
    int c;
    divide(CHANNELS_LAST ? i : divide(i, g.by_length), g.by_channels, c);
    return c;
}
