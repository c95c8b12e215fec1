// Activation functions, element by element.
//
//   activation_forward:   y = f(x)
//   activation_backward:  dx = dy * f'(x); `saved` is the output y or the input x, as the function wants
//
// x, y, dy, saved, dx: `count` elements in any shape. One thread takes PACK elements.
// Macro: ACTIVATION, a struct of activations.cuh.
#include "activations.cuh"
#include "pack.cuh"

extern "C" __global__ void NAME(activation_forward)(const Element* __restrict__ x, Element* __restrict__ y,
                                                    Accum alpha, long long count) {
    after_kernels_before();
    one_pack(count, lies_in_packs(x) && lies_in_packs(y), [&](auto packs) {
        const Pack<Element> in = packs.load(x, 0);
        Pack<Element> out;
#pragma unroll
        for (int j = 0; j < PACK; ++j) out.at[j] = narrow(ACTIVATION::forward(widen(in.at[j]), alpha));
        packs.store(y, 0, out);
    });
}

extern "C" __global__ void NAME(activation_backward)(const Element* __restrict__ dy, const Element* __restrict__ saved,
                                                     Element* __restrict__ dx, Accum alpha, long long count) {
    after_kernels_before();
    one_pack(count, lies_in_packs(dy) && lies_in_packs(saved) && lies_in_packs(dx), [&](auto packs) {
        const Pack<Element> gradient = packs.load(dy, 0), in = packs.load(saved, 0);
        Pack<Element> out;
#pragma unroll
        for (int j = 0; j < PACK; ++j)
            out.at[j] = narrow(ACTIVATION::backward(widen(gradient.at[j]), widen(in.at[j]), alpha));
        packs.store(dx, 0, out);
    });
}
