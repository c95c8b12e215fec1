// A step's loss and metrics, each alone somewhere in memory, into a row of a ring that many steps fill:
//
//   ring[row, column + j] = value_j for j < count
//
// value_j: one float, or one double where bit j of `doubles` is set; null beyond the last. ring: (rows, columns).
// `row_at`, where it is not null, holds the row. One thread: its loads, eight at most, are on their way together.
#include "thread.cuh"

__device__ __forceinline__ double value_of(const float* value, bool is_double) {
    return is_double ? *(const double*)value : (double)*value;
}

extern "C" __global__ void NAME(collect)(const float* value_0, const float* value_1, const float* value_2,
                                         const float* value_3, const float* value_4, const float* value_5,
                                         const float* value_6, const float* value_7, int doubles, int count,
                                         double* __restrict__ ring, int columns, int column, long long row,
                                         const long long* __restrict__ row_at) {
    after_kernels_before();
    const float* values[8] = {value_0, value_1, value_2, value_3, value_4, value_5, value_6, value_7};
    double* target = ring + (row_at ? *row_at : row) * columns + column;
#pragma unroll
    for (int j = 0; j < 8; ++j)
        if (j < count) target[j] = value_of(values[j], doubles >> j & 1);
}
