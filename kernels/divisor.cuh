// Division by a number that is known on the host: one multiplication and a shift in place of some
// twenty instructions. Granlund & Montgomery, "Division by invariant integers using
// multiplication", PLDI 1994, figure 4.1, for dividends below 2^31.
#pragma once

struct Divisor {
    unsigned value;       // d >= 1
    unsigned multiplier;  // floor(2^32 * (2^shift - d) / d) + 1
    unsigned shift;       // ceil(log2(d))
};

__device__ __forceinline__ unsigned divide(unsigned n, const Divisor& d) {
    return (__umulhi(n, d.multiplier) + n) >> d.shift;
}

// n -> quotient; the remainder comes back through the second argument.
__device__ __forceinline__ unsigned divide(unsigned n, const Divisor& d, int& remainder) {
    const unsigned quotient = divide(n, d);
    remainder = (int)(n - quotient * d.value);
    return quotient;
}
