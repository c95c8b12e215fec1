// Dropout: y = scale * x where the element's random number is at least the threshold, else 0.
//
// Element i draws word i % 4 of Philox4x32-10 with the key `seed` and the counter (i / 4, offset): no
// mask is stored, and the backward pass is the same call on dy. The offset is in memory where it is to
// differ between launches of one graph, else `offset_at` is null.
//
// x, y: `count` elements in any shape. One thread takes PACK elements.
#include "pack.cuh"
#include "philox.cuh"

extern "C" __global__ void NAME(dropout)(const Element* __restrict__ x, Element* __restrict__ y, unsigned threshold,
                                         Accum scale, unsigned long long seed, unsigned long long offset,
                                         const unsigned long long* __restrict__ offset_at, long long count) {
    after_kernels_before();
    static_assert(PACK % 4 == 0, "a thread uses whole blocks of four words");
    const long long i = first_of_pack();
    if (i >= count) return;
    if (offset_at) offset = *offset_at;
    const Pack<Element> in = load_pack(x, i, count);
    Pack<Element> out;
#pragma unroll
    for (int block = 0; block < PACK / 4; ++block) {
        const Words random = philox4x32(i / 4 + block, offset, seed);
#pragma unroll
        for (int word = 0; word < 4; ++word) {
            const int j = 4 * block + word;
            out.at[j] = narrow(random.at[word] >= threshold ? scale * widen(in.at[j]) : (Accum)0);
        }
    }
    store_pack(y, i, count, out);
}
