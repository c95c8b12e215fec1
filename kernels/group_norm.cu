// Group normalisation; with one group over all channels it is layer normalisation.
// Wu & He, "Group normalization", ECCV 2018; Ba, Kiros & Hinton, "Layer normalization", 2016.
//
// For each sample n and group, over the M = L * C / G elements of the group:
//   mean = sum(x) / M      var = sum((x - mean)^2) / M      xhat = (x - mean) / sqrt(var + epsilon)
//   y  = gamma[c] * xhat + beta[c]
//   dx = (d - (sum(d) + xhat * sum(d * xhat)) / M) / sqrt(var + epsilon)     with d = dy * gamma[c]
//
// x, y, dy, dx: (N, L, C) or (N, C, L), see norm_geometry.cuh; gamma, beta (C,);
// mean, var (N, G) in Accum. grid: N * G. One block one group, which its threads walk together
// three times (mean, variance, output); sums by a tree in shared memory, 256 * sizeof(Accum) bytes.
#include "block_sum.cuh"
#include "moments.cuh"
#include "norm_geometry.cuh"

// One group of one sample; element e of it, counted along memory.
struct Group {
    const NormGeometry& g;
    unsigned n;
    int first_channel;
    unsigned size;

    __device__ __forceinline__ explicit Group(const NormGeometry& g)
        : g(g), n(blockIdx.x / g.groups), first_channel(blockIdx.x % g.groups * g.group_channels),
          size((unsigned)g.group_channels * g.length) {}

    __device__ __forceinline__ long long at(unsigned e, int& c) const {
        if (CHANNELS_LAST) {
            const unsigned l = divide(e, g.by_group_channels, c);
            c += first_channel;
            return ((long long)n * g.length + l) * g.channels + c;
        }
        c = first_channel + (int)divide(e, g.by_length);
        return ((long long)n * g.channels + first_channel) * g.length + e;
    }
};

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
NAME(group_norm_forward)(const Element* __restrict__ x, const Element* __restrict__ gamma,
                         const Element* __restrict__ beta, Accum epsilon, Element* __restrict__ y,
                         Accum* __restrict__ mean, Accum* __restrict__ var, const __grid_constant__ NormGeometry g) {
    after_kernels_before();
    __shared__ Accum scratch[BLOCK_THREADS];
    const Group group(g);
    int c;

    Accum sum = 0;
    for (unsigned e = threadIdx.x; e < group.size; e += BLOCK_THREADS) sum += widen(x[group.at(e, c)]);
    const Accum center = block_sum(sum, scratch) / (Accum)group.size;

    sum = 0;
    for (unsigned e = threadIdx.x; e < group.size; e += BLOCK_THREADS) {
        const Accum deviation = widen(x[group.at(e, c)]) - center;
        sum += deviation * deviation;
    }
    const Accum variance = block_sum(sum, scratch) / (Accum)group.size;

    const Accum inverse = inverse_deviation(variance, epsilon);
    for (unsigned e = threadIdx.x; e < group.size; e += BLOCK_THREADS) {
        const long long i = group.at(e, c);
        y[i] = narrow(widen(gamma[c]) * ((widen(x[i]) - center) * inverse) + widen(beta[c]));
    }
    if (threadIdx.x == 0) {
        mean[blockIdx.x] = center;
        var[blockIdx.x] = variance;
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
NAME(group_norm_backward)(const Element* __restrict__ dy, const Element* __restrict__ x,
                          const Element* __restrict__ gamma, const Accum* __restrict__ mean,
                          const Accum* __restrict__ var, Accum epsilon, Element* __restrict__ dx,
                          const __grid_constant__ NormGeometry g) {
    after_kernels_before();
    __shared__ Accum scratch[BLOCK_THREADS];
    const Group group(g);
    const Accum center = mean[blockIdx.x], inverse = inverse_deviation(var[blockIdx.x], epsilon);
    int c;

    Accum sum_d = 0, sum_d_xhat = 0;
    for (unsigned e = threadIdx.x; e < group.size; e += BLOCK_THREADS) {
        const long long i = group.at(e, c);
        const Accum d = widen(dy[i]) * widen(gamma[c]);
        sum_d += d;
        sum_d_xhat += d * ((widen(x[i]) - center) * inverse);
    }
    const Accum mean_d = block_sum(sum_d, scratch) / (Accum)group.size;
    const Accum mean_d_xhat = block_sum(sum_d_xhat, scratch) / (Accum)group.size;

    for (unsigned e = threadIdx.x; e < group.size; e += BLOCK_THREADS) {
        const long long i = group.at(e, c);
        const Accum xhat = (widen(x[i]) - center) * inverse;
        dx[i] = narrow(inverse * (widen(dy[i]) * widen(gamma[c]) - mean_d - xhat * mean_d_xhat));
    }
}
