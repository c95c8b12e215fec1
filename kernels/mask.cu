// Activations of two slopes, with a mask of one bit a number for the way back (mask.cuh).
//
//   mask_forward:   y = f(x + residual) and its mask; f(v) is slope * v up to zero, v above, `ceiling` from there on
//   mask_of:        the mask of an output y that another kernel has written
//   mask_backward:  dx = scale * dy where the bit is set, else slope * dy
//
// A slope of 0 makes a zero of all numbers, infinity too; a ceiling that is a NaN is none; a NaN v stays one, and its
// bit is clear.
//
// x, residual (or null), y, dy, dx: `count` elements in any shape; mask: ceil(count / 8) bytes. One thread takes a
// byte of the mask and its eight elements.
#include "mask.cuh"

__device__ __forceinline__ Accum sloping(Accum slope, Accum v) { return slope > 0 ? slope * v : (Accum)0; }

extern "C" __global__ void NAME(mask_forward)(const Element* __restrict__ x, const Element* __restrict__ residual,
                                              Accum slope, Accum ceiling, Element* __restrict__ y,
                                              unsigned char* __restrict__ mask, long long count) {
    after_kernels_before();
    one_octet(count, lies_in_packs(x) && lies_in_packs(residual) && lies_in_packs(y), [&](auto packs) {
        unsigned bits = 0;
#pragma unroll
        for (int k = 0; k < packs.count; ++k) {
            const Pack<Element> in = packs.load(x, k);
            Pack<Element> other = {}, out;
            if (residual) other = packs.load(residual, k);
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                Accum v = widen(in.at[j]);
                if (residual) v += widen(other.at[j]);
                out.at[j] = narrow(v <= 0 ? sloping(slope, v) : v >= ceiling ? ceiling : v);
            }
            bits |= bits_of(out, ceiling) << (k * PACK);
            packs.store(y, k, out);
        }
        mask[packs.i / OCTET] = bits;
    });
}

extern "C" __global__ void NAME(mask_of)(const Element* __restrict__ y, Accum ceiling,
                                         unsigned char* __restrict__ mask, long long count) {
    after_kernels_before();
    one_octet(count, lies_in_packs(y), [&](auto packs) {
        unsigned bits = 0;
#pragma unroll
        for (int k = 0; k < packs.count; ++k) bits |= bits_of(packs.load(y, k), ceiling) << (k * PACK);
        mask[packs.i / OCTET] = bits;
    });
}

extern "C" __global__ void NAME(mask_backward)(const Element* __restrict__ dy, const unsigned char* __restrict__ mask,
                                               Accum slope, Accum scale, Element* __restrict__ dx, long long count) {
    after_kernels_before();
    one_octet(count, lies_in_packs(dy) && lies_in_packs(dx), [&](auto packs) {
        const unsigned bits = mask[packs.i / OCTET];
#pragma unroll
        for (int k = 0; k < packs.count; ++k) {
            const Pack<Element> gradient = packs.load(dy, k);
            Pack<Element> out;
#pragma unroll
            for (int j = 0; j < PACK; ++j) {
                const Accum d = widen(gradient.at[j]);
                out.at[j] = narrow(bits >> (k * PACK + j) & 1 ? scale * d : sloping(slope, d));
            }
            packs.store(dx, k, out);
        }
    });
}
