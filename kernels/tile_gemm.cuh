// The heart of the convolutions as matrix products (conv_fprop.cu, conv_dgrad.cu, conv_wgrad.cu): one block's tile,
// whose operands are gathered, not stored ("implicit GEMM": the im2col matrix is never written anywhere).
//
//   acc[m][n] = sum over k of A(row0 + m, k) * B(col0 + n, k)      m < TILE_M, n < TILE_N
//
// The block walks k in slabs of TILE_K. For each slab all threads together gather TILE_M x TILE_K
// values of A and TILE_N x TILE_K of B into shared memory, then each thread multiplies for its own
// THREAD_M x THREAD_N of the tile's elements: see tile_fma.cuh and, on tensor cores, tile_mma_f64.cuh.
// The next slab is fetched into registers while the present one is being multiplied, so the latency
// of global memory hides behind arithmetic; and it goes to another place in shared memory, so that
// a slab costs one barrier. Where both operands come in whole vectors of float, copies that need no
// registers bring it instead, from sm_80 on: see tile_gemm_async.cuh.
//
// An operand says how its matrix is gathered:
//   ALONG_K                   whether neighbours in memory are neighbours in k, else in m: this is the
//                             direction in which neighbouring threads load
//   WIDTH                     how many neighbours a thread may take at once: VECTOR, or VECTOR_N along n, where
//                             they begin at multiples of that and the matrix ends at one, else 1
//   Row row(unsigned m)       what can be computed once for a row, or for the WIDTH rows from m on. What is
//                             beyond the last row may be anything of the matrix: nobody stores its sums
//   Col col(unsigned k)       what can be computed once for a column, or for the WIDTH columns from k on
//   Source source(Row, Col)   where the values lie; those beyond the last column are zeros, which exist nowhere
//
// Shared memory: about 2 * TILE_K * (TILE_M + TILE_N + 12) * sizeof(Accum) bytes, 26 KB for 128 x 64 float.
// Macros: TILE_M, TILE_N, THREAD_M, THREAD_N, RANK; VECTOR and VECTOR_N, 1 or 8; BLOCKS, how many of them
// a multiprocessor should hold; MULTIPLY, FMA unless set, or MMA_F64.
#pragma once
#include "block_tile.cuh"
#include "neighbours.cuh"

#define FMA 1
#define MMA_F64 2
#ifndef MULTIPLY
#define MULTIPLY FMA
#endif

const int TILE_K = 16;
const int THREADS = (TILE_M / THREAD_M) * (TILE_N / THREAD_N);
// This caps the registers of a thread. Double accumulators and places with three axes need more of them.
const int MIN_BLOCKS = sizeof(Accum) == 8 || RANK == 3 ? (BLOCKS + 1) / 2 : BLOCKS;

static_assert(TILE_M % THREAD_M == 0 && TILE_N % THREAD_N == 0, "threads must cover the tile");

// Slab, thread_row, thread_col, FIRST_PART and multiply.
#if MULTIPLY == MMA_F64
#include "tile_mma_f64.cuh"
#else
#include "tile_fma.cuh"
#endif

// One thread's share in gathering a TILE x TILE_K slab: LOADS times WIDTH neighbours.
template <class Operand, int TILE> struct Gather {
    static const bool ALONG_K = Operand::ALONG_K;
    static const int SHARE = TILE * TILE_K / THREADS;  // of a thread
    static const int WIDTH = SHARE < Operand::WIDTH ? SHARE : Operand::WIDTH;
    static const int LANES = (ALONG_K ? TILE_K : TILE) / WIDTH;    // threads side by side
    static const int STEP = THREADS / LANES;                       // threads one behind another
    static const int LOADS = (ALONG_K ? TILE : TILE_K) / STEP;     // of a thread
    static const int ROWS = ALONG_K ? LOADS : 1, COLS = ALONG_K ? 1 : LOADS;
    static_assert(THREADS % LANES == 0, "threads that load side by side must cover whole rows or columns");
    static_assert(LOADS >= 1, "too many threads for this tile");

    const Operand& operand;
    typename Operand::Row rows[ROWS];
    Values<WIDTH> values[ROWS][COLS];

    __device__ __forceinline__ static int row_of(int i) {
        return ALONG_K ? threadIdx.x / LANES + i * STEP : threadIdx.x % LANES * WIDTH;
    }
    __device__ __forceinline__ static int col_of(int j) {
        return ALONG_K ? threadIdx.x % LANES * WIDTH : threadIdx.x / LANES + j * STEP;
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
            for (int i = 0; i < ROWS; ++i) values[i][j] = load_values<WIDTH>(operand.source(rows[i], col));
        }
    }
    __device__ __forceinline__ void put(Slab<TILE>& slab) const {
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const Values<WIDTH>& loaded = values[ALONG_K ? i : 0][ALONG_K ? 0 : i];
            Accum* to = &slab.at(col_of(ALONG_K ? 0 : i), row_of(ALONG_K ? i : 0));
            if (ALONG_K) {
#pragma unroll
                for (int e = 0; e < WIDTH; ++e) to[Slab<TILE>::column(e)] = loaded.at[e];
            } else {
                *(Values<WIDTH>*)to = loaded;
            }
        }
    }
};

#if MULTIPLY == FMA && CHANNELS_LAST && VECTOR > 1 && VECTOR_N > 1 && __CUDA_ARCH__ >= 800
#include "tile_gemm_async.cuh"
#else
// Sum k over [k_begin, k_end), in ascending order: the result's bits do not depend on the launch.
template <class OperandA, class OperandB>
__device__ __forceinline__ void tile_gemm(const OperandA& a, const OperandB& b, unsigned row0, unsigned col0,
                                          unsigned k_begin, unsigned k_end, Accum (&acc)[THREAD_M][THREAD_N]) {
    __shared__ Slab<TILE_M> a_slab[2];
    __shared__ Slab<TILE_N> b_slab[2];

#pragma unroll
    for (int i = 0; i < THREAD_M; ++i)
#pragma unroll
        for (int j = 0; j < THREAD_N; ++j) acc[i][j] = 0;

    Gather<OperandA, TILE_M> a_gather(a, row0);
    Gather<OperandB, TILE_N> b_gather(b, col0);
    a_gather.fetch(k_begin);
    a_gather.put(a_slab[0]);
    b_gather.fetch(k_begin);
    b_gather.put(b_slab[0]);
    int now = 0;
    for (unsigned k0 = k_begin; k0 < k_end; k0 += TILE_K, now ^= 1) {
        const unsigned next = k0 + TILE_K;
        __syncthreads();  // the slab is complete, and everyone has read the one before
        if (next < k_end) {
            a_gather.fetch(next);
            if (FIRST_PART == TILE_K) b_gather.fetch(next);
        }
        multiply<0, FIRST_PART>(a_slab[now], b_slab[now], acc);
        if (next < k_end) {
            a_gather.put(a_slab[now ^ 1]);
            if (FIRST_PART < TILE_K) b_gather.fetch(next);
        }
        multiply<FIRST_PART, TILE_K>(a_slab[now], b_slab[now], acc);
        if (next < k_end) b_gather.put(b_slab[now ^ 1]);
    }
}
#endif
