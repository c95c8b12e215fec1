// Batch normalisation with what follows it, the elementwise halves (the sums are channel_sums.cu's).
// Ioffe & Szegedy, "Batch normalization", ICML 2015.
//
//   xhat = (x - mean[c]) / sqrt(var[c] + epsilon)
//   y    = f(gamma[c] * xhat + beta[c] + residual)
//   dx   = gamma[c] / sqrt(var[c] + epsilon) * (d - (dbeta[c] + xhat * dgamma[c]) / count)
//
// f is the identity or, with `relu`, max(v, 0), a NaN staying one, below a `ceiling` where that is no NaN
// (see batch_norm.cuh); d is dy where f's output is above zero and below the ceiling, and 0 elsewhere. Without a
// residual that follows from x (`beta` is then given); with one, the sums have read y and written d, which is then
// given as dy (`beta` is null): it is also the gradient of the residual. With fixed statistics the second term of dx is
// absent: inverse_count is then 0.
//
// x, residual (or null), y, dy, dx: (N, L, C) or (N, C, L), see norm_geometry.cuh; gamma, beta (C,);
// mean, var (C,) and sums (2, C), dbeta and dgamma, in Accum.
// One thread takes packs of 16 bytes or more that lie `stride` elements apart, a multiple both of PACK
// and of C (channels first, of C * L): of every pack the channels are the same, and what they need is
// in registers. It asks for UNROLL packs of each array before it uses the first. Passes over memory:
// forward x -> y (and the residual), one of x before it in training; backward dy, x -> dx and before it
// dy, x (with a residual dy, x, y -> d).
#include "batch_norm.cuh"
#include "norm_geometry.cuh"
#include "pack.cuh"

// Packs of each array that are under way at once, and blocks that find room on a multiprocessor at least, as
// many as the launch counts on.
const int FORWARD_UNROLL = sizeof(Element) == 8 ? 2 : 4, BACKWARD_UNROLL = 2;
const int BLOCKS = sizeof(Element) == 8 ? 2 : 3;

// What the channels of this thread's packs need.
__device__ __forceinline__ void channels_of_packs(int (&channels)[PACK], const NormGeometry& g) {
#pragma unroll
    for (int j = 0; j < PACK; ++j) {
        if (j > 0 && CHANNELS_LAST)
            channels[j] = channels[j - 1] + 1 < g.channels ? channels[j - 1] + 1 : 0;
        else
            channels[j] = channel(g, first_of_pack() + j);
    }
}

struct Without { static const bool residual = false; };
struct With { static const bool residual = true; };

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, BLOCKS)
NAME(batch_norm_forward)(const Element* __restrict__ x, const Element* __restrict__ residual,
                         const Element* __restrict__ gamma, const Element* __restrict__ beta,
                         const Accum* __restrict__ mean, const Accum* __restrict__ var, Accum epsilon, int relu,
                         Accum ceiling, Element* __restrict__ y, long long count, int stride,
                         const __grid_constant__ NormGeometry g) {
    after_kernels_before();
    if (first_of_pack() >= stride) return;
    int channels[PACK];
    channels_of_packs(channels, g);
    Normaliser of[PACK];
#pragma unroll
    for (int j = 0; j < PACK; ++j) of[j] = normaliser(channels[j], gamma, beta, mean, var, epsilon);

    const auto apply = [&](auto with, auto packs) {
        const int COUNT = packs.count;
        Pack<Element> in[COUNT], other[COUNT] = {};
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            in[k] = packs.load(x, k);
            if (with.residual) other[k] = packs.load(residual, k);
        }
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            Pack<Element> out;
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                Accum value = of[j](in[k].at[j]);
                if (with.residual) value += widen(other[k].at[j]);
                out.at[j] = narrow(rectified(value, relu, ceiling));
            }
            packs.store(y, k, out);
        }
    };
    const bool in_packs = lies_in_packs(x) && lies_in_packs(y) && lies_in_packs(residual);
    if (residual)
        each_pack<FORWARD_UNROLL / 2>(count, stride, in_packs, [&](auto packs) { apply(With(), packs); });
    else
        each_pack<FORWARD_UNROLL>(count, stride, in_packs, [&](auto packs) { apply(Without(), packs); });
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, BLOCKS)
NAME(batch_norm_backward)(const Element* __restrict__ dy, const Element* __restrict__ x,
                          const Element* __restrict__ gamma, const Element* __restrict__ beta,
                          const Accum* __restrict__ mean, const Accum* __restrict__ var, Accum epsilon,
                          Accum ceiling, const Accum* __restrict__ sums, Accum inverse_count, Element* __restrict__ dx,
                          long long count, int stride, const __grid_constant__ NormGeometry g) {
    after_kernels_before();
    if (first_of_pack() >= stride) return;
    int channels[PACK];
    channels_of_packs(channels, g);
    Normaliser of[PACK];
    Accum centre[PACK], slope[PACK];  // through the mean and the variance: centre + slope * (x - mean)
#pragma unroll
    for (int j = 0; j < PACK; ++j) {
        const int c = channels[j];
        of[j] = normaliser(c, gamma, beta, mean, var, epsilon);
        centre[j] = -of[j].scale * (sums[c] * inverse_count);
        slope[j] = -of[j].scale * (of[j].inverse * sums[g.channels + c] * inverse_count);
    }

    const bool in_packs = lies_in_packs(dy) && lies_in_packs(x) && lies_in_packs(dx);
    each_pack<BACKWARD_UNROLL>(count, stride, in_packs, [&](auto packs) {
        const int COUNT = packs.count;
        Pack<Element> gradient[COUNT], in[COUNT];
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            gradient[k] = packs.load(dy, k);
            in[k] = packs.load(x, k);
        }
#pragma unroll
        for (int k = 0; k < COUNT; ++k) {
            Pack<Element> out;
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                const bool passed = !beta || of[j].active(in[k].at[j], ceiling);
                const Accum d = passed ? widen(gradient[k].at[j]) : (Accum)0;
                const Accum through = math::fma(slope[j], widen(in[k].at[j]) - of[j].mean, centre[j]);
                out.at[j] = narrow(math::fma(of[j].scale, d, through));
            }
            packs.store(dx, k, out);
        }
    });
}
