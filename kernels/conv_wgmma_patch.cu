// Convolution, forward or of dy for the gradient of the input, with channels last, windows of at most 3x3 and stride 1,
// on wgmma and TMA (sm_90a): the pixels are loaded once for all taps.
//
//   y[n, p, q, k] = f(bias[k] + sum over r, s, c of x[n, p - pad + r, q - pad + s, c] * w[k, r, s, c]
//                          + residual)
//
// f and the residual: see epilogue.cuh. A block's pixels are 8 columns and ROWS rows of
// IMAGES images. TMA brings the patch of x that their windows cover, with zeros for the padding, once for DEPTH
// channels.
// To wgmma, 8 pixels are a row of that patch, 128 bytes to each, and the rows lie as far apart as the patch is wide;
// under tap (r, s) they all begin r rows and s pixels further, which is one number in the operand's descriptor: the
// swizzle follows the address, not the tile. Where there are two images, whose patches lie behind each other, two rows
// between theirs are multiplied for nothing. The sum goes over channels first, DEPTH at a time, then over taps.
//
// x (N, H, W, C), w (K, R, S, C), y (N, P, Q, K), by tensor maps: of w as (K, taps, C), where TURNED as (C, taps, K),
// the taps from the last on; C and K are multiples of 8. `residual`, as y, is of no use unless `adds`. bias
// (K,) or null. moments, or null: (parts, K), of y before f and without a residual; a part is what a warpgroup stores
// of a filter. Where IMAGES > 1, R is 3.
//
// Where `pooled` (N, P/2, Q/2, K) is not null, P and Q are even, and it gets the maxima of 2x2 outputs in place of y,
// and `kept`, as it or null, their places (quads.cuh); there is no residual then. Windows lie in a tile as a whole,
// and in a pass, from whose buffer threads read them. Otherwise `kept` gets y's mask (mask.cuh), or is null.
//
// One block: see wgmma.cuh. Tiles are numbered (image, row, column, filters), the last fastest. The blocks of a cluster
// have neighbours in (image, row, column) and the filters in common; a tile may then be beyond the last image.
// grid: x = blocks, at most `tiles`.
// Shared memory: STAGES of filters, PATCHES, what the consumers store, and the rings' barriers.
//
// Macros: those of wgmma.cuh; PATCHES, IMAGES.
#include "quads.cuh"
#include "wgmma.cuh"

const int COLUMNS = 8;
const int MOST_TAPS = 3;                                             // along an axis, as in algorithms/wgmma.py
const int PATCH_ROWS = (PIXELS / COLUMNS + MOST_TAPS - 1) / IMAGES;  // of an image, under windows of MOST_TAPS
const int ROWS = PATCH_ROWS - (MOST_TAPS - 1);
const int PATCH_BYTES = ((COLUMNS + MOST_TAPS - 1) * PATCH_ROWS * IMAGES * ROW_BYTES + 1023) / 1024 * 1024;
// Of the residual, for a pass: between images there is nothing to fetch.
const int FETCHED = IMAGES == 1 ? PASS_BYTES : IMAGES / PASSES * PARTS * ROWS * COLUMNS * ROW_BYTES;
typedef Ring<STAGES, CLUSTER> FilterRing;
static_assert(TEAMS == 1, "all consumers read a patch");
static_assert(PASS % COLUMNS == 0, "a pass stores whole rows");
static_assert(PATCH_ROWS * IMAGES == PIXELS / COLUMNS + MOST_TAPS - 1, "images must have whole rows");
static_assert(IMAGES == 1 || PIXELS == GROUP_PIXELS, "a warpgroup has all images");
// Whether a pass has whole windows, as in algorithms/wgmma_tiles.py; gradients are not pooled.
const bool POOLS = !TURNED && IMAGES == 1 && PASS % (2 * COLUMNS) == 0;
static_assert(!POOLS || ROWS % 2 == 0, "a tile begins in an even row");
static_assert(IMAGES == 1 || IMAGES % PASSES == 0, "each pass has as many images");
static_assert(SHARED_BYTES == STAGES * FILTER_BYTES + PATCHES * PATCH_BYTES + CONSUMERS * STORED_BYTES +
                                  FilterRing::BYTES + Ring<PATCHES>::BYTES + LANDED_BYTES,
              "the launch must ask for what there is");

// Where a pixel lies.
struct Spot {
    int image, row, column;
};

// A block's tile: its first filter, and where it lies in which image.
struct Tile {
    int filter, place, column, row, image;

    __device__ __forceinline__ Tile(int number, const ConvGeometry& g) {
        const int filters = (g.filters + FILTERS - 1) / FILTERS;
        const int across = (g.output[2] + COLUMNS - 1) / COLUMNS, down = (g.output[1] + ROWS - 1) / ROWS;
        filter = number / CLUSTER % filters * FILTERS;
        place = number / CLUSTER / filters * CLUSTER + number % CLUSTER;
        column = place % across * COLUMNS;
        row = place / across % down * ROWS;
        image = place / across / down * IMAGES;
    }
    // Of a warpgroup's pixel i; of several images it has all.
    __device__ __forceinline__ Spot spot(int i) const {
        const int line = i / COLUMNS, later = IMAGES == 1 ? 0 : line / PATCH_ROWS;
        return {image + later, row + first_pixel() / COLUMNS + line - later * PATCH_ROWS, column + i % COLUMNS};
    }
};

__device__ __forceinline__ void load_tile(const Tile& tile, const TensorMap* x, const TensorMap* w,
                                          unsigned char* patches, FilterRing& ring, Ring<PATCHES>& patch_ring,
                                          const ConvGeometry& g) {
    const int bytes = (COLUMNS + g.kernel[2] - 1) * (ROWS + g.kernel[1] - 1) * IMAGES * ROW_BYTES;
    for (int c = 0; c < g.channels; c += DEPTH, patch_ring.next()) {
        uint64_t* full = patch_ring.refill(bytes);
        tma_load_4d(patches + patch_ring.stage * PATCH_BYTES, x, full, c, tile.column - g.pad[2],
                    tile.row - g.pad[1], tile.image);
        for (int tap = 0; tap < pixels(g.kernel); ++tap, ring.next()) {
            full = ring.refill(FILTER_BYTES);
            load_filters<CLUSTER>(smem + ring.stage * FILTER_BYTES, w, full, c, tap, pixels(g.kernel), tile.filter);
        }
    }
}

__device__ __forceinline__ void sum_tile(Sums& sums, const unsigned char* patches, FilterRing& ring,
                                         Ring<PATCHES>& patch_ring, const ConvGeometry& g) {
    const int pitch = (COLUMNS + g.kernel[2] - 1) * ROW_BYTES;
    const uint64_t filters = rows_at(smem + first_filter() * ROW_BYTES);
    const uint64_t pixels = rows_at(patches + first_pixel() / COLUMNS * pitch, pitch);
    int onto = 0;
    Reading<CLUSTER> before;
    Reading<> patch_before;
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

// Call box(where it begins in the buffer, image, row) for what a pass has of the tile: rows of an image, or of several,
// each in one pass.
template <class Box> __device__ __forceinline__ void boxes(int of_pixels, const Tile& tile, const Box& box) {
    if (IMAGES == 1) return box(0, tile.image, tile.row + (first_pixel() + of_pixels) / COLUMNS);
#pragma unroll
    for (int i = 0; i < IMAGES; ++i) {
        const int first = i * PATCH_ROWS * COLUMNS;
        if (first / PASS == of_pixels / PASS) box(first % PASS * ROW_BYTES, tile.image + i, tile.row);
    }
}

// Store the maxima of a pass of the tile that a warpgroup has written to its buffer, `filter` being its first.
__device__ __forceinline__ void store_quads(const unsigned char* buffer, int of_pixels, const Tile& tile, int filter,
                                            bool relu, Element* pooled, U8* index, const ConvGeometry& g) {
    const int CHUNKS = ROW_BYTES / 16, ACROSS = COLUMNS / 2, WINDOWS = PASS / PLACES;
    const int first_row = (tile.row + (first_pixel() + of_pixels) / COLUMNS) / 2, first_column = tile.column / 2;
    const int rows = g.output[1] / 2, columns = g.output[2] / 2;
    for (int i = threadIdx.x % 128; i < PARTS * WINDOWS * CHUNKS; i += 128) {
        const int chunk = i % CHUNKS, window = i / CHUNKS % WINDOWS, part = i / CHUNKS / WINDOWS;
        const int row = first_row + window / ACROSS, column = first_column + window % ACROSS;
        const int own = filter + part * DEPTH + chunk * Largest::COUNT;
        if (tile.image >= g.batch || row >= rows || column >= columns || own >= g.filters) continue;
        const Largest largest([&](int place) {
            const int pixel = (2 * (window / ACROSS) + place / 2) * COLUMNS + 2 * (window % ACROSS) + place % 2;
            const unsigned char* of_pixel = buffer + (part * PASS + pixel) * ROW_BYTES;
            return *(const Largest::Chunk*)(of_pixel + (chunk ^ pixel % 8) * 16);
        });
        const long long to = (((long long)tile.image * rows + row) * columns + column) * g.filters + own;
        largest.store(pooled + to, index ? index + to : nullptr, relu, true, Largest::COUNT);
    }
}

extern "C" __global__ void
#if CLUSTER > 1
__cluster_dims__(CLUSTER, 1, 1)
#endif
__launch_bounds__(THREADS, BLOCKS)
NAME(conv_wgmma_patch)(const __grid_constant__ TensorMap x, const __grid_constant__ TensorMap w,
                       const __grid_constant__ TensorMap y, const __grid_constant__ TensorMap residual, int adds,
                       const Element* __restrict__ bias, int activation, float alpha, Moments* __restrict__ moments,
                       Element* __restrict__ pooled, U8* __restrict__ kept, int tiles,
                       const __grid_constant__ ConvGeometry g) {
    unsigned char* patches = smem + STAGES * FILTER_BYTES;
    unsigned char *stored = patches + PATCHES * PATCH_BYTES, *barriers = stored + CONSUMERS * STORED_BYTES;
    FilterRing ring(barriers);
    Ring<PATCHES> patch_ring(barriers + FilterRing::BYTES);
    Storing<FETCHED> storing(stored, barriers + FilterRing::BYTES + Ring<PATCHES>::BYTES);
    start(ring, patch_ring, storing);
    after_kernels_before();

    if (is_producer()) {
        for (int number = blockIdx.x; number < tiles; number += gridDim.x)
            load_tile(Tile(number, g), &x, &w, patches, ring, patch_ring, g);
    } else if (is_consumer()) {
        const Epilogue epilogue = {bias, nullptr, activation, alpha};
        const int groups = PIXELS / GROUP_PIXELS;
        if (IMAGES > 1 && adds) storing.clear();
        for (int number = blockIdx.x; number < tiles; number += gridDim.x) {
            const Tile tile(number, g);
            const int filter = tile.filter + first_filter();
            const auto load = [&](unsigned char* buffer, int of_filters, int of_pixels, uint64_t* barrier) {
                boxes(of_pixels, tile, [&](int first, int image, int row) {
                    tma_load_4d(buffer + first, &residual, barrier, filter + of_filters, tile.column, row, image);
                });
            };
            if (adds) storing.fetch(0, load);
            Sums sums;
            sum_tile(sums, patches, ring, patch_ring, g);
            const int part = tile.place * groups + first_pixel() / GROUP_PIXELS;
            Moments* of_part = moments ? moments + (long long)part * g.filters : nullptr;
            const auto exists = [&](int i) {
                const Spot at = tile.spot(i);
                return at.column < g.output[2] && at.row < g.output[1] &&
                       (IMAGES == 1 || i / COLUMNS % PATCH_ROWS < ROWS) &&
                       (IMAGES * CLUSTER == 1 || at.image < g.batch);
            };
            const auto number_of = [&](int i) {
                const Spot at = tile.spot(i);
                return (at.image * g.output[1] + at.row) * g.output[2] + at.column;
            };
            add_bias(sums, bias, filter, g.filters, of_part, exists);
            const bool pools = POOLS && pooled;
            storing(sums, epilogue, adds, [&](const unsigned char* buffer, int of_filters, int of_pixels) {
                boxes(of_pixels, tile, [&](int first, int image, int row) {
                    tma_store_4d(&y, buffer + first, filter + of_filters, tile.column, row, image);
                });
            }, load, pools || (MASKS && kept), [&](const unsigned char* buffer, int of_pixels) {
                if (pools)
                    store_quads(buffer, of_pixels, tile, filter, activation == RELU, pooled, kept, g);
                else
                    store_mask(buffer, of_pixels, filter, g.filters, epilogue.ceiling(), kept, exists, number_of);
            }, !pools);
        }
        if (threadIdx.x % 128 == 0) tma_store_wait<0>();
    }
    meet_cluster();  // the others may have had to arrive at this block's barriers
}
