// Sums over the threads of a block, in a fixed order: a tree in shared memory.
#pragma once
#include "common.cuh"

// Sum of `value` over the block; every thread gets it. `scratch` may be reused after the call.
template <class Number> __device__ __forceinline__ Number block_sum(Number value, Number (&scratch)[BLOCK_THREADS]) {
    static_assert((BLOCK_THREADS & (BLOCK_THREADS - 1)) == 0, "the tree halves the threads at each level");
    scratch[threadIdx.x] = value;
#pragma unroll
    for (int half = BLOCK_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();  // the level below is complete
        if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
    }
    __syncthreads();  // the sum is there
    const Number sum = scratch[0];
    __syncthreads();  // everyone has read it
    return sum;
}
