// tile_gemm of tile_gemm.cuh by copies that run beside the arithmetic (cp.async, sm_80): of SLABS places in
// shared memory one is being multiplied while the others are on their way. A copy takes 16 bytes as they lie,
// four floats along k or along a row, and multiplication turns them where they must be turned.
//
// Shared memory: SLABS * TILE_K * (TILE_M + TILE_N) * 4 bytes, 36 KB for 128 x 64.
#pragma once
#include "ptx.cuh"

const int SLABS = TILE_M + TILE_N > 192 ? 2 : 3;  // what a block may have of it
const int QUAD = 4;  // floats of a copy

// TILE rows of an operand, TILE_K columns each, as they come: ALONG_K four columns of a row lie together, else four
// rows of a column.
//
// ALONG_K two rows take a line of 8 quads, all banks once. Quad q of rows 2 * line and 2 * line + 1 stands in
// place q ^ (line / 2): so the 4 or 8 threads of a warp that read the same columns of rows 4 apart (see
// tile_fma.cuh) read from as many places, and so do the 8 that copy a line.
template <int TILE, bool ALONG_K> struct AsyncSlab {
    float values[TILE * TILE_K];

    __device__ __forceinline__ static int place(int row, int k) {
        if (!ALONG_K) return k * TILE + row;
        const int quad = row % 2 * (TILE_K / QUAD) + k / QUAD;
        return row / 2 * (2 * TILE_K) + (quad ^ row / 4 % 8) * QUAD;
    }
};

static_assert(TILE_K == 16, "a line of banks must hold two rows of a slab");

// What an operand computes once for each row of the tile, or for each four of them that a copy takes: a thread
// copies from more of them than it has registers for.
template <class Operand, int TILE> struct SharedRows {
    static const int STEP = Operand::ALONG_K ? 1 : QUAD;
    typename Operand::Row rows[TILE / STEP];

    __device__ __forceinline__ void fill(const Operand& operand, unsigned row0) {
        for (int i = threadIdx.x; i < TILE / STEP; i += THREADS) rows[i] = operand.row(row0 + i * STEP);
    }
};

// One thread's share in copying a slab: COPIES quads, all of one column (ALONG_K: of the same four); some threads
// have none of a small slab.
template <class Operand, int TILE> struct AsyncGather {
    static const bool ALONG_K = Operand::ALONG_K;
    static const int QUADS = TILE * TILE_K / QUAD;
    static const int COPIES = QUADS < THREADS ? 1 : QUADS / THREADS;
    // Threads side by side, and from one copy of a thread to the next: in rows, or in fours of them.
    static const int LANES = (ALONG_K ? TILE_K : TILE) / QUAD / (ALONG_K ? 1 : COPIES);
    static const int STEP = ALONG_K ? THREADS / LANES : LANES;
    static_assert(Operand::WIDTH % QUAD == 0, "quads must exist as a whole or not at all");
    static_assert(QUADS % THREADS == 0 || QUADS < THREADS, "the threads must cover the slab");
    static_assert(!ALONG_K || COPIES == 1 || STEP % 32 == 0, "a thread's copies must stand in places alike");

    const Operand& operand;
    const SharedRows<Operand, TILE>& shared;
    int row, column;  // of the first copy
    int first;        // its place

    __device__ __forceinline__ AsyncGather(const Operand& operand, const SharedRows<Operand, TILE>& shared)
        : operand(operand), shared(shared) {
        row = ALONG_K ? threadIdx.x / LANES : threadIdx.x % LANES;
        column = ALONG_K ? threadIdx.x % LANES * QUAD : threadIdx.x / LANES;
        first = AsyncSlab<TILE, ALONG_K>::place(row * SharedRows<Operand, TILE>::STEP, column);
    }
    __device__ __forceinline__ void copy(AsyncSlab<TILE, ALONG_K>& slab, unsigned k0) const {
        if (QUADS < THREADS && threadIdx.x >= QUADS) return;
        const typename Operand::Col col = operand.col(k0 + column);
#pragma unroll
        for (int i = 0; i < COPIES; ++i) {
            const Source source = operand.source(shared.rows[row + i * STEP], col);
            float* to = &slab.values[first + i * STEP * (ALONG_K ? TILE_K : QUAD)];
            cp_async_16(to, source.from, source.exists ? 16 : 0);
        }
    }
};

// The rows first + along(0, i) of a slab, which are a thread's, read a quad of columns at a time.
template <int TILE, bool ALONG_K, int SHARE> struct Reader {
    typedef AsyncSlab<TILE, ALONG_K> Slab;
    static const int RUN = SHARE < QUAD ? SHARE : QUAD;  // rows that lie together
    static_assert(SHARE <= QUAD || TILE / SHARE * RUN % 32 == 0, "a thread's runs must stand in places alike");
    const Slab* slabs;
    int first;  // place of the first row's column 0 in slab 0

    __device__ __forceinline__ Reader(const Slab* slabs, int row) : slabs(slabs), first(Slab::place(row, 0)) {}

    template <int COUNT> __device__ __forceinline__ const Values<COUNT>& at(int place) const {
        return *(const Values<COUNT>*)((const char*)slabs + place * (int)sizeof(float));
    }

    // part[e][i] = column k + e of row i of a slab, for the rows [BEGIN, BEGIN + COUNT).
    template <int BEGIN, int COUNT>
    __device__ __forceinline__ void read(int slab, int k, float (&part)[QUAD][COUNT]) const {
        const int first = this->first + slab * (TILE * TILE_K);
        if (ALONG_K) {
#pragma unroll
            for (int i = 0; i < COUNT; ++i) {
                const int row = along<TILE, SHARE>(0, BEGIN + i), quad = Slab::place(row % 2, k);
                const Values<QUAD> values = at<QUAD>((first ^ quad) + row / 2 * (2 * TILE_K));
#pragma unroll
                for (int e = 0; e < QUAD; ++e) part[e][i] = values.at[e];
            }
            return;
        }
#pragma unroll
        for (int e = 0; e < QUAD; ++e)
#pragma unroll
            for (int i = 0; i < COUNT; i += RUN) {
                const int offset = Slab::place(along<TILE, SHARE>(0, BEGIN + i), k + e);
                const Values<RUN> run = at<RUN>(first + offset);
#pragma unroll
                for (int r = 0; r < RUN; ++r) part[e][i + r] = run.at[r];
            }
    }
};

// acc[..][BEGIN ..] += A B^T over columns [k, k + QUAD), k ascending, for so many of a thread's columns at a
// time as have registers, and then the others.
template <int BEGIN, class ReaderB>
__device__ __forceinline__ void multiply_columns(const float (&a)[QUAD][THREAD_M], const ReaderB& reader, int slab, int k,
                                                 float (&acc)[THREAD_M][THREAD_N]) {
    const int COUNT = ReaderB::RUN;
    float b[QUAD][COUNT];
    reader.template read<BEGIN, COUNT>(slab, k, b);
#pragma unroll
    for (int e = 0; e < QUAD; ++e)
#pragma unroll
        for (int i = 0; i < THREAD_M; ++i)
#pragma unroll
            for (int j = 0; j < COUNT; ++j) acc[i][BEGIN + j] += a[e][i] * b[e][j];
}

template <class ReaderA, class ReaderB>
__device__ __forceinline__ void multiply(const ReaderA& a_reader, const ReaderB& b_reader, int slab,
                                         float (&acc)[THREAD_M][THREAD_N]) {
#pragma unroll
    for (int k = 0; k < TILE_K; k += QUAD) {
        float a[QUAD][THREAD_M];
        a_reader.template read<0, THREAD_M>(slab, k, a);
        multiply_columns<0>(a, b_reader, slab, k, acc);
        if (THREAD_N > ReaderB::RUN) multiply_columns<THREAD_N - ReaderB::RUN>(a, b_reader, slab, k, acc);
    }
}

// Sum k over [k_begin, k_end), in ascending order: the result's bits do not depend on the launch.
template <class OperandA, class OperandB>
__device__ __forceinline__ void tile_gemm(const OperandA& a, const OperandB& b, unsigned row0, unsigned col0,
                                          unsigned k_begin, unsigned k_end, float (&acc)[THREAD_M][THREAD_N]) {
    __shared__ __align__(128) AsyncSlab<TILE_M, OperandA::ALONG_K> a_slab[SLABS];
    __shared__ __align__(128) AsyncSlab<TILE_N, OperandB::ALONG_K> b_slab[SLABS];

#pragma unroll
    for (int i = 0; i < THREAD_M; ++i)
#pragma unroll
        for (int j = 0; j < THREAD_N; ++j) acc[i][j] = 0;

    __shared__ SharedRows<OperandA, TILE_M> a_rows;
    __shared__ SharedRows<OperandB, TILE_N> b_rows;
    a_rows.fill(a, row0);
    b_rows.fill(b, col0);
    __syncthreads();
    const AsyncGather<OperandA, TILE_M> a_gather(a, a_rows);
    const AsyncGather<OperandB, TILE_N> b_gather(b, b_rows);
    const Reader<TILE_M, OperandA::ALONG_K, THREAD_M> a_reader(a_slab, thread_row(0));
    const Reader<TILE_N, OperandB::ALONG_K, THREAD_N> b_reader(b_slab, thread_col(0));
    unsigned ahead = k_begin;  // the first column that is not on its way
    int now = 0, free = 0;
    const auto copy = [&] {  // beyond the end a group without copies, so that as many are waited for
        if (ahead < k_end) {
            a_gather.copy(a_slab[free], ahead);
            b_gather.copy(b_slab[free], ahead);
        }
        cp_async_commit();
        ahead += TILE_K;
        free = free + 1 < SLABS ? free + 1 : 0;
    };
#pragma unroll
    for (int slab = 1; slab < SLABS; ++slab) copy();
    for (unsigned k0 = k_begin; k0 < k_end; k0 += TILE_K) {
        cp_async_wait<SLABS - 2>();
        __syncthreads();  // everyone's copies of this slab are there, and everyone has read the one before
        copy();
        multiply(a_reader, b_reader, now, acc);
        now = now + 1 < SLABS ? now + 1 : 0;
    }
}
