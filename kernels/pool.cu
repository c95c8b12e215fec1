// Pooling in 1, 2 and 3 dimensions: the maximum, minimum, average or sum of each window.
//
//   y[n, p, q, c] = max over r, s of x[n, p*stride - pad + r*dilation, ..., c]
//
// Only the taps that fall on the input count. A maximum or minimum remembers which tap it came from,
// so that the gradient goes there; of several equal ones the first, and a NaN wins:
//
//   index[n, p, q, c] = (t*R + r)*S + s, or T*R*S for a window without any input
//
// With g.relu, y = max(y, 0), a NaN staying one, and the index of what is not above zero is T*R*S: no input
// gets its gradient.
//
// x (N, D, H, W, C) or (N, C, D, H, W); y, index (N, O, P, Q, C) or (N, C, O, P, Q); index, of
// index_bytes each, may be null. One thread computes one unit of y, and asks for all inputs of a
// window of 2x2 or 3x3 before it uses the first. A launch counts fewer than 2^31 units.
//
// Macros: MODE; UNIT, see pool_geometry.cuh.
#include "pool_window.cuh"

extern "C" __global__ void NAME(pool_forward)(const Input* __restrict__ x, Output* __restrict__ y,
                                              void* __restrict__ index, int count,
                                              const __grid_constant__ PoolGeometry g) {
    after_kernels_before();
    const long long i = global_thread();
    if (i < count) pool_unit<true>(x, y, index, i, g, [](const Input& input) { return input; });
}
