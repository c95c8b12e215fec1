// Neighbours in memory, moved by as few instructions as there are 16 bytes in them.
#pragma once
#include "common.cuh"

template <class Number, int COUNT>
struct alignas(COUNT * sizeof(Number) < 16 ? COUNT * sizeof(Number) : 16) Neighbours {
    Number at[COUNT];
};

// Of elements, and what they are to arithmetic.
template <int WIDTH> using Elements = Neighbours<Element, WIDTH>;
template <int WIDTH> using Values = Neighbours<Accum, WIDTH>;

// from[0 .. WIDTH); the address must be a multiple of their size, or of 16 bytes.
template <int WIDTH> __device__ __forceinline__ Values<WIDTH> load_values(const Element* from) {
    const Elements<WIDTH> loaded = *(const Elements<WIDTH>*)from;
    Values<WIDTH> values;
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) values.at[e] = widen(loaded.at[e]);
    return values;
}

// Where an element lies, or that it is a zero which lies nowhere; `from` may then point outside.
struct Source {
    const Element* from;
    bool exists;
};

template <int WIDTH> __device__ __forceinline__ Values<WIDTH> load_values(const Source& source) {
    Values<WIDTH> values = {};
    if (source.exists) values = load_values<WIDTH>(source.from);
    return values;
}

template <int WIDTH> __device__ __forceinline__ void store_values(Element* to, const Values<WIDTH>& values) {
    Elements<WIDTH> stored;
#pragma unroll
    for (int e = 0; e < WIDTH; ++e) stored.at[e] = narrow(values.at[e]);
    *(Elements<WIDTH>*)to = stored;
}
