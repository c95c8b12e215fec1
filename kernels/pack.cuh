// What one thread of an elementwise kernel takes: PACK elements, 16 bytes or more at once, since a
// thread that asks for less leaves memory waiting. The host's twin is `launch_packs` in
// gpucnn/backends/cuda/launch.py.
#pragma once
#include "neighbours.cuh"

const int PACK = sizeof(Element) == 2 ? 8 : 4;

template <class Number> using Pack = Neighbours<Number, PACK>;

// Index of the first element that this thread takes.
__device__ __forceinline__ long long first_of_pack() { return global_thread() * PACK; }

// Whether elements [i, i + PACK) exist and may be moved 16 bytes at a time: an array that begins
// inside another one can lie anywhere.
template <class Number> __device__ __forceinline__ bool whole_pack(const Number* array, long long i, long long count) {
    return i + PACK <= count && (unsigned long long)array % 16 == 0;
}

// array[i .. i + PACK), with zeros beyond `count`.
template <class Number>
__device__ __forceinline__ Pack<Number> load_pack(const Number* array, long long i, long long count) {
    if (whole_pack(array, i, count)) return *(const Pack<Number>*)(array + i);
    Pack<Number> pack = {};
#pragma unroll
    for (int j = 0; j < PACK; ++j)
        if (i + j < count) pack.at[j] = array[i + j];
    return pack;
}

template <class Number>
__device__ __forceinline__ void store_pack(Number* array, long long i, long long count, const Pack<Number>& pack) {
    if (whole_pack(array, i, count)) {
        *(Pack<Number>*)(array + i) = pack;
        return;
    }
#pragma unroll
    for (int j = 0; j < PACK; ++j)
        if (i + j < count) array[i + j] = pack.at[j];
}
