// CUDA's scalar device functions that the C library lacks. The others (expf, log1pf, erff, fmaxf,
// ...) come from <math.h>; the fast approximations are the exact functions here.
#pragma once

// Loads and stores with a cache hint.
template <class T> EMU_INLINE T __ldg(const T* p) { return *p; }
template <class T> EMU_INLINE T __ldcs(const T* p) { return *p; }
template <class T> EMU_INLINE T __ldcg(const T* p) { return *p; }
template <class T> EMU_INLINE void __stcs(T* p, T v) { *p = v; }
template <class T> EMU_INLINE void __stcg(T* p, T v) { *p = v; }

template <class A, class B> EMU_INLINE constexpr std::common_type_t<A, B> min(A a, B b) {
    using C = std::common_type_t<A, B>;
    return (C)b < (C)a ? (C)b : (C)a;
}
template <class A, class B> EMU_INLINE constexpr std::common_type_t<A, B> max(A a, B b) {
    using C = std::common_type_t<A, B>;
    return (C)a < (C)b ? (C)b : (C)a;
}

// Reinterpretation.
template <class D, class S> EMU_INLINE D emu_bits(S s) {
    static_assert(sizeof(D) == sizeof(S), "the two types have one size");
    D d;
    __builtin_memcpy(&d, &s, sizeof d);
    return d;
}
EMU_INLINE float __int_as_float(int v) { return emu_bits<float>(v); }
EMU_INLINE int __float_as_int(float v) { return emu_bits<int>(v); }
EMU_INLINE float __uint_as_float(unsigned v) { return emu_bits<float>(v); }
EMU_INLINE unsigned __float_as_uint(float v) { return emu_bits<unsigned>(v); }
EMU_INLINE double __longlong_as_double(long long v) { return emu_bits<double>(v); }
EMU_INLINE long long __double_as_longlong(double v) { return emu_bits<long long>(v); }

// Integers.
EMU_INLINE int __popc(unsigned v) { return __builtin_popcount(v); }
EMU_INLINE int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
EMU_INLINE int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
EMU_INLINE int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
EMU_INLINE int __ffs(int v) { return __builtin_ffs(v); }
EMU_INLINE int __ffsll(long long v) { return __builtin_ffsll(v); }
EMU_INLINE unsigned __brev(unsigned v) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i);
    return r;
}
EMU_INLINE unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
EMU_INLINE int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
EMU_INLINE unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
EMU_INLINE long long __mul64hi(long long a, long long b) { return (long long)((__int128)a * b >> 64); }

// Floating point.
EMU_INLINE float rsqrtf(float v) { return 1.0f / sqrtf(v); }
EMU_INLINE double rsqrt(double v) { return 1.0 / sqrt(v); }
EMU_INLINE float rsqrt(float v) { return rsqrtf(v); }
EMU_INLINE float __frsqrt_rn(float v) { return (float)(1.0 / sqrt((double)v)); }
EMU_INLINE float __fdividef(float a, float b) { return a / b; }
EMU_INLINE float __fdiv_rn(float a, float b) { return a / b; }
EMU_INLINE float __frcp_rn(float a) { return 1.0f / a; }
EMU_INLINE float __fsqrt_rn(float a) { return sqrtf(a); }
EMU_INLINE float __fadd_rn(float a, float b) { return a + b; }
EMU_INLINE float __fsub_rn(float a, float b) { return a - b; }
EMU_INLINE float __fmul_rn(float a, float b) { return a * b; }
EMU_INLINE float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
EMU_INLINE double __dadd_rn(double a, double b) { return a + b; }
EMU_INLINE double __dmul_rn(double a, double b) { return a * b; }
EMU_INLINE double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
EMU_INLINE float __saturatef(float v) { return v > 0 ? (v < 1 ? v : 1) : 0; }
EMU_INLINE int __float2int_rn(float v) { return (int)lrintf(v); }
EMU_INLINE int __float2int_rd(float v) { return (int)floorf(v); }
EMU_INLINE int __float2int_rz(float v) { return (int)v; }
EMU_INLINE float __int2float_rn(int v) { return (float)v; }
EMU_INLINE float __uint2float_rn(unsigned v) { return (float)v; }
EMU_INLINE float __double2float_rn(double v) { return (float)v; }
EMU_INLINE long long clock64() { return 0; }

#define __expf(x) expf(x)  // glibc declares these names: macros, not functions
#define __exp10f(x) exp10f(x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
