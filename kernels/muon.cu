// Muon: momentum, whose matrices are made nearly orthogonal before they are taken as a step (K. Jordan et
// al., "Muon: an optimizer for hidden layers in neural networks", 2024). All tensors in one launch, see
// multi_tensor.cuh; the products of matrices are the convolution's.
//
//   muon_momentum    v = momentum * v + s * grad;   u = v, or with Nesterov s * grad + momentum * v
//                    partial[chunk] = sum of u^2 over the chunk, in double
//   muon_direction   param = u / norm of the tensor's u, which is 0 where the norm is
//   newton_schulz    out = c0 I + c1 A + c2 B, of matrices (n, n): a step to the nearest orthogonal matrix
//                    X out, with A = X^T X and B = A^2. One thread an element.
//   muon_update      p -= rate * (grad + weight_decay * p), grad being what has become of the direction
//
// s, rate and masters as in optimizer.cu; where s is 0 nothing is changed. Shared memory: 2 KB in the first two.
#include "block_sum.cuh"
#include "math.cuh"
#include "multi_tensor.cuh"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(muon_momentum)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                    const double* __restrict__ grad_scale, Accum momentum, int nesterov,
                    double* __restrict__ partial) {
    after_kernels_before();
    if (grad_scale && *grad_scale == 0) return;
    __shared__ double scratch[BLOCK_THREADS];
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = tensor_of(table, chunk);
    const Accum scale = grad_scale ? (Accum)*grad_scale : 1;
    Accum grads[TOGETHER], velocities[TOGETHER];
    double sum = 0;
    const auto load = [&](int k, long long i) {
        grads[k] = widen(tensor.grad[i]);
        velocities[k] = tensor.first_slot[i];
    };
    each_element(chunk, tensor, load, [&](int k, long long i) {
        const Accum v = momentum * velocities[k] + scale * grads[k];
        const double u = nesterov ? scale * grads[k] + momentum * v : v;
        tensor.first_slot[i] = v;
        sum += u * u;
    });
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(muon_direction)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                     const double* __restrict__ grad_scale, Accum momentum, int nesterov,
                     const double* __restrict__ partial) {
    after_kernels_before();
    if (grad_scale && *grad_scale == 0) return;
    __shared__ double scratch[BLOCK_THREADS];
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = tensor_of(table, chunk);
    const long long first = blockIdx.x - chunk.begin / CHUNK, count = (tensor.size + CHUNK - 1) / CHUNK;
    double sum = 0;
    for (long long i = threadIdx.x; i < count; i += BLOCK_THREADS) sum += partial[first + i];
    sum = block_sum(sum, scratch);
    const Accum inverse = sum > 0 ? (Accum)(1 / math::sqrt(sum)) : sum;  // 0, or NaN
    const Accum scale = grad_scale ? (Accum)*grad_scale : 1;
    Accum grads[TOGETHER], velocities[TOGETHER];
    const auto load = [&](int k, long long i) {
        grads[k] = widen(tensor.grad[i]);
        velocities[k] = tensor.first_slot[i];
    };
    each_element(chunk, tensor, load, [&](int k, long long i) {
        const Accum u = nesterov ? scale * grads[k] + momentum * velocities[k] : velocities[k];
        tensor.param[i] = narrow(u * inverse);
    });
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(newton_schulz)(const Element* __restrict__ a, const Element* __restrict__ b, Accum c0, Accum c1, Accum c2,
                    Element* __restrict__ out, int n, long long count) {
    after_kernels_before();
    const long long i = global_thread();
    if (i >= count) return;
    out[i] = narrow((i / n == i % n ? c0 : 0) + c1 * widen(a[i]) + c2 * widen(b[i]));
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(muon_update)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                  const double* __restrict__ grad_scale, double rate_value, const double* __restrict__ rate_at) {
    after_kernels_before();
    if (grad_scale && *grad_scale == 0) return;
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = tensor_of(table, chunk);
    const Accum rate = (Accum)(tensor.rate_factor * (rate_at ? *rate_at : rate_value));
    Accum params[TOGETHER], steps[TOGETHER];
    const auto load = [&](int k, long long i) {
        params[k] = load_parameter(tensor, i);
        steps[k] = widen(tensor.grad[i]);
    };
    each_element(chunk, tensor, load, [&](int k, long long i) {
        store_parameter(tensor, i, params[k] - rate * (steps[k] + (Accum)tensor.weight_decay * params[k]));
    });
}
