// The arithmetic of batch norm on one number, shared by its kernels: the backward pass tells from x
// where a ReLU behind it was active. The same operations in the same order, with a multiply-add that
// is fused by name and not as the compiler pleases, give the same bits in both.
#pragma once
#include "moments.cuh"

// The largest number that memory holds as zero: half the smallest one above it.
#if ELEMENT == F16
const Accum ROUNDS_TO_ZERO = 0x1p-25f;
#elif ELEMENT == BF16
const Accum ROUNDS_TO_ZERO = 0x1p-134f;
#else
const Accum ROUNDS_TO_ZERO = 0;
#endif

struct Normaliser {
    Accum mean, inverse;  // inverse = 1 / sqrt(var + epsilon)
    Accum scale, shift;   // gamma * inverse, beta

    // gamma * (x - mean) / sqrt(var + epsilon) + beta
    __device__ __forceinline__ Accum operator()(Element x) const {
        return math::fma(widen(x) - mean, scale, shift);
    }
    // Whether ReLU lets this x through: whether what memory holds of it, rounded, is above zero, and for
    // ReLU6 below six: see `ceiling`.
    __device__ __forceinline__ bool active(Element x, Accum ceiling) const {
        const Accum value = (*this)(x);
        return value > ROUNDS_TO_ZERO && !(value >= ceiling);
    }
};

// With `relu`, max(v, 0), and for ReLU6 min(that, 6). `ceiling` is the smallest number that memory holds as
// six, or a NaN where there is no ceiling; a NaN v stays one.
__device__ __forceinline__ Accum rectified(Accum v, int relu, Accum ceiling) {
    return relu && v <= 0 ? (Accum)0 : v >= ceiling ? (Accum)6 : v;
}

// A moving statistic after a step: `share` of its way to the batch's.
__device__ __forceinline__ Accum move_towards(Accum batch, Accum moving, Accum share) {
    return math::fma(share, batch - moving, moving);
}

__device__ __forceinline__ Normaliser normaliser(Accum gamma, Accum beta, Accum mean, Accum var, Accum epsilon) {
    const Accum inverse = inverse_deviation(var, epsilon);
    return {mean, inverse, gamma * inverse, beta};
}

// That of channel c; where `beta` is null, only what does not depend on it is of use.
__device__ __forceinline__ Normaliser normaliser(int c, const Element* gamma, const Element* beta, const Accum* mean,
                                                 const Accum* var, Accum epsilon) {
    return normaliser(widen(gamma[c]), beta ? widen(beta[c]) : (Accum)0, mean[c], var[c], epsilon);
}
