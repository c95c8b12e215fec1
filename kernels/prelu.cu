// Leaky ReLU with a learned slope for each channel. He et al., "Delving deep into rectifiers", 2015.
//
//   prelu_forward:   y = x where x > 0, else slope[c] * x
//   prelu_backward:  dx = dy where x > 0, else slope[c] * dy
//
// The slope's gradient is a sum over a channel: channel_sums.cu.
// x, y, dy, dx: see norm_geometry.cuh; slope (C,). One thread computes one element; a launch counts
// fewer than 2^31.
#include "norm_geometry.cuh"

extern "C" __global__ void NAME(prelu_forward)(const Element* __restrict__ x, const Element* __restrict__ slope,
                                               Element* __restrict__ y, int count,
                                               const __grid_constant__ NormGeometry g) {
    after_kernels_before();
    const long long i = global_thread();
    if (i >= count) return;
    const Accum value = widen(x[i]);
    y[i] = value > 0 ? x[i] : narrow(widen(slope[channel(g, i)]) * value);
}

extern "C" __global__ void NAME(prelu_backward)(const Element* __restrict__ dy, const Element* __restrict__ x,
                                                const Element* __restrict__ slope, Element* __restrict__ dx, int count,
                                                const __grid_constant__ NormGeometry g) {
    after_kernels_before();
    const long long i = global_thread();
    if (i >= count) return;
    dx[i] = widen(x[i]) > 0 ? dy[i] : narrow(widen(slope[channel(g, i)]) * widen(dy[i]));
}
