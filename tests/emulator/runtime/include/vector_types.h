// CUDA's vector types (float4, uint2, ...) and dim3. Also used by the runtime itself, for uint3.
#pragma once

#define EMU_VECTORS(T, NAME)                                                                       \
    struct alignas(2 * sizeof(T)) NAME##2 { T x, y; };                                             \
    struct NAME##3 { T x, y, z; };                                                                 \
    struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) NAME##4 { T x, y, z, w; };             \
    static inline NAME##2 make_##NAME##2(T x, T y) { return {x, y}; }                              \
    static inline NAME##3 make_##NAME##3(T x, T y, T z) { return {x, y, z}; }                      \
    static inline NAME##4 make_##NAME##4(T x, T y, T z, T w) { return {x, y, z, w}; }

EMU_VECTORS(signed char, char)
EMU_VECTORS(unsigned char, uchar)
EMU_VECTORS(short, short)
EMU_VECTORS(unsigned short, ushort)
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)
EMU_VECTORS(long long, longlong)
EMU_VECTORS(unsigned long long, ulonglong)
EMU_VECTORS(float, float)
EMU_VECTORS(double, double)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
