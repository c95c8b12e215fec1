// Atomics, and the number formats of tensor cores.
#include <cmath>

#include "state.h"

namespace emu {

template <class D, class S> static D bits_as(S s) {
    static_assert(sizeof(D) == sizeof(S), "the two types have one size");
    D d;
    memcpy(&d, &s, sizeof d);
    return d;
}

static float decode_half(u32 h) {
    const int exponent = h >> 10 & 31, mantissa = h & 1023;
    const float value = exponent == 31 ? (mantissa ? NAN : INFINITY)
                        : exponent     ? ldexpf((float)(1024 + mantissa), exponent - 25)
                                       : ldexpf((float)mantissa, -24);
    return h >> 15 ? -value : value;
}
static const struct HalfTable {
    float values[65536];
    HalfTable() {
        for (u32 h = 0; h < 65536; h++) values[h] = decode_half(h);
    }
} half_table;

// A tensor-core operand's element; the low 13 bits of a TF32 one are not looked at.
float to_float(int kind, u32 bits) {
    if (kind == EMU_TF32) return bits_as<float>(bits & ~0x1fffu);
    return kind == EMU_BF16 ? bits_as<float>(bits << 16) : half_table.values[bits & 0xffff];
}

template <class T> static T arithmetic(T a, T b, T compare, int op) {
    switch (op) {
        case EMU_ADD: return a + b;
        case EMU_EXCHANGE: return b;
        case EMU_MIN: return b < a ? b : a;
        case EMU_MAX: return a < b ? b : a;
        case EMU_CAS: return a == compare ? b : a;
        default: return a;
    }
}
template <class Word> static Word bitwise(Word a, Word b, int op) {
    return op == EMU_BIT_AND ? a & b : op == EMU_BIT_OR ? a | b : a ^ b;
}

// The numbers are T; the machine compares and swaps a Word of the same size.
template <class T, class Word>
static void atomic(void* p, const void* value, const void* compare, void* old, int op) {
    Word before = __atomic_load_n((Word*)p, __ATOMIC_RELAXED), after, operand;
    T v, c;
    memcpy(&v, value, sizeof v);
    memcpy(&c, compare, sizeof c);
    memcpy(&operand, value, sizeof operand);
    const bool is_bitwise = op >= EMU_BIT_AND && op <= EMU_BIT_XOR;
    do {
        after = is_bitwise ? bitwise(before, operand, op)
                           : bits_as<Word>(arithmetic(bits_as<T>(before), v, c, op));
    } while (!__atomic_compare_exchange_n((Word*)p, &before, after, false, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    memcpy(old, &before, sizeof before);
}

}  // namespace emu

using namespace emu;

extern "C" {
void emu_atomic(void* p, const void* value, const void* compare, void* old, int op, int number) {
    const bool is_wide = number == EMU_I64 || number == EMU_U64 || number == EMU_F64;
    check_access((Address)p, is_wide ? 8 : 4, ATOMIC, CALLER_PC);
    switch (number) {
        case EMU_I32: return atomic<int32_t, u32>(p, value, compare, old, op);
        case EMU_U32: return atomic<uint32_t, u32>(p, value, compare, old, op);
        case EMU_I64: return atomic<int64_t, u64>(p, value, compare, old, op);
        case EMU_U64: return atomic<uint64_t, u64>(p, value, compare, old, op);
        case EMU_F32: return atomic<float, u32>(p, value, compare, old, op);
        case EMU_F64: return atomic<double, u64>(p, value, compare, old, op);
    }
}

float emu_half_to_float(uint16_t bits) { return half_table.values[bits]; }

uint16_t emu_float_to_half(float value) {  // to nearest, ties to even
    const u32 bits = bits_as<u32>(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return 0x7fff;                       // NaN
    if (magnitude >= 0x477ff000) return (uint16_t)(sign | 0x7c00);  // rounds to infinity
    if (magnitude < 0x38800000)                                      // subnormal: a multiple of 2^-24
        return (uint16_t)(sign | (u32)lrintf(bits_as<float>(magnitude) * 16777216.0f));
    const u32 rounded = magnitude - 0x38000000 + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | rounded >> 13);
}
}  // extern "C"
