// The host side of kernels/ptx.cuh: the same names and signatures, carried out by the runtime.
#pragma once
#include "emu_half.h"

EMU_INLINE uint32_t smem_u32(const void* p) { return emu_shared_address(p); }
template <class T> EMU_INLINE T* in_global(T* p) { return p; }
template <class T> EMU_INLINE T* in_register(T* p) { return p; }
EMU_INLINE int in_register(int number) { return number; }
EMU_INLINE float float_from_half(unsigned short bits) { return emu_half_to_float(bits); }
EMU_INLINE unsigned short half_from_float(float value) { return emu_float_to_half(value); }
EMU_INLINE unsigned short bfloat16_from_float(float value) { return emu_float_to_bfloat16(value); }

// ---- cp.async -----------------------------------------------------------------------------------
EMU_INLINE void cp_async_16(void* dst, const void* src, int n = 16) { emu_cp_async(dst, src, 16, n); }
EMU_INLINE void cp_async_4(void* dst, const void* src, int n = 4) { emu_cp_async(dst, src, 4, n); }
EMU_INLINE void cp_async_commit() { emu_cp_async_commit(); }
template <int N> EMU_INLINE void cp_async_wait() { emu_cp_async_wait(N); }

// ---- ldmatrix, mma.sync -------------------------------------------------------------------------
EMU_INLINE void ldmatrix_x4(uint32_t (&r)[4], const void* p, EMU_LINE) { emu_ldmatrix(r, p, 4, 0, line); }
EMU_INLINE void ldmatrix_x2(uint32_t (&r)[2], const void* p, EMU_LINE) { emu_ldmatrix(r, p, 2, 0, line); }
EMU_INLINE void ldmatrix_x4_trans(uint32_t (&r)[4], const void* p, EMU_LINE) {
    emu_ldmatrix(r, p, 4, 1, line);
}
EMU_INLINE void stmatrix_x4_trans(void* p, const uint32_t (&r)[4], EMU_LINE) { emu_stmatrix_x4_trans(p, r, line); }
#define EMU_MMA(NAME, KIND)                                                                        \
    EMU_INLINE void NAME(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], EMU_LINE) { \
        emu_mma(KIND, d, a, b, line);                                                              \
    }
EMU_MMA(mma_m16n8k16_f16, EMU_F16)
EMU_MMA(mma_m16n8k16_bf16, EMU_BF16)
EMU_MMA(mma_m16n8k8_tf32, EMU_TF32)
EMU_INLINE void mma_m8n8k4_f64(double (&d)[2], double a, double b, EMU_LINE) {
    emu_mma_f64(8, 4, d, &a, &b, line);
}
EMU_INLINE void mma_m16n8k16_f64(double (&d)[4], const double (&a)[8], const double (&b)[4], EMU_LINE) {
    emu_mma_f64(16, 16, d, a, b, line);
}
EMU_INLINE uint32_t cvt_f16x2(float low, float high) {
    auto bits = [](float v) { return v != v ? 0x7fffu : emu_float_to_half(v); };
    return bits(low) | bits(high) << 16;
}
EMU_INLINE uint32_t cvt_bf16x2(float low, float high) {
    auto bits = [](float v) {
        const uint32_t u = emu_bits<uint32_t>(v);
        return v != v ? 0x7fffu : (u + 0x7fff + (u >> 16 & 1)) >> 16;
    };
    return bits(low) | bits(high) << 16;
}
#define EMU_BOUND(NAME, TO_FLOAT, SMALLER) \
    EMU_INLINE uint32_t NAME(uint32_t a, uint32_t b) { return emu_bound_pair<TO_FLOAT>(a, b, SMALLER); }
EMU_BOUND(max_nan_f16x2, emu_half_to_float, false)
EMU_BOUND(min_nan_f16x2, emu_half_to_float, true)
EMU_BOUND(max_nan_bf16x2, emu_bfloat16_to_float, false)
EMU_BOUND(min_nan_bf16x2, emu_bfloat16_to_float, true)
EMU_INLINE uint32_t cvt_tf32(float x) {
    uint32_t u = emu_bits<uint32_t>(x);
    return (u & 0x7f800000) == 0x7f800000 ? u : (u + 0x1000) & ~0x1fffu;
}

// ---- griddepcontrol: kernels run one after the other, in `check` as if they did not ------------
EMU_INLINE void griddepcontrol_launch_dependents() {}
EMU_INLINE void griddepcontrol_wait() { emu_griddepcontrol_wait(); }

// ---- named barriers, mbarriers, clusters, TMA ---------------------------------------------------
EMU_INLINE void bar_sync(int id, int threads, EMU_LINE) { emu_barrier(id, threads, 0, EMU_NONE, line); }
EMU_INLINE void mbarrier_init(uint64_t* bar, uint32_t count, EMU_LINE) {
    emu_mbarrier_init(bar, count, line);
}
EMU_INLINE void mbarrier_arrive(uint64_t* bar, EMU_LINE) { emu_mbarrier_arrive(bar, 0, line); }
EMU_INLINE void mbarrier_arrive_expect_tx(uint64_t* bar, uint32_t bytes, EMU_LINE) {
    emu_mbarrier_arrive(bar, bytes, line);
}
EMU_INLINE void mbarrier_wait(uint64_t* bar, uint32_t parity, EMU_LINE) {
    emu_mbarrier_wait(bar, parity, line);
}
EMU_INLINE void fence_mbarrier_init() {}

EMU_INLINE uint32_t cluster_rank() { return emu_cluster_rank(); }
EMU_INLINE void cluster_arrive(EMU_LINE) { emu_cluster_arrive(line); }
EMU_INLINE void cluster_wait(EMU_LINE) { emu_cluster_wait(line); }
EMU_INLINE uint32_t cluster_map(const void* p, uint32_t rank) { return emu_cluster_map(p, rank); }
EMU_INLINE void mbarrier_arrive_cluster(uint32_t bar, EMU_LINE) { emu_mbarrier_arrive_cluster(bar, line); }
EMU_INLINE void fence_proxy_async() { emu_fence_proxy(); }

struct alignas(64) TensorMap { char opaque[128]; };
EMU_INLINE void tma_load_2d(void* dst, const TensorMap* map, uint64_t* bar, int c0, int c1) {
    const int coords[] = {c0, c1};
    emu_tma_load(dst, map, bar, coords, nullptr);
}
EMU_INLINE void tma_load_3d(void* dst, const TensorMap* map, uint64_t* bar, int c0, int c1, int c2) {
    const int coords[] = {c0, c1, c2};
    emu_tma_load(dst, map, bar, coords, nullptr);
}
EMU_INLINE void tma_load_4d(void* dst, const TensorMap* map, uint64_t* bar, int c0, int c1, int c2, int c3) {
    const int coords[] = {c0, c1, c2, c3};
    emu_tma_load(dst, map, bar, coords, nullptr);
}
EMU_INLINE void tma_load_im2col(void* dst, const TensorMap* map, uint64_t* bar, int c, int w, int h, int n,
                                int offset_w, int offset_h) {
    const int coords[] = {c, w, h, n}, offsets[] = {offset_w, offset_h};
    emu_tma_load(dst, map, bar, coords, offsets);
}
EMU_INLINE void tma_load_3d_multicast(void* dst, const TensorMap* map, uint64_t* bar, int c0, int c1, int c2,
                                      uint32_t blocks) {
    const int coords[] = {c0, c1, c2};
    emu_tma_load(dst, map, bar, coords, nullptr, blocks);
}
EMU_INLINE void tma_load_im2col_multicast(void* dst, const TensorMap* map, uint64_t* bar, int c, int w, int h, int n,
                                          int offset_w, int offset_h, uint32_t blocks) {
    const int coords[] = {c, w, h, n}, offsets[] = {offset_w, offset_h};
    emu_tma_load(dst, map, bar, coords, offsets, blocks);
}
EMU_INLINE void tma_store_2d(const TensorMap* map, const void* src, int c0, int c1) {
    const int coords[] = {c0, c1};
    emu_tma_store(map, src, coords, 2);
}
EMU_INLINE void tma_store_4d(const TensorMap* map, const void* src, int c0, int c1, int c2, int c3) {
    const int coords[] = {c0, c1, c2, c3};
    emu_tma_store(map, src, coords, 4);
}
EMU_INLINE void tma_store_commit() { emu_tma_store_commit(); }
template <int N> EMU_INLINE void tma_store_wait() { emu_tma_store_wait(N); }

// ---- wgmma --------------------------------------------------------------------------------------
EMU_INLINE uint64_t wgmma_desc_sw128(const void* p, uint32_t lbo, uint32_t sbo) {
    const uint64_t start = smem_u32(p) >> 4 & 0x3FFF, leading = lbo >> 4, stride = sbo >> 4;
    return start | leading << 16 | stride << 32 | 1ull << 62;
}
EMU_INLINE void wgmma_fence() {}
EMU_INLINE void wgmma_commit() { emu_wgmma_commit(); }
template <int N> EMU_INLINE void wgmma_wait(EMU_LINE) { emu_wgmma_wait(N, line); }
#define EMU_WGMMA(NAME, SUMS, KIND, A_TURNED, B_TURNED)                                                \
    EMU_INLINE void NAME(float (&d)[SUMS], uint64_t a, uint64_t b, int scale_d, EMU_LINE) {            \
        emu_wgmma(KIND, 2 * SUMS, d, a, b, scale_d, A_TURNED, B_TURNED, line);                         \
    }
EMU_WGMMA(wgmma_m64n64k16_f16, 32, EMU_F16, 0, 0)
EMU_WGMMA(wgmma_m64n64k16_bf16, 32, EMU_BF16, 0, 0)
EMU_WGMMA(wgmma_m64n112k16_f16, 56, EMU_F16, 0, 0)
EMU_WGMMA(wgmma_m64n112k16_bf16, 56, EMU_BF16, 0, 0)
EMU_WGMMA(wgmma_m64n128k16_f16, 64, EMU_F16, 0, 0)
EMU_WGMMA(wgmma_m64n128k16_bf16, 64, EMU_BF16, 0, 0)
EMU_WGMMA(wgmma_m64n192k16_f16, 96, EMU_F16, 0, 0)
EMU_WGMMA(wgmma_m64n192k16_bf16, 96, EMU_BF16, 0, 0)
EMU_WGMMA(wgmma_m64n224k16_f16, 112, EMU_F16, 0, 0)
EMU_WGMMA(wgmma_m64n224k16_bf16, 112, EMU_BF16, 0, 0)
EMU_WGMMA(wgmma_m64n256k16_f16, 128, EMU_F16, 0, 0)
EMU_WGMMA(wgmma_m64n256k16_bf16, 128, EMU_BF16, 0, 0)
EMU_WGMMA(wgmma_m64n64k16_f16_mk, 32, EMU_F16, 1, 0)
EMU_WGMMA(wgmma_m64n64k16_bf16_mk, 32, EMU_BF16, 1, 0)
EMU_WGMMA(wgmma_m64n112k16_f16_mk, 56, EMU_F16, 1, 0)
EMU_WGMMA(wgmma_m64n112k16_bf16_mk, 56, EMU_BF16, 1, 0)
EMU_WGMMA(wgmma_m64n128k16_f16_mk, 64, EMU_F16, 1, 0)
EMU_WGMMA(wgmma_m64n128k16_bf16_mk, 64, EMU_BF16, 1, 0)
EMU_WGMMA(wgmma_m64n192k16_f16_mk, 96, EMU_F16, 1, 0)
EMU_WGMMA(wgmma_m64n192k16_bf16_mk, 96, EMU_BF16, 1, 0)
EMU_WGMMA(wgmma_m64n224k16_f16_mk, 112, EMU_F16, 1, 0)
EMU_WGMMA(wgmma_m64n224k16_bf16_mk, 112, EMU_BF16, 1, 0)
EMU_WGMMA(wgmma_m64n256k16_f16_mk, 128, EMU_F16, 1, 0)
EMU_WGMMA(wgmma_m64n256k16_bf16_mk, 128, EMU_BF16, 1, 0)
EMU_WGMMA(wgmma_m64n128k16_f16_mn, 64, EMU_F16, 1, 1)
EMU_WGMMA(wgmma_m64n128k16_bf16_mn, 64, EMU_BF16, 1, 1)
EMU_WGMMA(wgmma_m64n192k16_f16_mn, 96, EMU_F16, 1, 1)
EMU_WGMMA(wgmma_m64n192k16_bf16_mn, 96, EMU_BF16, 1, 1)
EMU_WGMMA(wgmma_m64n256k16_f16_mn, 128, EMU_F16, 1, 1)
EMU_WGMMA(wgmma_m64n256k16_bf16_mn, 128, EMU_BF16, 1, 1)
EMU_WGMMA(wgmma_m64n64k8_tf32, 32, EMU_TF32, 0, 0)
EMU_WGMMA(wgmma_m64n112k8_tf32, 56, EMU_TF32, 0, 0)
EMU_WGMMA(wgmma_m64n128k8_tf32, 64, EMU_TF32, 0, 0)
EMU_WGMMA(wgmma_m64n192k8_tf32, 96, EMU_TF32, 0, 0)
EMU_WGMMA(wgmma_m64n224k8_tf32, 112, EMU_TF32, 0, 0)
EMU_WGMMA(wgmma_m64n256k8_tf32, 128, EMU_TF32, 0, 0)
