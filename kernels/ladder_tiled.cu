// Convolution, forward, by tiles in shared memory: a block loads a number once for 32 threads that need it. The second
// rung of docs/ladder.md; no plan ever chooses it.
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p*stride - pad + r*dilation, ..., c] * w[k, r, s, c])
//
// f is the identity, or with `relu` max(v, 0), a NaN staying one. All of it is float, channels last, in one group; one
// dimension is two, the first of size 1.
//
// A block has TILE pixels and TILE filters, a thread one of each. The sum goes by in slabs of TILE channels under one
// tap: all threads bring a slab of x and one of w to shared memory, neighbours in a warp neighbours in memory; then
// each sums its row of the one times its row of the other.
//
// x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K); bias (K,) or null.
// grid: x = pixels / TILE, y = filters / TILE. Shared memory: 8,320 bytes.
#include "conv_geometry.cuh"

const int TILE = 32;

extern "C" __global__ void __launch_bounds__(TILE * TILE)
NAME(conv_tiled)(const float* __restrict__ x, const float* __restrict__ w, const float* __restrict__ bias, int relu,
                 float* __restrict__ y, const __grid_constant__ ConvGeometry g) {
    after_kernels_before();
    // Threads of a warp read a number of one pixel, but of 32 filters, one below the other: in rows of 32 these would
    // lie in one bank, and the warp would wait for it 32 times. In rows of 33 each lies in a bank of its own.
    __shared__ __align__(16) float x_slab[TILE][TILE];
    __shared__ float w_slab[TILE][TILE + 1];
    const int down = threadIdx.x / TILE, across = threadIdx.x % TILE;

    // what this thread loads: channel `across` of pixel and filter `down`
    const unsigned m = blockIdx.x * TILE + down, m_end = (unsigned)g.batch * pixels(g.output);
    Place at;
    const unsigned n = split(m < m_end ? m : 0, g.by_output, at);
    x += image_offset(n, pixels(g.input), g.channels);
    const int loaded = blockIdx.y * TILE + down;
    w += (long long)loaded * pixels(g.kernel) * g.channels;

    float sum = 0;
    for (int r = 0; r < g.kernel[1]; ++r)
        for (int s = 0; s < g.kernel[2]; ++s, w += g.channels) {
            const int row = at.axis[1] * g.stride[1] - g.pad[1] + r * g.dilation[1];
            const int column = at.axis[2] * g.stride[2] - g.pad[2] + s * g.dilation[2];
            const bool padding = row < 0 || row >= g.input[1] || column < 0 || column >= g.input[2];
            const float* under_tap = x + (row * g.input[2] + column) * g.channels;
            for (int first = 0; first < g.channels; first += TILE) {
                const int c = first + across;
                const bool exists = c < g.channels;
                x_slab[down][across] = exists && !padding ? under_tap[c] : 0.f;
                w_slab[down][across] = exists && loaded < g.filters ? w[c] : 0.f;
                __syncthreads();  // the slabs are complete
#pragma unroll
                for (int i = 0; i < TILE; ++i) sum += x_slab[down][i] * w_slab[across][i];
                __syncthreads();  // everyone has read them
            }
        }

    // what it computed: pixel `down` and filter `across`
    const int k = blockIdx.y * TILE + across;
    if (m >= m_end || k >= g.filters) return;
    if (bias) sum += bias[k];
    y[(long long)m * g.filters + k] = relu && sum <= 0 ? 0.f : sum;
}
