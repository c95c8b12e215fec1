// The sum of partial results, in a fixed order: what ends each gradient of filters, and each convolution
// whose sums are split.
//
//   total[i] = f(sum over z of partial[z][i] + bias[i / inner % channels])
//
// f is the identity, or with `relu` max(v, 0), a NaN staying one.
//
// partial (splits, count) in Accum, total (count,); bias (channels,), or null: then count may pass 2^31. A block adds LANES numbers: PARTS threads to each, of
// which one adds every PARTS-th split in ascending order; the first then adds their sums in ascending
// order. Shared memory: 256 * sizeof(Accum).
#include "common.cuh"

const int LANES = 32;
const int PARTS = BLOCK_THREADS / LANES;

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
    if (bias) sum += widen(bias[(unsigned)i / inner % channels]);
    total[i] = narrow(relu && sum <= 0 ? (Accum)0 : sum);
}
