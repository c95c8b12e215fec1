// Places in a map of 1, 2 or 3 spatial axes, for kernels over windows: convolution and pooling.
// A record always has three axes; those that RANK leaves out come first, have size 1, and are never
// touched: the loops over axes unroll, and nothing is left of them.
//
// Macro: RANK, the number of spatial axes.
#pragma once
#include "divisor.cuh"

const int AXES = 3;  // spatial axes of the record; axis 2 is the fastest
const int FIRST_AXIS = AXES - RANK;

// A place in a map or in a window; axes that RANK leaves out are never touched.
struct Place {
    int axis[AXES];
};

// Split a flat index over (rest, axis 0, axis 1, axis 2) and return rest.
__device__ __forceinline__ unsigned split(unsigned index, const Divisor (&by)[AXES], Place& at) {
#pragma unroll
    for (int a = AXES - 1; a >= FIRST_AXIS; --a) index = divide(index, by[a], at.axis[a]);
    return index;
}

__device__ __forceinline__ bool inside(const Place& at, const int (&size)[AXES]) {
    bool in = true;
#pragma unroll
    for (int a = FIRST_AXIS; a < AXES; ++a) in &= (unsigned)at.axis[a] < (unsigned)size[a];
    return in;
}

// Offset of a pixel in a map of this size, counted in pixels.
__device__ __forceinline__ int pixel(const Place& at, const int (&size)[AXES]) {
    int offset = at.axis[FIRST_AXIS];
#pragma unroll
    for (int a = FIRST_AXIS + 1; a < AXES; ++a) offset = offset * size[a] + at.axis[a];
    return offset;
}

__device__ __forceinline__ int pixels(const int (&size)[AXES]) {
    int count = size[FIRST_AXIS];
#pragma unroll
    for (int a = FIRST_AXIS + 1; a < AXES; ++a) count *= size[a];
    return count;
}
