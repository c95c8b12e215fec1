// Dropout: y = scale * x where the element's random number is at least the threshold, else 0.
//
//   dropout:         y of any x, and of a gradient on the way back
//   dropout_masked:  y of an activation's output x that is zero below zero, and one mask of both (mask.cuh): what
//                    the activation let through and did not fall. The way back is then mask_backward of mask.cu
//
// Element i draws word i % 4 of Philox4x32-10 with the key `seed` and the counter (i / 4, offset): no
// mask need be stored, the backward pass can be the same call on dy. The offset is in memory where it is to
// differ between launches of one graph, else `offset_at` is null.
//
// x, y: `count` elements in any shape; mask: ceil(count / 8) bytes. One thread takes PACK elements, or the eight of
// a byte of the mask.
#include "mask.cuh"
#include "philox.cuh"

// What is left of elements [i, i + PACK), `in`; bit j of `lives` is set unless element j falls.
__device__ __forceinline__ Pack<Element> dropped(const Pack<Element>& in, long long i, unsigned threshold, Accum scale,
                                                 unsigned long long seed, unsigned long long offset,
                                                 unsigned& lives) {
    static_assert(PACK % 4 == 0, "a thread uses whole blocks of four words");
    Pack<Element> out;
#pragma unroll
    for (int block = 0; block < PACK / 4; ++block) {
        const Words random = philox4x32(i / 4 + block, offset, seed);
#pragma unroll
        for (int word = 0; word < 4; ++word) {
            const int j = 4 * block + word;
            const bool stays = random.at[word] >= threshold;
            out.at[j] = narrow(stays ? scale * widen(in.at[j]) : (Accum)0);
            lives |= (unsigned)stays << j;
        }
    }
    return out;
}

extern "C" __global__ void NAME(dropout)(const Element* __restrict__ x, Element* __restrict__ y, unsigned threshold,
                                         Accum scale, unsigned long long seed, unsigned long long offset,
                                         const unsigned long long* __restrict__ offset_at, long long count) {
    after_kernels_before();
    const long long i = first_of_pack();
    if (i >= count) return;
    if (offset_at) offset = *offset_at;
    unsigned lives = 0;
    store_pack(y, i, count, dropped(load_pack(x, i, count), i, threshold, scale, seed, offset, lives));
}

extern "C" __global__ void NAME(dropout_masked)(const Element* __restrict__ x, Accum ceiling, Element* __restrict__ y,
                                                unsigned char* __restrict__ mask, unsigned threshold, Accum scale,
                                                unsigned long long seed, unsigned long long offset,
                                                const unsigned long long* __restrict__ offset_at, long long count) {
    after_kernels_before();
    if (offset_at) offset = *offset_at;
    one_octet(count, lies_in_packs(x) && lies_in_packs(y), [&](auto packs) {
        unsigned bits = 0;
#pragma unroll
        for (int k = 0; k < packs.count; ++k) {
            const Pack<Element> in = packs.load(x, k);
            unsigned lives = 0;
            packs.store(y, k, dropped(in, packs.at(k), threshold, scale, seed, offset, lives));
#pragma unroll
            for (int j = 0; j < PACK; ++j)
                bits |= ((unsigned)passes(in.at[j], ceiling) & lives >> j) << (k * PACK + j);
        }
        mask[packs.i / OCTET] = bits;
    });
}
