// What every kernel starts from, whatever it computes on: its symbol, its block and its thread.
//
// Macro set by the compiler (gpucnn/backends/cuda/kernel.py): SUFFIX, what distinguishes a
// specialisation, "_2d_nhwc_f32".
#pragma once
#include "dependent_launch.cuh"

#define PASTE_TOKENS(a, b) a##b
#define PASTE(a, b) PASTE_TOKENS(a, b)
// conv_fprop -> conv_fprop_2d_nhwc_f32: the name that profilers show
#define NAME(function) PASTE(function, SUFFIX)

// Threads of a block; a convolution's follow from its tile. As in gpucnn/backends/cuda/launch.py.
const int BLOCK_THREADS = 256;

// Index of this thread in a one-dimensional grid, 64-bit: a tensor may pass 2^31 elements.
__device__ __forceinline__ long long global_thread() {
    return (long long)blockIdx.x * blockDim.x + threadIdx.x;
}
