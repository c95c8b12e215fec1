// One block's tile of a matrix product on tensor cores, of 16-bit numbers or of floats taken as TF32
// (tensor_cores.cuh), the operands gathered, not stored (as in tile_gemm.cuh), the sums in float:
//
//   acc[m][n] = sum over k of A(row0 + m, k) * B(col0 + n, k)      m < TILE_M, n < TILE_N
//
// The block walks k in slabs of TILE_K. All threads together copy the slabs of both operands to shared memory by
// cp.async, 16 bytes at a time, STAGES - 1 slabs ahead; each warp multiplies WARP_M x WARP_N elements of the tile
// by mma.sync, whose operands ldmatrix brings into registers, one step of MMA_K terms ahead.
//
// A slab lies in shared memory in rows of whole 16-byte chunks: a row of the tile with its TILE_K terms
// (ALONG_K), or a term with all rows of the tile. Chunk c of row r stands at c ^ swizzle(r): the 8 rows of 16 bytes
// that ldmatrix reads at once, one below the other, lie in all banks once, and so do the chunks side by side that
// threads write. Of floats, rows of terms are read word by word (tensor_cores.cuh).
//
// An operand says how its matrix is gathered:
//   ALONG_K        which of the two its slabs are
//   fetch(slab)    copies the next slab, by cp.async, with zeros for terms that do not exist; all threads call it
//
// Shared memory, dynamic: STAGES * (TILE_M + TILE_N) * TILE_K elements, 64 KB for 128 x 128 x 32 of 16 bits in 4
// stages. Macros: TILE_M, TILE_N, WARP_M, WARP_N, TILE_K, STAGES; those of tensor_cores.cuh.
#pragma once
#include "block_tile.cuh"
#include "tensor_cores.cuh"

const int WARPS_ACROSS = TILE_N / WARP_N;
const int THREADS = 32 * (TILE_M / WARP_M) * WARPS_ACROSS;
const int STEPS = TILE_K / MMA_K;

static_assert(TILE_M % WARP_M == 0 && TILE_N % WARP_N == 0, "warps must cover the tile");
static_assert(WARP_M % 16 == 0 && WARP_N % 16 == 0, "ldmatrix brings 16 rows of an operand");
static_assert(STEPS % 2 == 0, "fragments take turns in two sets of registers, from slab to slab");

// ROWS rows of LENGTH elements in shared memory, of one term each where they are TURNED.
template <int ROWS, int LENGTH, bool TURNED = false> struct Swizzled {
    static const int CHUNKS = LENGTH / CHUNK, ROW_BYTES = LENGTH * sizeof(Element), BYTES = ROWS * ROW_BYTES;
    static_assert(CHUNKS % 8 == 0 || (8 % CHUNKS == 0 && (!TURNED || sizeof(Element) == 2)),
                  "rows are whole numbers of 128 bytes, or parts of them");

    static const int PERIOD = TURNED ? TURNED_PERIOD : 8;  // the swizzle is the same for rows so far apart
    __device__ __forceinline__ static int swizzle(int row) {
        if (CHUNKS >= 8) return TURNED ? turned_swizzle(row) : row % 8;
        return row / (8 / CHUNKS) % CHUNKS;
    }
    __device__ __forceinline__ static int offset(int row, int chunk) {
        return row * ROW_BYTES + (chunk ^ swizzle(row)) * 16;
    }
};

// The slabs of an operand of which a block has TILE rows.
template <bool ALONG_K, int TILE>
struct SlabOf : Swizzled<ALONG_K ? TILE : TILE_K, ALONG_K ? TILE_K : TILE, !ALONG_K> {
    using Layout = Swizzled<ALONG_K ? TILE : TILE_K, ALONG_K ? TILE_K : TILE, !ALONG_K>;
    // Threads side by side copy a row; each copies one chunk of LOADS rows that lie STEP apart.
    static const int STEP = THREADS / Layout::CHUNKS, LOADS = (ALONG_K ? TILE : TILE_K) / STEP;
    static_assert(THREADS % Layout::CHUNKS == 0 && LOADS >= 1, "threads must copy whole rows");
    static_assert(STEP % Layout::PERIOD == 0 || LOADS == 1, "the swizzle must be the same for all rows of a thread");

    __device__ __forceinline__ static int thread_row() { return threadIdx.x / Layout::CHUNKS; }
    __device__ __forceinline__ static int thread_chunk() { return threadIdx.x % Layout::CHUNKS; }
    // Where this thread's first chunk goes; the next ones follow it STEP_BYTES apart.
    __device__ __forceinline__ static int thread_offset() { return Layout::offset(thread_row(), thread_chunk()); }
    static const int STEP_BYTES = STEP * Layout::ROW_BYTES;
};

__device__ __forceinline__ int warp_row() { return threadIdx.x / 32 / WARPS_ACROSS * WARP_M; }
__device__ __forceinline__ int warp_col() { return threadIdx.x / 32 % WARPS_ACROSS * WARP_N; }

// How a warp reads its ROWS rows of an operand's slab, 16 rows of MMA_K terms at a time. The four matrices of
// ldmatrix, of 8 rows of 16 bytes, are the quarters of that square; mma.sync wants those of A, the FIRST operand, by
// columns, and those of B by rows.
template <bool FIRST, bool ALONG_K, int TILE, int ROWS> struct Fragments {
    using Slab = SlabOf<ALONG_K, TILE>;
    static const int PARTS = ROWS / 16;
    static const bool IN_WORDS = !ALONG_K && sizeof(Element) == 4;
    static const int LINE = 128 / sizeof(Element);  // rows that a line holds of a term
    static_assert(!IN_WORDS || ROWS % LINE == 0, "a warp has whole lines");
    // Of what this lane points to, for each step or else for each part; of words for each 8 rows of a line.
    static const int OFFSETS = ALONG_K ? STEPS : IN_WORDS ? LINE / 8 : PARTS;
    int offsets[OFFSETS];
    uint32_t values[2][PARTS][4];

    __device__ __forceinline__ explicit Fragments(int first_row) {
        const int lane = threadIdx.x % 32, quarter = lane / 8;
        if (IN_WORDS) {
#pragma unroll
            for (int i = 0; i < OFFSETS; ++i) {
                const int row = first_row + 8 * i + lane / 4;
                offsets[i] = in_register(Slab::offset(lane % 4, row / CHUNK) + row % CHUNK * (int)sizeof(Element));
            }
            return;
        }
        const int row = first_row + 8 * (FIRST ? quarter % 2 : quarter / 2);
        const int half = FIRST ? quarter / 2 : quarter % 2;  // of the terms
#pragma unroll
        for (int i = 0; i < OFFSETS; ++i)
            offsets[i] = in_register(ALONG_K ? Slab::offset(row + lane % 8, 2 * i + half)
                                             : Slab::offset(8 * half + lane % 8, row / CHUNK + 2 * i));
    }
    __device__ __forceinline__ void load(int into, const unsigned char* slab, int step) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            if (ALONG_K) {
                ldmatrix_x4(values[into][i], slab + offsets[step] + i * 16 * Slab::ROW_BYTES);
            } else if (!IN_WORDS) {
                ldmatrix_x4_trans(values[into][i], slab + offsets[i] + step * MMA_K * Slab::ROW_BYTES);
            } else {
#pragma unroll
                for (int q = 0; q < 4; ++q) {
                    const int rows = 2 * i + (FIRST ? q % 2 : q / 2), term = step * MMA_K + CHUNK * (FIRST ? q / 2 : q % 2);
                    values[into][i][q] = *(const uint32_t*)(slab + offsets[rows % OFFSETS] + rows / OFFSETS * 128 +
                                                            term * Slab::ROW_BYTES);
                }
            }
        }
    }
};

// A warp's sums. Lane l holds, of each 16 x 8 elements, d[2 * h + e] = row l / 4 + 8 * h, column 2 * (l % 4) + e.
typedef float Sums[WARP_M / 16][WARP_N / 8][4];

// The first operand's numbers go to tensor cores as they are in shared memory.
struct AsLoaded {
    // Before any is multiplied, while the first slabs are on their way; all threads call this.
    __device__ __forceinline__ void prepare() const {}
    // Return what makes factors of a step of a slab, which are counted from 0.
    __device__ __forceinline__ const AsLoaded& at(int, int) const { return *this; }
    __device__ __forceinline__ Factor operator()(const uint32_t (&loaded)[4]) const { return factor_of(loaded); }
};

template <class A, class B, class MakeFactor>
__device__ __forceinline__ void multiply(const A& a, const B& b, int from, const MakeFactor& make, Sums& acc) {
    Factor columns[WARP_N / 16];
#pragma unroll
    for (int j = 0; j < WARP_N / 16; ++j) columns[j] = factor_of(b.values[from][j]);
#pragma unroll
    for (int i = 0; i < WARP_M / 16; ++i) {
        const Factor rows = make(a.values[from][i]);
#pragma unroll
        for (int j = 0; j < WARP_N / 8; ++j) multiply_add(acc[i][j], rows, columns[j / 2], j % 2);
    }
}

template <class OperandA, class OperandB> struct TileSlabs {
    static const int A_BYTES = SlabOf<OperandA::ALONG_K, TILE_M>::BYTES;
    static const int STAGE_BYTES = A_BYTES + SlabOf<OperandB::ALONG_K, TILE_N>::BYTES;
};

// Sum `slabs` slabs, in ascending order, into acc. Shared memory is free for other things before the first slab
// is fetched and after this returns.
template <class OperandA, class OperandB, class Reading = AsLoaded>
__device__ __forceinline__ void tile_gemm(OperandA& a, OperandB& b, unsigned char* memory, int slabs, Sums& acc,
                                          const Reading& reading = {}) {
    typedef TileSlabs<OperandA, OperandB> Place;
    Fragments<true, OperandA::ALONG_K, TILE_M, WARP_M> a_part(warp_row());
    Fragments<false, OperandB::ALONG_K, TILE_N, WARP_N> b_part(warp_col());
#pragma unroll
    for (int i = 0; i < WARP_M / 16; ++i)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; ++j)
#pragma unroll
            for (int e = 0; e < 4; ++e) acc[i][j][e] = 0;

    unsigned char* const end = memory + STAGES * Place::STAGE_BYTES;
    unsigned char *read = memory, *write = memory;
    auto fetch = [&] {
        a.fetch(write);
        b.fetch(write + Place::A_BYTES);
        write += Place::STAGE_BYTES;
        if (write == end) write = memory;
    };
    auto load = [&](int into, int step) {
        a_part.load(into, read, step);
        b_part.load(into, read + Place::A_BYTES, step);
    };
    // Multiply a slab. A group of copies is committed for each slab, even an empty one, so that their number tells
    // which have arrived. The compiler must not know where the last slab is: the branch keeps the last step behind the
    // barrier, which it hides, with what is read then.
    const int last = in_register(slabs - 1);
    auto multiply_slab = [&](int slab, bool fetches) {
#pragma unroll
        for (int step = 0; step < STEPS; ++step) {
            if (step + 1 < STEPS) {
                load((step + 1) % 2, step + 1);
            } else if (slab != last) {
                read += Place::STAGE_BYTES;
                if (read == end) read = memory;
                cp_async_wait<STAGES - 2>();
                __syncthreads();  // the next slab is there, and everyone has read this one
                load(0, 0);
            }
            multiply(a_part, b_part, step % 2, reading.at(slab, step), acc);
            if (step == 0) {
                if (fetches) fetch();  // in the place of the slab before, which everyone has read
                cp_async_commit();
            }
        }
    };
#pragma unroll
    for (int slab = 0; slab < STAGES - 1; ++slab) {
        if (slab < slabs) fetch();
        cp_async_commit();
    }
    if (slabs > 0) {
        reading.prepare();
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // the first slab is complete
        load(0, 0);
    }
    int slab = 0;
    for (; slab + STAGES - 1 < slabs; ++slab) multiply_slab(slab, true);
    for (; slab < slabs; ++slab) multiply_slab(slab, false);
    __syncthreads();  // everyone has read the last slab
}
