// Whose turn it is: runs a block's fibers until all have returned, and ends it at the first error.
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <ctime>
#include <sys/time.h>
#include <ucontext.h>

#include "state.h"

namespace emu {

// ---- errors -------------------------------------------------------------------------------------
static void set_error(const char* text) {
    if (block->failed) return;  // the first error stays
    block->failed = true;
    block->error = text;
    if (current) {
        char where[160];
        const uint3 t = current->index, b = block->index;
        snprintf(where, sizeof where, "\n  in thread (%u,%u,%u) of block (%u,%u,%u)", t.x, t.y, t.z, b.x,
                 b.y, b.z);
        block->error += where;
    }
}

void fail(const char* format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    set_error(text);
    if (!block->in_fiber) throw Failed();
    switch_to_scheduler(true);
    __builtin_unreachable();
}

// ---- signals: wild accesses in `fast`, and kernels that never end ---------------------------------
static Address interrupted_at(void* context) {
    const mcontext_t& machine = ((ucontext_t*)context)->uc_mcontext;
#if defined(__x86_64__)
    return (Address)machine.gregs[REG_RIP];
#else
    return (Address)machine.pc;
#endif
}

static void on_signal(int signal_number, siginfo_t* info, void* context) {
    if (!block || block->failed) {
        if (signal_number != SIGVTALRM) signal(signal_number, SIG_DFL);
        return;
    }
    char text[200];
    if (signal_number == SIGVTALRM) {
        // Only leave the kernel's own code: the runtime may hold a lock of malloc. The timer will
        // ring again.
        const Address at = interrupted_at(context);
        if (at < block->library_start || at >= block->library_end) return;
        snprintf(text, sizeof text, "still running after %g s of CPU time", block->launch->time_limit);
    } else {
        const char* what = signal_number == SIGFPE ? "integer division by zero" : "invalid memory access";
        snprintf(text, sizeof text, "%s at address %p", what, info->si_addr);
    }
    set_error(text);
    siglongjmp(block->escape, 1);
}

void catch_signals(bool install, double time_limit) {
    static const int caught[] = {SIGSEGV, SIGBUS, SIGFPE, SIGVTALRM};
    static struct sigaction before[4];
#ifdef EMU_ASAN  // its own report of a wild access is better
    constexpr int FIRST = 2;
#else
    constexpr int FIRST = 0;
#endif
    itimerval timer{};
    if (!install) setitimer(ITIMER_VIRTUAL, &timer, nullptr);
    for (int i = FIRST; i < 4; i++) {
        struct sigaction action {};
        action.sa_sigaction = on_signal;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART;
        if (install) sigaction(caught[i], &action, &before[i]);
        else sigaction(caught[i], &before[i], nullptr);
    }
    if (install) {
        const time_t seconds = (time_t)time_limit;
        timer.it_value = {seconds, (suseconds_t)((time_limit - (double)seconds) * 1e6)};
        timer.it_interval = {0, 10000};
        setitimer(ITIMER_VIRTUAL, &timer, nullptr);
    }
}

// ---- turns --------------------------------------------------------------------------------------
static u64 next_random() {  // xorshift
    u64& r = block->random;
    r ^= r << 13;
    r ^= r >> 7;
    r ^= r << 17;
    return r;
}

void make_ready(Fiber& fiber) {
    fiber.state = State::READY;
    block->ready.push_back(fiber.id);
}

void wait_here(const char* what, int line) {
    current->state = State::WAITING;
    current->what = what;
    current->line = line;
    block->stats[WAITS]++;
    switch_to_scheduler();
}

static void wake_mbarrier_waiters() {
    std::vector<int> still;
    for (int id : block->polling) {
        Fiber& fiber = block->fibers[id];
        if (block->mbarriers[fiber.mbarrier].phase != fiber.parity) make_ready(fiber);
        else still.push_back(id);
    }
    block->polling.swap(still);
}

static Fiber* next_fiber() {
    std::vector<int>& ready = block->ready;
    size_t& head = block->ready_head;
    const bool random = block->launch->order == RANDOM;
    if (head == ready.size()) ready.clear(), head = 0;
    const bool polls = random && !block->polling.empty() && next_random() % 8 == 0;
    if (ready.empty() || polls) wake_mbarrier_waiters();
    if (head == ready.size()) return nullptr;
    if (random) std::swap(ready[head], ready[head + next_random() % (ready.size() - head)]);
    return &block->fibers[ready[head++]];
}

// A __syncthreads that only lacked threads which have returned since.
static bool barrier_is_complete() {
    const Barrier& barrier = block->barriers[0];
    return barrier.arrived > 0 && barrier.threads == 0 && barrier.arrived == block->alive;
}

[[noreturn]] static void report_deadlock() {
    std::map<std::string, std::vector<int>> places;
    for (const Fiber& f : block->fibers)
        if (f.state != State::DONE) {
            char place[96];
            snprintf(place, sizeof place, "%s (line %d)", f.what, f.line);
            places[place].push_back(f.id);
        }
    std::string text = "deadlock:";
    for (const auto& [place, ids] : places)
        text += " " + std::to_string(ids.size()) + " threads (first " + std::to_string(ids[0]) +
                ") wait at " + place + ";";
    if (block->alive < block->threads)
        text += " " + std::to_string(block->threads - block->alive) + " threads have exited";
    const uint3 b = block->index;
    fail("%s\n  in block (%u,%u,%u)", text.c_str(), b.x, b.y, b.z);
}

static void reset_fiber(Fiber& fiber, int id) {
    const uint3 size = block->size;
    char* stack = block->stacks + (size_t)id * STACK_BYTES;
    fiber = Fiber{};
    fiber.stack = stack;
    fiber.id = id;
    fiber.index = {id % size.x, id / size.x % size.y, id / (size.x * size.y)};
    fiber.what = "start";
    fiber.group_first = fiber.barrier = -1;
    fiber.waited = !block->launch->dependent;
    fiber.proxy_fences = 1;
    start_fiber(fiber);
    make_ready(fiber);
}

static void run_fibers() {
    const bool random = block->launch->order == RANDOM;
    while (!block->failed) {
        const size_t loads = block->tma.size();
        if (random && loads && next_random() % 4 == 0) land_tma(next_random() % loads);
        if (Fiber* fiber = next_fiber()) switch_to(*fiber);
        else if (!block->alive) return;
        else if (barrier_is_complete()) open_barrier(0);
        else if (!block->tma.empty()) land_tma(random ? next_random() % block->tma.size() : 0);
        else report_deadlock();
    }
}

void run_block(uint3 index, const std::vector<std::pair<char*, size_t>>& shared_memory) {
    block->index = index;
    block->alive = block->threads;
    block->ready.clear();
    block->ready_head = 0;
    block->polling.clear();
    block->mbarriers.clear();
    block->tma.clear();
    for (Barrier& barrier : block->barriers) barrier.arrived = 0;
    block->block_generation = ++block->generation;
    for (auto [start, bytes] : shared_memory) memset(start, 0xff, bytes);  // NaN in every float format
    const bool reverse = block->launch->order == REVERSE;
    for (int i = 0; i < block->threads; i++) {
        const int id = reverse ? block->threads - 1 - i : i;
        reset_fiber(block->fibers[id], id);
    }
    try {
        if (!sigsetjmp(block->escape, 0)) run_fibers();
    } catch (Failed&) {
    }
    current = nullptr;
    block->in_fiber = false;
}

}  // namespace emu
