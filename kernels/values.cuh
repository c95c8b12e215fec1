// Neighbours in memory, moved at most 16 bytes at a time, and what they are to arithmetic.
#pragma once
#include "common.cuh"

// The alignment of so many bytes: an instruction moves 16 at most.
__device__ constexpr int alignment(int bytes) { return bytes < 16 ? bytes : 16; }

template <int WIDTH> struct alignas(alignment(WIDTH * sizeof(Element))) Elements {
    Element at[WIDTH];
};
template <int WIDTH> struct alignas(alignment(WIDTH * sizeof(Accum))) Values {
    Accum at[WIDTH];
};

// from[0 .. WIDTH); the address must be a multiple of their size, or of 16 bytes.
template <int WIDTH> __device__ __forceinline__ Values<WIDTH> load_values(const Element* from) {
    const Elements<WIDTH> loaded = *(const Elements<WIDTH>*)from;
    Values<WIDTH> values;
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) values.at[e] = widen(loaded.at[e]);
    return values;
}

template <int WIDTH> __device__ __forceinline__ void store_values(Element* to, const Values<WIDTH>& values) {
    Elements<WIDTH> stored;
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) stored.at[e] = narrow(values.at[e]);
    *(Elements<WIDTH>*)to = stored;
}
