// CUDA C++ for g++: included before every kernel file (g++ -include cuda_emu.h kernel.cu).
//
// Keywords, built-in variables, synchronisation, warp functions and atomics. Whatever needs other
// threads is a call into the runtime (emu_interface.h), which switches fibers.
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <type_traits>
#include <utility>

#include "emu_interface.h"

#define CUDA_EMU 1
#ifndef __CUDA_ARCH__  // -D__CUDA_ARCH__=800 selects a kernel's path for older GPUs
#define __CUDA_ARCH__ 900
#define __CUDA_ARCH_FEAT_SM90_ALL 1
#endif
#undef INFINITY  // NVRTC has no such macros
#undef NAN

#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __shared__ thread_local  // a block runs on one thread, so its fibers share this
#define __grid_constant__
#define __launch_bounds__(...)
#define __cluster_dims__(...)  // EMU_CLUSTER tells it
#define __align__(n) __attribute__((aligned(n)))
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))

#define EMU_INLINE static inline __attribute__((always_inline))
#define EMU_LINE int line = __builtin_LINE()  // a last parameter: the caller's line

#define threadIdx (emu_thread_index())
#define blockIdx (emu_block_index())
#define blockDim (emu_block_size())
#define gridDim (emu_grid_size())
static const int warpSize = 32;

#undef assert
#define assert(x) ((x) ? (void)0 : emu_fail("assert(" #x ")", __FILE__, __LINE__))
#define __trap() emu_fail("__trap()", __FILE__, __LINE__)

#include "emu_math.h"

// ---- synchronisation ----------------------------------------------------------------------------
EMU_INLINE void __syncthreads(EMU_LINE) { emu_barrier(0, 0, 0, EMU_NONE, line); }
EMU_INLINE int __syncthreads_count(int p, EMU_LINE) { return emu_barrier(0, 0, p, EMU_COUNT, line); }
EMU_INLINE int __syncthreads_and(int p, EMU_LINE) { return emu_barrier(0, 0, p, EMU_AND, line); }
EMU_INLINE int __syncthreads_or(int p, EMU_LINE) { return emu_barrier(0, 0, p, EMU_OR, line); }
EMU_INLINE void __syncwarp(unsigned mask = ~0u, EMU_LINE) { emu_syncwarp(mask, line); }
EMU_INLINE void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
EMU_INLINE void __threadfence_block() { __threadfence(); }
EMU_INLINE void __threadfence_system() { __threadfence(); }
EMU_INLINE void __nanosleep(unsigned) { emu_yield(); }

// ---- warp functions -----------------------------------------------------------------------------
#define EMU_SHUFFLE(NAME, ARG, MODE)                                                               \
    template <class T> EMU_INLINE T NAME(unsigned mask, T v, ARG lane, int width = 32, EMU_LINE) { \
        emu_shuffle(mask, &v, sizeof(T), (int)lane, width, MODE, line);                            \
        return v;                                                                                  \
    }
EMU_SHUFFLE(__shfl_sync, int, EMU_INDEX)
EMU_SHUFFLE(__shfl_up_sync, unsigned, EMU_UP)
EMU_SHUFFLE(__shfl_down_sync, unsigned, EMU_DOWN)
EMU_SHUFFLE(__shfl_xor_sync, int, EMU_XOR)

EMU_INLINE unsigned __ballot_sync(unsigned mask, int p, EMU_LINE) { return emu_ballot(mask, p, line); }
EMU_INLINE int __any_sync(unsigned mask, int p, EMU_LINE) { return emu_ballot(mask, p, line) != 0; }
EMU_INLINE int __all_sync(unsigned mask, int p, EMU_LINE) { return emu_ballot(mask, p, line) == mask; }
template <class T> EMU_INLINE unsigned __match_any_sync(unsigned mask, T v, EMU_LINE) {
    return emu_match(mask, &v, sizeof v, line);
}
EMU_INLINE unsigned __activemask() { return emu_active_mask(); }

#define EMU_REDUCE(NAME, OP)                                                                       \
    EMU_INLINE int NAME(unsigned mask, int v, EMU_LINE) {                                          \
        emu_reduce(mask, &v, OP, 1, line);                                                         \
        return v;                                                                                  \
    }                                                                                              \
    EMU_INLINE unsigned NAME(unsigned mask, unsigned v, EMU_LINE) {                                \
        emu_reduce(mask, &v, OP, 0, line);                                                         \
        return v;                                                                                  \
    }
EMU_REDUCE(__reduce_add_sync, EMU_SUM)
EMU_REDUCE(__reduce_min_sync, EMU_SMALLEST)
EMU_REDUCE(__reduce_max_sync, EMU_LARGEST)

// ---- atomics ------------------------------------------------------------------------------------
template <class T> constexpr EmuNumber emu_number() {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "atomics are for 4 and 8 bytes");
    if (std::is_same<T, float>::value) return EMU_F32;
    if (std::is_same<T, double>::value) return EMU_F64;
    if (sizeof(T) == 8) return std::is_signed<T>::value ? EMU_I64 : EMU_U64;
    return std::is_signed<T>::value ? EMU_I32 : EMU_U32;
}
template <class T> EMU_INLINE T emu_atomic_op(T* p, EmuAtomic op, T value, T compare = T()) {
    T old;
    emu_atomic((void*)p, &value, &compare, &old, op, emu_number<T>());
    return old;
}
template <class T> using EmuValue = std::common_type_t<T>;  // a parameter that does not deduce T
#define EMU_ATOMIC(NAME, OP)                                                                       \
    template <class T> EMU_INLINE T NAME(T* p, EmuValue<T> v) { return emu_atomic_op<T>(p, OP, v); }
EMU_ATOMIC(atomicAdd, EMU_ADD)
EMU_ATOMIC(atomicExch, EMU_EXCHANGE)
EMU_ATOMIC(atomicMin, EMU_MIN)
EMU_ATOMIC(atomicMax, EMU_MAX)
EMU_ATOMIC(atomicAnd, EMU_BIT_AND)
EMU_ATOMIC(atomicOr, EMU_BIT_OR)
EMU_ATOMIC(atomicXor, EMU_BIT_XOR)
template <class T> EMU_INLINE T atomicSub(T* p, EmuValue<T> v) {
    return emu_atomic_op<T>(p, EMU_ADD, T(0) - v);
}
template <class T> EMU_INLINE T atomicCAS(T* p, EmuValue<T> compare, EmuValue<T> v) {
    return emu_atomic_op<T>(p, EMU_CAS, v, compare);
}

#include "emu_export.h"
