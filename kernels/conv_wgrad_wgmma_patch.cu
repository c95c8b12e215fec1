// Convolution of 16-bit elements with channels last, windows of 3x3 and stride 1, gradient of the filters on wgmma and
// TMA (sm_90a): the pixels of x are loaded once for all taps. See wgmma_wgrad.cuh.
//
// A block computes 64 channels of 64 filters under all nine taps. A step's pixels are 8 columns and PIXELS / 8 rows of
// an image: those of dy, and the patch of x that their windows cover, with zeros for the padding. To wgmma, 8 pixels
// are a row of that patch, 128 bytes to each, and under tap (r, s) they all begin r rows and s pixels further: the
// swizzle follows the address, not the tile. A warpgroup has one row of the window, and the channels under its three
// taps are three blocks of 64 weights that lie one pixel apart.
//
// x (N, H, W, C), dy (N, P, Q, K), by tensor maps; dw (K, 3, 3, C); C and K are multiples of 8. So is Q, and P of
// PIXELS / 8: were some of dy's pixels zeros from beyond the map, a NaN of x at its edge would reach taps that never
// see it.
// grid: x = (tiles of filters) * (tiles of channels), the first fastest; z = splits. The steps go over columns first,
// then rows, then images.
// Shared memory: STAGES of both operands and the ring's barriers.
#include "wgmma_wgrad.cuh"

const int TAPS = 3, COLUMNS = 8, ROWS = PIXELS / COLUMNS;
const int PATCH_ROW = (COLUMNS + TAPS - 1) * ROW_BYTES, PATCH_BYTES = (ROWS + TAPS - 1) * PATCH_ROW;
const int STAGE_BYTES = DY_BYTES + (PATCH_BYTES + 1023) / 1024 * 1024;
static_assert(FILTERS == 64 && WEIGHTS == TAPS * GROUP_WEIGHTS && GROUP_WEIGHTS == TAPS * 64,
              "a warpgroup has a row of the window");
static_assert(SHARED_BYTES == STAGES * STAGE_BYTES + Ring<STAGES>::BYTES, "the launch must ask for what there is");

__device__ __forceinline__ void load(const TensorMap* x, const TensorMap* dy, Ring<STAGES>& ring, int filter,
                                     int channel, int step, int end, const ConvGeometry& g) {
    const int across = g.output[2] / COLUMNS, down = g.output[1] / ROWS;
    for (; step < end; ++step, ring.next()) {
        uint64_t* full = ring.refill(DY_BYTES + PATCH_BYTES);
        unsigned char* stage = smem + ring.stage * STAGE_BYTES;
        const int column = step % across * COLUMNS, row = step / across % down * ROWS, n = step / across / down;
        tma_load_4d(stage, dy, full, filter, column, row, n);
        tma_load_4d(stage + DY_BYTES, x, full, channel, column - g.pad[2], row - g.pad[1], n);
    }
}

extern "C" __global__ void __launch_bounds__(THREADS)
NAME(conv_wgrad_wgmma_patch)(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap dy,
                             Element* __restrict__ dw, float* __restrict__ partial, int steps_per_split,
                             const __grid_constant__ ConvGeometry g) {
    const int steps = g.batch * (g.output[1] / ROWS) * (g.output[2] / COLUMNS);
    const int step = blockIdx.z * steps_per_split, end = min(step + steps_per_split, steps);
    const int across = (g.filters + FILTERS - 1) / FILTERS;
    const int filter = blockIdx.x % across * FILTERS, channel = blockIdx.x / across * BLOCK;
    Ring<STAGES> ring(smem + STAGES * STAGE_BYTES);
    start(ring);
    after_kernels_before();

    if (is_producer()) {
        load(&x, &dy, ring, filter, channel, step, end, g);
    } else if (is_consumer()) {
        const int r = weight_group();
        Sums sums;
        sum_steps(sums, ring, end - step, STAGE_BYTES, DY_BYTES + r * PATCH_ROW, ROW_BYTES, PATCH_ROW);
        store(sums, filter, g, dw, partial, [&](int s) {
            return Weights{(long long)(r * TAPS + s) * g.channels + channel, g.channels - channel};
        });
    }
}
