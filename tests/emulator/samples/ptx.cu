// Every function of kernels/ptx.cuh by itself: what tests/ptx_cases.py runs on a GPU and in the
// emulator with the same inputs. One block each, of `multicast` two; 16-bit numbers travel as unsigned short.
//
//   half_to_float, float_to_half, float_to_bfloat16, float_to_tf32
//                                                 y[i] = the conversion of x[i], n numbers
//   pairs_to_half, pairs_to_bfloat16              the same, two at a time
//   bounds_half, bounds_bfloat16                  y (2, n pairs) = max(a, b), min(a, b)
//   through_registers, after_others              y (32) = x
//   ldmatrix_4, ldmatrix_2, ldmatrix_4_trans      y (32 lanes, 4 or 2 registers) from x (32, 8) 16-bit;
//                                                 lane l names row 5 * l % 32
//   copy_16, copy_4       y: 32 pieces of 16 or 4 bytes of x through shared memory, bytes[i] of each
//   mma_*                 d (M, N) += a (M, K) b (N, K)^T
//   shared_addresses      y[i] = distance of byte 16 * i from the start of shared memory
//   named_barriers        y (96): the first two warps' x in reverse order, and the third's
//   ring                  y (phases, 32) = x by way of a producer warp and a consumer warp
//   multicast             y (2 blocks, phases, bytes) = what two blocks of a cluster, each a half, bring to both
//   stmatrix_4_trans      y (32, 8) 16-bit from x (32 lanes, 4 registers); lane l names row 5 * l % 32
//   load_tile*, load_im2col                   y = the bytes that TMA brings to shared memory
//   store_tile, store_tile_4d                 the tensor gets x, the bytes that TMA takes from there
//   gemm_wgmma*           d (64, N) = a (64, K) b (N, K)^T, rows of both 128 bytes
//   gemm_wgmma*_mk        d (64, N) = a (64, 64)^T b (N, 64)^T
//   turned_wgmma*         d (64, N) = a (16, 64)^T times, for each 64 columns, 16 rows of b (rows, 64)
//
// Shared memory: at most 1 KB static; dynamic as the cases say.
#include "ptx.cuh"

#ifdef CUDA_EMU
#define ARCHITECTURE 900
#define HOPPER_A
#else
#define ARCHITECTURE __CUDA_ARCH__
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
#define HOPPER_A
#endif
#endif

#define KERNEL extern "C" __global__ void
typedef unsigned short ushort_t;

__device__ __forceinline__ uint32_t pair(const ushort_t* x) { return x[0] | (uint32_t)x[1] << 16; }

// ---- any architecture ---------------------------------------------------------------------------
KERNEL half_to_float(const ushort_t* x, float* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = float_from_half(x[i]);
}

KERNEL float_to_half(const float* x, ushort_t* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = half_from_float(x[i]);
}

KERNEL named_barriers(const int* x, int* y) {
    __shared__ int s[96];
    const int t = threadIdx.x;
    s[t] = x[t];
    if (t < 64) {
        bar_sync(1, 64);
        y[t] = s[63 - t];
    } else {
        bar_sync(2, 32);
        y[t] = s[159 - t];
    }
}

KERNEL ldmatrix_4(const ushort_t* x, uint32_t* y) {
    __shared__ __align__(16) ushort_t s[32][8];
    const int lane = threadIdx.x;
    for (int i = 0; i < 8; i++) s[lane][i] = x[lane * 8 + i];
    __syncthreads();
    uint32_t r[4];
    ldmatrix_x4(r, s[5 * lane % 32]);
    for (int i = 0; i < 4; i++) y[lane * 4 + i] = r[i];
}

KERNEL ldmatrix_4_trans(const ushort_t* x, uint32_t* y) {
    __shared__ __align__(16) ushort_t s[32][8];
    const int lane = threadIdx.x;
    for (int i = 0; i < 8; i++) s[lane][i] = x[lane * 8 + i];
    __syncthreads();
    uint32_t r[4];
    ldmatrix_x4_trans(r, s[5 * lane % 32]);
    for (int i = 0; i < 4; i++) y[lane * 4 + i] = r[i];
}

KERNEL ldmatrix_2(const ushort_t* x, uint32_t* y) {
    __shared__ __align__(16) ushort_t s[32][8];
    const int lane = threadIdx.x;
    for (int i = 0; i < 8; i++) s[lane][i] = x[lane * 8 + i];
    __syncthreads();
    uint32_t r[2];
    ldmatrix_x2(r, s[5 * lane % 32]);
    for (int i = 0; i < 2; i++) y[lane * 2 + i] = r[i];
}

KERNEL shared_addresses(uint32_t* y, int n) {
    extern __shared__ __align__(1024) unsigned char smem[];
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = smem_u32(smem + 16 * i) - smem_u32(smem);
}

KERNEL through_registers(const int* x, int* y) { y[threadIdx.x] = *in_register(in_global(x) + threadIdx.x); }

#if ARCHITECTURE >= 800
// ---- sm_80 --------------------------------------------------------------------------------------
KERNEL float_to_bfloat16(const float* x, ushort_t* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = bfloat16_from_float(x[i]);
}

KERNEL float_to_tf32(const float* x, uint32_t* y, int n) {
    for (int i = threadIdx.x; i < n; i += blockDim.x) y[i] = cvt_tf32(x[i]);
}

KERNEL pairs_to_half(const float* x, uint32_t* y, int n) {
    for (int i = threadIdx.x; i < n / 2; i += blockDim.x) y[i] = cvt_f16x2(x[2 * i], x[2 * i + 1]);
}

KERNEL pairs_to_bfloat16(const float* x, uint32_t* y, int n) {
    for (int i = threadIdx.x; i < n / 2; i += blockDim.x) y[i] = cvt_bf16x2(x[2 * i], x[2 * i + 1]);
}

// The larger ones of n pairs, then the smaller ones.
#define BOUNDS(NAME, MAX, MIN)                                                               \
    KERNEL NAME(const uint32_t* a, const uint32_t* b, uint32_t* y, int n) {                  \
        for (int i = threadIdx.x; i < n; i += blockDim.x) {                                  \
            y[i] = MAX(a[i], b[i]);                                                          \
            y[n + i] = MIN(a[i], b[i]);                                                      \
        }                                                                                    \
    }
BOUNDS(bounds_half, max_nan_f16x2, min_nan_f16x2)
BOUNDS(bounds_bfloat16, max_nan_bf16x2, min_nan_bf16x2)

// Two groups of 16 pieces: the first is read while the second may still be on its way.
#define COPY(NAME, WORDS, CP_ASYNC)                                                          \
    KERNEL NAME(const uint32_t* x, const int* bytes, uint32_t* y) {                          \
        __shared__ __align__(16) uint32_t s[32][WORDS];                                      \
        const int lane = threadIdx.x;                                                        \
        for (int half = 0; half < 2; half++) {                                               \
            const int piece = half * 16 + lane;                                              \
            if (lane < 16) CP_ASYNC(s[piece], x + piece * WORDS, bytes[piece]);              \
            cp_async_commit();                                                               \
        }                                                                                    \
        cp_async_wait<1>();                                                                  \
        __syncthreads();                                                                     \
        for (int i = lane; i < 16 * WORDS; i += 32) y[i] = s[i / WORDS][i % WORDS];          \
        cp_async_wait<0>();                                                                  \
        __syncthreads();                                                                     \
        for (int i = lane + 16 * WORDS; i < 32 * WORDS; i += 32) y[i] = s[i / WORDS][i % WORDS]; \
    }
COPY(copy_16, 4, cp_async_16)
COPY(copy_4, 1, cp_async_4)

#define MMA_16_BIT(NAME, MMA)                                                                \
    KERNEL NAME(const ushort_t* a, const ushort_t* b, float* d) {                            \
        const int group = threadIdx.x / 4, t = threadIdx.x % 4;                              \
        uint32_t ra[4], rb[2];                                                               \
        float acc[4];                                                                        \
        for (int i = 0; i < 4; i++) ra[i] = pair(a + (group + i % 2 * 8) * 16 + 2 * t + i / 2 * 8); \
        for (int i = 0; i < 2; i++) rb[i] = pair(b + group * 16 + 2 * t + i * 8);            \
        for (int i = 0; i < 4; i++) acc[i] = d[(group + i / 2 * 8) * 8 + 2 * t + i % 2];     \
        MMA(acc, ra, rb);                                                                    \
        for (int i = 0; i < 4; i++) d[(group + i / 2 * 8) * 8 + 2 * t + i % 2] = acc[i];     \
    }
MMA_16_BIT(mma_f16, mma_m16n8k16_f16)
MMA_16_BIT(mma_bf16, mma_m16n8k16_bf16)

KERNEL mma_tf32(const float* a, const float* b, float* d) {
    const int group = threadIdx.x / 4, t = threadIdx.x % 4;
    uint32_t ra[4], rb[2];
    float acc[4];
    for (int i = 0; i < 4; i++) ra[i] = cvt_tf32(a[(group + i % 2 * 8) * 8 + t + i / 2 * 4]);
    for (int i = 0; i < 2; i++) rb[i] = cvt_tf32(b[group * 8 + t + i * 4]);
    for (int i = 0; i < 4; i++) acc[i] = d[(group + i / 2 * 8) * 8 + 2 * t + i % 2];
    mma_m16n8k8_tf32(acc, ra, rb);
    for (int i = 0; i < 4; i++) d[(group + i / 2 * 8) * 8 + 2 * t + i % 2] = acc[i];
}

KERNEL mma_f64(const double* a, const double* b, double* d) {  // (8, 4), (8, 4), (8, 8)
    const int group = threadIdx.x / 4, t = threadIdx.x % 4;
    double acc[2];
    for (int i = 0; i < 2; i++) acc[i] = d[group * 8 + 2 * t + i];
    mma_m8n8k4_f64(acc, a[group * 4 + t], b[group * 4 + t]);
    for (int i = 0; i < 2; i++) d[group * 8 + 2 * t + i] = acc[i];
}
#endif

#if ARCHITECTURE >= 900
// ---- sm_90 --------------------------------------------------------------------------------------
KERNEL after_others(const int* x, int* y) {
    griddepcontrol_launch_dependents();
    griddepcontrol_wait();
    y[threadIdx.x] = x[threadIdx.x];
}

KERNEL mma_f64_16(const double* a, const double* b, double* d) {  // (16, 16), (8, 16), (16, 8)
    const int group = threadIdx.x / 4, t = threadIdx.x % 4;
    double ra[8], rb[4], acc[4];
    for (int i = 0; i < 8; i++) ra[i] = a[(group + i % 2 * 8) * 16 + t + i / 2 * 4];
    for (int i = 0; i < 4; i++) rb[i] = b[group * 16 + t + i * 4];
    for (int i = 0; i < 4; i++) acc[i] = d[(group + i / 2 * 8) * 8 + 2 * t + i % 2];
    mma_m16n8k16_f64(acc, ra, rb);
    for (int i = 0; i < 4; i++) d[(group + i / 2 * 8) * 8 + 2 * t + i % 2] = acc[i];
}

// One stage, handed to and fro between 32 threads that fill it and 32 that empty it.
KERNEL ring(const int* x, int* y, int phases) {
    extern __shared__ __align__(1024) unsigned char smem[];
    int* stage = reinterpret_cast<int*>(smem);
    uint64_t *full = reinterpret_cast<uint64_t*>(smem + 128), *empty = full + 1;
    const int lane = threadIdx.x % 32;
    if (threadIdx.x == 0) {
        mbarrier_init(full, 32);
        mbarrier_init(empty, 32);
        fence_mbarrier_init();
    }
    __syncthreads();
    for (int phase = 0; phase < phases; phase++) {
        if (threadIdx.x < 32) {
            mbarrier_wait(empty, (phase & 1) ^ 1);  // a new barrier's phase before the first has ended
            stage[lane] = x[phase * 32 + lane];
            mbarrier_arrive(full);
        } else {
            mbarrier_wait(full, phase & 1);
            y[phase * 32 + lane] = stage[31 - lane];
            mbarrier_arrive(empty);
        }
    }
}

// The barrier lies behind the tile's bytes.
#define LOAD(NAME, PARAMETERS, TMA, ...)                                                   \
    KERNEL NAME(const __grid_constant__ TensorMap map, unsigned char* y, int bytes, PARAMETERS) { \
        extern __shared__ __align__(1024) unsigned char smem[];                              \
        uint64_t* full = reinterpret_cast<uint64_t*>(smem + bytes);                          \
        if (threadIdx.x == 0) {                                                              \
            mbarrier_init(full, 1);                                                          \
            fence_mbarrier_init();                                                           \
            mbarrier_arrive_expect_tx(full, bytes);                                          \
            TMA(smem, &map, full, __VA_ARGS__);                                              \
        }                                                                                    \
        __syncthreads();                                                                     \
        mbarrier_wait(full, 0);                                                              \
        for (int i = threadIdx.x; i < bytes; i += blockDim.x) y[i] = smem[i];                \
    }
#define TILE_CORNER int c0, int c1
#define CORNER_3D int c0, int c1, int c2
#define CORNER_4D int c0, int c1, int c2, int c3
#define FIRST_PIXEL int c, int w, int h, int n, int s, int r
LOAD(load_tile, TILE_CORNER, tma_load_2d, c0, c1)
LOAD(load_tile_3d, CORNER_3D, tma_load_3d, c0, c1, c2)
LOAD(load_tile_4d, CORNER_4D, tma_load_4d, c0, c1, c2, c3)
LOAD(load_im2col, FIRST_PIXEL, tma_load_im2col, c, w, h, n, s, r)

// A stage of 16 rows and 16 pixels, of which each of two blocks brings 8 and 8 to both, while both still read.
KERNEL __cluster_dims__(2, 1, 1) multicast(const __grid_constant__ TensorMap rows, const __grid_constant__ TensorMap pixels,
                                           unsigned char* y, int phases) {
    extern __shared__ __align__(1024) unsigned char smem[];
    const int SHARE = 8 * 128, STAGE = 4 * SHARE, rank = cluster_rank(), lane = threadIdx.x % 32;
    uint64_t *full = reinterpret_cast<uint64_t*>(smem + STAGE), *empty = full + 1;
    if (threadIdx.x == 0) {
        mbarrier_init(full, 1);
        mbarrier_init(empty, 2 * 32);
        fence_mbarrier_init();
    }
    cluster_arrive();
    cluster_wait();  // the barriers of both are ready
    for (int phase = 0; phase < phases; phase++) {
        if (threadIdx.x == 0) {
            mbarrier_wait(empty, (phase & 1) ^ 1);
            mbarrier_arrive_expect_tx(full, STAGE);
            tma_load_3d_multicast(smem + rank * SHARE, &rows, full, 0, phase, 8 * rank, 3);
            tma_load_im2col_multicast(smem + (2 + rank) * SHARE, &pixels, full, 0, -1, 2 * rank - 1, 0, phase, 1, 3);
        } else if (threadIdx.x >= 32) {
            mbarrier_wait(full, phase & 1);
            unsigned char* to = y + (rank * phases + phase) * STAGE;
            for (int i = lane; i < STAGE; i += 32) to[i] = smem[i];
            for (int block = 0; block < 2; block++) mbarrier_arrive_cluster(cluster_map(empty, block));
        }
    }
    cluster_arrive();
    cluster_wait();  // nobody arrives here any more
}

#define STORE(NAME, PARAMETERS, TMA, ...)                                                    \
    KERNEL NAME(const __grid_constant__ TensorMap map, const unsigned char* x, int bytes, PARAMETERS) { \
        extern __shared__ __align__(1024) unsigned char smem[];                              \
        for (int i = threadIdx.x; i < bytes; i += blockDim.x) smem[i] = x[i];                \
        fence_proxy_async();                                                                 \
        __syncthreads();                                                                     \
        if (threadIdx.x == 0) {                                                              \
            TMA(&map, smem, __VA_ARGS__);                                                    \
            tma_store_commit();                                                              \
            tma_store_wait<0>();                                                             \
        }                                                                                    \
    }
STORE(store_tile, TILE_CORNER, tma_store_2d, c0, c1)
STORE(store_tile_4d, CORNER_4D, tma_store_4d, c0, c1, c2, c3)

KERNEL stmatrix_4_trans(const uint32_t* x, ushort_t* y) {
    __shared__ __align__(16) ushort_t s[32][8];
    const int lane = threadIdx.x;
    uint32_t r[4];
    for (int i = 0; i < 4; i++) r[i] = x[lane * 4 + i];
    stmatrix_x4_trans(s[5 * lane % 32], r);
    __syncthreads();
    for (int i = 0; i < 8; i++) y[lane * 8 + i] = s[lane][i];
}
#endif

#ifdef HOPPER_A
// ---- sm_90a -------------------------------------------------------------------------------------
// A row of 128 bytes is swizzled in pieces of 16. NEXT_A: the bytes to the next k of an instruction in a.
#define GEMM_WGMMA(NAME, N, WGMMA, NUMBER, NEXT_A)                                           \
    KERNEL __launch_bounds__(128) NAME(const NUMBER* a, const NUMBER* b, float* d) {         \
        extern __shared__ __align__(1024) unsigned char smem[];                              \
        constexpr int A_BYTES = 64 * 128, K = 128 / sizeof(NUMBER), PIECE = K / 8;           \
        const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;                       \
        for (int i = tid; i < (64 + N) * K; i += 128) {                                      \
            const int row = i / K, column = i % K;                                           \
            const int place = (column / PIECE ^ row % 8) * PIECE + column % PIECE;           \
            reinterpret_cast<NUMBER*>(smem)[row * K + place] = row < 64 ? a[i] : b[i - 64 * K]; \
        }                                                                                    \
        fence_proxy_async();                                                                 \
        __syncthreads();                                                                     \
        float acc[N / 2];                                                                    \
        _Pragma("unroll") for (int i = 0; i < N / 2; i++) acc[i] = 1e30f; /* must not be added to */ \
        wgmma_fence();                                                                       \
        for (int k = 0; k < 4; k++)                                                          \
            WGMMA(acc, wgmma_desc_sw128(smem + k * NEXT_A, 16, 1024),                        \
                  wgmma_desc_sw128(smem + A_BYTES + k * 32, 16, 1024), k > 0);               \
        wgmma_commit();                                                                      \
        wgmma_wait<0>();                                                                     \
        _Pragma("unroll") for (int i = 0; i < N / 2; i++) {                                  \
            const int row = warp * 16 + lane / 4 + i / 2 % 2 * 8;                            \
            d[row * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = acc[i];                          \
        }                                                                                    \
    }
GEMM_WGMMA(gemm_wgmma_64_f16, 64, wgmma_m64n64k16_f16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_64_bf16, 64, wgmma_m64n64k16_bf16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_112_f16, 112, wgmma_m64n112k16_f16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_112_bf16, 112, wgmma_m64n112k16_bf16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_128_f16, 128, wgmma_m64n128k16_f16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_128_bf16, 128, wgmma_m64n128k16_bf16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_192_f16, 192, wgmma_m64n192k16_f16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_192_bf16, 192, wgmma_m64n192k16_bf16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_224_f16, 224, wgmma_m64n224k16_f16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_224_bf16, 224, wgmma_m64n224k16_bf16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_256_f16, 256, wgmma_m64n256k16_f16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_256_bf16, 256, wgmma_m64n256k16_bf16, ushort_t, 32)
GEMM_WGMMA(gemm_wgmma_64_f16_mk, 64, wgmma_m64n64k16_f16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_64_bf16_mk, 64, wgmma_m64n64k16_bf16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_112_f16_mk, 112, wgmma_m64n112k16_f16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_112_bf16_mk, 112, wgmma_m64n112k16_bf16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_128_f16_mk, 128, wgmma_m64n128k16_f16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_128_bf16_mk, 128, wgmma_m64n128k16_bf16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_192_f16_mk, 192, wgmma_m64n192k16_f16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_192_bf16_mk, 192, wgmma_m64n192k16_bf16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_224_f16_mk, 224, wgmma_m64n224k16_f16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_224_bf16_mk, 224, wgmma_m64n224k16_bf16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_256_f16_mk, 256, wgmma_m64n256k16_f16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_256_bf16_mk, 256, wgmma_m64n256k16_bf16_mk, ushort_t, 2048)
GEMM_WGMMA(gemm_wgmma_64_tf32, 64, wgmma_m64n64k8_tf32, float, 32)
GEMM_WGMMA(gemm_wgmma_112_tf32, 112, wgmma_m64n112k8_tf32, float, 32)
GEMM_WGMMA(gemm_wgmma_128_tf32, 128, wgmma_m64n128k8_tf32, float, 32)
GEMM_WGMMA(gemm_wgmma_192_tf32, 192, wgmma_m64n192k8_tf32, float, 32)
GEMM_WGMMA(gemm_wgmma_224_tf32, 224, wgmma_m64n224k8_tf32, float, 32)
GEMM_WGMMA(gemm_wgmma_256_tf32, 256, wgmma_m64n256k8_tf32, float, 32)

// Rows of b: the first 64 columns of d take 8 from `first` on, and 8 from `eight` behind those; the next 64 columns
// the same, `apart` rows further.
#define TURNED_WGMMA(NAME, N, WGMMA)                                                         \
    KERNEL __launch_bounds__(128) NAME(const ushort_t* a, const ushort_t* b, float* d, int rows, int first, \
                                       int eight, int apart) {                               \
        extern __shared__ __align__(1024) unsigned char smem[];                              \
        constexpr int A_BYTES = 16 * 128;                                                    \
        const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32;                       \
        for (int i = tid; i < (16 + rows) * 64; i += 128) {                                  \
            const int row = i / 64, column = i % 64;                                         \
            const int offset = row * 128 + ((column / 8 ^ row % 8) * 8 + column % 8) * 2;    \
            *reinterpret_cast<ushort_t*>(smem + offset) = row < 16 ? a[i] : b[i - 16 * 64];  \
        }                                                                                    \
        fence_proxy_async();                                                                 \
        __syncthreads();                                                                     \
        float acc[N / 2];                                                                    \
        _Pragma("unroll") for (int i = 0; i < N / 2; i++) acc[i] = 1e30f; /* must not be added to */ \
        wgmma_fence();                                                                       \
        WGMMA(acc, wgmma_desc_sw128(smem, 0, 1024),                                          \
              wgmma_desc_sw128(smem + A_BYTES + first * 128, apart * 128, eight * 128), 0);  \
        wgmma_commit();                                                                      \
        wgmma_wait<0>();                                                                     \
        _Pragma("unroll") for (int i = 0; i < N / 2; i++) {                                  \
            const int row = warp * 16 + lane / 4 + i / 2 % 2 * 8;                            \
            d[row * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = acc[i];                          \
        }                                                                                    \
    }
TURNED_WGMMA(turned_wgmma_128, 128, wgmma_m64n128k16_f16_mn)
TURNED_WGMMA(turned_wgmma_128_bf16, 128, wgmma_m64n128k16_bf16_mn)
TURNED_WGMMA(turned_wgmma_192, 192, wgmma_m64n192k16_f16_mn)
TURNED_WGMMA(turned_wgmma_192_bf16, 192, wgmma_m64n192k16_bf16_mn)
TURNED_WGMMA(turned_wgmma_256, 256, wgmma_m64n256k16_f16_mn)
TURNED_WGMMA(turned_wgmma_256_bf16, 256, wgmma_m64n256k16_bf16_mn)
#endif
