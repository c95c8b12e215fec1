// The functions of <math.h> under one name for float and double, so that arithmetic in Accum picks
// its own precision. All are the accurate versions: within 2 units in the last place, erfc within 5.
#pragma once

namespace math {
__device__ __forceinline__ float exp(float v) { return ::expf(v); }
__device__ __forceinline__ float exp2(float v) { return ::exp2f(v); }  // one instruction, with -ftz=true
__device__ __forceinline__ float expm1(float v) { return ::expm1f(v); }
__device__ __forceinline__ float log(float v) { return ::logf(v); }
__device__ __forceinline__ float log1p(float v) { return ::log1pf(v); }
__device__ __forceinline__ float tanh(float v) { return ::tanhf(v); }
__device__ __forceinline__ float sqrt(float v) { return ::sqrtf(v); }
__device__ __forceinline__ float rsqrt(float v) { return ::rsqrtf(v); }  // one instruction, without a branch
// a / b within 2 units and without a branch, b below 2^126
__device__ __forceinline__ float quotient(float a, float b) { return ::__fdividef(a, b); }
__device__ __forceinline__ float erfc(float v) { return ::erfcf(v); }
__device__ __forceinline__ float abs(float v) { return ::fabsf(v); }
__device__ __forceinline__ float larger(float a, float b) { return ::fmaxf(a, b); }  // of a NaN and a number,
__device__ __forceinline__ float smaller(float a, float b) { return ::fminf(a, b); }  // the number
__device__ __forceinline__ float fma(float a, float b, float c) { return ::fmaf(a, b, c); }

__device__ __forceinline__ double exp(double v) { return ::exp(v); }
__device__ __forceinline__ double exp2(double v) { return ::exp2(v); }
__device__ __forceinline__ double expm1(double v) { return ::expm1(v); }
__device__ __forceinline__ double log(double v) { return ::log(v); }
__device__ __forceinline__ double log1p(double v) { return ::log1p(v); }
__device__ __forceinline__ double pow(double v, double power) { return ::pow(v, power); }
__device__ __forceinline__ double tanh(double v) { return ::tanh(v); }
__device__ __forceinline__ double sqrt(double v) { return ::sqrt(v); }
__device__ __forceinline__ double rsqrt(double v) { return ::rsqrt(v); }
__device__ __forceinline__ double quotient(double a, double b) { return a / b; }
__device__ __forceinline__ double erfc(double v) { return ::erfc(v); }
__device__ __forceinline__ double abs(double v) { return ::fabs(v); }
__device__ __forceinline__ double larger(double a, double b) { return ::fmax(a, b); }
__device__ __forceinline__ double smaller(double a, double b) { return ::fmin(a, b); }
__device__ __forceinline__ double fma(double a, double b, double c) { return ::fma(a, b, c); }

// NVRTC has neither INFINITY nor NAN.
__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fc00000); }
}  // namespace math
