// A batch out of a set of pictures that lies on the device: gathered by the epoch's order, shifted, flipped
// and partly covered at random, and normalised, with the labels.
//
//   x[n, h, w, c] = table[p, c], p the byte that the changed picture shows at (h, w, c);   y[n] = labels[order[..]]
//
// Of a byte there are 256 values, so a table holds what normalisation makes of each, rounded as the host rounds:
// no arithmetic on floats is left that could differ from device to device. The random numbers of a picture are
// functions of the seed, the epoch and its place in the epoch alone; gpucnn/backends/base.py says which.
//
// images: (M, H, W, C) bytes; labels: (M,); order: (N,) rows of both; table: (256, C); x: (count, H, W, C);
// y: (count,). place: the epoch in the upper 32 bits, in the lower the batch's first place in the order; where
// `place_at` is not null, it holds that number.
// grid: (count, parts of a picture); a thread takes packs of PACK elements of its picture.
// Shared memory: the table, and a picture's draws: 256 * C elements and 32 bytes.
//
// Bound by memory: 1 byte in and sizeof(Element) out an element, besides 8 + 8 + 4 bytes a picture and the table
// of each block, which the L2 cache holds. x is written 16 bytes at a time wherever H * W * C is a multiple of
// PACK; the bytes of a picture are read one by one, for a shift begins at any of them, neighbours by neighbours.
//
// Macro: CHANNELS, C, or 0 for any number: the table then stays where it is.
#include "divisor.cuh"
#include "pack.cuh"
#include "philox.cuh"

struct PictureBatch {  // gpucnn/backends/cuda/augment.py
    unsigned long long seed;
    unsigned long long flip_below;  // a picture is flipped where its word is
    int height, width, channels;
    int shift, fill;  // fill: of what enters; negative mirrors the picture
    int cutout, cover;
    int alternating;  // mirror in turns, whatever flip_below is
    Divisor by_width, by_channels;
};

struct Drawn {
    long long picture;
    int down, right, flipped;  // the output shows row h + down
    int top, left;             // of the square that is covered
};

// One of `numbers` numbers, each as likely up to numbers / 2^32: Lemire, "Fast random integer generation in an
// interval", 2019.
__device__ __forceinline__ int draw(unsigned word, int numbers) { return (int)__umulhi(word, (unsigned)numbers); }

__device__ __forceinline__ Drawn draw_changes(const PictureBatch& b, long long picture, unsigned epoch,
                                              unsigned place) {
    // dropout counts below 2^32 there, so that one seed gives the two other numbers
    const unsigned long long offset = (1ull << 32) + epoch;
    const Words moved = philox4x32(2ull * place, offset, b.seed);
    const Words covered = philox4x32(2ull * place + 1, offset, b.seed);
    int flipped = moved.at[2] < b.flip_below;
    if (b.alternating) {
        const int even = philox4x32((unsigned long long)picture, 1ull << 33, b.seed).at[2] < 1u << 31;
        flipped = even == (epoch % 2 == 0);
    }
    return {picture,
            draw(moved.at[0], 2 * b.shift + 1) - b.shift,
            draw(moved.at[1], 2 * b.shift + 1) - b.shift,
            flipped,
            draw(covered.at[0], b.height) - b.cutout / 2,
            draw(covered.at[1], b.width) - b.cutout / 2};
}

// A place beyond an edge, mirrored about the edge's element.
__device__ __forceinline__ int mirrored(int i, int size) { return size - 1 - abs(size - 1 - abs(i)); }

__device__ __forceinline__ int changed_byte(const unsigned char* __restrict__ picture, const PictureBatch& b,
                                            const Drawn& d, int channels, int row, int column, int channel) {
    if ((unsigned)(row - d.top) < (unsigned)b.cutout && (unsigned)(column - d.left) < (unsigned)b.cutout)
        return b.cover;
    int from_row = row + d.down;
    int from_column = (d.flipped ? b.width - 1 - column : column) + d.right;
    if (b.fill < 0) {
        from_row = mirrored(from_row, b.height);
        from_column = mirrored(from_column, b.width);
    } else if ((unsigned)from_row >= (unsigned)b.height || (unsigned)from_column >= (unsigned)b.width) {
        return b.fill;
    }
    return picture[(from_row * b.width + from_column) * channels + channel];
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
NAME(gather_batch)(const unsigned char* __restrict__ images, const long long* __restrict__ labels,
                   const int* __restrict__ order, const Element* __restrict__ table, Element* __restrict__ x,
                   long long* __restrict__ y, PictureBatch b, long long place,
                   const long long* __restrict__ place_at) {
    after_kernels_before();
    __shared__ Drawn drawn;
#if CHANNELS
    const int channels = CHANNELS;
    __shared__ Element values[256 * CHANNELS];
    for (int i = threadIdx.x; i < 256 * CHANNELS; i += BLOCK_THREADS) values[i] = table[i];
#else
    const int channels = b.channels;
    const Element* values = table;
#endif
    if (threadIdx.x == 0) {
        const unsigned long long at = place_at ? *place_at : place;
        const unsigned of_epoch = (unsigned)at + blockIdx.x;
        const int picture = order[of_epoch];
        drawn = draw_changes(b, picture, (unsigned)(at >> 32), of_epoch);
        if (blockIdx.y == 0) y[blockIdx.x] = labels[picture];
    }
    __syncthreads();  // the table and the draws are there
    const Drawn d = drawn;
    const int size = b.height * b.width * channels;
    const unsigned char* picture = images + d.picture * size;
    Element* target = x + (long long)blockIdx.x * size;
    const long long step = (long long)gridDim.y * BLOCK_THREADS * PACK;
    for (long long first = ((long long)blockIdx.y * BLOCK_THREADS + threadIdx.x) * PACK; first < size; first += step) {
        int channel, column;
#if CHANNELS
        const unsigned pixel = (unsigned)first / CHANNELS;
        channel = (unsigned)first % CHANNELS;
#else
        const unsigned pixel = divide((unsigned)first, b.by_channels, channel);
#endif
        int row = (int)divide(pixel, b.by_width, column);
        Pack<Element> out = {};
#pragma unroll
        for (int j = 0; j < PACK; ++j) {
            if (first + j < size)
                out.at[j] = values[changed_byte(picture, b, d, channels, row, column, channel) * channels + channel];
            if (++channel == channels) {
                channel = 0;
                if (++column == b.width) column = 0, ++row;
            }
        }
        store_pack(target, first, size, out);
    }
}
