// The Euclidean norm of all gradients together, deterministic, in two passes; it stays on the
// device, so that clipping by it needs no wait.
//
//   norm = sqrt(sum over tensors and elements of grad^2)
//
// global_norm_squares: one block a chunk of one tensor (see multi_tensor.cuh) writes its sum of
//   squares, in double; shared memory 2 KB.
// global_norm_finish: one block adds them in a fixed order and takes the root.
#include "block_sum.cuh"
#include "math.cuh"
#include "multi_tensor.cuh"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(global_norm_squares)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                          double* __restrict__ partial) {
    __shared__ double scratch[BLOCK_THREADS];
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = table[chunk.tensor];
    double sum = 0;
    for (long long i = chunk.begin + threadIdx.x; i < chunk_end(chunk, tensor); i += BLOCK_THREADS) {
        const double value = widen(tensor.grad[i]);
        sum += value * value;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Result in Accum: float for all element types but double.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(global_norm_finish)(const double* __restrict__ partial, long long count, Accum* __restrict__ norm) {
    __shared__ double scratch[BLOCK_THREADS];
    double sum = 0;
    for (long long i = threadIdx.x; i < count; i += BLOCK_THREADS) sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) *norm = (Accum)math::sqrt(sum);
}
