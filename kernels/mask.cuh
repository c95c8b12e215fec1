// Masks of one bit a number: what an activation of two slopes let through, all that its backward pass needs.
//
// Bit i of byte j is that of element 8 j + i, and 0 beyond the last element. A thread has a byte, and so the eight
// elements that are its: no other writes it.
#pragma once
#include "pack.cuh"

typedef unsigned char U8;
const int OCTET = 8;

// Index of the first element that this thread takes.
__device__ __forceinline__ long long first_of_octet() { return global_thread() * OCTET; }

// Calls take(StridedPacks) with the packs of this thread's eight elements, where there are any; `in_packs` says
// whether all arrays lie so.
template <class Take> __device__ __forceinline__ void one_octet(long long size, bool in_packs, const Take& take) {
    const int COUNT = OCTET / PACK;
    const long long i = first_of_octet();
    if (in_packs && i + OCTET <= size)
        take(StridedPacks<true, COUNT>{i, i + OCTET, PACK});
    else if (i < size)
        take(StridedPacks<false, COUNT>{i, size, PACK});
}

// Whether the activation's output y, as memory holds it, is above zero and below the ceiling, which is a NaN where
// there is none; a NaN y is not.
__device__ __forceinline__ bool passes(Element y, Accum ceiling) {
    return widen(y) > 0 && !(widen(y) >= ceiling);
}

// The bits of neighbours.
template <int COUNT> __device__ __forceinline__ unsigned bits_of(const Elements<COUNT>& y, Accum ceiling) {
    unsigned bits = 0;
#pragma unroll
    for (int e = 0; e < COUNT; ++e) bits |= (unsigned)passes(y.at[e], ceiling) << e;
    return bits;
}
