// Fibers: a CUDA thread is a stack and a saved stack pointer.
#include <cstdlib>

#include "state.h"

#ifdef EMU_ASAN
#include <sanitizer/common_interface_defs.h>
#endif

namespace emu {

EMU_THREAD_LOCAL Cluster* cluster = nullptr;
EMU_THREAD_LOCAL Block* block = nullptr;
EMU_THREAD_LOCAL Fiber* current = nullptr;

// Push the callee-saved registers, store the stack pointer to *save, continue on the stack `to`.
extern "C" void emu_switch_stack(void** save, void* to);
#if defined(__x86_64__)
asm(R"(
.text
.hidden emu_switch_stack
.globl emu_switch_stack
.type emu_switch_stack,@function
emu_switch_stack:
  pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
  ret
)");
static void* first_frame(char* top, void (*entry)()) {
    void** sp = (void**)top;
    *--sp = nullptr;  // entry's return address: it never returns
    *--sp = (void*)entry;
    for (int i = 0; i < 6; i++) *--sp = nullptr;
    return sp;
}
#elif defined(__aarch64__)
asm(R"(
.text
.hidden emu_switch_stack
.globl emu_switch_stack
.type emu_switch_stack,%function
emu_switch_stack:
  sub sp,sp,#160
  stp x19,x20,[sp]
  stp x21,x22,[sp,#16]
  stp x23,x24,[sp,#32]
  stp x25,x26,[sp,#48]
  stp x27,x28,[sp,#64]
  stp x29,x30,[sp,#80]
  stp d8,d9,[sp,#96]
  stp d10,d11,[sp,#112]
  stp d12,d13,[sp,#128]
  stp d14,d15,[sp,#144]
  mov x2,sp
  str x2,[x0]
  mov sp,x1
  ldp x19,x20,[sp]
  ldp x21,x22,[sp,#16]
  ldp x23,x24,[sp,#32]
  ldp x25,x26,[sp,#48]
  ldp x27,x28,[sp,#64]
  ldp x29,x30,[sp,#80]
  ldp d8,d9,[sp,#96]
  ldp d10,d11,[sp,#112]
  ldp d12,d13,[sp,#128]
  ldp d14,d15,[sp,#144]
  add sp,sp,#160
  ret
)");
static void* first_frame(char* top, void (*entry)()) {
    void** sp = (void**)(top - 160);
    memset(sp, 0, 160);
    sp[11] = (void*)entry;  // x30, the link register
    return sp;
}
#else
#error "fibers: no context switch for this processor"
#endif

void switch_to_scheduler(bool for_ever) {
    Fiber* self = current;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(for_ever ? nullptr : &self->asan_stack, cluster->asan_main_stack,
                                   cluster->asan_main_bytes);
#endif
    emu_switch_stack(&self->stack_pointer, cluster->main_stack_pointer);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(self->asan_stack, nullptr, nullptr);
#endif
    if (for_ever) abort();
}

void switch_to(Fiber& fiber) {
    current = &fiber;
    cluster->in_fiber = true;
#ifdef EMU_ASAN
    __sanitizer_start_switch_fiber(&cluster->asan_stack, fiber.stack + PAGE_BYTES, STACK_BYTES - PAGE_BYTES);
#endif
    emu_switch_stack(&cluster->main_stack_pointer, fiber.stack_pointer);
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(cluster->asan_stack, nullptr, nullptr);
#endif
    cluster->in_fiber = false;
    current = nullptr;
}

static void fiber_main() {
#ifdef EMU_ASAN
    __sanitizer_finish_switch_fiber(nullptr, &cluster->asan_main_stack, &cluster->asan_main_bytes);
#endif
    cluster->launch->kernel(cluster->launch->args);
    if (!current->waited) fail("a thread ends without having waited for the kernels before");
    if (!current->stores.empty()) fail("a thread ends before its TMA stores have read shared memory");
    current->state = State::DONE;
    if (--block->alive == 0) check_end_of_block();
    switch_to_scheduler(true);
}

void start_fiber(Fiber& fiber) {
    fiber.stack_pointer = first_frame(fiber.stack + STACK_BYTES - 64, fiber_main);
}

}  // namespace emu
