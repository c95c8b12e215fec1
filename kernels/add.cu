// The sum of two arrays, of a residual block or of two gradients, and perhaps a ReLU behind it.
//
//   y = f(a + b)      f is the identity or, with `relu`, max(v, 0), a NaN staying one
//
// a, b, y: `count` elements in any shape. One thread takes PACK of them.
#include "pack.cuh"

extern "C" __global__ void NAME(add)(const Element* __restrict__ a, const Element* __restrict__ b, int relu,
                                     Element* __restrict__ y, long long count) {
    after_kernels_before();
    one_pack(count, lies_in_packs(a) && lies_in_packs(b) && lies_in_packs(y), [&](auto packs) {
        const Pack<Element> first = packs.load(a, 0), second = packs.load(b, 0);
        Pack<Element> out;
#pragma unroll
        for (int j = 0; j < PACK; ++j) {
            const Accum sum = widen(first.at[j]) + widen(second.at[j]);
            out.at[j] = narrow(relu && sum <= 0 ? (Accum)0 : sum);
        }
        packs.store(y, 0, out);
    });
}
