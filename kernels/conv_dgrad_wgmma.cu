// Convolution with strides, gradient of the input, with channels last: implicit GEMM on wgmma and TMA (sm_90a), by
// classes of pixels, as in conv_dgrad_mma.cu.
//
//   dx[n, h, w, c] = bias[c] + sum over r, s, k of dy[n, (h + pad - r*dilation) / stride, ..., k] * w[k, r, s, c]
//
// where only the taps count whose division leaves no remainder. Pixels of one class, (h + pad) mod stride along each
// axis, have the same such taps, and what is left for them is a convolution of dy with stride 1. TMA in its im2col
// mode brings dy under each of those taps; its box has as many places as the largest class has pixels, so that one
// tensor map serves all: where a class begins is part of the displacement of its taps. A class without taps, as three
// of four are under a window of one tap and strides of 2, loads nothing, and is written.
//
// To dx, the pixels of a tile lie apart and in runs, which no box of TMA says. So the consumers write them, by way of
// shared memory: 128 bytes of a pixel, or 256 of floats, from 8 lanes at a time.
//
// dy (N, P, Q, K), w (K, R, S, C), by tensor maps: of w as (K, taps, C) or, of floats, (C, taps, K), turned; dx
// (N, H, W, C); C and K are multiples of 8. One dimension is two, H, P and R being 1. bias (C,) or null; residual, or
// null, as in conv_dgrad.cu. Split z of `splits` sums its share of the steps of each class; where there are several,
// `partial` (splits, N, H, W, C) gets their sums, and split_sum.cu ends the work.
// One block: see wgmma.cuh, its filters being channels. Tiles are numbered (class, split, pixels, channels), the last
// fastest. grid: x = blocks, at most `tiles`.
// Shared memory: STAGES of both operands, what the consumers write, and the barriers of the ring and the teams.
#include "wgmma.cuh"

const int STAGE_BYTES = FILTER_BYTES + PIXELS * ROW_BYTES;
static_assert(PIXELS <= 256, "TMA brings the pixels at once");
static_assert(SHARED_BYTES >= STAGES * STAGE_BYTES + CONSUMERS * STORED_BYTES + Ring<STAGES>::BYTES + Turns::BYTES,
              "the launch must ask for what there is");

// A class along both axes, and all of them. The host's twin is `class_record` in
// gpucnn/backends/cuda/algorithms/wgmma_dgrad.py.
struct PixelClass {
    int first_pixel[2], pixels[2];  // in dx
    int last_tap[2], taps[2];       // the last of them is the first place of dy
    int displacement[2];            // of that place, in the box
};
const int MOST_CLASSES = 16;
struct PixelClasses {
    int corner[2], tap_step[2], place_step[2];  // where the box begins in dy; from tap to tap, and place to place
    Divisor by_box[2];                          // places along each axis
    PixelClass of[MOST_CLASSES];                // those with the most taps first
};

// A block's tile: its class, first channel and place, and its steps.
struct Tile {
    const PixelClass& own;
    int channel, place, split, step, steps_end;

    __device__ __forceinline__ Tile(int number, int splits, int depth_steps, const PixelClasses& classes,
                                    const ConvGeometry& g)
        : own(classes.of[number / (splits * down(classes, g) * across(g))]) {
        const int steps = own.taps[0] * own.taps[1] * depth_steps, each = (steps + splits - 1) / splits;
        channel = number % across(g) * FILTERS;
        place = number / across(g) % down(classes, g) * PIXELS;
        split = number / across(g) / down(classes, g) % splits;
        step = min(split * each, steps);
        steps_end = min(step + each, steps);
    }
    static __device__ __forceinline__ int across(const ConvGeometry& g) { return (g.channels + FILTERS - 1) / FILTERS; }
    static __device__ __forceinline__ int down(const PixelClasses& classes, const ConvGeometry& g) {
        return (g.batch * (int)(classes.by_box[0].value * classes.by_box[1].value) + PIXELS - 1) / PIXELS;
    }
};

// Split a number of a place of the batch into the image, which is returned, and the place along each axis of the box.
__device__ __forceinline__ int split_place(int number, const PixelClasses& classes, int& h, int& w) {
    return divide(divide(number, classes.by_box[1], w), classes.by_box[0], h);
}

__device__ __forceinline__ void load_tile(const Tile& tile, const TensorMap* dy, const TensorMap* w,
                                          Ring<STAGES>& ring, int depth_steps, const PixelClasses& classes,
                                          const ConvGeometry& g) {
    const PixelClass& own = tile.own;
    int top, left;
    const int n = split_place(tile.place, classes, top, left);
    for (int step = tile.step; step < tile.steps_end; ++step, ring.next()) {
        const int number = step / depth_steps, k = step % depth_steps * DEPTH;
        const int i = number / own.taps[1], j = number % own.taps[1];
        const int r = own.last_tap[0] - i * classes.tap_step[0], s = own.last_tap[1] - j * classes.tap_step[1];
        uint64_t* full = ring.refill(STAGE_BYTES);
        unsigned char* stage = smem + ring.stage * STAGE_BYTES;
        load_filters(stage, w, full, k, pixels(g.kernel) - 1 - (r * g.kernel[2] + s), pixels(g.kernel), tile.channel);
        tma_load_im2col(stage + FILTER_BYTES, dy, full, k, classes.corner[1] + left, classes.corner[0] + top, n,
                        own.displacement[1] + j * classes.place_step[1],
                        own.displacement[0] + i * classes.place_step[0]);
    }
}

// The offset in dx of the pixel at a place, or -1 where the class has none.
__device__ __forceinline__ long long offset_of(int place, const Tile& tile, const PixelClasses& classes,
                                               const ConvGeometry& g) {
    int h, w;
    const int n = split_place(place, classes, h, w);
    if (n >= g.batch || h >= tile.own.pixels[0] || w >= tile.own.pixels[1]) return -1;
    h = tile.own.first_pixel[0] + h * g.stride[1], w = tile.own.first_pixel[1] + w * g.stride[2];
    return (((long long)n * g.input[1] + h) * g.input[2] + w) * g.channels;
}

// Eight lanes write a pixel's channels, 16 bytes each; 16 pixels are written at a time.
__device__ __forceinline__ void write_sums(Sums& sums, const Tile& tile, const Epilogue& epilogue,
                                           unsigned char* buffer, Element* __restrict__ dx,
                                           const PixelClasses& classes, const ConvGeometry& g) {
    typedef Elements<DEPTH / 8> Piece;  // 16 bytes
    const int thread = threadIdx.x % 128, piece = thread % 8;
    const int channel = tile.channel + first_filter(), first = tile.place + first_pixel();
    add_bias(sums, epilogue.bias, channel, g.channels, nullptr, [](int) { return true; });
#pragma unroll
    for (int pass = 0; pass < PASSES; ++pass) {
        bar_sync(1 + warpgroup(), 128);  // what was in the buffer has been written
        write_pass(buffer, of_pass(sums, pass));
        bar_sync(1 + warpgroup(), 128);  // the pass is complete
        for (int i = thread / 8; i < PASS; i += 16) {
            const long long to = offset_of(first + pass * PASS + i, tile, classes, g);
            if (to < 0) continue;
#pragma unroll
            for (int part = 0; part < PARTS; ++part) {
                const int own = channel + part * DEPTH + piece * (DEPTH / 8);
                const unsigned char* row = buffer + (part * PASS + i) * ROW_BYTES;
                if (own >= g.channels) continue;
                Piece values = *(const Piece*)(row + (piece ^ i % 8) * 16);
                if (epilogue.residual) values = epilogue.joined(values, to + own);
                *(Piece*)(dx + to + own) = values;
            }
        }
    }
}

// Eight lanes write 8 channels of a pixel, 32 bytes.
__device__ __forceinline__ void write_partial(const Sums& sums, const Tile& tile, float* __restrict__ partial,
                                              const PixelClasses& classes, const ConvGeometry& g) {
    const int lane = threadIdx.x % 32, first = tile.place + first_pixel() + lane % 4 * 2;
    const int channel = tile.channel + first_filter() + threadIdx.x / 32 % 4 * 16 + lane / 4;
    partial += (long long)tile.split * g.batch * pixels(g.input) * g.channels;
#pragma unroll
    for (int i = 0; i < GROUP_PIXELS / 2; i += 4)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
            const long long to = offset_of(first + i * 2 + e, tile, classes, g);
            if (to < 0) continue;
            if (channel < g.channels) partial[to + channel] = sums[i + e];
            if (channel + 8 < g.channels) partial[to + channel + 8] = sums[i + 2 + e];
        }
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
NAME(conv_dgrad_wgmma)(const __grid_constant__ TensorMap dy, const __grid_constant__ TensorMap w,
                       const Element* __restrict__ bias, const Element* __restrict__ residual, int activation,
                       float alpha, Element* __restrict__ dx, float* __restrict__ partial, int splits, int tiles,
                       const __grid_constant__ PixelClasses classes, const __grid_constant__ ConvGeometry g) {
    const int depth_steps = (g.filters + DEPTH - 1) / DEPTH;
    unsigned char* stored = smem + STAGES * STAGE_BYTES;
    Ring<STAGES> ring(stored + CONSUMERS * STORED_BYTES);
    Turns turns(stored + CONSUMERS * STORED_BYTES + Ring<STAGES>::BYTES);
    start(ring, turns);
    after_kernels_before();

    if (is_producer()) {
        for (int number = blockIdx.x; number < tiles; number += gridDim.x)
            load_tile(Tile(number, splits, depth_steps, classes, g), &dy, &w, ring, depth_steps, classes, g);
    } else if (is_consumer()) {
        stored += warpgroup() * STORED_BYTES;
        const Epilogue epilogue = {bias, residual, activation, alpha};
        for (int number = blockIdx.x; number < tiles; number += gridDim.x) {
            const Tile tile(number, splits, depth_steps, classes, g);
            if (turns.pass_over(ring, tile.steps_end - tile.step)) continue;
            Sums sums = {};  // of a tile without steps
            sum_steps(sums, ring, turns, tile.steps_end - tile.step);
            if (partial)
                write_partial(sums, tile, partial, classes, g);
            else
                write_sums(sums, tile, epilogue, stored, dx, classes, g);
        }
    }
}
