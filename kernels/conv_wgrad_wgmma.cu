// Convolution of 16-bit elements with channels last, gradient of the filters: implicit GEMM on wgmma and TMA
// (sm_90a), split over the output pixels. See wgmma_wgrad.cuh.
//
// Of a step's pixels TMA brings all of the block's filters, and in its im2col mode what lies under the tap of each
// block of 64 weights, with zeros for the padding, and for channels, filters and pixels beyond the last.
//
// x (N, H, W, C), dy (N, P, Q, K), by tensor maps, of dy as (pixels, K); dw (K, R, S, C); C and K are multiples of 8.
// One dimension is two, H and R being 1.
// grid: x = (tiles of filters) * (tiles of weights), the first fastest; z = splits.
// Shared memory: STAGES of both operands and the ring's barriers.
#include "wgmma_wgrad.cuh"

const int STAGE_BYTES = DY_BYTES + WEIGHTS / 64 * BLOCK_BYTES;
static_assert(SHARED_BYTES == STAGES * STAGE_BYTES + Ring<STAGES>::BYTES, "the launch must ask for what there is");

// Blocks of 64 weights: the channels, then the taps.
__device__ __forceinline__ int depth_blocks(const ConvGeometry& g) { return (g.channels + BLOCK - 1) / BLOCK; }

__device__ __forceinline__ void load(const TensorMap* x, const TensorMap* dy, Ring<STAGES>& ring, int filter,
                                     int first_block, int step, int end, const ConvGeometry& g) {
    const int depth = depth_blocks(g), last = pixels(g.kernel) * depth - 1;
    int c[WEIGHTS / 64], right[WEIGHTS / 64], down[WEIGHTS / 64];
#pragma unroll
    for (int j = 0; j < WEIGHTS / 64; ++j) {
        const int block = min(first_block + j, last), tap = block / depth;  // something must come; nobody stores it
        c[j] = block % depth * BLOCK;
        right[j] = tap % g.kernel[2] * g.dilation[2];
        down[j] = tap / g.kernel[2] * g.dilation[1];
    }
    for (; step < end; ++step, ring.next()) {
        uint64_t* full = ring.refill(STAGE_BYTES);
        unsigned char* stage = smem + ring.stage * STAGE_BYTES;
        const int pixel = step * PIXELS;
        Place corner;
        const int n = split(pixel, g.by_output, corner);
#pragma unroll
        for (int j = 0; j < FILTERS / 64; ++j)
            tma_load_2d(stage + j * BLOCK_BYTES, dy, full, filter + j * BLOCK, pixel);
#pragma unroll
        for (int j = 0; j < WEIGHTS / 64; ++j)
            tma_load_im2col(stage + DY_BYTES + j * BLOCK_BYTES, x, full, c[j],
                            corner.axis[2] * g.stride[2] - g.pad[2], corner.axis[1] * g.stride[1] - g.pad[1], n,
                            right[j], down[j]);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
NAME(conv_wgrad_wgmma)(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap dy,
                       Element* __restrict__ dw, float* __restrict__ partial, int steps_per_split,
                       const __grid_constant__ ConvGeometry g) {
    const int steps = (g.batch * pixels(g.output) + PIXELS - 1) / PIXELS;
    const int step = blockIdx.z * steps_per_split, end = min(step + steps_per_split, steps);
    const int across = (g.filters + FILTERS - 1) / FILTERS;
    const int filter = blockIdx.x % across * FILTERS, block = blockIdx.x / across * (WEIGHTS / 64);
    Ring<STAGES> ring(smem + STAGES * STAGE_BYTES);
    start(ring);
    after_kernels_before();

    if (is_producer()) {
        load(&x, &dy, ring, filter, block, step, end, g);
    } else if (is_consumer()) {
        const int first = weight_group() * (GROUP_WEIGHTS / 64);
        Sums sums;
        sum_steps(sums, ring, end - step, STAGE_BYTES, DY_BYTES + first * BLOCK_BYTES, BLOCK_BYTES, EIGHT_ROWS);
        store(sums, filter, g, dw, partial, [&](int j) {
            const int own = block + first + j, depth = depth_blocks(g), tap = own / depth, c = own % depth * BLOCK;
            return Weights{(long long)tap * g.channels + c, tap < pixels(g.kernel) ? g.channels - c : 0};
        });
    }
}
