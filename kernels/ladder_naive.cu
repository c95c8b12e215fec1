// Convolution, forward, as its formula stands there: one thread an output. The first rung of docs/ladder.md; no plan
// ever chooses it.
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p*stride - pad + r*dilation, ..., c] * w[k, r, s, c])
//
// f is the identity, or with `relu` max(v, 0), a NaN staying one. All of it is float, channels last, in one group; one
// dimension is two, the first of size 1.
//
// For each multiply-add a thread loads two numbers, and nobody else gets to see them. The 32 threads of a warp have one
// pixel and 32 filters: they share the load of x, but their weights lie a filter's length apart, in 32 lines of the
// cache.
//
// x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K); bias (K,) or null.
// grid: x = pixels / PIXELS, y = filters / 32. Shared memory: none.
#include "conv_geometry.cuh"

const int PIXELS = BLOCK_THREADS / 32;  // of a block, each for 32 filters

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(conv_naive)(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias, int relu,
                 float* __restrict__ y, const __grid_constant__ ConvGeometry g) {
    after_kernels_before();
    const unsigned m = blockIdx.x * PIXELS + threadIdx.x / 32;
    const int k = blockIdx.y * 32 + threadIdx.x % 32;
    if (m >= (unsigned)g.batch * pixels(g.output) || k >= g.filters) return;
    Place at;
    const unsigned n = split(m, g.by_output, at);
    x += image_offset(n, pixels(g.input), g.channels);
    w += (long long)k * pixels(g.kernel) * g.channels;

    float sum = 0;
    for (int r = 0; r < g.kernel[1]; ++r)
        for (int s = 0; s < g.kernel[2]; ++s, w += g.channels) {
            const int row = at.axis[1] * g.stride[1] - g.pad[1] + r * g.dilation[1];
            const int column = at.axis[2] * g.stride[2] - g.pad[2] + s * g.dilation[2];
            if (row < 0 || row >= g.input[1] || column < 0 || column >= g.input[2]) continue;  // the padding
            const float* under_tap = x + (row * g.input[2] + column) * g.channels;
            for (int c = 0; c < g.channels; ++c) sum += under_tap[c] * w[c];
        }

    if (bias) sum += bias[k];
    y[(long long)m * g.filters + k] = relu && sum <= 0 ? 0.f : sum;
}
