// Batch normalisation and the max-pool behind it, in one pass: the normalised map is never written. With
// channels last; formulas in batch_norm.cu and pool.cu, the numbers are those of the two in turn.
//
//   y[n, p, q, c] = f(max over the window of gamma[c] * (x - mean[c]) / sqrt(var[c] + epsilon) + beta[c])
//
// f is the identity or, where g.relu, max(v, 0). What is normalised is rounded before it is compared.
//
// x (N, H, W, C), y and index (N, P, Q, C), as in pool.cu; gamma, beta (C,); mean, var (C,) in Accum. One
// thread takes units of y that lie `stride` apart, a multiple of the units of a pixel: their channels, and
// what these need, are the same.
//
// Macros: MODE, here MAX; UNIT, here ONE or CHANNELS, see pool_geometry.cuh.
#include "batch_norm.cuh"
#include "pool_window.cuh"

// Without __launch_bounds__: told of them, ptxas spills registers of which there are enough.
extern "C" __global__ void NAME(norm_pool_forward)(const Input* __restrict__ x, const Element* __restrict__ gamma,
                                                   const Element* __restrict__ beta, const Accum* __restrict__ mean,
                                                   const Accum* __restrict__ var, Accum epsilon,
                                                   Output* __restrict__ y, void* __restrict__ index, int count,
                                                   int stride, const __grid_constant__ PoolGeometry g) {
    after_kernels_before();
    const long long first = global_thread();
    if (first >= stride) return;
    int unit;  // of the pixel
    divide((unsigned)first, g.by_depth, unit);
    Normaliser of[WIDTH];
#pragma unroll
    for (int j = 0; j < WIDTH; ++j) of[j] = normaliser(unit * WIDTH + j, gamma, beta, mean, var, epsilon);
    for (long long i = first; i < count; i += stride)
        pool_unit<WIDTH <= 4>(x, y, index, i, g, [&](const Input& input) {
            Input normal;
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) normal.at[j] = narrow(of[j](input.at[j]));
            return normal;
        });
}
