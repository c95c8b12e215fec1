// Sample for the emulator: tensor cores in double precision.
//
//   gemm_m8n8k4_f64, gemm_m16n8k16_f64  y (M, N) = a (M, D) b (N, D)^T, double. A block is one warp,
//                   which computes 8 x 8 or 16 x 8 of y; M, N and D are multiples of the
//                   instruction's sizes.
#include "ptx.cuh"

extern "C" __global__ void __launch_bounds__(32)
gemm_m8n8k4_f64(const double* __restrict__ a, const double* __restrict__ b, double* __restrict__ y, int N, int D) {
    const int group = threadIdx.x / 4, t = threadIdx.x % 4, m = blockIdx.x * 8 + group, n0 = blockIdx.y * 8;
    double d[2] = {};
    for (int k = t; k < D; k += 4) mma_m8n8k4_f64(d, a[m * D + k], b[(n0 + group) * D + k]);
    for (int e = 0; e < 2; e++) y[m * N + n0 + 2 * t + e] = d[e];
}

extern "C" __global__ void __launch_bounds__(32)
gemm_m16n8k16_f64(const double* __restrict__ a, const double* __restrict__ b, double* __restrict__ y, int N, int D) {
    const int group = threadIdx.x / 4, t = threadIdx.x % 4, m = blockIdx.x * 16 + group, n0 = blockIdx.y * 8;
    double d[4] = {};
    for (int k0 = t; k0 < D; k0 += 16) {
        double fa[8], fb[4];
        for (int i = 0; i < 8; i++) fa[i] = a[(m + i % 2 * 8) * D + k0 + i / 2 * 4];
        for (int i = 0; i < 4; i++) fb[i] = b[(n0 + group) * D + k0 + i * 4];
        mma_m16n8k16_f64(d, fa, fb);
    }
    for (int i = 0; i < 4; i++) y[(m + i / 2 * 8) * N + n0 + 2 * t + i % 2] = d[i];
}
