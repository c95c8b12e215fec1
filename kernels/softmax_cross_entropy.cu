// Cross-entropy of a softmax, the loss of each row and its gradient in one pass.
//
//   target'[i] = (1 - smoothing) * target[i] + smoothing / classes
//   losses     = - sum over i of target'[i] * log softmax(logits)[i]          0 * log 0 being 0
//   dlogits[i] = scale * (softmax(logits)[i] - target'[i])
//
// logits, dlogits (rows, classes); losses (rows,) in Accum; targets (rows,) of class numbers, 32 or 64
// bits, or (rows, classes) of probabilities. A class number outside [0, classes) makes its row NaN.
// ROW_THREADS threads compute a row. Shared memory: see row_reduce.cuh.
//
// Macro: TARGET, the targets' type: I32, I64 or Element.
#include "row_reduce.cuh"

typedef int I32;
typedef long long I64;

// What the targets say of a row: class numbers, ...
template <class Target> struct RowTarget {
    long long label;
    bool known;
    __device__ RowTarget(const Target* labels, int row, int classes)
        : label(labels[row]), known(label >= 0 && label < classes) {}
    __device__ Accum operator[](int i) const { return i == label ? 1 : 0; }
};
// ... or probabilities.
template <> struct RowTarget<Element> {
    const Element* probabilities;
    const bool known = true;
    __device__ RowTarget(const Element* targets, int row, int classes)
        : probabilities(targets + (long long)row * classes) {}
    __device__ Accum operator[](int i) const { return widen(probabilities[i]); }
};

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(softmax_cross_entropy)(const Element* __restrict__ logits, const TARGET* __restrict__ targets, Accum smoothing,
                            Accum scale, Accum* __restrict__ losses, Element* __restrict__ dlogits, int rows,
                            int classes) {
    const int row = this_row();
    if (row >= rows) return;
    logits += (long long)row * classes;
    dlogits += (long long)row * classes;
    const RowTarget<TARGET> row_target(targets, row, classes);
    const Exponentials e = exponentials(logits, classes);
    const Accum log_total = math::log(e.total), inverse_total = 1 / e.total;
    const Accum poison = row_target.known ? 0 : math::not_a_number();

    Accum loss = poison;
#pragma unroll ROW_UNROLL
    for (int i = first_column(); i < classes; i += ROW_THREADS) {
        const Accum shifted = widen(logits[i]) - e.largest;
        const Accum target = (1 - smoothing) * row_target[i] + smoothing / classes;
        if (target != 0) loss -= target * (shifted - log_total);
        dlogits[i] = narrow(scale * (math::exp(shifted) * inverse_total - target) + poison);
    }
    loss = row_reduce(loss, Sum());
    if (first_column() == 0) losses[row] = loss;
}
