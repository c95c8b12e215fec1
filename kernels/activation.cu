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
    const long long i = first_of_pack();
    if (i >= count) return;
    const Pack<Element> in = load_pack(x, i, count);
    Pack<Element> out;
#pragma unroll
    for (int j = 0; j < PACK; ++j) out.at[j] = narrow(ACTIVATION::forward(widen(in.at[j]), alpha));
    store_pack(y, i, count, out);
}

extern "C" __global__ void NAME(activation_backward)(const Element* __restrict__ dy, const Element* __restrict__ saved,
                                                     Element* __restrict__ dx, Accum alpha, long long count) {
    const long long i = first_of_pack();
    if (i >= count) return;
    const Pack<Element> gradient = load_pack(dy, i, count), in = load_pack(saved, i, count);
    Pack<Element> out;
#pragma unroll
    for (int j = 0; j < PACK; ++j)
        out.at[j] = narrow(ACTIVATION::backward(widen(gradient.at[j]), widen(in.at[j]), alpha));
    store_pack(dx, i, count, out);
}
