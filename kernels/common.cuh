// What every kernel file that computes starts from: the element type of a specialisation and the type
// that its sums are carried in.
//
// Macro set by the compiler (gpucnn/backends/cuda/kernel.py): ELEMENT, F16, BF16, F32 or F64
#pragma once
#include "half.cuh"
#include "thread.cuh"

#define F16 1
#define BF16 2
#define F32 3
#define F64 4

// Element is what memory holds, Accum what arithmetic is done in: float for 16-bit elements, so
// that a sum of thousands of products keeps its digits.
#if ELEMENT == F16
typedef Half Element;
typedef float Accum;
__device__ __forceinline__ Element narrow(Accum v) { return narrow_to_half(v); }
#elif ELEMENT == BF16
typedef Bfloat16 Element;
typedef float Accum;
__device__ __forceinline__ Element narrow(Accum v) { return narrow_to_bfloat16(v); }
#elif ELEMENT == F32
typedef float Element;
typedef float Accum;
__device__ __forceinline__ Accum widen(Element v) { return v; }
__device__ __forceinline__ Element narrow(Accum v) { return v; }
#elif ELEMENT == F64
typedef double Element;
typedef double Accum;
__device__ __forceinline__ Accum widen(Element v) { return v; }
__device__ __forceinline__ Element narrow(Accum v) { return v; }
#else
#error "ELEMENT must be F16, BF16, F32 or F64"
#endif
