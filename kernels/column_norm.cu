// Batch normalisation where a channel has few numbers, in one launch each way: behind a dense layer, or of
// small maps. And the sum of each channel of so few, a bias's gradient. Formulas: see batch_norm.cu.
//
// x, residual (or null), y, dy, dx, masked: (rows, C); gamma, beta, dgamma, dbeta, sums (C,); mean, var,
// moving_mean and moving_var (or null), in Accum. `relu`, `ceiling`, `beta`, `y` and `masked` are as in
// batch_norm.cu and channel_sums.cu.
//
// A block takes LANES neighbouring channels whole, SLOTS threads to each: thread `slot` every SLOTS-th row,
// then a tree adds what they have, then each thread goes over its rows once more, which are near by now.
// Shared memory: 512 * 4 * sizeof(Accum) bytes at most.
#include "batch_norm.cuh"

const int LANES = 8;
const int SLOTS = 64;
const int COLUMN_THREADS = LANES * SLOTS;
const int ROW_UNROLL = 8;  // rows of a thread that are under way at once

struct Column {
    int lane, slot, channel;
    bool exists;
};

__device__ __forceinline__ Column this_column(int channels) {
    const int lane = threadIdx.x % LANES, channel = blockIdx.x * LANES + lane;
    return {lane, (int)threadIdx.x / LANES, channel, channel < channels};
}

struct Pair {
    Accum first, second;
};
__device__ __forceinline__ Pair operator+(const Pair& a, const Pair& b) {
    return {a.first + b.first, a.second + b.second};
}

// What the threads of a column have, together; all of them get it.
template <class Sums> __device__ __forceinline__ Sums column_sum(const Sums& own, const Column& at) {
    __shared__ Sums tree[SLOTS][LANES];
    tree[at.slot][at.lane] = own;
#pragma unroll
    for (int half = SLOTS / 2; half > 0; half /= 2) {
        __syncthreads();  // the level below is complete
        if (at.slot < half) tree[at.slot][at.lane] = tree[at.slot][at.lane] + tree[at.slot + half][at.lane];
    }
    __syncthreads();  // the sum is there
    return tree[0][at.lane];
}

// Calls take(i) with the place of each number of this thread, in ascending order.
template <class Take>
__device__ __forceinline__ void each_row(const Column& at, int rows, int channels, const Take& take) {
    if (!at.exists) return;
#pragma unroll ROW_UNROLL
    for (int row = at.slot; row < rows; row += SLOTS) take((long long)row * channels + at.channel);
}

extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, 1)
NAME(column_norm_forward)(const Element* __restrict__ x, const Element* __restrict__ residual,
                          const Element* __restrict__ gamma, const Element* __restrict__ beta, Accum epsilon, int relu,
                          Accum ceiling, Element* __restrict__ y, Accum* __restrict__ mean, Accum* __restrict__ var,
                          Accum* __restrict__ moving_mean, Accum* __restrict__ moving_var, Accum share, int rows,
                          int channels) {
    after_kernels_before();
    const Column at = this_column(channels);
    const int c = at.channel;
    const bool has_rows = at.exists && at.slot < rows;
    const Accum pivot = has_rows ? widen(x[(long long)at.slot * channels + c]) : (Accum)0;
    Accum sum = 0, squares = 0;
    each_row(at, rows, channels, [&](long long i) {
        const Accum difference = widen(x[i]) - pivot;
        sum += difference;
        squares = math::fma(difference, difference, squares);
    });
    const int taken = has_rows ? (rows - at.slot + SLOTS - 1) / SLOTS : 0;
    const Moments all = column_sum(moments(taken, pivot, sum, squares), at);
    if (!at.exists) return;
    const Accum own_mean = all.pivot + all.distance, own_var = all.deviations / all.count;
    if (at.slot == 0) {
        mean[c] = own_mean;
        var[c] = own_var;
        if (moving_mean) {
            moving_mean[c] = move_towards(own_mean, moving_mean[c], share);
            moving_var[c] = move_towards(own_var, moving_var[c], share);
        }
    }
    const Normaliser of = normaliser(widen(gamma[c]), widen(beta[c]), own_mean, own_var, epsilon);
    each_row(at, rows, channels, [&](long long i) {
        Accum value = of(x[i]);
        if (residual) value += widen(residual[i]);
        y[i] = narrow(rectified(value, relu, ceiling));
    });
}

extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, 1)
NAME(column_norm_backward)(const Element* __restrict__ dy, const Element* __restrict__ x,
                           const Element* __restrict__ y, const Element* __restrict__ gamma,
                           const Element* __restrict__ beta, const Accum* __restrict__ mean,
                           const Accum* __restrict__ var, Accum epsilon, Accum ceiling, Accum inverse_count,
                           Element* __restrict__ dx, Element* __restrict__ dgamma, Element* __restrict__ dbeta,
                           Element* __restrict__ masked, int rows, int channels) {
    after_kernels_before();
    const Column at = this_column(channels);
    const int c = at.channel;
    const Normaliser of = at.exists ? normaliser(c, gamma, beta, mean, var, epsilon) : Normaliser{};
    const auto gradient = [&](long long i, Element in) {
        const Accum output = y ? widen(y[i]) : (Accum)1;
        const bool cut = !(output > 0) || output >= ceiling || (beta && !of.active(in, ceiling));
        return cut ? (Accum)0 : widen(dy[i]);
    };
    Pair sums = {0, 0};
    each_row(at, rows, channels, [&](long long i) {
        const Element in = x[i];
        const Accum d = gradient(i, in);
        if (masked) masked[i] = narrow(d);
        sums.first += d;
        sums.second = math::fma(d, widen(in) - of.mean, sums.second);
    });
    sums.second *= of.inverse;
    sums = column_sum(sums, at);
    if (!at.exists) return;
    if (at.slot == 0) {
        dbeta[c] = narrow(sums.first);
        dgamma[c] = narrow(sums.second);
    }
    const Accum centre = -of.scale * (sums.first * inverse_count);
    const Accum slope = -of.scale * (of.inverse * sums.second * inverse_count);
    each_row(at, rows, channels, [&](long long i) {
        const Element in = x[i];
        const Accum through = math::fma(slope, widen(in) - of.mean, centre);
        dx[i] = narrow(math::fma(of.scale, gradient(i, in), through));
    });
}

extern "C" __global__ void __launch_bounds__(COLUMN_THREADS, 1)
NAME(column_sums)(const Element* __restrict__ a, Element* __restrict__ sums, int rows, int channels) {
    after_kernels_before();
    const Column at = this_column(channels);
    Accum sum = 0;
    each_row(at, rows, channels, [&](long long i) { sum += widen(a[i]); });
    sum = column_sum(sum, at);
    if (at.exists && at.slot == 0) sums[at.channel] = narrow(sum);
}
