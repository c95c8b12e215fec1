// The mean of a set of numbers and the sum of their squared deviations from it, and those of two sets
// together: Chan, Golub & LeVeque, "Updating formulae and a pairwise algorithm for computing sample
// variances", 1979. A mean is kept as its distance from one of the numbers: rounded to the digits of a
// large mean, it would take the deviations' with it.
#pragma once
#include "common.cuh"
#include "math.cuh"

struct alignas(16) Moments {
    Accum count, pivot, distance, deviations;  // the mean is pivot + distance
};

// Of `count` numbers whose differences from `pivot`, one of them, add up to `sum`, and their squares to `squares`.
__device__ __forceinline__ Moments moments(Accum count, Accum pivot, Accum sum, Accum squares) {
    if (count == 0) return {0, 0, 0, 0};
    const Accum distance = math::quotient(sum, count), deviations = squares - sum * distance;
    return {count, pivot, distance, deviations < 0 ? 0 : deviations};  // a NaN stays one
}

__device__ __forceinline__ Moments operator+(const Moments& a, const Moments& b) {
    if (a.count == 0) return b;
    if (b.count == 0) return a;
    const Accum count = a.count + b.count, share = math::quotient(b.count, count);
    const Accum apart = (b.pivot - a.pivot) + (b.distance - a.distance);
    return {count, a.pivot, a.distance + apart * share, a.deviations + b.deviations + apart * apart * a.count * share};
}

// 1 / sqrt(var + epsilon)
__device__ __forceinline__ Accum inverse_deviation(Accum var, Accum epsilon) { return math::rsqrt(var + epsilon); }
