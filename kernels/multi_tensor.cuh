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
    double rate_factor;  // of the learning rate
};

struct Chunk {
    long long tensor, begin;
};

// The entry of a chunk's tensor. An address out of a table could be of any memory, for all the compiler knows.
__device__ __forceinline__ TensorEntry tensor_of(const TensorEntry* __restrict__ table, const Chunk& chunk) {
    TensorEntry tensor = table[chunk.tensor];
    tensor.param = in_global(tensor.param);
    tensor.grad = in_global(tensor.grad);
    tensor.first_slot = in_global(tensor.first_slot);
    tensor.second_slot = in_global(tensor.second_slot);
    tensor.master = in_global(tensor.master);
    return tensor;
}

__device__ __forceinline__ long long chunk_end(const Chunk& chunk, const TensorEntry& tensor) {
    return min(chunk.begin + CHUNK, tensor.size);
}

// Calls load(k, i), and then store(k, i), for each element i of a chunk that this thread takes, TOGETHER at a
// time: k counts them. What is asked for together arrives together, and no store stands between two loads.
const int TOGETHER = 4;

template <class Load, class Store>
__device__ __forceinline__ void each_element(const Chunk& chunk, const TensorEntry& tensor, const Load& load,
                                             const Store& store) {
    static_assert(CHUNK % (TOGETHER * BLOCK_THREADS) == 0, "threads take equally many elements of a whole chunk");
    const long long end = chunk_end(chunk, tensor);
    for (long long first = chunk.begin + threadIdx.x; first < end; first += TOGETHER * BLOCK_THREADS) {
#pragma unroll
        for (int k = 0; k < TOGETHER; ++k)
            if (first + k * BLOCK_THREADS < end) load(k, first + k * BLOCK_THREADS);
#pragma unroll
        for (int k = 0; k < TOGETHER; ++k)
            if (first + k * BLOCK_THREADS < end) store(k, first + k * BLOCK_THREADS);
    }
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
