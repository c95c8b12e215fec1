// Cross-entropy of a softmax, the loss of each row and its gradient in one pass, and whether the largest
// logit is the target's class.
//
//   target'[i] = (1 - smoothing) * target[i] + smoothing / classes
//   losses     = - sum over i of target'[i] * log softmax(logits)[i]          0 * log 0 being 0
//   dlogits[i] = scale * (softmax(logits)[i] - target'[i])      scale times *loss_scale, where not null
//   hits       = argmax(logits) == argmax(target), the label; of equal ones the first, and a NaN is largest
//
// logits, dlogits (rows, classes); losses (rows,) in Accum; hits (rows,), 0 or 1; targets (rows,) of
// class numbers, 32 or 64 bits, or (rows, classes) of probabilities. A class number outside
// [0, classes) makes its row NaN.
// ROW_THREADS threads compute a row. Shared memory: see row_reduce.cuh. A kernel that HOLDS a row's
// logits, HELD a thread at most, asks for all of them at once, in packs, and keeps them; the order of
// the sums does not follow from where the rows begin in memory.
//
// Macros: TARGET, the targets' type: I32, I64 or Element; HOLDS, 1 or 0.
#include "pack.cuh"
#include "row_reduce.cuh"

typedef int I32;
typedef long long I64;

// Of numbers that come in ascending order of their places, the first of the largest.
struct LargestSoFar {
    Accum value;
    int place;  // none yet where negative
    __device__ void look(int i, Accum v) {
        if (place < 0 || v > value || (v != v && value == value)) value = v, place = i;
    }
    // that of the whole row
    __device__ int of_row(int classes) const {
        const int nan = row_reduce(place >= 0 && value != value ? place : classes, First());
        const Accum largest = row_reduce(place < 0 ? -math::infinity() : value, Largest());
        const int first = row_reduce(place >= 0 && value == largest ? place : classes, First());
        return nan < classes ? nan : first;
    }
};

// What the targets say of a row: class numbers, ...
template <class Target> struct RowTarget {
    long long label;
    bool known;
    __device__ RowTarget(const Target* labels, int row, int classes)
        : label(labels[row]), known(label >= 0 && label < classes) {}
    __device__ Accum operator[](int i) const { return i == label ? 1 : 0; }
    __device__ void look(int, Accum) {}
    __device__ bool is_hit(int place) const { return place == label; }
};
// ... or probabilities.
template <> struct RowTarget<Element> {
    const Element* probabilities;
    const int classes;
    const bool known = true;
    LargestSoFar largest = {0, -1};
    __device__ RowTarget(const Element* targets, int row, int classes)
        : probabilities(targets + (long long)row * classes), classes(classes) {}
    __device__ Accum operator[](int i) const { return widen(probabilities[i]); }
    __device__ void look(int i, Accum target) { largest.look(i, target); }
    __device__ bool is_hit(int place) const { return place == largest.of_row(classes); }
};

#if HOLDS
// Logits that a thread holds; the host's twin is `longest_held` in gpucnn/backends/cuda/softmax_loss.py.
const int HELD = sizeof(Element) == 8 ? 16 : 32;
const int PACKS = HELD / PACK;

// Class of the k-th logit that this thread holds.
__device__ __forceinline__ int held_class(int k) {
    return (k / PACK * ROW_THREADS + first_column()) * PACK + k % PACK;
}

// This thread's logits of a row, with minus infinity beyond the last.
__device__ __forceinline__ void hold(Accum (&values)[HELD], const Element* row, int classes, bool in_packs) {
    Pack<Element> packs[PACKS];
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
        const int i = held_class(p * PACK);
        if (in_packs)
            packs[p] = load_whole_pack(row, i < classes ? i : 0);
        else
            packs[p] = load_pack(row, i, classes);
    }
#pragma unroll
    for (int k = 0; k < HELD; ++k)
        values[k] = held_class(k) < classes ? widen(packs[k / PACK].at[k % PACK]) : -math::infinity();
}
#endif

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 1)
NAME(softmax_cross_entropy)(const Element* __restrict__ logits, const TARGET* __restrict__ targets, Accum smoothing,
                            Accum scale, const double* __restrict__ loss_scale, Accum* __restrict__ losses,
                            unsigned char* __restrict__ hits, Element* __restrict__ dlogits, int rows,
                            int classes) {
    after_kernels_before();
    const int row = this_row();
    if (row >= rows) return;
    if (loss_scale) scale *= (Accum)*loss_scale;
    logits += (long long)row * classes;
    dlogits += (long long)row * classes;
    RowTarget<TARGET> row_target(targets, row, classes);
#if HOLDS
    const bool in_packs = lies_in_packs(logits) && lies_in_packs(dlogits) && classes % PACK == 0;
    Accum held[HELD];
    if (in_packs)
        hold(held, logits, classes, true);
    else
        hold(held, logits, classes, false);
    Exponentials e = {held[0], 0};
#pragma unroll
    for (int k = 1; k < HELD; ++k) e.largest = Largest()(e.largest, held[k]);
    e.largest = row_reduce(e.largest, Largest());
#pragma unroll
    for (int k = 0; k < HELD; ++k) e.total += math::exp(held[k] - e.largest);
    e.total = row_reduce(e.total, Sum());
#else
    const Exponentials e = exponentials(logits, classes);
#endif
    const Accum log_total = math::log(e.total), inverse_total = 1 / e.total;
    const Accum poison = row_target.known ? 0 : math::not_a_number();

    Accum loss = poison;
    const Accum share = smoothing / classes;  // of each class
    LargestSoFar largest = {0, -1};
    // the gradient of a logit; its part of the loss is added to the row's
    const auto gradient = [&](int i, Accum logit) {
        const Accum shifted = logit - e.largest;
        const Accum own = row_target[i], target = (1 - smoothing) * own + share;
        largest.look(i, logit);
        row_target.look(i, own);
        if (target != 0) loss -= target * (shifted - log_total);
        return narrow(scale * (math::exp(shifted) * inverse_total - target) + poison);
    };
#if HOLDS
#pragma unroll
    for (int p = 0; p < PACKS; ++p) {
        const int first = held_class(p * PACK);
        if (first >= classes) break;
        Pack<Element> out = {};
#pragma unroll
        for (int j = 0; j < PACK; ++j)
            if (first + j < classes) out.at[j] = gradient(first + j, held[p * PACK + j]);
        store_pack(dlogits, first, classes, out);
    }
#else
#pragma unroll ROW_UNROLL
    for (int i = first_column(); i < classes; i += ROW_THREADS) dlogits[i] = gradient(i, widen(logits[i]));
#endif
    loss = row_reduce(loss, Sum());
    const bool hit = row_target.is_hit(largest.of_row(classes));
    if (first_column() == 0) losses[row] = loss, hits[row] = hit;
}
