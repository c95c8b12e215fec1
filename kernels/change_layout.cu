// Channels last to channels first and back: the transpose of each matrix of a batch.
//
//   y[n, c, r] = x[n, r, c]
//
// x (N, rows, columns), y (N, columns, rows), of numbers of BYTES each, whatever they mean. A block moves
// a tile through shared memory: it reads along the columns and writes along the rows. A thread moves 16
// bytes at a time, or one number where the lines of x or y do not all begin at a multiple of 16 bytes.
// Tiles are square, but where a matrix has few rows or few columns: then they are long.
// Shared memory: 16 KB and a skew for each row, 32 KB at most.
//
// Macro: BYTES, 1, 2, 4, 8 or 16.
#include "divisor.cuh"
#include "thread.cuh"

#if BYTES == 1
typedef unsigned char Number;
#elif BYTES == 2
typedef unsigned short Number;
#elif BYTES == 4
typedef unsigned Number;
#elif BYTES == 8
typedef unsigned long long Number;
#elif BYTES == 16
struct alignas(16) Number {
    unsigned long long halves[2];
};
#else
#error "BYTES must be 1, 2, 4, 8 or 16"
#endif

const int UNIT = 16 / BYTES;         // numbers that a thread moves at a time
const int TILE = 16 * 1024 / BYTES;  // numbers of a tile
const int SKEW = BYTES < 4 ? 4 / BYTES : 1;  // so that a column of the tile lies on all banks
const int LEAST = 4;                         // rows or columns of a tile
const int AT_ONCE = 4;                       // moves of a thread that are under way at once
static_assert(TILE % (BLOCK_THREADS * UNIT * AT_ONCE) == 0, "every thread moves as much");

// The host's twin is in gpucnn/backends/cuda/change_layout.py.
struct Tiling {
    int rows, columns;            // of a matrix
    int row_shift, column_shift;  // of a tile: it has 1 << row_shift rows
    int whole_rows, whole_columns;  // whether 16 bytes along a row of x, and of y, can be moved at once
    Divisor by_row_tiles, by_column_tiles;
};

template <int WIDTH> struct alignas(WIDTH * BYTES) Numbers {
    Number at[WIDTH];
};

// Of the lines of a tile, 1 << shift numbers each, the move number m of width WIDTH: its line and place.
struct Move {
    int line, at;
};
template <int WIDTH> __device__ __forceinline__ Move move_of(int m, int shift) {
    return {m * WIDTH >> shift, m * WIDTH & ((1 << shift) - 1)};
}

template <int WIDTH>
__device__ __forceinline__ void read_tile(const Tiling& t, const Number* x, int first_row, int first_column,
                                          Number* tile) {
    const int pitch = (1 << t.column_shift) + SKEW;
#pragma unroll 1
    for (int m = threadIdx.x; m < TILE / WIDTH; m += AT_ONCE * BLOCK_THREADS) {
        Numbers<WIDTH> held[AT_ONCE] = {};
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const Move move = move_of<WIDTH>(m + k * BLOCK_THREADS, t.column_shift);
            const int row = first_row + move.line, column = first_column + move.at;
            if (row < t.rows && column < t.columns)
                held[k] = *(const Numbers<WIDTH>*)(x + (long long)row * t.columns + column);
        }
#pragma unroll
        for (int k = 0; k < AT_ONCE; ++k) {
            const Move move = move_of<WIDTH>(m + k * BLOCK_THREADS, t.column_shift);
#pragma unroll
            for (int j = 0; j < WIDTH; ++j) tile[move.line * pitch + move.at + j] = held[k].at[j];
        }
    }
}

template <int WIDTH>
__device__ __forceinline__ void write_tile(const Tiling& t, const Number* tile, Number* y, int first_row,
                                           int first_column) {
    const int pitch = (1 << t.column_shift) + SKEW;
#pragma unroll 2
    for (int m = threadIdx.x; m < TILE / WIDTH; m += BLOCK_THREADS) {
        const Move move = move_of<WIDTH>(m, t.row_shift);
        const int row = first_row + move.at, column = first_column + move.line;
        if (row >= t.rows || column >= t.columns) continue;
        Numbers<WIDTH> numbers;
#pragma unroll
        for (int j = 0; j < WIDTH; ++j) numbers.at[j] = tile[(move.at + j) * pitch + move.line];
        *(Numbers<WIDTH>*)(y + (long long)column * t.rows + row) = numbers;
    }
}

// Without __launch_bounds__: told of them, ptxas spills registers of which there are enough.
extern "C" __global__ void NAME(change_layout)(const Number* __restrict__ x, Number* __restrict__ y,
                                               const __grid_constant__ Tiling t) {
    after_kernels_before();
    __shared__ __align__(16) Number tile[TILE + TILE / LEAST * SKEW];
    int row_tile, column_tile;
    const long long matrix = divide(divide(blockIdx.x, t.by_row_tiles, row_tile), t.by_column_tiles, column_tile);
    const int first_row = row_tile << t.row_shift, first_column = column_tile << t.column_shift;
    x += matrix * t.rows * t.columns;
    y += matrix * t.rows * t.columns;
    if (t.whole_rows)
        read_tile<UNIT>(t, x, first_row, first_column, tile);
    else
        read_tile<1>(t, x, first_row, first_column, tile);
    __syncthreads();  // the tile is complete
    if (t.whole_columns)
        write_tile<UNIT>(t, tile, y, first_row, first_column);
    else
        write_tile<1>(t, tile, y, first_row, first_column);
}
