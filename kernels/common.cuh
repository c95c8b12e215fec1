// What every kernel file starts from: the element type that a specialisation computes on, the type
// that its sums are carried in, and the macro that gives each specialisation its own symbol.
//
// Macros set by the compiler (gpucnn/backends/cuda/kernel.py):
//   ELEMENT  F16, BF16, F32 or F64
//   SUFFIX   what distinguishes this specialisation, "_2d_nhwc_f32"
#pragma once
#include "half.cuh"

#define F16 1
#define BF16 2
#define F32 3
#define F64 4

#define PASTE_TOKENS(a, b) a##b
#define PASTE(a, b) PASTE_TOKENS(a, b)
// conv_fprop -> conv_fprop_2d_nhwc_f32: the name that profilers show
#define NAME(function) PASTE(function, SUFFIX)

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

// Threads of a block; a convolution's follow from its tile. As in gpucnn/backends/cuda/launch.py.
const int BLOCK_THREADS = 256;

// Index of this thread in a one-dimensional grid, 64-bit: a tensor may pass 2^31 elements.
__device__ __forceinline__ long long global_thread() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}
