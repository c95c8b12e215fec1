// One launch over many tensors. The host's twin is gpucnn/backends/cuda/optimizer.py.
#pragma once
#include "common.cuh"

const int CHUNK = 4096;  // elements of a tensor that one block works on

struct TensorEntry {
    Element* param;
    const Element* grad;
    Accum* first_slot;
    Accum* second_slot;
    long long size;
    double weight_decay;
};

struct Chunk {
    long long tensor, begin;
};

__device__ __forceinline__ long long chunk_end(const Chunk& chunk, const TensorEntry& tensor) {
    return min(chunk.begin + CHUNK, tensor.size);
}
