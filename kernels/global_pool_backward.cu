// The gradient of a pooling over whole maps, channels first: a row for each number.
//
//   dx[row, l] = dy[row] where the row's index is l, else 0  max, min
//              = dy[row] / L, or dy[row]                     average, sum
//
// dx (rows, L); dy, index (rows,), with rows = N*C. One thread computes one pack (pack.cuh), which may
// lie on several rows. A launch counts fewer than 2^31 elements.
// Macro: MODE, MAX (for the minimum, too) or SUM.
#include "divisor.cuh"
#include "pack.cuh"

#define MAX 1
#define SUM 3

const bool SELECTS = MODE == MAX;

__device__ __forceinline__ int load_index(const void* index, unsigned row, int bytes) {
    if (bytes == 1) return ((const unsigned char*)index)[row];
    if (bytes == 2) return ((const unsigned short*)index)[row];
    return ((const int*)index)[row];
}

extern "C" __global__ void NAME(global_pool_backward)(const Element* __restrict__ dy, const void* __restrict__ index,
                                                      Element* __restrict__ dx, int average, int index_bytes,
                                                      const __grid_constant__ Divisor by_length, long long count) {
    after_kernels_before();
    const long long i = first_of_pack();
    if (i >= count) return;
    int l;
    unsigned row = divide(i, by_length, l);
    Pack<Element> pack = {};
    Element gradient = {};
    int chosen = -1;
#pragma unroll
    for (int j = 0; j < PACK; ++j, ++l) {
        if (i + j >= count) break;
        if (l == by_length.value) l = 0, ++row;
        if (j == 0 || l == 0) {
            gradient = dy[row];
            if (SELECTS) chosen = load_index(index, row, index_bytes);
            if (average) gradient = narrow(widen(gradient) / by_length.value);
        }
        pack.at[j] = SELECTS && l != chosen ? narrow(0) : gradient;
    }
    store_pack(dx, i, count, pack);
}
