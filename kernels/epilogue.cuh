// What a convolution does to its sums on their way to memory:
//
//   y = f(sum + bias[k] + residual)
//
// and, for the batch norm behind it, the moments of y, channel by channel, of the pixels that a warp stores.
//
// f is one of the activations below, by its number, the same for all: a kernel tells them apart once for many sums,
// and not in its loop. Those that are not here take more instructions for each sum than all these together; they are
// kernels of their own (activation.cu).
#pragma once
#include "activations.cuh"
#include "moments.cuh"
#include "neighbours.cuh"

// As in gpucnn/backends/cuda/epilogue.py.
enum ActivationNumber {
    LINEAR, RELU, RELU6, CLIPPED_RELU, LEAKY_RELU, ELU, SELU, SIGMOID, TANH, GELU, GELU_TANH,
    SILU, MISH, HARD_SIGMOID, HARD_SILU
};

template <class F, int COUNT> __device__ __forceinline__ void each(Accum (&values)[COUNT], Accum alpha) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) values[i] = F::forward(values[i], alpha);
}

// Of those whose code is long.
template <int COUNT> __device__ __forceinline__ void curve(Accum (&run)[COUNT], int activation, Accum alpha) {
    switch (activation) {
    case ELU: each<Elu>(run, alpha); break;
    case SELU: each<Selu>(run, alpha); break;
    case SIGMOID: each<Sigmoid>(run, alpha); break;
    case TANH: each<Tanh>(run, alpha); break;
    case GELU: each<Gelu>(run, alpha); break;
    case GELU_TANH: each<GeluTanh>(run, alpha); break;
    case SILU: each<Silu>(run, alpha); break;
    case MISH: each<Mish>(run, alpha); break;
    case HARD_SIGMOID: each<HardSigmoid>(run, alpha); break;
    case HARD_SILU: each<HardSilu>(run, alpha); break;
    }
}

struct Epilogue {
    const Element* bias;      // (K,) or null
    const Element* residual;  // as y, or null
    int activation;
    Accum alpha;

    // sums = f(sums), which stay in registers.
    template <int COUNT> __device__ __forceinline__ void activate(Accum (&sums)[COUNT]) const {
        switch (activation) {
        case LINEAR: break;
        case RELU: each<Relu>(sums, alpha); break;
        case RELU6: each<Relu6>(sums, alpha); break;
        case CLIPPED_RELU: each<ClippedRelu>(sums, alpha); break;
        case LEAKY_RELU: each<LeakyRelu>(sums, alpha); break;
        default:
            // the code is there once: the sums pass through the same registers, a run of them at a time
            const int RUN = COUNT % 4 == 0 ? 4 : COUNT;
#pragma unroll 1
            for (int done = 0; done < COUNT; done += RUN) {
                Accum run[RUN];
#pragma unroll
                for (int i = 0; i < RUN; ++i) run[i] = sums[i];
                curve(run, activation, alpha);
#pragma unroll
                for (int i = RUN; i < COUNT; ++i) sums[i - RUN] = sums[i];
#pragma unroll
                for (int i = 0; i < RUN; ++i) sums[COUNT - RUN + i] = run[i];
            }
        }
    }
    // sums += residual, for neighbours that begin at number `at` of y.
    template <int WIDTH> __device__ __forceinline__ void add_residual(Accum* sums, long long at) const {
        const Values<WIDTH> other = load_values<WIDTH>(residual + at);
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) sums[e] += other.at[e];
    }
};

// The moments of a channel as a warp stores it: of what memory holds of each number, rounded, for that is what batch
// norm reads. One pass, as in channel_sums.cu: the numbers differ by little from the first of them.
struct StoredMoments {
    Accum count = 0, pivot = 0, sum = 0, squares = 0;

    __device__ __forceinline__ void add(Accum value) {
        const Accum stored = widen(narrow(value));
        if (count == 0) pivot = stored;
        const Accum apart = stored - pivot;
        count += 1;
        sum += apart;
        squares = math::fma(apart, apart, squares);
    }
    // Of all lanes of the warp that differ in the bits LANES, for that one of them where these are 0.
    template <int LANES> __device__ __forceinline__ Moments of_lanes() const {
        Moments all = moments(count, pivot, sum, squares);
#pragma unroll
        for (int bit = 1; bit < 32; bit *= 2) {
            if (!(LANES & bit)) continue;
            all = all + Moments{__shfl_xor_sync(~0u, all.count, bit), __shfl_xor_sync(~0u, all.pivot, bit),
                                __shfl_xor_sync(~0u, all.distance, bit), __shfl_xor_sync(~0u, all.deviations, bit)};
        }
        return all;
    }
};
