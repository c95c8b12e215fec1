// Convolution, forward or of dy for the gradient of the input, with channels last: implicit GEMM on wgmma and TMA
// (sm_90a).
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p*stride - pad + r*dilation, ..., c] * w[k, r, s, c]
//                          + residual)
//
// f and the residual: see epilogue.cuh. A step of the sum is DEPTH channels under one tap, the channels first: TMA in
// its im2col mode brings them of all pixels of the tile, with zeros for the padding and for channels beyond the last,
// and of all filters. A split sums steps_per_split of them; where there are several, `partial` (splits, N, P, Q, K)
// gets their sums, and split_sum.cu ends the work.
//
// x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K), by tensor maps: of w as (K, taps, C), where TURNED as (C, taps, K),
// the taps from the last on; of y as (pixels, K); C and K are multiples of 8. One dimension is two, H and R being 1.
// `residual`, as y, is of no use unless `adds`. bias (K,) or null; partial null where there is one split. moments, or
// null: (parts, K), of y before f and without a residual; a part is what a warpgroup stores of a filter. mask, or null:
// y's (mask.cuh), where there is one split.
// One block: see wgmma.cuh. Tiles are numbered (split, pixels, filters), the last fastest, so that blocks that run
// together read the same pixels. Those of a cluster have them in common, and each brings its SHARE to all: CLUSTER must
// then divide the number of tiles of filters. grid: x = blocks, at most `tiles`.
// Shared memory: STAGES of both operands, what the consumers store, and the barriers of the ring and the teams.
#include "wgmma.cuh"

const int PIXEL_BYTES = PIXELS * ROW_BYTES, STAGE_BYTES = FILTER_BYTES + PIXEL_BYTES;
const int SHARE = PIXELS / CLUSTER;  // that a block of the cluster brings
typedef Ring<STAGES, CLUSTER> StageRing;
static_assert(PIXELS <= 256, "TMA brings the pixels at once");
static_assert(SHARE * CLUSTER == PIXELS && SHARE % 8 == 0, "a share must begin where the swizzle's pattern does");
static_assert(SHARED_BYTES == STAGES * STAGE_BYTES + CONSUMERS * STORED_BYTES + StageRing::BYTES +
                                  Turns::BYTES + LANDED_BYTES,
              "the launch must ask for what there is");

// A block's tile: its first filter and pixel, the split, and that one's steps.
struct Tile {
    int filter, pixel, split, step, steps_end;

    __device__ __forceinline__ Tile(int number, int steps, int steps_per_split, const ConvGeometry& g) {
        const int across = (g.filters + FILTERS - 1) / FILTERS;
        const int down = (g.batch * pixels(g.output) + PIXELS - 1) / PIXELS;
        filter = number % across * FILTERS;
        pixel = number / across % down * PIXELS;
        split = number / across / down;
        step = split * steps_per_split;
        steps_end = min(step + steps_per_split, steps);
    }
};

__device__ __forceinline__ void load_tile(const Tile& tile, const TensorMap* x, const TensorMap* w,
                                          StageRing& ring, int depth_steps, const ConvGeometry& g) {
    Place corner;
    const int own = CLUSTER > 1 ? cluster_rank() * SHARE : 0;
    const int n = split(tile.pixel + own, g.by_output, corner);
    const int left = corner.axis[2] * g.stride[2] - g.pad[2], top = corner.axis[1] * g.stride[1] - g.pad[1];
    int tap = tile.step / depth_steps, c = tile.step % depth_steps * DEPTH;
    int r = tap / g.kernel[2], s = tap % g.kernel[2];
    for (int step = tile.step; step < tile.steps_end; ++step, ring.next()) {
        uint64_t* full = ring.refill(STAGE_BYTES);
        unsigned char* stage = smem + ring.stage * STAGE_BYTES;
        load_filters(stage, w, full, c, tap, pixels(g.kernel), tile.filter);
        unsigned char* to = stage + FILTER_BYTES + own * ROW_BYTES;
        const int right = s * g.dilation[2], down = r * g.dilation[1];
        if (CLUSTER > 1)
            tma_load_im2col_multicast(to, x, full, c, left, top, n, right, down, ALL_BLOCKS);
        else
            tma_load_im2col(to, x, full, c, left, top, n, right, down);
        c += DEPTH;
        if (c < g.channels) continue;
        c = 0, ++tap;
        if (++s == g.kernel[2]) s = 0, ++r;
    }
}

// Eight lanes store 8 filters of a pixel, 32 bytes.
__device__ __forceinline__ void store_partial(const Tile& tile, const Sums& sums, float* __restrict__ partial,
                                              const ConvGeometry& g) {
    const int lane = threadIdx.x % 32, end = g.batch * pixels(g.output);
    const int filter = tile.filter + first_filter() + threadIdx.x / 32 % 4 * 16 + lane / 4;
    partial += ((long long)tile.split * end) * g.filters + filter;
#pragma unroll
    for (int i = 0; i < GROUP_PIXELS / 2; ++i) {
        const int pixel = tile.pixel + first_pixel() + i / 4 * 8 + lane % 4 * 2 + i % 2, half = i / 2 % 2;
        if (pixel < end && filter + 8 * half < g.filters) partial[(long long)pixel * g.filters + 8 * half] = sums[i];
    }
}

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, BLOCKS)
NAME(conv_wgmma)(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                 const __grid_constant__ TensorMap y, const __grid_constant__ TensorMap residual, int adds,
                 const Element* __restrict__ bias, int activation, float alpha, Moments* __restrict__ moments,
                 U8* __restrict__ mask, float* __restrict__ partial, int steps_per_split, int tiles,
                 const __grid_constant__ ConvGeometry g) {
    const int depth_steps = (g.channels + DEPTH - 1) / DEPTH, steps = pixels(g.kernel) * depth_steps;
    unsigned char *stored = smem + STAGES * STAGE_BYTES, *barriers = stored + CONSUMERS * STORED_BYTES;
    StageRing ring(barriers);
    Turns turns(barriers + StageRing::BYTES);
    Storing<> storing(stored, barriers + StageRing::BYTES + Turns::BYTES);
    start(ring, turns, storing);
    after_kernels_before();

    if (is_producer()) {
        for (int number = blockIdx.x; number < tiles; number += gridDim.x)
            load_tile(Tile(number, steps, steps_per_split, g), &x, &w, ring, depth_steps, g);
    } else if (is_consumer()) {
        const Epilogue epilogue = {bias, nullptr, activation, alpha};
        const int end = g.batch * pixels(g.output);
        for (int number = blockIdx.x; number < tiles; number += gridDim.x) {
            const Tile tile(number, steps, steps_per_split, g);
            if (turns.pass_over(ring, tile.steps_end - tile.step)) continue;
            const int filter = tile.filter + first_filter(), pixel = tile.pixel + first_pixel();
            const auto load = [&](unsigned char* buffer, int of_filters, int of_pixels, uint64_t* barrier) {
                tma_load_2d(buffer, &residual, barrier, filter + of_filters, pixel + of_pixels);
            };
            if (adds) storing.fetch(0, load);
            Sums sums;
            sum_steps(sums, ring, turns, tile.steps_end - tile.step);
            if (partial) {
                store_partial(tile, sums, partial, g);
                continue;
            }
            Moments* of_part = moments ? moments + (long long)(pixel / GROUP_PIXELS) * g.filters : nullptr;
            const auto exists = [&](int i) { return pixel + i < end; };
            add_bias(sums, bias, filter, g.filters, of_part, exists);
            storing(sums, epilogue, adds, [&](const unsigned char* buffer, int of_filters, int of_pixels) {
                tma_store_2d(&y, buffer, filter + of_filters, pixel + of_pixels);
            }, load, MASKS && mask, [&](const unsigned char* buffer, int of_pixels) {
                store_mask(buffer, of_pixels, filter, g.filters, epilogue.ceiling(), mask, exists,
                           [&](int i) { return pixel + i; });
            });
        }
        if (threadIdx.x % 128 == 0) tma_store_wait<0>();
    }
    meet_cluster();  // the others may have had to arrive at this block's barriers
}
