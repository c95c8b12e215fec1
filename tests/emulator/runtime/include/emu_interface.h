// What a kernel compiled for the CPU asks of the runtime. Both sides include this file.
//
// `line` is the source line of the call, for messages and to tell two calls of the same function
// apart: threads that meet at different lines have diverged.
#pragma once
#include <stdint.h>

#include "vector_types.h"

enum EmuBarrierResult { EMU_NONE, EMU_COUNT, EMU_AND, EMU_OR };
enum EmuShuffle { EMU_INDEX, EMU_UP, EMU_DOWN, EMU_XOR };
enum EmuReduce { EMU_SUM, EMU_SMALLEST, EMU_LARGEST };
enum EmuAtomic { EMU_ADD, EMU_EXCHANGE, EMU_MIN, EMU_MAX, EMU_BIT_AND, EMU_BIT_OR, EMU_BIT_XOR, EMU_CAS };
enum EmuNumber { EMU_I32, EMU_U32, EMU_I64, EMU_U64, EMU_F32, EMU_F64 };
enum EmuMma { EMU_F16, EMU_BF16, EMU_TF32 };

#pragma GCC visibility push(default)
extern "C" {
// 'const': fixed for one thread's run of a kernel, so the compiler may keep them in registers.
uint3 emu_thread_index() __attribute__((const));
uint3 emu_block_index() __attribute__((const));
uint3 emu_block_size() __attribute__((const));
uint3 emu_grid_size() __attribute__((const));
uint32_t emu_cluster_rank() __attribute__((const));
[[noreturn]] void emu_fail(const char* what, const char* file, int line);
void emu_yield();
void emu_griddepcontrol_wait();

// Block and warp collectives. A barrier with threads = 0 is for all threads of the block.
int emu_barrier(int id, int threads, int predicate, int result, int line);
void emu_cluster_arrive(int line);
void emu_cluster_wait(int line);
void emu_syncwarp(unsigned mask, int line);
void emu_shuffle(unsigned mask, void* value, int bytes, int lane, int width, int mode, int line);
unsigned emu_ballot(unsigned mask, int predicate, int line);
unsigned emu_match(unsigned mask, const void* value, int bytes, int line);
void emu_reduce(unsigned mask, void* value, int op, int is_signed, int line);
unsigned emu_active_mask();

void emu_atomic(void* p, const void* value, const void* compare, void* old, int op, int number);
float emu_half_to_float(uint16_t bits) __attribute__((const));
uint16_t emu_float_to_half(float value) __attribute__((const));

// Asynchronous copies.
uint32_t emu_shared_address(const void* p);
void emu_cp_async(void* dst, const void* src, int bytes, int src_bytes);
void emu_cp_async_commit();
void emu_cp_async_wait(int groups);
void emu_mbarrier_init(uint64_t* bar, uint32_t count, int line);
void emu_mbarrier_arrive(uint64_t* bar, uint32_t expect_bytes, int line);
void emu_mbarrier_wait(uint64_t* bar, uint32_t parity, int line);
uint32_t emu_cluster_map(const void* p, uint32_t rank);
void emu_mbarrier_arrive_cluster(uint32_t address, int line);
// To all `blocks` of the cluster, a bit for each; 0: to the thread's own.
void emu_tma_load(void* dst, const void* map, uint64_t* bar, const int* coords, const int* offsets,
                  uint32_t blocks = 0);
void emu_tma_store(const void* map, const void* src, const int* coords, int rank);
void emu_tma_store_commit();
void emu_tma_store_wait(int groups);
void emu_fence_proxy();

// Tensor cores.
void emu_ldmatrix(uint32_t* r, const void* row, int matrices, int transposed, int line);
void emu_stmatrix_x4_trans(void* row, const uint32_t* r, int line);
void emu_mma(int kind, float* d, const uint32_t* a, const uint32_t* b, int line);
void emu_mma_f64(int m, int k, double* d, const double* a, const double* b, int line);
void emu_wgmma(int kind, int n, float* d, uint64_t a, uint64_t b, int scale_d, int trans_a, int trans_b,
               int line);
void emu_wgmma_commit();
void emu_wgmma_wait(int groups, int line);
}
#pragma GCC visibility pop
