// Convolution, forward, of 16-bit elements with channels last, windows of at most 3x3 and stride 1, on wgmma and TMA
// (sm_90a): the pixels are loaded once for all taps.
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p - pad + r, q - pad + s, c] * w[k, r, s, c]
//                          + residual)
//
// f and the residual: see epilogue.cuh. A block's pixels are 8 columns and PIXELS / 8 rows
// of an image. TMA brings the patch of x that their windows cover, with zeros for the padding, once for 64 channels.
// To wgmma, 8 pixels are a row of that patch, 128 bytes to each, and the rows lie as far apart as the patch is wide;
// under tap (r, s) they all begin r rows and s pixels further, which is one number in the operand's descriptor: the
// swizzle follows the address, not the tile. The sum goes over channels first, 64 at a time, then over taps.
//
// x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K), by tensor maps: of w as (K, taps, C); C and K are multiples of 8.
// `residual`, as y, is of no use unless `adds`. bias (K,) or null. moments, or null: (parts, K), of y before f and
// without a residual; a part is what a warpgroup stores of a filter. One block: see wgmma.cuh. Tiles are numbered (image, row, column, filters), the last fastest.
// grid: x = blocks, at most `tiles`.
// Shared memory: STAGES of filters, PATCHES, what the consumers store, and the rings' barriers.
//
// Macros: those of wgmma.cuh; PATCHES.
#include "wgmma.cuh"

const int ROWS = PIXELS / 8, COLUMNS = 8;
const int MOST_TAPS = 3;  // along an axis, as in gpucnn/backends/cuda/algorithms/wgmma.py
const int PATCH_BYTES = ((COLUMNS + MOST_TAPS - 1) * (ROWS + MOST_TAPS - 1) * ROW_BYTES + 1023) / 1024 * 1024;
static_assert(PASS_PIXELS % COLUMNS == 0, "a pass stores whole rows");
static_assert(SHARED_BYTES == STAGES * FILTER_BYTES + PATCHES * PATCH_BYTES + CONSUMERS * STORED_BYTES +
                                  Ring<STAGES>::BYTES + Ring<PATCHES>::BYTES + LANDED_BYTES,
              "the launch must ask for what there is");

// A block's tile: its first filter, and where it lies in which image.
struct Tile {
    int filter, column, row, image;

    __device__ __forceinline__ Tile(int number, const ConvGeometry& g) {
        const int filters = (g.filters + FILTERS - 1) / FILTERS;
        const int across = (g.output[2] + COLUMNS - 1) / COLUMNS, down = (g.output[1] + ROWS - 1) / ROWS;
        filter = number % filters * FILTERS;
        number /= filters;
        column = number % across * COLUMNS;
        row = number / across % down * ROWS;
        image = number / across / down;
    }
};

__device__ __forceinline__ void load_tile(const Tile& tile, const TensorMap* x, const TensorMap* w,
                                          unsigned char* patches, Ring<STAGES>& ring, Ring<PATCHES>& patch_ring,
                                          const ConvGeometry& g) {
    const int bytes = (COLUMNS + g.kernel[2] - 1) * (ROWS + g.kernel[1] - 1) * ROW_BYTES;
    for (int c = 0; c < g.channels; c += DEPTH, patch_ring.next()) {
        uint64_t* full = patch_ring.refill(bytes);
        tma_load_4d(patches + patch_ring.stage * PATCH_BYTES, x, full, c, tile.column - g.pad[2],
                    tile.row - g.pad[1], tile.image);
        for (int tap = 0; tap < pixels(g.kernel); ++tap, ring.next()) {
            full = ring.refill(FILTER_BYTES);
            tma_load_3d(smem + ring.stage * FILTER_BYTES, w, full, c, tap, tile.filter);
        }
    }
}

__device__ __forceinline__ void sum_tile(Sums& sums, const unsigned char* patches, Ring<STAGES>& ring,
                                         Ring<PATCHES>& patch_ring, const ConvGeometry& g) {
    const int pitch = (COLUMNS + g.kernel[2] - 1) * ROW_BYTES;
    const uint64_t filters = rows_at(smem + first_filter() * ROW_BYTES);
    const uint64_t pixels = rows_at(patches + first_pixel() / COLUMNS * pitch, pitch);
    int onto = 0;
    Reading before, patch_before;
    for (int c = 0; c < g.channels; c += DEPTH, patch_ring.next()) {
        patch_ring.await();
        uint64_t row = further(pixels, patch_ring.stage * PATCH_BYTES);
        for (int r = 0; r < g.kernel[1]; ++r, row = further(row, pitch))
            for (int s = 0; s < g.kernel[2]; ++s, ring.next()) {
                ring.await();
                multiply(sums, further(filters, ring.stage * FILTER_BYTES), further(row, s * ROW_BYTES), onto);
                wgmma_wait<1>();  // the tap before has ended, this one goes on
                before.release();
                patch_before.release();
                before.empty = ring.empty + ring.stage;
            }
        patch_before.empty = patch_ring.empty + patch_ring.stage;
    }
    wgmma_wait<0>();
    before.release();
    patch_before.release();
}

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
NAME(conv_wgmma_patch)(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                       const __grid_constant__ TensorMap y, const __grid_constant__ TensorMap residual, int adds,
                       const Element* __restrict__ bias, int activation, float alpha, Moments* __restrict__ moments,
                       int tiles,
                       const __grid_constant__ ConvGeometry g) {
    unsigned char* patches = smem + STAGES * FILTER_BYTES;
    unsigned char* stored = patches + PATCHES * PATCH_BYTES;
    unsigned char* barriers = stored + CONSUMERS * STORED_BYTES;
    Ring<STAGES> ring(barriers);
    Ring<PATCHES> patch_ring(barriers + Ring<STAGES>::BYTES);
    unsigned char* landed = barriers + Ring<STAGES>::BYTES + Ring<PATCHES>::BYTES;
    if (threadIdx.x == 0) {
        ring.init();
        patch_ring.init();
        Storing::init(landed);
        fence_mbarrier_init();
    }
    __syncthreads();  // the barriers are ready

    if (is_producer()) {
        for (int number = blockIdx.x; number < tiles; number += gridDim.x)
            load_tile(Tile(number, g), &x, &w, patches, ring, patch_ring, g);
    } else if (is_consumer()) {
        Storing storing(stored, landed);
        const Epilogue epilogue = {bias, nullptr, activation, alpha};
        const int tiles_across = (g.filters + FILTERS - 1) / FILTERS, groups = PIXELS / GROUP_PIXELS;
        for (int number = blockIdx.x; number < tiles; number += gridDim.x) {
            const Tile tile(number, g);
            const int filter = tile.filter + first_filter(), row = tile.row + first_pixel() / COLUMNS;
            const auto load = [&](unsigned char* buffer, int of_pass, uint64_t* barrier) {
                tma_load_4d(buffer, &residual, barrier, filter, tile.column, row + of_pass / COLUMNS, tile.image);
            };
            if (adds) storing.fetch(0, load);
            Sums sums;
            sum_tile(sums, patches, ring, patch_ring, g);
            const int part = number / tiles_across * groups + first_pixel() / GROUP_PIXELS;
            Moments* of_part = moments ? moments + (long long)part * g.filters : nullptr;
            add_bias(sums, bias, filter, g.filters, of_part, [&](int i) {
                return tile.column + i % COLUMNS < g.output[2] && row + i / COLUMNS < g.output[1];
            });
            storing(sums, epilogue, adds, [&](const unsigned char* buffer, int of_pass) {
                tma_store_4d(&y, buffer, filter, tile.column, row + of_pass / COLUMNS, tile.image);
            }, load);
        }
        if (threadIdx.x % 128 == 0) tma_store_wait<0>();
    }
}
