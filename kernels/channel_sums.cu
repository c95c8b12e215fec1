// Sums over everything but the channels, deterministic, in two passes: a bias's gradient, the mean
// and variance of batch norm, the gradients of its scale and shift, of PReLU's slopes.
//
//   sums[q][c] = scale * sum over n, l of term_q(n, l, c)
//
//   TERM                 term_0             term_1
//   SUM                  a
//   SQUARED_DEVIATION    (a - mean[c])^2
//   BATCH_GRADIENT       a                  a * (x - mean[c]) / sqrt(var[c] + epsilon)
//   GROUP_GRADIENT       the same with mean[n][group of c] and var[n][group of c]
//   SLOPE                a * min(x, 0)
//
// a, x: (N, L, C) or (N, C, L), see norm_geometry.cuh; mean, var: as above, in Accum.
//
// channel_sums: block (x, y) sums the positions [y, y + 1) * positions_per_split of LANES_C channels
//   and writes partial[y][q][c]. Each thread walks every LANES_P-th position, then a tree adds the
//   threads of a channel. Shared memory: 2 * 256 * sizeof(Accum) at most.
// channel_sums_finish: one thread adds the partials of one (q, c) in ascending order. The sums are in
//   Accum; where `rounded` is not null, it gets them in Element, too.
#include "norm_geometry.cuh"

#define SUM 1
#define SQUARED_DEVIATION 2
#define BATCH_GRADIENT 3
#define GROUP_GRADIENT 4
#define SLOPE 5

const int TERMS = TERM == BATCH_GRADIENT || TERM == GROUP_GRADIENT ? 2 : 1;
// Neighbouring threads read neighbouring memory: channels, or positions of one channel.
const int LANES_C = CHANNELS_LAST ? 32 : 1;
const int LANES_P = BLOCK_THREADS / LANES_C;

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(channel_sums)(const Element* __restrict__ a, const Element* __restrict__ x, const Accum* __restrict__ mean,
                   const Accum* __restrict__ var, Accum epsilon, Accum* __restrict__ partial,
                   unsigned positions_per_split, const __grid_constant__ NormGeometry g) {
    __shared__ Accum tree[TERMS][LANES_P][LANES_C];
    const int lane_c = threadIdx.x % LANES_C, lane_p = threadIdx.x / LANES_C;
    const int c = blockIdx.x * LANES_C + lane_c;
    const unsigned begin = blockIdx.y * positions_per_split;
    const unsigned end = min(begin + positions_per_split, (unsigned)g.batch * g.length);

    Accum sums[TERMS] = {};
    if (c < g.channels) {
        for (unsigned position = begin + lane_p; position < end; position += LANES_P) {
            const long long i = offset(g, position, c);
            const Accum value = widen(a[i]);
            if (TERM == SUM) {
                sums[0] += value;
            } else if (TERM == SQUARED_DEVIATION) {
                const Accum deviation = value - mean[c];
                sums[0] += deviation * deviation;
            } else if (TERM == SLOPE) {
                sums[0] += widen(x[i]) > 0 ? 0 : value * widen(x[i]);
            } else {
                const int s = TERM == BATCH_GRADIENT
                                  ? c
                                  : (int)(divide(position, g.by_length) * g.groups + divide(c, g.by_group_channels));
                sums[0] += value;
                sums[TERMS - 1] += value * (widen(x[i]) - mean[s]) * inverse_deviation(var[s], epsilon);
            }
        }
    }
#pragma unroll
    for (int q = 0; q < TERMS; ++q) tree[q][lane_p][lane_c] = sums[q];
#pragma unroll
    for (int half = LANES_P / 2; half > 0; half /= 2) {
        __syncthreads();  // the level below is complete
        if (lane_p < half)
#pragma unroll
            for (int q = 0; q < TERMS; ++q) tree[q][lane_p][lane_c] += tree[q][lane_p + half][lane_c];
    }
    if (lane_p == 0 && c < g.channels)  // this thread itself made the last addition
#pragma unroll
        for (int q = 0; q < TERMS; ++q)
            partial[((long long)blockIdx.y * TERMS + q) * g.channels + c] = tree[q][0][lane_c];
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(channel_sums_finish)(const Accum* __restrict__ partial, Accum* __restrict__ sums, Element* __restrict__ rounded,
                          Accum scale, int splits, int count) {
    const long long i = global_thread();  // q * C + c
    if (i >= count) return;
    Accum sum = 0;
    for (int split = 0; split < splits; ++split) sum += partial[(long long)split * count + i];
    sum *= scale;
    sums[i] = sum;
    if (rounded) rounded[i] = narrow(sum);
}
