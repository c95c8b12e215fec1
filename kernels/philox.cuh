// Philox4x32-10, random numbers as a function of a counter: Salmon et al., "Parallel random numbers:
// as easy as 1, 2, 3", SC'11. No state: every thread draws its own numbers, in any order.
#pragma once

struct Words {
    unsigned at[4];
};

// Ten rounds over the counter (low, high) under the key; all three low word first.
__device__ __forceinline__ Words philox4x32(unsigned long long low, unsigned long long high, unsigned long long key) {
    Words c = {{(unsigned)low, (unsigned)(low >> 32), (unsigned)high, (unsigned)(high >> 32)}};
    unsigned key_0 = (unsigned)key, key_1 = (unsigned)(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        const unsigned long long product_0 = 0xD2511F53ull * c.at[0], product_1 = 0xCD9E8D57ull * c.at[2];
        c = {{(unsigned)(product_1 >> 32) ^ c.at[1] ^ key_0, (unsigned)product_1,
              (unsigned)(product_0 >> 32) ^ c.at[3] ^ key_1, (unsigned)product_0}};
        key_0 += 0x9E3779B9;  // Weyl sequences: the golden ratio and sqrt(3) - 1
        key_1 += 0xBB67AE85;
    }
    return c;
}
