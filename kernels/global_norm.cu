// Sums of the squares of all gradients together, deterministic: gradient_scale.cu adds them.
//
// global_norm_squares: one block a chunk of one tensor (see multi_tensor.cuh) writes its sum of
//   squares, in double; shared memory 2 KB.
#include "block_sum.cuh"
#include "multi_tensor.cuh"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(global_norm_squares)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                          double* __restrict__ partial) {
    after_kernels_before();
    __shared__ double scratch[BLOCK_THREADS];
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = tensor_of(table, chunk);
    double sum = 0;
    for (long long i = chunk.begin + threadIdx.x; i < chunk_end(chunk, tensor); i += BLOCK_THREADS) {
        const double value = widen(tensor.grad[i]);
        sum += value * value;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}
