// The heart of the fused kernels of Winograd's F(2x2, 3x3): a block's share of the 16 matrix products,
// one for each point of the transformed space,
//
//   acc[point][row][column] = sum over d of rows[point][d][row] * columns[point][d][column]
//
// for ROWS rows and COLS columns. The depth d goes by in slabs of SLAB, in shared memory. A warp owns 2 of
// the points, a thread CORNER rows x CORNER columns of both. At the end the accumulators change hands
// through shared memory, a few rows in a pass, and a thread gets all 16 points of a row and column.
//
// Macros: ROWS, COLS, CORNER: ROWS * COLS = 32 * CORNER^2.
// Shared memory: two slabs, 512 * (ROWS + COLS) bytes, and the exchange over them; 48 KB for 32 x 64.
#pragma once
#include "common.cuh"
#include "pack.cuh"
#include "winograd.cuh"

const int SLAB = 4;
const int THREADS = BLOCK_THREADS;
const int WARPS = THREADS / 32;
const int WARP_POINTS = POINTS / WARPS;
const int MIN_BLOCKS = CORNER == 8 ? 1 : 2;  // on one multiprocessor, as the accumulators allow
const int ROW_LANES = ROWS / CORNER, COL_LANES = COLS / CORNER;

static_assert(ROW_LANES * COL_LANES == 32, "a warp must cover the block's rows and columns");
static_assert(ROW_LANES >= 4 && COL_LANES >= 4, "lanes zigzag in squares of 4 x 4");
static_assert(CORNER % PACK == 0, "operands are read 16 bytes at a time");

// What the rows or columns of depth d, SIZE of them, are displaced by (exclusive or), so that 4 depths of
// 8 neighbours, which a warp writes at once, fall on 32 banks. Keeps packs whole.
template <int SIZE> __device__ __forceinline__ int swizzle(int d) { return 8 * (d * (SIZE < 32 ? SIZE : 32) / 32); }

struct Slab {
    float rows[POINTS][SLAB][ROWS];     // at row ^ swizzle<ROWS>(d)
    float columns[POINTS][SLAB][COLS];  // in order, or where `multiply` is told so displaced as well
};

// Where a warp's lane stands among the lanes of the rows and of the columns. They zigzag: any 16 lanes in a
// row ask for 4 packs of rows and 4 of columns, 64 bytes of each and not 128 of one of them.
__device__ __forceinline__ int row_lane() {
    const int lane = threadIdx.x % 32;
    return (lane & 1) | (lane >> 1 & 2) | (ROW_LANES == 8 ? lane >> 2 & 4 : 0);
}
__device__ __forceinline__ int col_lane() {
    const int lane = threadIdx.x % 32;
    return (lane >> 1 & 1) | (lane >> 2 & 2) | (COL_LANES == 8 ? lane >> 2 & 4 : 0);
}

// The row or column, within the block, of register i of a lane: CORNER of them, in packs of 4.
__device__ __forceinline__ int of_register(int i, int lane, int lanes) {
    return i / PACK * lanes * PACK + lane * PACK + i % PACK;
}

// A thread's CORNER rows or columns of depth d, which begins `line` numbers beyond those of this lane.
template <int SIZE> __device__ __forceinline__ void read(const float* slabs, int lane, int line, int by,
                                                         Pack<float> (&packs)[CORNER / PACK]) {
    const int lanes = SIZE / CORNER;
    const int lane_bits = lanes * PACK - 1;  // of a place; the others are known to the compiler
    const float* first = slabs + (lane ^ (by & lane_bits)) + line;
#pragma unroll
    for (int h = 0; h < CORNER / PACK; ++h)
        packs[h] = *(const Pack<float>*)(first + (h * lanes * PACK ^ (by & ~lane_bits)));
}

typedef float Accumulators[WARP_POINTS][CORNER][CORNER];  // [point][row][column]

// Reads a pair of slabs by turns. Where a lane's numbers begin is carried from slab to slab: the compiler would
// work it out anew for each.
template <bool COLUMNS_DISPLACED> struct Multiplier {
    static const int STEP = sizeof(Slab) / sizeof(float);
    static_assert(STEP % 32 == 0 && ROWS % 8 == 0, "exclusive or must reach no slab's bits");
    const float* slabs;
    int row, column, step;

    __device__ __forceinline__ Multiplier(const Slab (&pair)[2]) : slabs((const float*)pair), step(STEP) {
        const int point0 = threadIdx.x / 32 * WARP_POINTS;
        row = point0 * SLAB * ROWS + row_lane() * PACK;
        column = (POINTS * ROWS + point0 * COLS) * SLAB + col_lane() * PACK;
    }
    // Depths [FROM, TO) of the present slab.
    template <int FROM, int TO> __device__ __forceinline__ void multiply(Accumulators& acc) const {
#pragma unroll
        for (int d = FROM; d < TO; ++d)
#pragma unroll
            for (int s = 0; s < WARP_POINTS; ++s) {
                Pack<float> rows[CORNER / PACK], columns[CORNER / PACK];
                read<ROWS>(slabs, row, (s * SLAB + d) * ROWS, swizzle<ROWS>(d), rows);
                read<COLS>(slabs, column, (s * SLAB + d) * COLS, COLUMNS_DISPLACED ? swizzle<COLS>(d) : 0, columns);
#pragma unroll
                for (int i = 0; i < CORNER; ++i)
#pragma unroll
                    for (int j = 0; j < CORNER; ++j)
                        acc[s][i][j] += rows[i / PACK].at[i % PACK] * columns[j / PACK].at[j % PACK];
            }
    }
    __device__ __forceinline__ void next_slab() {
        row += step, column += step;
        step = -step;
    }
};

// Accumulators on their way to other threads. Results are stored with neighbouring threads along the
// "fast" axis, that of memory: columns or rows. A pass moves PASS_LINES lines of the slow axis.
template <bool COLUMNS_FAST> struct Exchange {
    static const int FAST = COLUMNS_FAST ? COLS : ROWS;
    static const int FAST_LANES = COLUMNS_FAST ? COL_LANES : ROW_LANES;
    static const int SLOW_LANES = COLUMNS_FAST ? ROW_LANES : COL_LANES;
    static const int REGISTERS = 2;  // of a thread's slow axis, in a pass
    static const int PASS_LINES = REGISTERS * SLOW_LANES;
    // Eight lanes write 16 bytes each at once: 4 x 2 of them with columns fast (slow x fast), else 2 x 4.
    static const int LINE = COLUMNS_FAST ? FAST + 8 : FAST + (FAST + 16) % 32;

    float values[POINTS][PASS_LINES][LINE];

    // Writes registers [first, first + REGISTERS) of this thread's slow axis.
    __device__ __forceinline__ void put(int first, const Accumulators& acc) {
        const int slow_lane = COLUMNS_FAST ? row_lane() : col_lane();
        const int fast_lane = COLUMNS_FAST ? col_lane() : row_lane();
#pragma unroll
        for (int s = 0; s < WARP_POINTS; ++s)
#pragma unroll
            for (int i = 0; i < REGISTERS; ++i)
#pragma unroll
                for (int h = 0; h < CORNER / PACK; ++h) {
                    Pack<float> pack;
#pragma unroll
                    for (int j = 0; j < PACK; ++j)
                        pack.at[j] = COLUMNS_FAST ? acc[s][first + i][h * PACK + j] : acc[s][h * PACK + j][first + i];
                    const int point = threadIdx.x / 32 * WARP_POINTS + s, line = i * SLOW_LANES + slow_lane;
                    *(Pack<float>*)&values[point][line][of_register(h * PACK, fast_lane, FAST_LANES)] = pack;
                }
    }
    // Calls use(points, row, column) for all rows and columns of the block, each once.
    template <class Use> __device__ __forceinline__ void run(const Accumulators& acc, const Use& use) {
#pragma unroll
        for (int first = 0; first < CORNER; first += REGISTERS) {
            put(first, acc);
            __syncthreads();  // the lines of this pass are complete
            for (int e = threadIdx.x; e < PASS_LINES * FAST; e += THREADS) {
                const int line = e / FAST, fast = e % FAST;
                float points[PATCH][PATCH];
#pragma unroll
                for (int point = 0; point < POINTS; ++point)
                    points[point / PATCH][point % PATCH] = values[point][line][fast];
                const int slow = of_register(first + line / SLOW_LANES, line % SLOW_LANES, SLOW_LANES);
                use(points, COLUMNS_FAST ? slow : fast, COLUMNS_FAST ? fast : slow);
            }
            __syncthreads();  // everyone has read them
        }
    }
};
