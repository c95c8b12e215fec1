// Batch normalisation with what follows it, the elementwise halves (the sums are channel_sums.cu's).
// Ioffe & Szegedy, "Batch normalization", ICML 2015.
//
//   xhat = (x - mean[c]) / sqrt(var[c] + epsilon)
//   y    = f(gamma[c] * xhat + beta[c] + residual)
//   dx   = gamma[c] / sqrt(var[c] + epsilon) * (d - (dbeta[c] + xhat * dgamma[c]) / count)
//
// f is the identity or, with `relu`, max(v, 0), a NaN staying one; d is dy where f's output is above
// zero and 0 elsewhere. Without a residual that follows from x (`beta` is then given); with one, the
// sums have read y and written d, which is then given as dy (`beta` is null): it is also the gradient
// of the residual. With fixed statistics the second term of dx is absent: inverse_count is then 0.
//
// x, residual (or null), y, dy, dx: (N, L, C) or (N, C, L), see norm_geometry.cuh; gamma, beta (C,);
// mean, var (C,) and sums (2, C), dbeta and dgamma, in Accum.
// One thread takes packs of 16 bytes or more that lie `stride` elements apart, a multiple both of PACK
// and of C (channels first, of C * L): of every pack the channels are the same, and what they need is
// in registers. Passes over memory: forward x -> y (and the residual), two of x before it in training;
// backward dy, x -> dx and before it dy, x (with a residual dy, x, y -> d).
#include "batch_norm.cuh"
#include "pack.cuh"

const int UNROLL = 2;  // packs of each array that are under way at once

// What the channels of this thread's packs need.
__device__ __forceinline__ void normalisers(Normaliser (&of)[PACK], const NormGeometry& g, const Element* gamma,
                                            const Element* beta, const Accum* mean, const Accum* var,
                                            Accum epsilon) {
#pragma unroll
    for (int j = 0; j < PACK; ++j)
        of[j] = normaliser(channel(g, first_of_pack() + j), gamma, beta, mean, var, epsilon);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(batch_norm_forward)(const Element* __restrict__ x, const Element* __restrict__ residual,
                         const Element* __restrict__ gamma, const Element* __restrict__ beta,
                         const Accum* __restrict__ mean, const Accum* __restrict__ var, Accum epsilon, int relu,
                         Element* __restrict__ y, long long count, int stride,
                         const __grid_constant__ NormGeometry g) {
    if (first_of_pack() >= stride) return;
    Normaliser of[PACK];
    normalisers(of, g, gamma, beta, mean, var, epsilon);

    for (long long i = first_of_pack(); i < count; i += (long long)UNROLL * stride) {
        Pack<Element> in[UNROLL], other[UNROLL] = {};
#pragma unroll
        for (int k = 0; k < UNROLL; ++k) {
            in[k] = load_pack(x, i + (long long)k * stride, count);
            if (residual) other[k] = load_pack(residual, i + (long long)k * stride, count);
        }
#pragma unroll
        for (int k = 0; k < UNROLL; ++k) {
            Pack<Element> out;
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                const Accum value = of[j](in[k].at[j]) + widen(other[k].at[j]);
                out.at[j] = narrow(relu && value <= 0 ? (Accum)0 : value);
            }
            store_pack(y, i + (long long)k * stride, count, out);
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(batch_norm_backward)(const Element* __restrict__ dy, const Element* __restrict__ x,
                          const Element* __restrict__ gamma, const Element* __restrict__ beta,
                          const Accum* __restrict__ mean, const Accum* __restrict__ var, Accum epsilon,
                          const Accum* __restrict__ sums, Accum inverse_count, Element* __restrict__ dx,
                          long long count, int stride, const __grid_constant__ NormGeometry g) {
    if (first_of_pack() >= stride) return;
    Normaliser of[PACK];
    normalisers(of, g, gamma, beta, mean, var, epsilon);
    Accum centre[PACK], slope[PACK];  // through the mean and the variance: centre + slope * (x - mean)
#pragma unroll
    for (int j = 0; j < PACK; ++j) {
        const int c = channel(g, first_of_pack() + j);
        centre[j] = sums[c] * inverse_count;
        slope[j] = of[j].inverse * sums[g.channels + c] * inverse_count;
    }

    for (long long i = first_of_pack(); i < count; i += (long long)UNROLL * stride) {
        Pack<Element> gradient[UNROLL], in[UNROLL];
#pragma unroll
        for (int k = 0; k < UNROLL; ++k) {
            gradient[k] = load_pack(dy, i + (long long)k * stride, count);
            in[k] = load_pack(x, i + (long long)k * stride, count);
        }
#pragma unroll
        for (int k = 0; k < UNROLL; ++k) {
            Pack<Element> out;
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                const bool passed = !beta || of[j].active(in[k].at[j]);
                const Accum d = passed ? widen(gradient[k].at[j]) : (Accum)0;
                const Accum through = centre[j] + slope[j] * (widen(in[k].at[j]) - of[j].mean);
                out.at[j] = narrow(of[j].scale * (d - through));
            }
            store_pack(dx, i + (long long)k * stride, count, out);
        }
    }
}
