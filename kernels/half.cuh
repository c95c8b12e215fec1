// 16-bit floats as memory holds them, and their conversions: all that our kernels need of NVIDIA's
// cuda_fp16.h and cuda_bf16.h, so that a machine without CUDA's headers can compile every kernel.
#pragma once
#include "ptx.cuh"

struct Half {  // IEEE binary16: 1 sign, 5 exponent, 10 mantissa bits
    unsigned short bits;
};
struct Bfloat16 {  // the upper half of a float: 1 sign, 8 exponent, 7 mantissa bits
    unsigned short bits;
};

__device__ __forceinline__ float widen(Half v) { return float_from_half(v.bits); }
__device__ __forceinline__ Half narrow_to_half(float v) { return {half_from_float(v)}; }

__device__ __forceinline__ float widen(Bfloat16 v) { return __uint_as_float((unsigned)v.bits << 16); }

// To nearest, ties to even: add half of the last place kept, less one where that place is even.
__device__ __forceinline__ Bfloat16 narrow_to_bfloat16(float v) {
#if __CUDA_ARCH__ >= 800
    return {bfloat16_from_float(v)};
#endif
    const unsigned bits = __float_as_uint(v);
    if (v != v) return {0x7fff};  // rounding could carry a NaN's mantissa into the sign
    return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
