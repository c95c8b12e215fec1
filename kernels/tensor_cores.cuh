// What the tensor cores of mma.sync (sm_80) multiply, by the number format: two squares of 16 rows, 32 bytes of
// terms each, of which a lane has four registers.
//
//   ELEMENT F16, BF16   m16n8k16; products are exact, sums are float
//   ELEMENT F32         m16n8k8 of numbers in TF32, a float with 10 bits behind the point, PRODUCTS of them:
//     1   a * b = large(a) * large(b), where large(x) is x rounded to TF32, to nearest with ties away from zero
//     3   a * b = small(a) * large(b) + large(a) * small(b) + large(a) * large(b), where small(x) is what is left of
//         x, rounded so: 22 bits of x in all. small(a) * small(b), left out, is at most 2^-22 of a * b.
//
// Tensor cores cut their sums where others round, so that the errors of a long one all point towards zero. With three
// products those would be most of the error: each step starts from zero and is added by ordinary additions.
// (Ootomo and Yokota, "Recovering single precision accuracy from Tensor Cores while surpassing the FP32 theoretical
// peak performance", 2022; the three products are those of CUTLASS's example 28.)
//
// An infinity's small part is no number: with three products, what an infinity reaches is NaN.
//
// Macros: ELEMENT; PRODUCTS, for F32.
#pragma once
#include "neighbours.cuh"

const int CHUNK = 16 / sizeof(Element);  // elements of 16 bytes
const int MMA_K = 2 * CHUNK;             // terms of an instruction

// A lane's part of a square, as the instruction takes it. Register q holds, of A, rows 8 * (q % 2) and terms
// CHUNK * (q / 2) on, of B columns 8 * (q / 2) and terms CHUNK * (q % 2) on.
struct Factor {
    uint32_t large[4];
#if ELEMENT == F32 && PRODUCTS == 3
    uint32_t small[4];
#endif
};

__device__ __forceinline__ Factor factor_of(const uint32_t (&loaded)[4]) {
    Factor factor;
#pragma unroll
    for (int q = 0; q < 4; ++q) {
#if ELEMENT == F32
        const float x = __uint_as_float(loaded[q]);
        factor.large[q] = cvt_tf32(x);
#if PRODUCTS == 3
        factor.small[q] = cvt_tf32(x - __uint_as_float(factor.large[q]));
#endif
#else
        factor.large[q] = loaded[q];
#endif
    }
    return factor;
}

__device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[4], int half) {
    const uint32_t columns[2] = {b[2 * half], b[2 * half + 1]};
#if ELEMENT == F16
    mma_m16n8k16_f16(d, a, columns);
#elif ELEMENT == BF16
    mma_m16n8k16_bf16(d, a, columns);
#elif ELEMENT == F32
    mma_m16n8k8_tf32(d, a, columns);
#endif
}

// d += a * b, of the columns 8 * half on of b.
__device__ __forceinline__ void multiply_add(float (&d)[4], const Factor& a, const Factor& b, int half) {
#if ELEMENT == F32 && PRODUCTS == 3
    float sums[4] = {};
    mma(sums, a.small, b.large, half);
    mma(sums, a.large, b.small, half);
    mma(sums, a.large, b.large, half);
#pragma unroll
    for (int e = 0; e < 4; ++e) d[e] += sums[e];
#else
    mma(d, a.large, b.large, half);
#endif
}

// Squares that lie turned in shared memory, a term with all its rows in whole lines of 128 bytes: chunk c of term k
// stands at c ^ turned_swizzle(k), so that what a warp reads at once lies in all banks once. For 16 bits that is 8
// terms of a chunk, which ldmatrix turns; it turns no words, so that a lane loads its own: that of term lane % 4 and
// row lane / 4, four terms of two chunks at once.
const int TURNED_PERIOD = sizeof(Element) == 2 ? 8 : 4;  // the swizzle is the same for terms so far apart
__device__ __forceinline__ constexpr int turned_swizzle(int term) {
    return sizeof(Element) == 2 ? term % 8 : 2 * (term % 4);
}

// Whether the words of a warp lie in all banks once, `pair` being their two chunks.
__device__ constexpr bool words_meet_no_bank_twice(int pair) {
    unsigned banks = 0;
    for (int lane = 0; lane < 32; ++lane) {
        const int chunk = (2 * pair + lane / 16) ^ turned_swizzle(lane % 4);
        banks |= 1u << (chunk % 8 * 4 + lane / 4 % 4);
    }
    return banks == ~0u;
}
static_assert(sizeof(Element) == 2 || (words_meet_no_bank_twice(0) && words_meet_no_bank_twice(1) &&
                                       words_meet_no_bank_twice(2) && words_meet_no_bank_twice(3)),
              "the swizzle must spread words over all banks");
