// The heart of the three convolution kernels: one block's tile of a matrix product whose operands
// are gathered, not stored ("implicit GEMM": the im2col matrix is never written anywhere).
//
//   acc[m][n] = sum over k of A(row0 + m, k) * B(col0 + n, k)      m < TILE_M, n < TILE_N
//
// The block walks k in slabs of TILE_K. For each slab all threads together gather TILE_M x TILE_K
// values of A and TILE_N x TILE_K of B into shared memory, then each thread multiplies for its own
// THREAD_M x THREAD_N of the tile's elements: see tile_fma.cuh and, on tensor cores, tile_mma_f64.cuh.
// The next slab is fetched into registers while the present one is being multiplied, so the latency
// of global memory hides behind arithmetic.
//
// An operand says how its matrix is gathered:
//   Row row(unsigned m)          what can be computed once for a row
//   Col col(unsigned k)          what can be computed once for a column
//   Accum load(Row, Col)         the value; zero outside the matrix
//   LANES_ALONG_K                whether neighbours in memory are neighbours in k (else in m): this
//                                is the direction in which neighbouring threads should load
//
// Shared memory: about TILE_K * (TILE_M + TILE_N + 8) * sizeof(Accum) bytes, 13 KB for 128 x 64 float.
// Macros: TILE_M, TILE_N, THREAD_M, THREAD_N, RANK; MULTIPLY, FMA unless set, or MMA_F64.
#pragma once
#include "common.cuh"

#define FMA 1
#define MMA_F64 2
#ifndef MULTIPLY
#define MULTIPLY FMA
#endif

const int TILE_K = 16;
const int THREADS = (TILE_M / THREAD_M) * (TILE_N / THREAD_N);
// Blocks that must fit on one multiprocessor, which caps the registers of a thread: two hide each
// other's barriers. Double accumulators and places with three axes need the registers of both.
const int MIN_BLOCKS = sizeof(Accum) == 8 || RANK == 3 ? 1 : 2;

static_assert(TILE_M % THREAD_M == 0 && TILE_N % THREAD_N == 0, "threads must cover the tile");
static_assert(THREADS % TILE_K == 0, "threads that load along k must cover whole rows");
static_assert(THREADS % TILE_M == 0 && THREADS % TILE_N == 0, "threads that load along rows must cover whole columns");

// Slab, thread_row, thread_col and multiply.
#if MULTIPLY == MMA_F64
#include "tile_mma_f64.cuh"
#else
#include "tile_fma.cuh"
#endif

// One thread's share in gathering a TILE x TILE_K slab: a small grid of rows and columns.
template <class Operand, int TILE> struct Gather {
    static const int LANES = Operand::LANES_ALONG_K ? TILE_K : TILE;  // threads side by side
    static const int STEP = THREADS / LANES;                          // threads one behind another
    static const int ROWS = Operand::LANES_ALONG_K ? TILE / STEP : 1;
    static const int COLS = Operand::LANES_ALONG_K ? 1 : TILE_K / STEP;
    static_assert(ROWS >= 1 && COLS >= 1, "too many threads for this tile");

    const Operand& operand;
    typename Operand::Row rows[ROWS];
    Accum values[ROWS][COLS];

    __device__ __forceinline__ static int row_of(int i) {
        return Operand::LANES_ALONG_K ? threadIdx.x / LANES + i * STEP : threadIdx.x % LANES;
    }
    __device__ __forceinline__ static int col_of(int j) {
        return Operand::LANES_ALONG_K ? threadIdx.x % LANES : threadIdx.x / LANES + j * STEP;
    }

    __device__ __forceinline__ Gather(const Operand& operand, unsigned row0) : operand(operand) {
#pragma unroll
        for (int i = 0; i < ROWS; ++i) rows[i] = operand.row(row0 + row_of(i));
    }
    __device__ __forceinline__ void fetch(unsigned k0) {
#pragma unroll
        for (int j = 0; j < COLS; ++j) {
            const typename Operand::Col col = operand.col(k0 + col_of(j));
#pragma unroll
            for (int i = 0; i < ROWS; ++i) values[i][j] = operand.load(rows[i], col);
        }
    }
    __device__ __forceinline__ void put(Slab<TILE>& slab) const {
#pragma unroll
        for (int j = 0; j < COLS; ++j)
#pragma unroll
            for (int i = 0; i < ROWS; ++i) slab.at(col_of(j), row_of(i)) = values[i][j];
    }
};

// Sum k over [k_begin, k_end), in ascending order: the result's bits do not depend on the launch.
template <class OperandA, class OperandB>
__device__ __forceinline__ void tile_gemm(const OperandA& a, const OperandB& b, unsigned row0, unsigned col0,
                                          unsigned k_begin, unsigned k_end, Accum (&acc)[THREAD_M][THREAD_N]) {
    __shared__ Slab<TILE_M> a_slab;
    __shared__ Slab<TILE_N> b_slab;

#pragma unroll
    for (int i = 0; i < THREAD_M; ++i)
#pragma unroll
        for (int j = 0; j < THREAD_N; ++j) acc[i][j] = 0;

    Gather<OperandA, TILE_M> a_gather(a, row0);
    Gather<OperandB, TILE_N> b_gather(b, col0);
    a_gather.fetch(k_begin);
    b_gather.fetch(k_begin);
    for (unsigned k0 = k_begin; k0 < k_end; k0 += TILE_K) {
        a_gather.put(a_slab);
        b_gather.put(b_slab);
        __syncthreads();  // the slab is complete
        if (k0 + TILE_K < k_end) {
            a_gather.fetch(k0 + TILE_K);
            b_gather.fetch(k0 + TILE_K);
        }
        multiply(a_slab, b_slab, acc);
        __syncthreads();  // everyone has read the slab; it may be overwritten
    }
}
