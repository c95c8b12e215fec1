// The Euclidean norm of all gradients together, deterministic, in two passes, and what follows from it
// for the step: it stays on the device, so that clipping and loss scaling need no wait.
//
//   norm   = sqrt(sum over tensors and elements of grad^2) / loss_scale
//   factor = min(1, clip_norm / norm) / loss_scale
//
// A norm that is not finite makes the factor 0, which says to an update that the step is skipped, and
// halves the loss scale; a number of finite ones in a row doubles it (Micikevicius et al., "Mixed
// precision training", ICLR 2018). Where that is no help, or without loss scaling, it makes the factor
// NaN, and then the loss, which somebody reads.
//
// global_norm_squares: one block a chunk of one tensor (see multi_tensor.cuh) writes its sum of
//   squares, in double; shared memory 2 KB.
// global_norm_decide: one block adds them in a fixed order and takes the root; one thread does the rest.
#include "block_sum.cuh"
#include "math.cuh"
#include "multi_tensor.cuh"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(global_norm_squares)(const TensorEntry* __restrict__ table, const Chunk* __restrict__ chunks,
                          double* __restrict__ partial) {
    __shared__ double scratch[BLOCK_THREADS];
    const Chunk chunk = chunks[blockIdx.x];
    const TensorEntry tensor = table[chunk.tensor];
    double sum = 0;
    for (long long i = chunk.begin + threadIdx.x; i < chunk_end(chunk, tensor); i += BLOCK_THREADS) {
        const double value = widen(tensor.grad[i]);
        sum += value * value;
    }
    sum = block_sum(sum, scratch);
    if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

const int PATIENCE = 64;  // steps that are skipped in a row; halved so often, a scale brings anything to 0

// partial (count,); clip_norm 0 for none; loss_scale: [scale, streak] or null, streak being how many steps
// were good in a row, or minus how many were skipped; growth_interval 0 for a scale that stays; skipped: how
// many steps were, or null for none. decision: [norm, factor, 1 - beta_1^t, 1 - beta_2^t], t being the step,
// a number or one at an address, less those skipped.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(global_norm_decide)(const double* __restrict__ partial, long long count, double clip_norm,
                         double* __restrict__ loss_scale, double growth_interval, double* __restrict__ skipped,
                         double step_value, const double* __restrict__ step_at, double beta_1, double beta_2,
                         double* __restrict__ decision) {
    __shared__ double scratch[BLOCK_THREADS];
    double sum = 0;
    for (long long i = threadIdx.x; i < count; i += BLOCK_THREADS) sum += partial[i];
    sum = block_sum(sum, scratch);
    if (threadIdx.x != 0) return;

    const double scale = loss_scale ? loss_scale[0] : 1;
    const double norm = math::sqrt(sum) / scale;
    const bool finite = norm - norm == 0;
    const double t = (step_at ? *step_at : step_value) - (skipped ? *skipped : 0);
    decision[0] = norm;
    decision[1] = (clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1) / scale;
    decision[2] = 1 - math::pow(beta_1, t);
    decision[3] = 1 - math::pow(beta_2, t);
    if (!loss_scale) {
        if (!finite) decision[1] = math::not_a_number();
        return;
    }
    const double streak = loss_scale[1];
    if (finite) {
        const bool grows = growth_interval > 0 && streak + 1 >= growth_interval;
        loss_scale[0] = grows ? 2 * scale : scale;
        loss_scale[1] = grows ? 0 : streak < 0 ? 1 : streak + 1;
    } else {
        decision[1] = streak > -PATIENCE ? 0 : (double)math::not_a_number();
        loss_scale[0] = growth_interval > 0 ? scale / 2 : scale;
        loss_scale[1] = streak > 0 ? -1 : streak - 1;
        *skipped += 1;
    }
}
