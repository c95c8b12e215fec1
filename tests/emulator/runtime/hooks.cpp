// What g++ calls in a kernel built in mode `check`.
//
// -fsanitize=thread makes the compiler call a function at every memory access, and -fsanitize=bounds
// and its like one at every kind of undefined behaviour. Those functions usually come from libtsan
// and libubsan. Here they are ours, so we need none of the shadow memory and thread model of theirs.
#include <cstdio>

#include "state.h"

using namespace emu;

#define EMU_ACCESS(NAME, BYTES, KIND) \
    void __tsan_##NAME##BYTES(void* p) { check_access((Address)p, BYTES, KIND, CALLER_PC); }
#define EMU_ACCESSES(BYTES)                   \
    EMU_ACCESS(read, BYTES, READ)             \
    EMU_ACCESS(write, BYTES, WRITE)           \
    EMU_ACCESS(volatile_read, BYTES, READ)    \
    EMU_ACCESS(volatile_write, BYTES, WRITE)  \
    EMU_ACCESS(unaligned_read, BYTES, READ)   \
    EMU_ACCESS(unaligned_write, BYTES, WRITE)

#pragma GCC visibility push(default)
extern "C" {
EMU_ACCESSES(1)
EMU_ACCESSES(2)
EMU_ACCESSES(4)
EMU_ACCESSES(8)
EMU_ACCESSES(16)
void __tsan_read_range(void* p, size_t bytes) { check_access((Address)p, bytes, READ, CALLER_PC); }
void __tsan_write_range(void* p, size_t bytes) { check_access((Address)p, bytes, WRITE, CALLER_PC); }
void* __tsan_memcpy(void* dst, const void* src, size_t bytes) {
    check_access((Address)src, bytes, READ, CALLER_PC);
    check_access((Address)dst, bytes, WRITE, CALLER_PC);
    return memcpy(dst, src, bytes);
}
void* __tsan_memmove(void* dst, const void* src, size_t bytes) {
    check_access((Address)src, bytes, READ, CALLER_PC);
    check_access((Address)dst, bytes, WRITE, CALLER_PC);
    return memmove(dst, src, bytes);
}
void* __tsan_memset(void* dst, int value, size_t bytes) {
    check_access((Address)dst, bytes, WRITE, CALLER_PC);
    return memset(dst, value, bytes);
}
void __tsan_init() {}
void __tsan_atomic_thread_fence(int) { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

struct SourceLocation {
    const char* file;
    u32 line, column;
};
static void report(const char* what, const SourceLocation* at) {
    const char* slash = strrchr(at->file, '/');
    fail("undefined behaviour: %s at %s:%u:%u", what, slash ? slash + 1 : at->file, at->line, at->column);
}
#define EMU_UNDEFINED(NAME, TEXT) \
    void __ubsan_handle_##NAME(SourceLocation* at) { report(TEXT, at); }
EMU_UNDEFINED(out_of_bounds, "array index out of bounds")
EMU_UNDEFINED(shift_out_of_bounds, "shift exponent out of range")
EMU_UNDEFINED(divrem_overflow, "division by zero or overflow")
EMU_UNDEFINED(add_overflow, "signed overflow in +")
EMU_UNDEFINED(sub_overflow, "signed overflow in -")
EMU_UNDEFINED(mul_overflow, "signed overflow in *")
EMU_UNDEFINED(negate_overflow, "signed overflow in negation")
EMU_UNDEFINED(float_cast_overflow, "float to integer conversion out of range")
EMU_UNDEFINED(pointer_overflow, "pointer arithmetic overflow")
EMU_UNDEFINED(type_mismatch_v1, "misaligned or null pointer")
EMU_UNDEFINED(load_invalid_value, "invalid bool or enum value")
}
#pragma GCC visibility pop
