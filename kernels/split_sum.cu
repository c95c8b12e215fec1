// The sum of partial results, in a fixed order: what ends each gradient of filters, and each convolution
// whose sums are split.
//
//   total[i] = f(sum over z of partial[z][i] + bias[i / inner % channels] + residual[i])
//
// f and the residual: see epilogue.cuh.
//
// partial (splits, count) in Accum, total (count,), of Accum where WIDE; residual (count,) or null; bias (channels,),
// or null: then count may pass 2^31. mask, or null: that of total (mask.cuh); count is then a multiple of 8, and total
// not WIDE.
// A thread adds every parts-th split of WIDTH neighbours, in ascending order; the `parts` threads of the same
// neighbours then leave their sums in shared memory, where the first adds them in ascending order. One part is
// enough where there are many numbers; where there are few, more of them keep a GPU's memory busy.
//
// WIDTH is 4 where count is a multiple of 4, else 1. grid: x covers the count, 256 / parts * WIDTH of it a block.
// Shared memory: 256 * 4 * sizeof(Accum).
//
// Macros: WIDE, 0 or 1.
#include "divisor.cuh"
#include "epilogue.cuh"
#include "mask.cuh"

#if WIDE
typedef Accum Total;
template <int WIDTH> __device__ __forceinline__ void store(Total* to, const Values<WIDTH>& values) {
    *(Values<WIDTH>*)to = values;
}
#else
typedef Element Total;
template <int WIDTH> __device__ __forceinline__ void store(Total* to, const Values<WIDTH>& values) {
    store_values<WIDTH>(to, values);
}
#endif

template <int WIDTH> struct Sum {
    Values<WIDTH> value = {};

    __device__ __forceinline__ void add(const Values<WIDTH>& other) {
#pragma unroll
        for (int e = 0; e < WIDTH; ++e) value.at[e] += other.at[e];
    }
};

struct End {
    Epilogue epilogue;
    Divisor by_inner, by_channels;
    U8* mask;

    // Of neighbours that begin at number i.
    template <int WIDTH> __device__ __forceinline__ void operator()(Accum (&sums)[WIDTH], long long i) const {
        if (epilogue.bias) {
#pragma unroll
            for (int e = 0; e < WIDTH; ++e) {
                int channel;
                divide(divide((unsigned)(i + e), by_inner), by_channels, channel);
                sums[e] += widen(epilogue.bias[channel]);
            }
        }
        if (epilogue.residual) epilogue.join_residual<WIDTH>(sums, i);
        epilogue.activate(sums);
    }
    // Of what the sums are in memory: each thread has half a byte, its neighbour the other one.
    __device__ __forceinline__ void store_mask(const Accum (&sums)[4], long long i) const {
        unsigned bits = 0;
#pragma unroll
        for (int e = 0; e < 4; ++e) bits |= (unsigned)passes(narrow(sums[e]), epilogue.ceiling()) << (i % OCTET + e);
        bits |= __shfl_xor_sync(3u << (threadIdx.x % 32 & ~1), bits, 1);
        if (i % OCTET == 0) mask[i / OCTET] = bits;
    }
};

template <int WIDTH>
__device__ __forceinline__ void split_sum(const Accum* partial, Total* total, long long count, int splits, int parts,
                                          Accum* shared, const End& end) {
    const int lanes = BLOCK_THREADS / parts, lane = threadIdx.x % lanes, part = threadIdx.x / lanes;
    const long long i = ((long long)blockIdx.x * lanes + lane) * WIDTH;
    Sum<WIDTH> sum;
    if (i < count) {
#pragma unroll 8  // that many loads are under way at once
        for (int z = part; z < splits; z += parts) sum.add(*(const Values<WIDTH>*)(partial + z * count + i));
    }
    if (parts > 1) {
        Values<WIDTH>* sums = (Values<WIDTH>*)shared;
        sums[threadIdx.x] = sum.value;
        __syncthreads();  // every part is there
        if (part != 0) return;
#pragma unroll 8
        for (int other = 1; other < parts; ++other) sum.add(sums[other * lanes + lane]);
    }
    if (i >= count) return;
    end(sum.value.at, i);
    store<WIDTH>(total + i, sum.value);
    if constexpr (WIDTH == 4 && !WIDE && sizeof(Accum) == 4)  // of doubles nobody asks for it
        if (end.mask) end.store_mask(sum.value.at, i);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(split_sum)(const Accum* __restrict__ partial, const Element* __restrict__ bias,
                const Element* __restrict__ residual, int activation, Accum alpha, Total* __restrict__ total,
                U8* __restrict__ mask, long long count, int splits, int parts, const __grid_constant__ Divisor by_inner,
                const __grid_constant__ Divisor by_channels) {
    after_kernels_before();
    __shared__ __align__(16) Accum shared[BLOCK_THREADS * 4];
    const End end = {{bias, residual, activation, alpha}, by_inner, by_channels, mask};
    if (count % 4 == 0) {
        split_sum<4>(partial, total, count, splits, parts, shared, end);
    } else {
        split_sum<1>(partial, total, count, splits, parts, shared, end);
    }
}
