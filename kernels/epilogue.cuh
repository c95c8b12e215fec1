// What a convolution does to its sums on their way to memory:
//
//   y = f(sum + bias[k] + residual)
//
// and, for the batch norm behind it, the moments of y, channel by channel, of the pixels that a warp stores. Or, where
// the sums are gradients of what another activation gave, those of what went into it, which its output tells:
//
//   dx = sum * g'(y)
//
// for a g of two slopes, ReLU or one of its kin; y takes the residual's place.
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
    SILU, MISH, HARD_SIGMOID, HARD_SILU,
    RELU_BACKWARD, LEAKY_RELU_BACKWARD  // g' of a ReLU whose ceiling is alpha, or a NaN; whose slope is alpha
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
    const Element* residual;  // as the sums, or null: the residual, or y of g'(y)
    int activation;           // f, or g'
    Accum alpha;

    // sums = f(sums), which stay in registers.
    template <int COUNT> __device__ __forceinline__ void activate(Accum (&sums)[COUNT]) const {
        switch (activation) {
        case LINEAR:
        case RELU_BACKWARD:
        case LEAKY_RELU_BACKWARD: break;
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
    // From where on f has cut, NaN where it has not: see mask.cuh.
    __device__ __forceinline__ Accum ceiling() const {
        return activation == RELU6 ? 6 : activation == CLIPPED_RELU ? alpha : (Accum)math::not_a_number();
    }
    // Call function(join), where join(sum, other) gives what becomes of a sum beside its number of the residual.
    template <class Function> __device__ __forceinline__ void joining(const Function& function) const {
        if (activation < RELU_BACKWARD)
            adding(function);
        else
            multiplying(function);
    }
    // The same where it is known which of the two is meant, and less code.
    template <class Function> __device__ __forceinline__ static void adding(const Function& function) {
        function([](Accum sum, Accum other) { return sum + other; });
    }
    template <class Function> __device__ __forceinline__ void multiplying(const Function& function) const {
        const Accum number = alpha;
        if (activation == RELU_BACKWARD)
            return function([number](Accum sum, Accum y) { return y > 0 && !(y >= number) ? sum : 0; });
        function([number](Accum sum, Accum y) { return y > 0 ? sum : number * sum; });
    }
    // Neighbours as memory would hold them, joined with the residual.
    template <int WIDTH> __device__ __forceinline__ Elements<WIDTH> joined(Elements<WIDTH> sums, long long at) const {
        Values<WIDTH> values;
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) values.at[e] = widen(sums.at[e]);
        join_residual<WIDTH>(values.at, at);
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) sums.at[e] = narrow(values.at[e]);
        return sums;
    }
    // Join neighbours, which begin at number `at` of the result, with the residual.
    template <int WIDTH> __device__ __forceinline__ void join_residual(Accum* sums, long long at) const {
        const Values<WIDTH> other = load_values<WIDTH>(residual + at);
        joining([&](const auto& join) {
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) sums[e] = join(sums[e], other.at[e]);
        });
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
