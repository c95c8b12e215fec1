// How Python reaches a kernel: for each one, a function that takes an array of pointers to the
// arguments, as cuLaunchKernel does, and a description of its parameters.
#pragma once

#define EMU_API __attribute__((visibility("default")))

// P pointer, p pointer to const, i u f b number, s struct
template <class T> constexpr char emu_kind() {
    if (std::is_pointer<T>::value) return std::is_const<std::remove_pointer_t<T>>::value ? 'p' : 'P';
    if (std::is_same<T, bool>::value) return 'b';
    if (std::is_floating_point<T>::value) return 'f';
    if (std::is_integral<T>::value) return std::is_signed<T>::value ? 'i' : 'u';
    return 's';
}

template <class T> EMU_INLINE __attribute__((no_sanitize("thread", "undefined", "address")))
T emu_load(const void* p) {  // a copy: the bytes may be less aligned than T
    T value;
    memcpy(&value, p, sizeof value);
    return value;
}

template <auto Function> struct EmuKernel;
template <class... A, void (*Function)(A...)> struct EmuKernel<Function> {
    template <size_t... I> __attribute__((noinline, no_sanitize("thread", "undefined", "address")))
    static void call(void** args, std::index_sequence<I...>) {
        Function(emu_load<std::remove_cv_t<A>>(args[I])...);
    }
    static void run(void** args) { call(args, std::index_sequence_for<A...>()); }
    static const char* signature() {
        static char text[16 * sizeof...(A) + 1];
        int n = 0;
        ((n += snprintf(text + n, 16, "%c%d ", emu_kind<std::remove_cv_t<A>>(), (int)sizeof(A))), ...);
        return text;
    }
};

#define EMU_EXPORT(NAME, ...)                                                                      \
    extern "C" EMU_API void emu_run_##NAME(void** args) { EmuKernel<&__VA_ARGS__>::run(args); }    \
    extern "C" EMU_API const char* emu_signature_##NAME() { return EmuKernel<&__VA_ARGS__>::signature(); }

// How many blocks a cluster of it has, along each axis; the name comes by way of the kernel file's own macros.
#define EMU_CLUSTER(...) EMU_CLUSTER_OF(__VA_ARGS__)
#define EMU_CLUSTER_OF(NAME, ...) extern "C" EMU_API const unsigned emu_cluster_##NAME[3] = {__VA_ARGS__};

// The dynamic shared array (or nullptr), and a function that makes this thread's copy of the
// module's thread-local segment exist.
#define EMU_EXPORT_SHARED(DYNAMIC)                                                                 \
    static thread_local volatile char emu_anchor;                                                  \
    extern "C" EMU_API void* emu_dynamic_shared() { return DYNAMIC; }                              \
    extern "C" EMU_API __attribute__((no_sanitize("thread"))) void emu_touch_shared() { emu_anchor = 0; }
