// Sums over everything but the channels, deterministic, in two passes: a bias's gradient, the mean
// and variance of batch norm, the gradients of its scale and shift, of PReLU's slopes.
//
//   sums[q][c] = scale * sum over n, l of term_q(n, l, c)
//
//   TERM                 term_0             term_1
//   SUM                  a
//   SQUARED_DEVIATION    (a - mean[c])^2
//   BATCH_GRADIENT       d                  d * (x - mean[c]) / sqrt(var[c] + epsilon)
//   GROUP_GRADIENT       a                  a * (x - mean[n][group of c]) / sqrt(var[n][group of c] + epsilon)
//   SLOPE                a * min(x, 0)
//
// d is a or, behind a ReLU, a where its output was above zero and 0 elsewhere: `beta` is given where
// x tells that (see batch_norm.cuh); `y`, the output, where a residual was added, too, and d is then
// written to `masked`.
//
// a, x, y, masked: (N, L, C) or (N, C, L), see norm_geometry.cuh; mean, var: as above, in Accum; what
// a TERM has no use for is null. One pass over the arrays that are given, 16 bytes at a time.
//
// channel_sums: block (x, y) sums the steps [y, y + 1) * steps_per_split of its columns (see Summing)
//   and writes partial[q][y][column]. A column's `slots` threads each take every slots-th step, then a
//   tree adds what they have. Shared memory: 16 KB at most.
// channel_sums_finish: a block adds LANES numbers, PARTS threads to each, of which one adds every
//   PARTS-th partial in ascending order; the first then adds their sums in ascending order. The sums are
//   in Accum; where `rounded` is not null, it gets them in Element, too. 256 * sizeof(Accum) bytes.
#include "batch_norm.cuh"
#include "pack.cuh"

#define SUM 1
#define SQUARED_DEVIATION 2
#define BATCH_GRADIENT 3
#define GROUP_GRADIENT 4
#define SLOPE 5

const bool GRADIENT = TERM == BATCH_GRADIENT || TERM == GROUP_GRADIENT;
const int TERMS = GRADIENT ? 2 : 1;
const int WIDTH = CHANNELS_LAST ? PACK : 1;  // sums of a column
// Packs of each array that are under way at once; group norm's need many registers for other things.
const int UNROLL = sizeof(Element) == 8 || TERM == GROUP_GRADIENT ? 1 : TERM == BATCH_GRADIENT ? 2 : 4;
const int LANES = 32;
const int PARTS = BLOCK_THREADS / LANES;

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

// The part of a pack, [begin, end), that belongs to a column in a step.
struct Span {
    long long first;  // element of the pack
    int begin, end;
};

__device__ __forceinline__ Span span_of(const NormGeometry& g, const Summing& s, long long count, int column,
                                        unsigned step, bool exists) {
    if (!exists) return {count, 0, 0};
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

// Two blocks leave each thread 128 registers.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 2)
NAME(channel_sums)(const Element* __restrict__ a, const Element* __restrict__ x, const Element* __restrict__ y,
                   const Element* __restrict__ gamma, const Element* __restrict__ beta,
                   const Accum* __restrict__ mean, const Accum* __restrict__ var, Accum epsilon,
                   Element* __restrict__ masked, Accum* __restrict__ partial, long long count,
                   const __grid_constant__ NormGeometry g, const __grid_constant__ Summing s) {
    __shared__ Accum tree[TERMS][WIDTH][BLOCK_THREADS];
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

    Accum sums[TERMS][WIDTH] = {}, centre[WIDTH] = {};
    Normaliser of[WIDTH] = {};
    int channels[WIDTH], position[WIDTH];  // position inside a row
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) {
        position[w] = divide(works ? column * WIDTH + w : 0, g.by_channels, channels[w]);
        if (TERM == SQUARED_DEVIATION) centre[w] = mean[channels[w]];
        if (TERM == BATCH_GRADIENT) of[w] = normaliser(channels[w], gamma, beta, mean, var, epsilon);
    }

    for (unsigned step = begin + slot; step < end; step += UNROLL * slots) {
        Span span[UNROLL];
        Pack<Element> values[UNROLL], inputs[UNROLL] = {}, outputs[UNROLL] = {};
#pragma unroll
        for (int k = 0; k < UNROLL; ++k) {
            span[k] = span_of(g, s, count, column, step + k * slots, step + k * slots < end);
            values[k] = load_pack(a, span[k].first, count);
            if (GRADIENT || TERM == SLOPE) inputs[k] = load_pack(x, span[k].first, count);
            if (TERM == BATCH_GRADIENT && y) outputs[k] = load_pack(y, span[k].first, count);
        }
#pragma unroll
        for (int k = 0; k < UNROLL; ++k) {
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                const int w = CHANNELS_LAST ? j : 0;
                const bool inside = span[k].begin <= j && j < span[k].end;
                const Accum in = inside ? widen(inputs[k].at[j]) : (Accum)0;
                if (TERM == BATCH_GRADIENT && ((y && !(widen(outputs[k].at[j]) > 0)) ||
                                               (beta && !of[w].active(inputs[k].at[j]))))
                    values[k].at[j] = narrow(0);
                const Accum value = inside ? widen(values[k].at[j]) : (Accum)0;
                if (TERM == SQUARED_DEVIATION) {
                    const Accum deviation = inside ? value - centre[w] : (Accum)0;
                    sums[0][w] += deviation * deviation;
                } else if (TERM == SLOPE) {
                    sums[0][w] += in > 0 ? 0 : value * in;
                } else {
                    sums[0][w] += value;
                }
                if (TERM == BATCH_GRADIENT) sums[TERMS - 1][w] += value * (in - of[w].mean);
                if (TERM == GROUP_GRADIENT && inside) {
                    const unsigned row = step + k * slots;
                    const unsigned n = CHANNELS_LAST ? divide(row * s.positions + position[w], g.by_length)
                                                     : divide(row, s.by_row_packs);
                    const long long group = (long long)n * g.groups + divide(channels[w], g.by_group_channels);
                    sums[TERMS - 1][w] += value * (in - mean[group]) * inverse_deviation(var[group], epsilon);
                }
            }
            if (TERM == BATCH_GRADIENT && y) {
                if (span[k].begin == 0 && span[k].end == PACK) {
                    store_pack(masked, span[k].first, count, values[k]);
                } else {
#pragma unroll
                    for (int j = 0; j < PACK; ++j)
                        if (span[k].begin <= j && j < span[k].end) masked[span[k].first + j] = values[k].at[j];
                }
            }
        }
    }

    const int next = CHANNELS_LAST ? s.by_lanes.value : 1;  // from a slot of a column to its next
#pragma unroll
    for (int w = 0; w < WIDTH; ++w) {
        if (TERM == BATCH_GRADIENT) sums[TERMS - 1][w] *= of[w].inverse;
#pragma unroll
        for (int q = 0; q < TERMS; ++q) tree[q][w][threadIdx.x] = sums[q][w];
    }
    for (int half = BLOCK_THREADS / 2; half > 0; half /= 2) {
        __syncthreads();  // the level below is complete
        if (slot < half && slot + half < slots)
#pragma unroll
            for (int w = 0; w < WIDTH; ++w)
#pragma unroll
                for (int q = 0; q < TERMS; ++q) tree[q][w][threadIdx.x] += tree[q][w][threadIdx.x + half * next];
    }
    if (slot != 0 || !works) return;
    // this thread itself made the last addition
#pragma unroll
    for (int w = 0; w < WIDTH; ++w)
#pragma unroll
        for (int q = 0; q < TERMS; ++q)
            partial[(((long long)q * gridDim.y + blockIdx.y) * s.columns + column) * WIDTH + w] =
                tree[q][w][threadIdx.x];
}

// partial (TERMS, parts, C)
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(channel_sums_finish)(const Accum* __restrict__ partial, Accum* __restrict__ sums, Element* __restrict__ rounded,
                          Accum scale, int parts, int channels) {
    __shared__ Accum of_part[PARTS][LANES];
    const int lane = threadIdx.x % LANES, part = threadIdx.x / LANES;
    const int i = blockIdx.x * LANES + lane, q = i >= channels ? 1 : 0;  // i = q * C + c
    Accum sum = 0;
    if (i < TERMS * channels) {
        const Accum* column = partial + (long long)q * parts * channels + (i - q * channels);
#pragma unroll 8  // that many loads are under way at once
        for (int p = part; p < parts; p += PARTS) sum += column[(long long)p * channels];
    }
    of_part[part][lane] = sum;
    __syncthreads();  // every part is there
    if (part != 0 || i >= TERMS * channels) return;
#pragma unroll
    for (int other = 1; other < PARTS; ++other) sum += of_part[other][lane];
    sum *= scale;
    sums[i] = sum;
    if (rounded) rounded[i] = narrow(sum);
}
