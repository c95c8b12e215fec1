// Pictures of three channels: channels last to channels first and back, which is change_layout.cu's
// transpose with tiles that would be almost all empty.
//
//   pictures (N, pixels, 3)  <->  planes (N, 3, pixels)      of numbers of BYTES each, whatever they mean
//
// A thread turns UNIT pixels, three words of 16 bytes, into as many numbers of each channel, or back.
// Threads of a warp read and write neighbouring words: those of pictures go through shared memory, three
// at a stride of three to a thread, 8 threads of which meet all banks. Shared memory: 12 KB.
// Both begin at multiples of 16 bytes, and `pixels` is a multiple of UNIT. A launch counts fewer than 2^31
// units of pixels.
//
// Macro: BYTES, 1, 2 or 4.
#include "divisor.cuh"
#include "thread.cuh"

#if BYTES == 1
typedef unsigned char Number;
#elif BYTES == 2
typedef unsigned short Number;
#elif BYTES == 4
typedef unsigned Number;
#else
#error "BYTES must be 1, 2 or 4"
#endif

const int UNIT = 16 / BYTES;
const int CHANNELS = 3;

struct alignas(16) Word {
    Number at[UNIT];
};

// This thread's place among the words of its warp, in pictures and in shared memory.
struct Place {
    int lane;
    long long unit;  // of pixels
    Word* words;     // of the warp

    __device__ __forceinline__ explicit Place(Word* of_block)
        : lane(threadIdx.x % 32), unit(global_thread()), words(of_block + CHANNELS * (threadIdx.x - lane)) {}
    // The k-th word that this thread moves in pictures: word `turn(k)` of the warp.
    __device__ __forceinline__ int turn(int k) const { return lane + 32 * k; }
    __device__ __forceinline__ long long in_pictures(int k) const { return CHANNELS * (unit - lane) + turn(k); }
};

// Where channel c of this thread's pixels lies in planes, in words; `by_units` divides by those of a plane.
__device__ __forceinline__ long long in_planes(const Place& at, const Divisor& by_units, int c) {
    int i;
    const long long n = divide((unsigned)at.unit, by_units, i);
    return (CHANNELS * n + c) * by_units.value + i;
}

extern "C" __global__ void NAME(planes_from_pictures)(const Word* __restrict__ x, Word* __restrict__ y, int units,
                                                      const __grid_constant__ Divisor by_units) {
    after_kernels_before();
    __shared__ Word words[CHANNELS * BLOCK_THREADS];
    const Place at(words);
    Word held[CHANNELS] = {};
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k)
        if (at.in_pictures(k) < CHANNELS * (long long)units) held[k] = x[at.in_pictures(k)];
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k) at.words[at.turn(k)] = held[k];
    __syncwarp();  // the warp's words are there
    if (at.unit >= units) return;
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k) held[k] = at.words[CHANNELS * at.lane + k];
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c) {
        Word channel;
#pragma unroll
        for (int i = 0; i < UNIT; ++i) {
            const int place = CHANNELS * i + c;
            channel.at[i] = held[place / UNIT].at[place % UNIT];
        }
        y[in_planes(at, by_units, c)] = channel;
    }
}

extern "C" __global__ void NAME(pictures_from_planes)(const Word* __restrict__ x, Word* __restrict__ y, int units,
                                                      const __grid_constant__ Divisor by_units) {
    after_kernels_before();
    __shared__ Word words[CHANNELS * BLOCK_THREADS];
    const Place at(words);
    Word channels[CHANNELS] = {};
#pragma unroll
    for (int c = 0; c < CHANNELS; ++c)
        if (at.unit < units) channels[c] = x[in_planes(at, by_units, c)];
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k) {
        Word word;
#pragma unroll
        for (int j = 0; j < UNIT; ++j) {
            const int place = UNIT * k + j;
            word.at[j] = channels[place % CHANNELS].at[place / CHANNELS];
        }
        at.words[CHANNELS * at.lane + k] = word;
    }
    __syncwarp();  // the warp's words are there
#pragma unroll
    for (int k = 0; k < CHANNELS; ++k)
        if (at.in_pictures(k) < CHANNELS * (long long)units) y[at.in_pictures(k)] = at.words[at.turn(k)];
}
