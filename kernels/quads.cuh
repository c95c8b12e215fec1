// The maxima of 2x2 outputs, which a convolution's kernel stores in place of the outputs:
//
//   y[n, p, q, k] = max over i, j of z[n, 2p + i, 2q + j, k]
//   index[n, p, q, k] = 2i + j, the first of equal ones; 4 where ReLU has cut them all: there no gradient comes through
//
// z is what the convolution would have stored, activated and rounded: rounding makes numbers equal, and so decides
// which is the first. A NaN is greater than any number. As in pool_window.cuh.
#pragma once
#include "neighbours.cuh"

typedef unsigned char U8;
const int PLACES = 4;  // of a window

// Of 16 bytes of neighbouring filters the largest so far, and the places they came from.
struct Largest {
    static const int COUNT = 16 / sizeof(Element);
    typedef Elements<COUNT> Chunk;
    Accum value[COUNT];
    int place[COUNT];

    // Those of the chunks chunk_of(place).
    template <class ChunkOf> __device__ __forceinline__ explicit Largest(const ChunkOf& chunk_of) {
        Chunk chunks[PLACES];
#pragma unroll
        for (int i = 0; i < PLACES; ++i) chunks[i] = chunk_of(i);
#pragma unroll
        for (int e = 0; e < COUNT; ++e) {
            value[e] = widen(chunks[0].at[e]);
            place[e] = 0;
#pragma unroll
            for (int i = 1; i < PLACES; ++i) {
                const Accum other = widen(chunks[i].at[e]);
                if (value[e] == value[e] && !(other <= value[e])) {
                    value[e] = other;  // greater, or the first NaN
                    place[e] = i;
                }
            }
        }
    }
    // Store them, and their places where `index` is not null, `whole` or those of the first `exist` filters.
    __device__ __forceinline__ void store(Element* y, U8* index, bool relu, bool whole, int exist) const {
        Chunk values;
        Neighbours<U8, COUNT> places;
#pragma unroll
        for (int e = 0; e < COUNT; ++e) {
            values.at[e] = narrow(value[e]);
            places.at[e] = relu && !(value[e] > 0) ? PLACES : place[e];
        }
        if (whole) {
            *(Chunk*)y = values;
            if (index) *(Neighbours<U8, COUNT>*)index = places;
            return;
        }
#pragma unroll
        for (int e = 0; e < COUNT; ++e) {
            if (e >= exist) break;
            y[e] = values.at[e];
            if (index) index[e] = places.at[e];
        }
    }
};
