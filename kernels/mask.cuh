// Masks of one bit a number: what an activation of two slopes let through, all that its backward pass needs.
//
// Bit i of byte j is that of element 8 j + i, and 0 beyond the last element. A thread has a byte, and so the eight
// elements that are its: no other writes it.
#pragma once
#include "pack.cuh"

const int OCTET = 8;

// Index of the first element that this thread takes.
__device__ __forceinline__ long long first_of_octet() { return global_thread() * OCTET; }

// Whether the activation's output y, as memory holds it, is above zero and below the ceiling, which is a NaN where
// there is none; a NaN y is not.
__device__ __forceinline__ bool passes(Element y, Accum ceiling) {
    return widen(y) > 0 && !(widen(y) >= ceiling);
}
