// The means of what a loss gives, which is what a training step reports: no array arithmetic, and the
// same bits every time.
//
//   mean  = sum over i of losses[i] / count
//   share = how many of hits[i] are true / count
//
// losses (count,) in Accum; hits (count,) of bytes, 0 or 1, or null; mean, in Accum, and share, a double,
// are one number each. All sums are doubles.
//
// loss_sums: block b takes the elements [b, b + 1) * per_block, a thread every 256th of them; a tree adds
//   what they have. A block that is alone writes the means, others partial[b] and, of the hits,
//   partial[blocks + b]. Shared memory: 2 KB.
// loss_means: one block adds the partial sums in the same way.
#include "block_sum.cuh"

// A thread's every 256th of `count` numbers, then the block's tree; every thread gets the sum.
template <class Number> __device__ __forceinline__ double sum_of(const Number* numbers, long long count) {
    __shared__ double scratch[BLOCK_THREADS];
    double sum = 0;
#pragma unroll 8  // that many loads are under way at once
    for (long long i = threadIdx.x; i < count; i += BLOCK_THREADS) sum += numbers[i];
    return block_sum(sum, scratch);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(loss_sums)(const Accum* __restrict__ losses, const unsigned char* __restrict__ hits,
                double* __restrict__ partial, Accum* __restrict__ mean, double* __restrict__ share, long long count,
                int per_block) {
    after_kernels_before();
    const long long first = (long long)blockIdx.x * per_block, own = min(count - first, (long long)per_block);
    const double sum = sum_of(losses + first, own);
    const double right = hits ? sum_of(hits + first, own) : 0;
    if (threadIdx.x != 0) return;
    if (gridDim.x == 1) {
        *mean = (Accum)(sum / count);
        if (hits) *share = right / count;
    } else {
        partial[blockIdx.x] = sum;
        if (hits) partial[gridDim.x + blockIdx.x] = right;
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(loss_means)(const double* __restrict__ partial, Accum* __restrict__ mean, double* __restrict__ share,
                 long long count, int parts) {
    after_kernels_before();
    const double sum = sum_of(partial, parts);
    const double right = share ? sum_of(partial + parts, parts) : 0;
    if (threadIdx.x != 0) return;
    *mean = (Accum)(sum / count);
    if (share) *share = right / count;
}
