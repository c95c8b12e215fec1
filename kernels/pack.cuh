// What one thread of an elementwise kernel takes: PACK elements, 16 bytes or more at once, since a
// thread that asks for less leaves memory waiting. The host's twin is `launch_packs` in
// gpucnn/backends/cuda/launch.py.
#pragma once
#include "neighbours.cuh"

const int PACK = sizeof(Element) == 2 ? 8 : 4;

template <class Number> using Pack = Neighbours<Number, PACK>;

// Index of the first element that this thread takes.
__device__ __forceinline__ long long first_of_pack() { return global_thread() * PACK; }

// Whether an array, null or not, may be moved 16 bytes at a time: one that begins inside another can lie
// anywhere.
template <class Number> __device__ __forceinline__ bool lies_in_packs(const Number* array) {
    return (unsigned long long)array % 16 == 0;
}

// Whether elements [i, i + PACK) exist and may be moved 16 bytes at a time.
template <class Number> __device__ __forceinline__ bool whole_pack(const Number* array, long long i, long long count) {
    return i + PACK <= count && lies_in_packs(array);
}

// The same where that is known, and without a branch, before whose end the compiler takes 16-bit numbers
// apart: the next load would wait for this one.
template <class Number> __device__ __forceinline__ Pack<Number> load_whole_pack(const Number* array, long long i) {
    return *(const Pack<Number>*)(array + i);
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

// Some of a thread's packs, COUNT of them at i, i + stride, ... that are moved together. Where they are WHOLE, all
// elements below `end` are, and lie, in packs; in place of a pack beyond it the first is read again.
template <bool WHOLE, int COUNT> struct StridedPacks {
    static const int count = COUNT;
    long long i, end, stride;

    __device__ __forceinline__ long long at(int k) const { return i + k * stride; }
    template <class Number> __device__ __forceinline__ Pack<Number> load(const Number* array, int k) const {
        return WHOLE ? load_whole_pack(array, at(k) < end ? at(k) : i) : load_pack(array, at(k), end);
    }
    template <class Number>
    __device__ __forceinline__ void store(Number* array, int k, const Pack<Number>& pack) const {
        if (!WHOLE)
            store_pack(array, at(k), end, pack);
        else if (at(k) < end)
            *(Pack<Number>*)(array + at(k)) = pack;
    }
};

// Calls take(StridedPacks) with all packs of this thread, COUNT at a time where it can be; `in_packs` says whether
// all arrays lie so.
template <int COUNT, class Take>
__device__ __forceinline__ void each_pack(long long size, long long stride, bool in_packs, const Take& take) {
    const long long first = first_of_pack(), whole = in_packs ? size - size % PACK : 0;
    for (long long i = first; i < whole; i += COUNT * stride)
        take(StridedPacks<true, COUNT>{i, whole, stride});
    if (whole == size || (whole && (whole - first) % stride)) return;
#pragma unroll 1
    for (long long i = whole ? whole : first; i < size; i += stride) take(StridedPacks<false, 1>{i, size, stride});
}

// The same for a thread that has one pack at most.
template <class Take> __device__ __forceinline__ void one_pack(long long size, bool in_packs, const Take& take) {
    const long long i = first_of_pack();
    if (in_packs && i + PACK <= size)
        take(StridedPacks<true, 1>{i, size, 0});
    else if (i < size)
        take(StridedPacks<false, 1>{i, size, 0});
}
