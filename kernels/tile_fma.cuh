// How a block multiplies two slabs of tile_gemm.cuh with ordinary multiply-adds: each thread for
// THREAD_M x THREAD_N elements, out of registers, so that THREAD_M + THREAD_N numbers from shared memory
// feed THREAD_M * THREAD_N multiply-adds.
//
// A thread's rows come in runs of up to four, which one 16-byte load brings, and so do its columns. The
// 32 threads of a warp stand 4 x 8, where the tile is wide enough, so that each such load of the warp
// touches 64 or 128 bytes that lie together, all banks once. Lanes that differ in bit 0 alone share
// their rows, in bit 1 alone their columns: GPUs since Volta are reported to serve 16 lanes of a 16-byte
// load at once where such pairs ask for the same, and 8 otherwise.
//
// Macros: TILE_M, TILE_N, THREAD_M, THREAD_N.
#pragma once

// TILE_K columns of an operand, TILE rows each. What a warp that loaded along k writes at once, 4 x 8 or
// 2 x 16 elements, lies in 32 different banks.
template <int TILE> struct __align__(16) Slab {
    Accum values[TILE_K * (TILE + 6)];

    // Where column k begins.
    __device__ __forceinline__ static int column(int k) { return k * (TILE + 4) + k / 4 * 8; }
    __device__ __forceinline__ Accum& at(int k, int row) { return values[column(k) + row]; }
};

const int THREAD_COLS = TILE_N / THREAD_N;
const int WARP_COLS = THREAD_COLS < 8 ? THREAD_COLS : 8, WARP_ROWS = 32 / WARP_COLS;
const int WARPS_ACROSS = THREAD_COLS / WARP_COLS;
static_assert(THREAD_COLS % WARP_COLS == 0 && TILE_M / THREAD_M % WARP_ROWS == 0, "warps must cover the tile");

// Rows of warps in the tile, and the bits of a lane that tell its rows from those of others.
const int WARPS_DOWN = TILE_M / THREAD_M / WARP_ROWS;
const int ROW_LANES = WARP_COLS == 8 ? 2 + 16 : 32 - WARP_COLS;
__device__ __forceinline__ int warp_down() { return threadIdx.x / 32 / WARPS_ACROSS; }

// Element i of a thread's share of a tile's side, the threads along it counted by `thread`.
template <int TILE, int SHARE> __device__ __forceinline__ int along(int thread, int i) {
    const int run = SHARE < 4 ? SHARE : 4;
    return thread * run + i % run + i / run * (TILE / SHARE * run);
}

// This thread's place among those of the tile.
__device__ __forceinline__ int thread_down() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int down = WARP_COLS == 8 ? lane / 2 % 2 + lane / 16 * 2 : lane / WARP_COLS;
    return warp / WARPS_ACROSS * WARP_ROWS + down;
}
__device__ __forceinline__ int thread_across() {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int across = WARP_COLS == 8 ? lane % 2 + lane / 4 % 4 * 2 : lane % WARP_COLS;
    return warp % WARPS_ACROSS * WARP_COLS + across;
}

// Row and column, inside the tile, of this thread's acc[i][j]; both ascend.
__device__ __forceinline__ int thread_row(int i) { return along<TILE_M, THREAD_M>(thread_down(), i); }
__device__ __forceinline__ int thread_col(int j) { return along<TILE_N, THREAD_N>(thread_across(), j); }

// So many columns are multiplied while the next slab of A is on its way, the others while that of B is, in
// the same registers.
const int FIRST_PART = TILE_K / 2;

// acc += A B^T over columns [BEGIN, END) of the slab, k ascending.
template <int BEGIN, int END>
__device__ __forceinline__ void multiply(Slab<TILE_M>& a, Slab<TILE_N>& b, Accum (&acc)[THREAD_M][THREAD_N]) {
#pragma unroll
    for (int k = BEGIN; k < END; ++k) {
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
