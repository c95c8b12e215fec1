// The sum of partial results, in a fixed order: what ends each gradient of filters, and each convolution
// whose sums are split.
//
//   total[i] = f(sum over z of partial[z][i] + bias[i / inner % channels])
//
// f is the identity, or with `relu` max(v, 0), a NaN staying one.
//
// partial (splits, count) in Accum, total (count,); bias (channels,), or null: then count may pass 2^31.
//   split_sum      a block adds LANES numbers: PARTS threads to each, of which one adds every PARTS-th split in
//                  ascending order; the first then adds their sums in ascending order. Shared memory: 256 *
//                  sizeof(Accum).
//   split_sum_few  a thread adds QUAD neighbours, of PARTS splits at most, in the same order: where most threads of
//                  the other one would have nothing to add. count is a multiple of QUAD.
#include "neighbours.cuh"

const int LANES = 32;
const int PARTS = BLOCK_THREADS / LANES;
const int QUAD = 4;

__device__ __forceinline__ Element finish(Accum sum, const Element* __restrict__ bias, long long i, int channels,
                                          int inner, int relu) {
    if (bias) sum += widen(bias[(unsigned)i / inner % channels]);
    return narrow(relu && sum <= 0 ? (Accum)0 : sum);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(split_sum)(const Accum* __restrict__ partial, const Element* __restrict__ bias, int channels, int inner, int relu,
                Element* __restrict__ total, long long count, int splits) {
    __shared__ Accum sums[PARTS][LANES];
    const int lane = threadIdx.x % LANES, part = threadIdx.x / LANES;
    const long long i = (long long)blockIdx.x * LANES + lane;
    Accum sum = 0;
    if (i < count) {
#pragma unroll 8  // that many loads are under way at once
        for (int z = part; z < splits; z += PARTS) sum += partial[z * count + i];
    }
    sums[part][lane] = sum;
    __syncthreads();  // every part is there
    if (part != 0 || i >= count) return;
#pragma unroll
    for (int other = 1; other < PARTS; ++other) sum += sums[other][lane];
    total[i] = finish(sum, bias, i, channels, inner, relu);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(split_sum_few)(const Accum* __restrict__ partial, const Element* __restrict__ bias, int channels, int inner,
                    int relu, Element* __restrict__ total, long long count, int splits) {
    const long long i = global_thread() * QUAD;
    if (i >= count) return;
    Values<QUAD> values[PARTS];
#pragma unroll
    for (int z = 0; z < PARTS; ++z)  // all loads are under way at once
        if (z < splits) values[z] = *(const Values<QUAD>*)(partial + z * count + i);
    Elements<QUAD> sums;
#pragma unroll
    for (int e = 0; e < QUAD; ++e) {
        Accum sum = values[0].at[e];
#pragma unroll
        for (int z = 1; z < PARTS; ++z)
            if (z < splits) sum += values[z].at[e];
        sums.at[e] = finish(sum, bias, i + e, channels, inner, relu);
    }
    *(Elements<QUAD>*)(total + i) = sums;
}
