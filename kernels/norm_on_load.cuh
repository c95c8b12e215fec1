// A batch norm and the ReLU behind it, applied to 16-bit numbers on their way from shared memory to tensor cores, so
// that what they make of a map need not be in memory:
//
//   z = min(max(gamma[c] * (x - mean[c]) / sqrt(var[c] + epsilon) + beta[c], lowest), highest)
//
// lowest and highest are 0 and infinity for ReLU, 0 and 6 for ReLU6, both infinities for none. z has the bits that
// batch_norm.cu stores: the same operations in the same order, and rounded. The bounds are numbers that memory holds,
// so that they may come behind the rounding, for two numbers at once; -0 becomes 0, and a NaN stays one.
//
// Two numbers take nine instructions: two to widen them, two subtractions, two multiply-adds, one to round, two bounds.
//
// Macros: NORMS, 1 where there is such a norm, else 0 or nothing; ELEMENT, of 16 bits.
#pragma once
#if NORMS
#include "batch_norm.cuh"
#include "pairs.cuh"

// Of a kernel, behind its others.
#define NORM_PARAMETERS                                                                                              \
    const Element *__restrict__ gamma, const Element *__restrict__ beta, const Accum *__restrict__ mean,             \
        const Accum *__restrict__ var, Accum epsilon, Accum lowest, Accum highest,

struct NormOnLoad {
    const Element *gamma, *beta;  // (C,)
    const Accum *mean, *var;      // (C,)
    Accum epsilon;
    uint32_t lowest, highest;  // each twice

    __device__ __forceinline__ NormOnLoad(const Element* gamma, const Element* beta, const Accum* mean,
                                          const Accum* var, Accum epsilon, Accum lowest, Accum highest)
        : gamma(gamma), beta(beta), mean(mean), var(var), epsilon(epsilon), lowest(narrow_pair(lowest, lowest)),
          highest(narrow_pair(highest, highest)) {}

    // Of channel c; beyond the last, zeros stay zeros.
    __device__ __forceinline__ Normaliser of(int c, int channels) const {
        return c < channels ? normaliser(c, gamma, beta, mean, var, epsilon) : Normaliser{};
    }
    __device__ __forceinline__ uint32_t operator()(uint32_t pair, const Normaliser& of_low,
                                                   const Normaliser& of_high) const {
        const Element low = {(unsigned short)pair}, high = {(unsigned short)(pair >> 16)};
        return clamp_pair(narrow_pair(of_low(low), of_high(high)), lowest, highest);
    }
};
#else
#define NORM_PARAMETERS
#endif
