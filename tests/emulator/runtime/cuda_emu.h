// Compile CUDA C++ kernel files for the CPU: g++ -x c++ -include cuda_emu.h file.cu
// Declarations only; the scheduler, the collectives and the checker live in emu_rt.cpp.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <type_traits>

#undef INFINITY  // NVRTC has no such macros
#undef NAN
#define CUDA_EMU 1
#define EMU_API __attribute__((visibility("default")))
#define EMU_INL static inline __attribute__((always_inline))
#define __CUDA_ARCH__ 900
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ thread_local  // a block runs on one OS thread: its fibers share TLS
#define __grid_constant__
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __builtin_align__(n) __align__(n)

// ---- vector types -------------------------------------------------------------------------
#define EMU_V2(T, N, A) struct alignas(A) N { T x, y; }; \
    EMU_INL N make_##N(T x, T y) { return {x, y}; }
#define EMU_V3(T, N) struct N { T x, y, z; }; \
    EMU_INL N make_##N(T x, T y, T z) { return {x, y, z}; }
#define EMU_V4(T, N, A) struct alignas(A) N { T x, y, z, w; }; \
    EMU_INL N make_##N(T x, T y, T z, T w) { return {x, y, z, w}; }
#define EMU_V(T, N, S) EMU_V2(T, N##2, 2 * S) EMU_V3(T, N##3) EMU_V4(T, N##4, (4 * S > 16 ? 16 : 4 * S))
EMU_V(float, float, 4) EMU_V(int, int, 4) EMU_V(unsigned, uint, 4) EMU_V(signed char, char, 1)
EMU_V(unsigned char, uchar, 1) EMU_V(short, short, 2) EMU_V(unsigned short, ushort, 2)
EMU_V(double, double, 8) EMU_V(long long, longlong, 8) EMU_V(unsigned long long, ulonglong, 8)
struct dim3 { unsigned x, y, z; constexpr dim3(unsigned a = 1, unsigned b = 1, unsigned c = 1) : x(a), y(b), z(c) {} };

// ---- runtime entry points (emu_rt.cpp) ----------------------------------------------------
// 'const': fixed for one thread's run of a kernel, so the compiler may keep them in registers.
struct EmuPayload;
extern "C" {
uint3 emu_thread_idx() __attribute__((const));
uint3 emu_block_idx() __attribute__((const));
uint3 emu_block_dim() __attribute__((const));
uint3 emu_grid_dim() __attribute__((const));
[[noreturn]] void emu_fail(const char* what, const char* file, int line);
int emu_barrier(int id, int nthreads, int pred, int op, int line);  // op: 0 none 1 count 2 and 3 or
void emu_syncwarp(unsigned mask, int line);
void emu_shfl(unsigned mask, void* val, int bytes, int arg, int width, int mode, int line);
unsigned emu_vote(unsigned mask, int pred, int line);
unsigned emu_match(unsigned mask, const void* val, int bytes, int line);
void emu_reduce(unsigned mask, void* val, int op, int is_signed, int line);
unsigned emu_activemask();
void emu_atomic(void* p, const void* v, const void* cmp, void* old, int bytes, int op, int type);
void emu_yield();
}
#define threadIdx (emu_thread_idx())
#define blockIdx (emu_block_idx())
#define blockDim (emu_block_dim())
#define gridDim (emu_grid_dim())
static const int warpSize = 32;
#undef assert
#define assert(x) ((x) ? (void)0 : emu_fail("assert(" #x ")", __FILE__, __LINE__))
#define __trap() emu_fail("__trap()", __FILE__, __LINE__)
#define EMU_LINE int line = __builtin_LINE()

// ---- synchronisation ----------------------------------------------------------------------
EMU_INL void __syncthreads(EMU_LINE) { emu_barrier(0, 0, 0, 0, line); }
EMU_INL int __syncthreads_count(int p, EMU_LINE) { return emu_barrier(0, 0, p, 1, line); }
EMU_INL int __syncthreads_and(int p, EMU_LINE) { return emu_barrier(0, 0, p, 2, line); }
EMU_INL int __syncthreads_or(int p, EMU_LINE) { return emu_barrier(0, 0, p, 3, line); }
EMU_INL void __syncwarp(unsigned m = ~0u, EMU_LINE) { emu_syncwarp(m, line); }
EMU_INL void __threadfence() { asm volatile("" ::: "memory"); }
EMU_INL void __threadfence_block() { asm volatile("" ::: "memory"); }
EMU_INL void __threadfence_system() { asm volatile("" ::: "memory"); }
EMU_INL void __nanosleep(unsigned) { emu_yield(); }

// ---- warp intrinsics ----------------------------------------------------------------------
#define EMU_SHFL(NAME, ARG, MODE) \
    template <class T> EMU_INL T NAME(unsigned m, T v, ARG a, int width = 32, EMU_LINE) { \
        emu_shfl(m, &v, sizeof(T), (int)a, width, MODE, line); return v; }
EMU_SHFL(__shfl_sync, int, 0) EMU_SHFL(__shfl_up_sync, unsigned, 1)
EMU_SHFL(__shfl_down_sync, unsigned, 2) EMU_SHFL(__shfl_xor_sync, int, 3)
EMU_INL unsigned __ballot_sync(unsigned m, int p, EMU_LINE) { return emu_vote(m, p, line); }
EMU_INL int __any_sync(unsigned m, int p, EMU_LINE) { return emu_vote(m, p, line) != 0; }
EMU_INL int __all_sync(unsigned m, int p, EMU_LINE) { return emu_vote(m, p, line) == m; }
template <class T> EMU_INL unsigned __match_any_sync(unsigned m, T v, EMU_LINE) { return emu_match(m, &v, sizeof v, line); }
#define EMU_RED(NAME, OP) \
    EMU_INL int NAME(unsigned m, int v, EMU_LINE) { emu_reduce(m, &v, OP, 1, line); return v; } \
    EMU_INL unsigned NAME(unsigned m, unsigned v, EMU_LINE) { emu_reduce(m, &v, OP, 0, line); return v; }
EMU_RED(__reduce_add_sync, 0) EMU_RED(__reduce_min_sync, 1) EMU_RED(__reduce_max_sync, 2)
EMU_INL unsigned __activemask() { return emu_activemask(); }

// ---- atomics: op 0 add 1 exch 2 min 3 max 4 and 5 or 6 xor 7 cas; type 0 int 1 uint 2 f32 3 f64 4 u64
template <class T> constexpr int emu_type() {
    return std::is_same<T, float>::value ? 2 : std::is_same<T, double>::value ? 3 : sizeof(T) == 8 ? 4 : std::is_signed<T>::value ? 0 : 1;
}
template <class T> EMU_INL T emu_atom(T* p, T v, int op, T cmp = T()) {
    T old; emu_atomic((void*)p, &v, &cmp, &old, sizeof(T), op, emu_type<T>()); return old; }
#define EMU_ATOM(NAME, OP) template <class T> EMU_INL T NAME(T* p, std::common_type_t<T> v) { return emu_atom<T>(p, v, OP); }
EMU_ATOM(atomicAdd, 0) EMU_ATOM(atomicExch, 1) EMU_ATOM(atomicMin, 2) EMU_ATOM(atomicMax, 3)
EMU_ATOM(atomicAnd, 4) EMU_ATOM(atomicOr, 5) EMU_ATOM(atomicXor, 6)
template <class T> EMU_INL T atomicSub(T* p, std::common_type_t<T> v) { return emu_atom<T>(p, T(0) - v, 0); }
template <class T> EMU_INL T atomicCAS(T* p, std::common_type_t<T> c, std::common_type_t<T> v) { return emu_atom<T>(p, v, 7, c); }

// ---- scalar intrinsics --------------------------------------------------------------------
template <class T> EMU_INL T __ldg(const T* p) { return *p; }
template <class T> EMU_INL T __ldcs(const T* p) { return *p; }
template <class T> EMU_INL T __ldcg(const T* p) { return *p; }
template <class T> EMU_INL void __stcs(T* p, T v) { *p = v; }
template <class T> EMU_INL void __stcg(T* p, T v) { *p = v; }
template <class A, class B> EMU_INL constexpr std::common_type_t<A, B> min(A a, B b) { typedef std::common_type_t<A, B> C; return (C)b < (C)a ? (C)b : (C)a; }
template <class A, class B> EMU_INL constexpr std::common_type_t<A, B> max(A a, B b) { typedef std::common_type_t<A, B> C; return (C)a < (C)b ? (C)b : (C)a; }
template <class D, class S> EMU_INL D emu_bits(S s) { static_assert(sizeof(D) == sizeof(S), ""); D d; __builtin_memcpy(&d, &s, sizeof d); return d; }
EMU_INL float __int_as_float(int v) { return emu_bits<float>(v); }
EMU_INL int __float_as_int(float v) { return emu_bits<int>(v); }
EMU_INL float __uint_as_float(unsigned v) { return emu_bits<float>(v); }
EMU_INL unsigned __float_as_uint(float v) { return emu_bits<unsigned>(v); }
EMU_INL int __popc(unsigned v) { return __builtin_popcount(v); }
EMU_INL int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
EMU_INL int __ffs(int v) { return __builtin_ffs(v); }
EMU_INL unsigned __brev(unsigned v) { unsigned r = 0; for (int i = 0; i < 32; i++) r |= (v >> i & 1) << (31 - i); return r; }
EMU_INL unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
EMU_INL int __mulhi(int a, int b) { return (int)((int64_t)a * b >> 32); }
EMU_INL float rsqrtf(float v) { return 1.0f / sqrtf(v); }
#define __expf(x) expf(x)   // glibc declares these names: macros, not functions
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __powf(x, y) powf(x, y)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
EMU_INL float __fdividef(float a, float b) { return a / b; }
EMU_INL float __frcp_rn(float a) { return 1.0f / a; }
EMU_INL float __fsqrt_rn(float a) { return sqrtf(a); }
EMU_INL float __fadd_rn(float a, float b) { return a + b; }
EMU_INL float __fmul_rn(float a, float b) { return a * b; }
EMU_INL float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
EMU_INL float __saturatef(float v) { return v < 0 ? 0 : v > 1 ? 1 : v != v ? 0 : v; }
EMU_INL int __float2int_rn(float v) { return (int)lrintf(v); }
EMU_INL int __float2int_rd(float v) { return (int)floorf(v); }
EMU_INL float __int2float_rn(int v) { return (float)v; }
EMU_INL long long clock64() { return 0; }
using std::isnan; using std::isinf; using std::isfinite;

// ---- launch trampoline: what cuLaunchKernel's void** does ---------------------------------
template <class T> constexpr char emu_code() {
    return std::is_pointer<T>::value ? (std::is_const<std::remove_pointer_t<T>>::value ? 'p' : 'P')
         : std::is_same<T, bool>::value ? 'b' : std::is_floating_point<T>::value ? 'f'
         : std::is_integral<T>::value ? (std::is_signed<T>::value ? 'i' : 'u') : 's';
}
template <auto K> struct EmuKernel;
template <class... A, void (*K)(A...)> struct EmuKernel<K> {
    template <size_t... I> __attribute__((noinline, no_sanitize("thread", "undefined", "address")))
    static void call(void** a, std::index_sequence<I...>) { K(*(std::remove_cv_t<A>*)a[I]...); }
    static void run(void** a) { call(a, std::index_sequence_for<A...>()); }
    static const char* sig() {  // per parameter: kind and size, for the launcher's argument check
        static char s[16 * sizeof...(A) + 1]; int n = 0;
        ((n += snprintf(s + n, 16, "%c%d ", emu_code<std::remove_cv_t<A>>(), (int)sizeof(A))), ...);
        return s;
    }
};
#define EMU_EXPORT(NAME, ...) \
    extern "C" EMU_API void emu_run_##NAME(void** a) { EmuKernel<&__VA_ARGS__>::run(a); } \
    extern "C" EMU_API const char* emu_sig_##NAME() { return EmuKernel<&__VA_ARGS__>::sig(); }
#define EMU_TOUCH static thread_local char emu_anchor; \
    extern "C" EMU_API __attribute__((no_sanitize("thread"))) void emu_touch() { *(volatile char*)&emu_anchor = 0; }
