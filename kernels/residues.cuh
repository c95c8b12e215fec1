// The classes of input pixels that the same taps of a strided window reach: what the gradient of the input goes
// through in place of dividing by the stride.
#pragma once
#include "conv_geometry.cuh"

// One class along one axis. Its pixel i is h = first_pixel + stride * i, its tap j is
// r = first_tap + tap_step * j, and they meet at the output p = first_output + i - output_step * j.
// The host's twin is `residue_table` in gpucnn/backends/cuda/geometry.py.
struct Residue {
    int first_pixel, first_tap, first_output, tap_step, output_step;
    int pixels, taps;             // how many there are
    Divisor by_pixels, by_taps;  // of 1 where there are none
};

// The class of this block: a residue for each axis. It lies in shared memory, for it would take dozens of
// each thread's registers.
struct ResidueClass {
    Residue axis[AXES];

    // Called by all threads of a block.
    __device__ __forceinline__ void load(const ConvGeometry& g, const Residue* residues, unsigned number) {
        int at[AXES], first = 0;
#pragma unroll
        for (int a = AXES - 1; a >= FIRST_AXIS; --a) number = divide(number, g.by_stride[a], at[a]);
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) {
            if (threadIdx.x == 0) axis[a] = residues[first + at[a]];
            first += g.stride[a];
        }
        __syncthreads();  // the class is there
    }
    __device__ __forceinline__ unsigned pixels() const {
        unsigned count = 1;
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) count *= axis[a].pixels;
        return count;
    }
    __device__ __forceinline__ unsigned taps() const {
        unsigned count = 1;
#pragma unroll
        for (int a = FIRST_AXIS; a < AXES; ++a) count *= axis[a].taps;
        return count;
    }
    // Split m into the image, which is returned, and the number of a pixel along each axis.
    __device__ __forceinline__ unsigned split_pixel(unsigned m, Place& number) const {
#pragma unroll
        for (int a = AXES - 1; a >= FIRST_AXIS; --a) m = divide(m, axis[a].by_pixels, number.axis[a]);
        return m;
    }
    // Split k into the number of a tap along each axis, and the filter under it.
    __device__ __forceinline__ void split_tap(const ConvGeometry& g, unsigned k, Place& number, int& filter) const {
        k = divide(k, g.by_group_filters, filter);
#pragma unroll
        for (int a = AXES - 1; a >= FIRST_AXIS; --a) k = divide(k, axis[a].by_taps, number.axis[a]);
    }
};
