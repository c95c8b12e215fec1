// Sums over everything but the channels, deterministic, in two passes: a bias's gradient, the mean
// and variance of batch norm, the gradients of its scale and shift, of PReLU's slopes.
//
//   sums[q][c] = sum over n, l of term_q(n, l, c)
//
//   TERM                 term_0             term_1
//   SUM                  a
//   MOMENTS              a / count          (a - sums[0][c])^2 / count
//   BATCH_GRADIENT       d                  d * (x - mean[c]) / sqrt(var[c] + epsilon)
//   GROUP_GRADIENT       a                  a * (x - mean[n][group of c]) / sqrt(var[n][group of c] + epsilon)
//   SLOPE                a * min(x, 0)
//
// d is a or, behind a ReLU, a where its output was above zero (and below a `ceiling` where that is no NaN,
// see batch_norm.cuh) and 0 elsewhere: `beta` is given where x tells that; `y`, the output, where a residual was added,
// too, and d is then written to `masked`.
//
// MOMENTS takes one pass: a thread adds up what its numbers differ by from the first of them, and the
// squares of that; from there on moments.cuh adds one set of numbers to another. Were the first one far
// from all others, the deviation that it is itself a part of would be as large.
//
// Where an array begins in memory changes no bit of a sum: its order is the same, and what is fused is fused by
// name.
//
// a, x, y, masked: (N, L, C) or (N, C, L), see norm_geometry.cuh; mean, var: as above, in Accum; what
// a TERM has no use for is null. One pass over the arrays that are given, 16 bytes at a time.
//
// channel_sums: block (x, y) sums the steps [y, y + 1) * steps_per_split of its columns (see Summing)
//   and writes partial[q][y][column]. A column's `slots` threads each take every slots-th step, then a
//   tree adds what they have. Shared memory: 32 KB at most.
// channel_sums_finish: a block adds the numbers of `lanes` channels, its other threads sharing each of them: one adds
//   every so manieth partial in ascending order; a tree adds what they have. What a convolution has left of the moments
//   of its output it takes as well (epilogue.cuh). The sums are in Accum; where `rounded` is not null, it gets them in
//   Element, too. Where `moving_mean` and `moving_var` are not null, MOMENTS moves them by `share` of their way to the
//   batch's. 4 * 256 * sizeof(Accum) bytes at most.
#include "batch_norm.cuh"
#include "norm_geometry.cuh"
#include "pack.cuh"

#define SUM 1
#define MOMENTS 2
#define BATCH_GRADIENT 3
#define GROUP_GRADIENT 4
#define SLOPE 5

const bool GRADIENT = TERM == BATCH_GRADIENT || TERM == GROUP_GRADIENT;
const int TERMS = GRADIENT || TERM == MOMENTS ? 2 : 1;
const int WIDTH = CHANNELS_LAST ? PACK : 1;  // sums of a column
// Packs of each array that are under way at once; group norm's need many registers for other things.
const int UNROLL = TERM == GROUP_GRADIENT ? 1 : sizeof(Element) == 8 ? 2 : 4;
// Blocks on a multiprocessor: two leave each thread 128 registers. The host counts on as many.
const int BLOCKS = GRADIENT || TERM == SLOPE || sizeof(Element) == 8 ? 2 : 4;
const int FINISH_UNROLL = sizeof(Accum) == 8 ? 1 : 8;  // a thread's loads that are under way at once

// What is known of some of a channel's numbers.
#if TERM == MOMENTS
typedef Moments Sums;
#else
struct alignas(TERMS * sizeof(Accum)) Sums {
    Accum of[TERMS];
};
__device__ __forceinline__ Sums operator+(const Sums& a, const Sums& b) {
    Sums sums;
#pragma unroll
    for (int q = 0; q < TERMS; ++q) sums.of[q] = a.of[q] + b.of[q];
    return sums;
}
#endif

// How columns and steps are laid over memory, and threads over them. A thread takes a pack a step.
//   channels last    a column is PACK neighbours of a row, which holds one position or, where C is no
//                    multiple of PACK, the fewest that make whole packs; a step is a row
//   channels first   a column is a channel; a step is a pack that (n, c), its row of L elements, touches
// The host's twin is `_SUMMING` in gpucnn/backends/cuda/channels.py.
struct Summing {
    int columns, steps, steps_per_split;
    int positions;         // of a row, with channels last
    Divisor by_lanes;      // columns of a block
    Divisor by_slots;      // threads of a column
    Divisor by_row_packs;  // packs that a row touches at most, with channels first
};

// The part of a pack, [begin, end), that belongs to a column in a step; none where end <= begin.
struct Span {
    long long first;  // element of the pack
    int begin, end;

};

__device__ __forceinline__ Span span_of(const NormGeometry& g, const Summing& s, long long count, int column,
                                        unsigned step) {
    if (CHANNELS_LAST) {
        const long long first = ((long long)step * s.columns + column) * PACK;
        return {first, 0, (int)min((long long)PACK, count - first)};
    }
    int pack;
    const unsigned n = divide(step, s.by_row_packs, pack);
    const long long row = ((long long)n * g.channels + column) * g.length;
    const long long first = (row / PACK + pack) * PACK;
    return {first, (int)max(0ll, row - first), (int)min((long long)PACK, row + g.length - first)};
}

// Some of a thread's steps, COUNT of them at `step`, `step` + slots, ... that are taken together.
//   ALL    all come before `end`, and their packs are whole and lie so
//   SOME   the same, but for steps from `end` on: in place of them the first is read again
//   ANY    an array may lie anywhere, and a pack belong to the column in part
enum Which { ALL, SOME, ANY };
template <Which WHICH, int COUNT> struct Steps {
    static const int count = COUNT;
    static const bool in_packs = WHICH != ANY;
    unsigned step, end;
    int slots;

    __device__ __forceinline__ unsigned at(int k) const { return step + k * slots; }
    __device__ __forceinline__ bool exists(int k) const { return WHICH == ALL || at(k) < end; }
    __device__ __forceinline__ Span span(const NormGeometry& g, const Summing& s, long long elements, int column,
                                         int k) const {
        if (in_packs) return {span_of(g, s, elements, column, exists(k) ? at(k) : step).first, 0, PACK};
        return exists(k) ? span_of(g, s, elements, column, at(k)) : Span{elements, 0, 0};
    }
    __device__ __forceinline__ bool inside(const Span& span, int k, int j) const {
        return in_packs ? exists(k) : span.begin <= j && j < span.end;
    }
    __device__ __forceinline__ Pack<Element> load(const Element* array, const Span& span, long long elements) const {
        return in_packs ? load_whole_pack(array, span.first) : load_pack(array, span.first, elements);
    }
};

// How a thread goes: what a ReLU6 costs in registers no other shall pay.
struct Plain { static const bool masked = false, capped = false; };
struct Capped { static const bool masked = false, capped = true; };
struct Masked { static const bool masked = true, capped = true; };

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, BLOCKS)
NAME(channel_sums)(const Element* __restrict__ a, const Element* __restrict__ x, const Element* __restrict__ y,
                   const Element* __restrict__ gamma, const Element* __restrict__ beta,
                   const Accum* __restrict__ mean, const Accum* __restrict__ var, Accum epsilon, Accum ceiling,
                   Element* __restrict__ masked, Sums* __restrict__ partial, long long count,
                   const __grid_constant__ NormGeometry g, const __grid_constant__ Summing s) {
    after_kernels_before();
    __shared__ Sums tree[WIDTH][BLOCK_THREADS];
    // Neighbouring threads read neighbouring memory: columns, or steps of one column.
    int lane, slot;
    if (CHANNELS_LAST)
        slot = divide(threadIdx.x, s.by_lanes, lane);
    else
        lane = divide(threadIdx.x, s.by_slots, slot);
    const int slots = s.by_slots.value, column = blockIdx.x * s.by_lanes.value + lane;
    const bool works = column < s.columns && slot < slots && lane < s.by_lanes.value;
    const unsigned begin = blockIdx.y * s.steps_per_split;
    const unsigned end = works ? min(begin + s.steps_per_split, s.steps) : begin;

    Accum sums[TERMS][WIDTH] = {}, pivot[WIDTH] = {};
    Normaliser of[WIDTH] = {};
    int channels[WIDTH], position[WIDTH];  // position inside a row
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) {
        position[w] = divide(works ? column * WIDTH + w : 0, g.by_channels, channels[w]);
        if (TERM == BATCH_GRADIENT) of[w] = normaliser(channels[w], gamma, beta, mean, var, epsilon);
    }
    int taken = 0, last_end = PACK;  // numbers of a sum; but of sum w one less where w >= last_end

    const auto take = [&](auto with, auto steps) {
        const int COUNT = steps.count;
        Span span[COUNT];
        Pack<Element> values[COUNT], inputs[COUNT] = {}, outputs[COUNT] = {};
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            span[k] = steps.span(g, s, count, column, k);
            values[k] = steps.load(a, span[k], count);
            if (GRADIENT || TERM == SLOPE) inputs[k] = steps.load(x, span[k], count);
            if (with.masked) outputs[k] = steps.load(y, span[k], count);
        }
        if (TERM == MOMENTS && steps.step == begin + slot) {
#pragma unroll
            for (int j = PACK - 1; j >= 0; --j)
                if (steps.inside(span[0], 0, j)) pivot[CHANNELS_LAST ? j : 0] = widen(values[0].at[j]);
        }
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            if (TERM == MOMENTS) {
                if (steps.exists(k)) taken += CHANNELS_LAST ? 1 : max(0, span[k].end - span[k].begin);
                if (steps.exists(k) && CHANNELS_LAST && !steps.in_packs) last_end = span[k].end;
            }
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                const int w = CHANNELS_LAST ? j : 0;
                const bool inside = steps.inside(span[k], k, j);
                const Accum in = inside ? widen(inputs[k].at[j]) : (Accum)0;
                const Accum output = widen(outputs[k].at[j]), most = with.capped ? ceiling : math::not_a_number();
                const bool cut =
                    TERM == BATCH_GRADIENT && ((with.masked && (!(output > 0) || output >= most)) ||
                                               (beta && !of[w].active(inputs[k].at[j], most)));
                const Accum value = inside && !cut ? widen(values[k].at[j]) : (Accum)0;
                if (with.masked) values[k].at[j] = narrow(value);
                if (TERM == MOMENTS) {
                    const Accum difference = inside ? value - pivot[w] : (Accum)0;
                    sums[0][w] += difference;
                    sums[TERMS - 1][w] = math::fma(difference, difference, sums[TERMS - 1][w]);
                } else if (TERM == SLOPE) {
                    sums[0][w] += in > 0 ? 0 : value * in;
                } else {
                    sums[0][w] += value;
                }
                if (TERM == BATCH_GRADIENT)
                    sums[TERMS - 1][w] = math::fma(value, in - of[w].mean, sums[TERMS - 1][w]);
                if (TERM == GROUP_GRADIENT && inside) {
                    const unsigned row = steps.at(k);
                    const unsigned n = CHANNELS_LAST ? divide(row * s.positions + position[w], g.by_length)
                                                     : divide(row, s.by_row_packs);
                    const long long group = (long long)n * g.groups + divide(channels[w], g.by_group_channels);
                    sums[TERMS - 1][w] += value * (in - mean[group]) * inverse_deviation(var[group], epsilon);
                }
            }
            if (with.masked) {
                if (steps.in_packs) {
                    if (steps.exists(k)) *(Pack<Element>*)(masked + span[k].first) = values[k];
                } else {
#pragma unroll
                    for (int j = 0; j < PACK; ++j)
                        if (steps.inside(span[k], k, j)) masked[span[k].first + j] = values[k].at[j];
                }
            }
        }
    };

    // The last step of all may be no whole pack with channels last, and none is where rows begin inside packs.
    const bool in_packs = lies_in_packs(a) && lies_in_packs(x) && lies_in_packs(y) && lies_in_packs(masked) &&
                          (CHANNELS_LAST || g.length % PACK == 0);
    const bool last_is_whole = !CHANNELS_LAST || (long long)s.steps * s.columns * PACK == count;
    const unsigned whole = !in_packs ? begin : last_is_whole ? end : min(end, s.steps - 1);
    int before;  // a thread's steps leave the remainder `slot`, what they are taken by; this is that of `whole`
    divide(whole - begin, s.by_slots, before);
    const unsigned rest = whole + (slot < before ? slot + slots : slot) - before;
    const auto take_all = [&](auto with) {
        const int AT_ONCE = with.capped && UNROLL > 1 ? UNROLL / 2 : UNROLL;
        const int OF_REST = CHANNELS_LAST ? 1 : (AT_ONCE + 1) / 2;
        unsigned step = begin + slot;
        for (; step + (AT_ONCE - 1) * slots < whole; step += AT_ONCE * slots)
            take(with, Steps<ALL, AT_ONCE>{step, whole, slots});
        if (step < whole) take(with, Steps<SOME, AT_ONCE>{step, whole, slots});
#pragma unroll 1
        for (step = rest; step < end; step += OF_REST * slots) take(with, Steps<ANY, OF_REST>{step, end, slots});
    };
    if (TERM == BATCH_GRADIENT && y)
        take_all(Masked());
    else if (TERM == BATCH_GRADIENT && ceiling == ceiling)
        take_all(Capped());
    else
        take_all(Plain());

#pragma unroll
    for (int w = 0; w < WIDTH; ++w) {
#if TERM == MOMENTS
        tree[w][threadIdx.x] = moments(taken - (w >= last_end), pivot[w], sums[0][w], sums[1][w]);
#else
        if (TERM == BATCH_GRADIENT) sums[TERMS - 1][w] *= of[w].inverse;
#pragma unroll
        for (int q = 0; q < TERMS; ++q) tree[w][threadIdx.x].of[q] = sums[q][w];
#endif
    }
    const int next = CHANNELS_LAST ? s.by_lanes.value : 1;  // from a slot of a column to its next
    for (int half = BLOCK_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();  // the level below is complete
        if (slot < half && slot + half < slots)
#pragma unroll
            for (int w = 0; w < WIDTH; ++w)
                tree[w][threadIdx.x] = tree[w][threadIdx.x] + tree[w][threadIdx.x + half * next];
    }
    if (slot != 0 || !works) return;
    // this thread itself made the last addition
#pragma unroll
    for (int w = 0; w < WIDTH; ++w)
        partial[((long long)blockIdx.y * s.columns + column) * WIDTH + w] = tree[w][threadIdx.x];
}

// partial (parts, C)
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(channel_sums_finish)(const Sums* __restrict__ partial, Accum* __restrict__ sums, Element* __restrict__ rounded,
                          Accum* __restrict__ moving_mean, Accum* __restrict__ moving_var, Accum share, int parts,
                          int channels, int lanes) {
    after_kernels_before();
    __shared__ Sums tree[BLOCK_THREADS];
    const int lane = threadIdx.x % lanes, part = threadIdx.x / lanes, c = blockIdx.x * lanes + lane;
    const int together = BLOCK_THREADS / lanes;  // threads of a channel
    Sums sum = {};
    if (c < channels) {
#pragma unroll FINISH_UNROLL
        for (int p = part; p < parts; p += together) sum = sum + partial[(long long)p * channels + c];
    }
    tree[threadIdx.x] = sum;
    for (int half = together / 2; half > 0; half /= 2) {
        __syncthreads();  // the parts of this level are there
        if (part < half) tree[threadIdx.x] = tree[threadIdx.x] + tree[threadIdx.x + half * lanes];
    }
    if (part != 0 || c >= channels) return;
    sum = tree[threadIdx.x];  // this thread itself made the last addition
#if TERM == MOMENTS
    const Accum mean = sum.pivot + sum.distance, var = sum.deviations / sum.count;
    sums[c] = mean;
    sums[channels + c] = var;
    if (moving_mean) {
        moving_mean[c] = move_towards(mean, moving_mean[c], share);
        moving_var[c] = move_towards(var, moving_var[c], share);
    }
#else
#pragma unroll
    for (int q = 0; q < TERMS; ++q) {
        sums[q * channels + c] = sum.of[q];
        if (rounded) rounded[q * channels + c] = narrow(sum.of[q]);
    }
#endif
}
