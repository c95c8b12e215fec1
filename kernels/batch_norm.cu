// Batch normalisation, the elementwise halves (the sums are channel_sums.cu's).
// Ioffe & Szegedy, "Batch normalization", ICML 2015.
//
//   xhat = (x - mean[c]) / sqrt(var[c] + epsilon)
//   y    = gamma[c] * xhat + beta[c]
//   dx   = gamma[c] / sqrt(var[c] + epsilon) * (dy - (dbeta[c] + xhat * dgamma[c]) / count)
//
// With fixed statistics (inference) the second term of dx is absent: inverse_count is then 0.
//
// x, y, dy, dx: (N, L, C) or (N, C, L), see norm_geometry.cuh; gamma, beta (C,);
// mean, var (C,) and sums (2, C), dbeta and dgamma, in Accum. One thread computes one element; a launch
// counts fewer than 2^31.
#include "norm_geometry.cuh"

extern "C" __global__ void
NAME(batch_norm_forward)(const Element* __restrict__ x, const Element* __restrict__ gamma,
                         const Element* __restrict__ beta, const Accum* __restrict__ mean,
                         const Accum* __restrict__ var, Accum epsilon, Element* __restrict__ y, int count,
                         const __grid_constant__ NormGeometry g) {
    const long long i = global_thread();
    if (i >= count) return;
    const int c = channel(g, i);
    const Accum xhat = (widen(x[i]) - mean[c]) * inverse_deviation(var[c], epsilon);
    y[i] = narrow(widen(gamma[c]) * xhat + widen(beta[c]));
}

extern "C" __global__ void
NAME(batch_norm_backward)(const Element* __restrict__ dy, const Element* __restrict__ x,
                          const Element* __restrict__ gamma, const Accum* __restrict__ mean,
                          const Accum* __restrict__ var, Accum epsilon, const Accum* __restrict__ sums,
                          Accum inverse_count, Element* __restrict__ dx, int count,
                          const __grid_constant__ NormGeometry g) {
    const long long i = global_thread();
    if (i >= count) return;
    const int c = channel(g, i);
    const Accum inverse = inverse_deviation(var[c], epsilon);
    const Accum xhat = (widen(x[i]) - mean[c]) * inverse;
    const Accum dbeta = sums[c], dgamma = sums[g.channels + c];
    const Accum through_statistics = (dbeta + xhat * dgamma) * inverse_count;
    dx[i] = narrow(widen(gamma[c]) * inverse * (widen(dy[i]) - through_statistics));
}
