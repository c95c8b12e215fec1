// Rows of numbers to rows of whole 16-byte chunks and back: what the tensor-core kernels read and write 16 bytes at a
// time, where the channels are no multiple of that.
//
//   pad_rows    y[r, j] = x[r, j] for j < width, else 0
//   crop_rows   y[r, j] = x[r, j] for j < width
//
// Of x and y one has rows of `width` numbers, the other of by_chunks chunks. One thread moves one chunk; `count`,
// below 2^31, is how many there are.
//
// Macro: BYTES of a number, 2 or 4.
#include "divisor.cuh"
#include "thread.cuh"

#if BYTES == 2
typedef unsigned short Number;
#else
typedef unsigned Number;
#endif
const int CHUNK = 16 / sizeof(Number);
struct alignas(16) Chunk {
    Number at[CHUNK];
};

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(pad_rows)(const Number* __restrict__ x, Chunk* __restrict__ y, int width, int count, Divisor by_chunks) {
    after_kernels_before();
    const long long i = global_thread();
    if (i >= count) return;
    int chunk;
    const long long row = divide((unsigned)i, by_chunks, chunk);
    x += row * width;
    Chunk values = {};
#pragma unroll
    for (int e = 0; e < CHUNK; ++e)
        if (chunk * CHUNK + e < width) values.at[e] = x[chunk * CHUNK + e];
    y[i] = values;
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(crop_rows)(const Chunk* __restrict__ x, Number* __restrict__ y, int width, int count, Divisor by_chunks) {
    after_kernels_before();
    const long long i = global_thread();
    if (i >= count) return;
    int chunk;
    const long long row = divide((unsigned)i, by_chunks, chunk);
    y += row * width;
    const Chunk values = x[i];
#pragma unroll
    for (int e = 0; e < CHUNK; ++e)
        if (chunk * CHUNK + e < width) y[chunk * CHUNK + e] = values.at[e];
}
