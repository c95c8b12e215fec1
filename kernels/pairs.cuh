// Two numbers of 16 bits in a register, neighbours in memory, the first in the lower half (from sm_80 on).
#pragma once
#include "common.cuh"

__device__ __forceinline__ uint32_t narrow_pair(float low, float high) {
    return ELEMENT == F16 ? cvt_f16x2(low, high) : cvt_bf16x2(low, high);
}

// min(max(v, lowest), highest) for both; a NaN stays one.
__device__ __forceinline__ uint32_t clamp_pair(uint32_t pair, uint32_t lowest, uint32_t highest) {
    return ELEMENT == F16 ? min_nan_f16x2(max_nan_f16x2(pair, lowest), highest)
                          : min_nan_bf16x2(max_nan_bf16x2(pair, lowest), highest);
}
