// Reductions over the rows of a matrix (rows, classes), ROW_THREADS neighbouring threads a row: a warp
// for short rows, a whole block for long ones. The order is fixed: a butterfly of shuffles in each
// warp, then the warps in ascending order. Every thread of a row gets the same bits.
//
// Shared memory, where a block computes a row: one number a warp for each kind of reduction, 128 bytes.
// Macro: ROW_THREADS, 32 or BLOCK_THREADS.
#pragma once
#include "common.cuh"
#include "math.cuh"

const int BLOCK_ROWS = BLOCK_THREADS / ROW_THREADS;
// Steps of a loop over a row to keep in flight; the exponentials of several doubles would spill.
const int ROW_UNROLL = sizeof(Accum) == 8 ? 1 : 4;
static_assert(ROW_THREADS == 32 || ROW_THREADS == BLOCK_THREADS, "a row is a warp's or a block's");

__device__ __forceinline__ int this_row() { return blockIdx.x * BLOCK_ROWS + threadIdx.x / ROW_THREADS; }
// First of the columns that this thread takes; the next one is ROW_THREADS further.
__device__ __forceinline__ int first_column() { return threadIdx.x % ROW_THREADS; }

struct Sum {
    __device__ Accum operator()(Accum a, Accum b) const { return a + b; }
};
struct Largest {
    __device__ Accum operator()(Accum a, Accum b) const { return a > b ? a : b; }
};

struct First {
    __device__ int operator()(int a, int b) const { return a < b ? a : b; }
};

// All threads of a row must come here.
template <class Number, class Operation>
__device__ __forceinline__ Number row_reduce(Number value, Operation operation) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2)
        value = operation(value, __shfl_xor_sync(0xffffffff, value, mask));
    if constexpr (ROW_THREADS > 32) {
        const int WARPS = ROW_THREADS / 32;
        __shared__ Number of_warp[WARPS];
        if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
        __syncthreads();  // every warp's value is there
        value = of_warp[0];
#pragma unroll
        for (int warp = 1; warp < WARPS; ++warp) value = operation(value, of_warp[warp]);
        __syncthreads();  // everyone has read them; they may be overwritten
    }
    return value;
}

// The two numbers that make a softmax of a row: exp(x - largest) / total cannot overflow.
struct Exponentials {
    Accum largest, total;
};

__device__ __forceinline__ Exponentials exponentials(const Element* row, int classes) {
    Accum largest = -math::infinity();
    for (int i = first_column(); i < classes; i += ROW_THREADS) largest = Largest()(largest, widen(row[i]));
    largest = row_reduce(largest, Largest());
    Accum total = 0;
#pragma unroll ROW_UNROLL
    for (int i = first_column(); i < classes; i += ROW_THREADS) total += math::exp(widen(row[i]) - largest);
    return {largest, row_reduce(total, Sum())};
}
