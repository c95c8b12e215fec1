// Filters as the gradient of the input convolves with them in TF32 on wgmma: their channel axes swapped, the taps from
// the last on, and rounded to TF32, which wgmma would do by cutting.
//
//   turned[c, taps - 1 - t, k] = round(w[k, t, c])
//
// w (K, taps, C), turned (C, taps, K). A block turns SIDE x SIDE filters and channels of a tap through shared memory:
// it reads along the channels and writes along the filters.
// grid: tiles of channels, tiles of filters, taps. Shared memory: 4 KB and a skew for each row.
#include "ptx.cuh"
#include "thread.cuh"

const int SIDE = 32;
const int AT_ONCE = BLOCK_THREADS / SIDE;  // rows

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(turn_filters)(const float* __restrict__ w, uint32_t* __restrict__ turned, int filters, int channels) {
    after_kernels_before();
    __shared__ float tile[SIDE][SIDE + 1];  // a column lies on all banks
    const int along = threadIdx.x % SIDE, first = threadIdx.x / SIDE, tap = blockIdx.z, taps = gridDim.z;
    const int c0 = blockIdx.x * SIDE, k0 = blockIdx.y * SIDE;
    for (int i = first; i < SIDE; i += AT_ONCE)
        if (k0 + i < filters && c0 + along < channels)
            tile[i][along] = w[((long long)(k0 + i) * taps + tap) * channels + c0 + along];
    __syncthreads();  // the tile is complete
    for (int i = first; i < SIDE; i += AT_ONCE)
        if (c0 + i < channels && k0 + along < filters)
            turned[((long long)(c0 + i) * taps + taps - 1 - tap) * filters + k0 + along] = cvt_tf32(tile[along][i]);
}
