// How a block multiplies two slabs of tile_gemm.cuh on tensor cores, in double precision (sm_80): each
// warp for 8 * THREAD_M rows and 4 * THREAD_N columns of the tile, in steps of MMA_M x 8 x MMA_K.
//
// mma.sync spreads 8 x 8 elements over a warp: lane l holds row l / 4, columns 2 * (l % 4) + {0, 1}. A
// thread therefore has THREAD_M rows that lie 8 apart, and THREAD_N columns in pairs that lie 8 apart.
//
// Macros: TILE_M, TILE_N, THREAD_M, THREAD_N.
#pragma once

#if __CUDA_ARCH__ >= 900
const int MMA_M = 16, MMA_K = 16;  // one instruction of Hopper's; newer GPUs take several
#else
const int MMA_M = 8, MMA_K = 4;
#endif
const int WARP_M = 8 * THREAD_M, WARP_N = 4 * THREAD_N;

static_assert(sizeof(Accum) == 8, "these tensor cores multiply doubles");
static_assert(TILE_M % WARP_M == 0 && TILE_N % WARP_N == 0, "warps must cover the tile");
static_assert(WARP_M % MMA_M == 0 && WARP_N % 8 == 0, "instructions must cover a warp's part");
static_assert(TILE_M % 16 == 0 && TILE_N % 16 == 0, "the banks of a slab's columns count on it");

// TILE_K columns of an operand, TILE rows each. A column begins 4 * (k % 4) + k / 4 banks of 8 bytes
// after column 0, of 16. So half a warp meets no bank twice, whether it reads 4 rows of 4 columns for
// mma.sync or writes 16 rows of a column, or 16 columns of a row.
template <int TILE> struct Slab {
    Accum values[TILE_K * (TILE + 4)];  // the last column reaches 3 into its skew

    __device__ __forceinline__ static int column(int k) { return k * (TILE + 4) + k / 4; }
    __device__ __forceinline__ Accum& at(int k, int row) { return values[column(k) + row]; }
};

__device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / (TILE_N / WARP_N) * WARP_M; }
__device__ __forceinline__ int warp_col() { return threadIdx.x / 32 % (TILE_N / WARP_N) * WARP_N; }

// Rows of warps in the tile, and the bits of a lane that tell its rows from those of others.
const int WARPS_DOWN = TILE_M / WARP_M;
const int ROW_LANES = 4 + 8 + 16;
__device__ __forceinline__ int warp_down() { return warp_row() / WARP_M; }

// Row and column, inside the tile, of this thread's acc[i][j]; both ascend.
__device__ __forceinline__ int thread_row(int i) { return warp_row() + i * 8 + threadIdx.x % 32 / 4; }
__device__ __forceinline__ int thread_col(int j) {
    return warp_col() + j / 2 * 8 + threadIdx.x % 4 * 2 + j % 2;
}

// There are registers to fetch the next slab of both operands at once.
const int FIRST_PART = TILE_K;

// acc += A B^T over columns [BEGIN, END) of the slab, k ascending.
template <int BEGIN, int END>
__device__ __forceinline__ void multiply(Slab<TILE_M>& a, Slab<TILE_N>& b, Accum (&acc)[THREAD_M][THREAD_N]) {
    const int group = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const int a_row = warp_row() + group, b_row = warp_col() + group;
#pragma unroll
    for (int k = BEGIN; k < END; k += MMA_K) {
        Accum b_part[THREAD_N / 2][MMA_K / 4];
#pragma unroll
        for (int j = 0; j < THREAD_N / 2; ++j)
#pragma unroll
            for (int q = 0; q < MMA_K / 4; ++q) b_part[j][q] = b.at(k + 4 * q + t, b_row + 8 * j);
#if __CUDA_ARCH__ >= 900
#pragma unroll
        for (int i = 0; i < THREAD_M; i += 2) {
            Accum a_part[8];
#pragma unroll
            for (int e = 0; e < 8; ++e) a_part[e] = a.at(k + e / 2 * 4 + t, a_row + (i + e % 2) * 8);
#pragma unroll
            for (int j = 0; j < THREAD_N; j += 2) {
                Accum d[4] = {acc[i][j], acc[i][j + 1], acc[i + 1][j], acc[i + 1][j + 1]};
                mma_m16n8k16_f64(d, a_part, b_part[j / 2]);
                acc[i][j] = d[0], acc[i][j + 1] = d[1], acc[i + 1][j] = d[2], acc[i + 1][j + 1] = d[3];
            }
        }
#else
#pragma unroll
        for (int i = 0; i < THREAD_M; ++i) {
            const Accum a_part = a.at(k + t, a_row + i * 8);
#pragma unroll
            for (int j = 0; j < THREAD_N; j += 2) {
                Accum d[2] = {acc[i][j], acc[i][j + 1]};
                mma_m8n8k4_f64(d, a_part, b_part[j / 2][0]);
                acc[i][j] = d[0], acc[i][j + 1] = d[1];
            }
        }
#endif
    }
}
