// Optimizer steps over all tensors of a network in one launch ("multi-tensor"): a table says where
// each tensor lies, and each block works on one chunk of one of them.
//
//   sgd_update    g = s * grad + weight_decay * p;   v = momentum * v - rate * g
//                 p += v, or with Nesterov p += momentum * v - rate * g
//                 Sutskever, Martens, Dahl & Hinton, ICML 2013
//   adam_update   g = s * grad (+ weight_decay * p);   m = b1 m + (1 - b1) g;   v = b2 v + (1 - b2) g^2
//                 p -= rate * (m / correction1) / (sqrt(v / correction2) + epsilon)
//                 Kingma & Ba, ICLR 2015; decoupled: p -= rate * weight_decay * p in place of the
//                 term in g (AdamW: Loshchilov & Hutter, ICLR 2019)
//   lookahead_update   slow += share * (p - slow);   p = slow, unless the share, which may lie at an address
//                 as rate does, is 0. Zhang, Lucas, Hinton & Ba, NeurIPS 2019
//
// table: one TensorEntry a tensor; chunks: (tensor, first element) of each block;
// s: one number, or null for 1; where it is 0 nothing is changed at all (gradient_scale.cu).
// Arithmetic, slots and masters are in Accum; p is the master, where there is one, and the parameter its
// rounding (Micikevicius et al., "Mixed precision training", ICLR 2018).
// rate, which each tensor has a factor of, and the corrections, 1 - beta^step, are a number each, or lie at
// an address that is not null: one launch is recorded for all steps. They are doubles, which lose no digits.
// grid: one block a chunk; CHUNK elements, CHUNK / BLOCK_THREADS a thread.
#include "math.cuh"
#include "multi_tensor.cuh"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(sgd_update)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                 const double* __restrict__ grad_scale, double rate_value, const double* __restrict__ rate_at,
                 Accum momentum, int nesterov) {
    after_kernels_before();
    if (grad_scale && *grad_scale == 0) return;
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = tensor_of(table, chunk);
    const Accum scale = grad_scale ? (Accum)*grad_scale : 1;
    const Accum rate = (Accum)(tensor.rate_factor * (rate_at ? *rate_at : rate_value));
    Accum params[TOGETHER], grads[TOGETHER], velocities[TOGETHER];
    const auto load = [&](int k, long long i) {
        params[k] = load_parameter(tensor, i);
        grads[k] = widen(tensor.grad[i]);
        velocities[k] = tensor.first_slot[i];
    };
    each_element(chunk, tensor, load, [&](int k, long long i) {
        const Accum p = params[k];
        const Accum g = scale * grads[k] + (Accum)tensor.weight_decay * p;
        const Accum v = momentum * velocities[k] - rate * g;
        tensor.first_slot[i] = v;
        store_parameter(tensor, i, p + (nesterov ? momentum * v - rate * g : v));
    });
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(adam_update)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                  const double* __restrict__ grad_scale, double rate_value, const double* __restrict__ rate_at,
                  Accum beta_1, Accum rest_1, Accum beta_2, Accum rest_2, Accum epsilon, double correction_1_value,
                  const double* __restrict__ correction_1_at, double correction_2_value,
                  const double* __restrict__ correction_2_at, int decoupled) {
    after_kernels_before();
    if (grad_scale && *grad_scale == 0) return;
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = tensor_of(table, chunk);
    const Accum scale = grad_scale ? (Accum)*grad_scale : 1;
    const Accum rate = (Accum)(tensor.rate_factor * (rate_at ? *rate_at : rate_value));
    const Accum correction_1 = (Accum)(correction_1_at ? *correction_1_at : correction_1_value);
    const Accum correction_2 = (Accum)(correction_2_at ? *correction_2_at : correction_2_value);
    const Accum decay = (Accum)tensor.weight_decay;
    Accum params[TOGETHER], grads[TOGETHER], first[TOGETHER], second[TOGETHER];
    const auto load = [&](int k, long long i) {
        params[k] = load_parameter(tensor, i);
        grads[k] = widen(tensor.grad[i]);
        first[k] = tensor.first_slot[i];
        second[k] = tensor.second_slot[i];
    };
    each_element(chunk, tensor, load, [&](int k, long long i) {
        Accum p = params[k];
        Accum g = scale * grads[k];
        if (decoupled)
            p -= rate * decay * p;
        else
            g += decay * p;
        const Accum m = beta_1 * first[k] + rest_1 * g;
        const Accum v = beta_2 * second[k] + rest_2 * g * g;
        tensor.first_slot[i] = m;
        tensor.second_slot[i] = v;
        store_parameter(tensor, i, p - rate * (m / correction_1) / (math::sqrt(v / correction_2) + epsilon));
    });
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(lookahead_update)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                       const double* __restrict__ grad_scale, double share_value,
                       const double* __restrict__ share_at) {
    after_kernels_before();
    const Accum share = (Accum)(share_at ? *share_at : share_value);
    if (share == 0 || (grad_scale && *grad_scale == 0)) return;
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = tensor_of(table, chunk);
    Accum fast[TOGETHER], slow[TOGETHER];
    const auto load = [&](int k, long long i) {
        fast[k] = load_parameter(tensor, i);
        slow[k] = tensor.first_slot[i];
    };
    each_element(chunk, tensor, load, [&](int k, long long i) {
        const Accum p = slow[k] + share * (fast[k] - slow[k]);
        tensor.first_slot[i] = p;
        store_parameter(tensor, i, p);
    });
}
