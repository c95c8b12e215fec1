// One launch over many tensors. The host's twin is gpucnn/backends/cuda/optimizer.py.
#pragma once
#include "common.cuh"

const int CHUNK = 4096;  // elements of a tensor that one block works on

struct TensorEntry {
    Element* param;
    const Element* grad;
    Accum* first_slot;
    Accum* second_slot;
    Accum* master;  // or null
    long long size;
    double weight_decay;
};

struct Chunk {
    long long tensor, begin;
};

__device__ __forceinline__ long long chunk_end(const Chunk& chunk, const TensorEntry& tensor) {
    return min(chunk.begin + CHUNK, tensor.size);
}

// What an update starts from. A master counts as long as the parameter is its rounding: a parameter that
// was changed from outside is the truth, and so is one whose master is still zero.
__device__ __forceinline__ Accum load_parameter(const TensorEntry& tensor, long long i) {
    const Accum p = widen(tensor.param[i]);
    if (!tensor.master) return p;
    const Accum master = tensor.master[i];
    return widen(narrow(master)) == p ? master : p;
}

__device__ __forceinline__ void store_parameter(const TensorEntry& tensor, long long i, Accum p) {
    if (tensor.master) tensor.master[i] = p;
    tensor.param[i] = narrow(p);
}
