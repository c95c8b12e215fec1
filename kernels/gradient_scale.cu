// What all gradients together say about a step. It is decided on the device, so that clipping and loss
// scaling need no wait.
//
//   norm   = sqrt(sum over tensors and elements of grad^2) / loss_scale
//   factor = min(1, clip_norm / norm) / loss_scale
//
// A norm that is not finite makes the factor 0, which says to an update that the step is skipped, and
// halves the loss scale; a number of finite ones in a row doubles it (Micikevicius et al., "Mixed
// precision training", ICLR 2018). Where that is no help, or without loss scaling, it makes the factor
// NaN, and then the loss, which somebody reads.
//
// One block adds the sums of global_norm.cu in a fixed order; one thread does the rest. Shared memory 2 KB.
#include "block_sum.cuh"
#include "math.cuh"

const int PATIENCE = 64;  // steps that are skipped in a row; halved so often, a scale brings anything to 0

// partial (count,); clip_norm 0 for none; loss_scale: [scale, streak] or null, streak being how many steps
// were good in a row, or minus how many were skipped; growth_interval 0 for a scale that stays; skipped: how
// many steps were, or null for none. decision: [norm, factor, 1 - beta_1^t, 1 - beta_2^t], t being the step,
// a number or one at an address, less those skipped.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(gradient_scale)(const double* __restrict__ partial, long long count, double clip_norm,
                     double* __restrict__ loss_scale, double growth_interval, double* __restrict__ skipped,
                     double step_value, const double* __restrict__ step_at, double beta_1, double beta_2,
                     double* __restrict__ decision) {
    after_kernels_before();
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
