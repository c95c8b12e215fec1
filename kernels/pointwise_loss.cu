// Losses element by element, with their gradients.
//
//   losses[i] = loss(z[i], t[i])      dz[i] = scale * dloss/dz, scale times *loss_scale where not null
//
// z, t, dz: `count` elements in any shape; losses as many in Accum. One thread takes PACK elements.
// Macro: LOSS, one of the structs below.
#include "math.cuh"
#include "pack.cuh"

struct Mse {
    static __device__ Accum loss(Accum z, Accum t) { return (z - t) * (z - t); }
    static __device__ Accum slope(Accum z, Accum t) { return 2 * (z - t); }
};

struct Mae {
    static __device__ Accum loss(Accum z, Accum t) { return math::abs(z - t); }
    static __device__ Accum slope(Accum z, Accum t) { return z > t ? 1 : z < t ? -1 : z - t; }  // 0, or NaN
};

// Quadratic up to 1, then linear. Huber, "Robust estimation of a location parameter", 1964.
struct Huber {
    static __device__ Accum loss(Accum z, Accum t) {
        const Accum d = math::abs(z - t);
        return d <= 1 ? (Accum)0.5 * d * d : d - (Accum)0.5;
    }
    static __device__ Accum slope(Accum z, Accum t) {
        const Accum d = z - t;
        return d > 1 ? 1 : d < -1 ? -1 : d;
    }
};

// -t log sigmoid(z) - (1 - t) log(1 - sigmoid(z)), in a form that does not overflow
struct BceLogits {
    static __device__ Accum loss(Accum z, Accum t) {
        return (z <= 0 ? 0 : z) - z * t + math::log1p(math::exp(-math::abs(z)));
    }
    static __device__ Accum slope(Accum z, Accum t) {
        const Accum e = math::exp(-math::abs(z));
        return (z >= 0 ? 1 : e) / (1 + e) - t;
    }
};

extern "C" __global__ void NAME(pointwise_loss)(const Element* __restrict__ z, const Element* __restrict__ t,
                                                Accum scale, const double* __restrict__ loss_scale,
                                                Accum* __restrict__ losses, Element* __restrict__ dz,
                                                long long count) {
    after_kernels_before();
    const long long i = first_of_pack();
    if (i >= count) return;
    if (loss_scale) scale *= (Accum)*loss_scale;
    const Pack<Element> prediction = load_pack(z, i, count), target = load_pack(t, i, count);
    Pack<Accum> loss;
    Pack<Element> gradient;
#pragma unroll
    for (int j = 0; j < PACK; ++j) {
        const Accum p = widen(prediction.at[j]), q = widen(target.at[j]);
        loss.at[j] = LOSS::loss(p, q);
        gradient.at[j] = narrow(scale * LOSS::slope(p, q));
    }
    store_pack(losses, i, count, loss);
    store_pack(dz, i, count, gradient);
}
