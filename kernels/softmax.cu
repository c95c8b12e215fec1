// Softmax of each row of a matrix, and its logarithm.
//
//   softmax_forward:       y[i] = exp(x[i] - max x) / sum over j of exp(x[j] - max x)
//   softmax_backward:      dx = y * (dy - sum(dy * y))
//   log_softmax_forward:   y[i] = x[i] - max x - log(sum over j of exp(x[j] - max x))
//   log_softmax_backward:  dx = dy - exp(y) * sum(dy)
//
// x, y, dy, dx: (rows, classes). ROW_THREADS threads compute a row, each every ROW_THREADS-th element.
// Shared memory: see row_reduce.cuh.
#include "row_reduce.cuh"

template <bool LOG>
__device__ __forceinline__ void forward(const Element* __restrict__ x, Element* __restrict__ y, int rows, int classes) {
    if (this_row() >= rows) return;
    x += (long long)this_row() * classes;
    y += (long long)this_row() * classes;
    const Exponentials e = exponentials(x, classes);
    const Accum log_total = math::log(e.total), inverse_total = 1 / e.total;
#pragma unroll ROW_UNROLL
    for (int i = first_column(); i < classes; i += ROW_THREADS) {
        const Accum shifted = widen(x[i]) - e.largest;
        y[i] = narrow(LOG ? shifted - log_total : math::exp(shifted) * inverse_total);
    }
}

template <bool LOG>
__device__ __forceinline__ void backward(const Element* __restrict__ dy, const Element* __restrict__ y,
                                         Element* __restrict__ dx, int rows, int classes) {
    if (this_row() >= rows) return;
    const long long begin = (long long)this_row() * classes;
    dy += begin, y += begin, dx += begin;
    Accum sum = 0;
    for (int i = first_column(); i < classes; i += ROW_THREADS) sum += LOG ? widen(dy[i]) : widen(dy[i]) * widen(y[i]);
    sum = row_reduce(sum, Sum());
#pragma unroll ROW_UNROLL
    for (int i = first_column(); i < classes; i += ROW_THREADS) {
        const Accum gradient = widen(dy[i]), value = widen(y[i]);
        dx[i] = narrow(LOG ? gradient - math::exp(value) * sum : value * (gradient - sum));
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(softmax_forward)(const Element* __restrict__ x, Element* __restrict__ y, int rows, int classes) {
    after_kernels_before();
    forward<false>(x, y, rows, classes);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(softmax_backward)(const Element* __restrict__ dy, const Element* __restrict__ y, Element* __restrict__ dx,
                       int rows, int classes) {
    after_kernels_before();
    backward<false>(dy, y, dx, rows, classes);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(log_softmax_forward)(const Element* __restrict__ x, Element* __restrict__ y, int rows, int classes) {
    after_kernels_before();
    forward<true>(x, y, rows, classes);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(log_softmax_backward)(const Element* __restrict__ dy, const Element* __restrict__ y, Element* __restrict__ dx,
                           int rows, int classes) {
    after_kernels_before();
    backward<true>(dy, y, dx, rows, classes);
}
