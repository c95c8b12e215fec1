// How a block multiplies two slabs of tile_gemm.cuh with ordinary multiply-adds: each thread for a
// corner of THREAD_M x THREAD_N neighbours, out of registers, so that THREAD_M + THREAD_N shared loads
// feed THREAD_M * THREAD_N multiply-adds.
//
// Macros: TILE_M, TILE_N, THREAD_M, THREAD_N.
#pragma once

// TILE_K columns of an operand, TILE rows each.
template <int TILE> struct __align__(16) Slab {
    static const int SKEW = 4;  // keeps columns 16-byte aligned and spreads a row over the banks
    Accum values[TILE_K][TILE + SKEW];

    __device__ __forceinline__ Accum& at(int k, int row) { return values[k][row]; }
};

// Row and column, inside the tile, of this thread's acc[i][j]; both ascend.
__device__ __forceinline__ int thread_row(int i) { return threadIdx.x / (TILE_N / THREAD_N) * THREAD_M + i; }
__device__ __forceinline__ int thread_col(int j) { return threadIdx.x % (TILE_N / THREAD_N) * THREAD_N + j; }

// acc += A B^T over the slab, k ascending.
__device__ __forceinline__ void multiply(Slab<TILE_M>& a, Slab<TILE_N>& b, Accum (&acc)[THREAD_M][THREAD_N]) {
#pragma unroll
    for (int k = 0; k < TILE_K; ++k) {
        Accum a_column[THREAD_M], b_column[THREAD_N];
#pragma unroll
        for (int i = 0; i < THREAD_M; ++i) a_column[i] = a.at(k, thread_row(i));
#pragma unroll
        for (int j = 0; j < THREAD_N; ++j) b_column[j] = b.at(k, thread_col(j));
#pragma unroll
        for (int i = 0; i < THREAD_M; ++i)
#pragma unroll
            for (int j = 0; j < THREAD_N; ++j) acc[i][j] += a_column[i] * b_column[j];
    }
}
