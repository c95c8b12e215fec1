// Whose turn it is: runs the fibers of a cluster's blocks until all have returned, and ends it at the
// first error.
#include <algorithm>
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
    if (cluster->failed) return;  // the first error stays
    cluster->failed = true;
    cluster->error = text;
    if (current) {
        char where[160];
        const uint3 t = current->index, b = current->home->index;
        snprintf(where, sizeof where, "\n  in thread (%u,%u,%u) of block (%u,%u,%u)", t.x, t.y, t.z, b.x,
                 b.y, b.z);
        cluster->error += where;
    }
}

void fail(const char* format, ...) {
    char text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    set_error(text);
    if (!cluster->in_fiber) throw Failed();
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
    if (!cluster || cluster->failed) {
        if (signal_number != SIGVTALRM) signal(signal_number, SIG_DFL);
        return;
    }
    char text[200];
    if (signal_number == SIGVTALRM) {
        // Only leave the kernel's own code: the runtime may hold a lock of malloc. The timer will
        // ring again.
        const Address at = interrupted_at(context);
        if (at < cluster->library_start || at >= cluster->library_end) return;
        snprintf(text, sizeof text, "still running after %g s of CPU time", cluster->launch->time_limit);
    } else {
        const char* what = signal_number == SIGFPE ? "integer division by zero" : "invalid memory access";
        snprintf(text, sizeof text, "%s at address %p", what, info->si_addr);
    }
    set_error(text);
    siglongjmp(cluster->escape, 1);
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
    u64& r = cluster->random;
    r ^= r << 13;
    r ^= r >> 7;
    r ^= r << 17;
    return r;
}

void make_ready(Fiber& fiber) {
    fiber.state = State::READY;
    fiber.home->ready.push_back(fiber.id);
}

void wait_here(const char* what, int line) {
    current->state = State::WAITING;
    current->what = what;
    current->line = line;
    cluster->stats[WAITS]++;
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
    const bool random = cluster->launch->order == RANDOM;
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
    int exited = 0;
    for (const auto& b : cluster->blocks)
        for (const Fiber& f : b->fibers) {
            exited += f.state == State::DONE;
            if (f.state == State::DONE) continue;
            char place[96];
            snprintf(place, sizeof place, "%s (line %d)", f.what, f.line);
            places[place].push_back(f.number);
        }
    std::string text = "deadlock:";
    for (const auto& [place, ids] : places)
        text += " " + std::to_string(ids.size()) + " threads (first " + std::to_string(ids[0]) +
                ") wait at " + place + ";";
    if (exited) text += " " + std::to_string(exited) + " threads have exited";
    const uint3 b = cluster->blocks[0]->index;
    fail("%s\n  in %s (%u,%u,%u)", text.c_str(), cluster->blocks.size() > 1 ? "the cluster of block" : "block", b.x,
         b.y, b.z);
}

static void reset_fiber(Fiber& fiber, int id) {
    const uint3 size = cluster->size;
    char* stack = block->stacks + (size_t)id * STACK_BYTES;
    fiber = Fiber{};
    fiber.stack = stack;
    fiber.home = block;
    fiber.id = id;
    fiber.number = block->rank * cluster->threads + id;
    fiber.index = {id % size.x, id / size.x % size.y, id / (size.x * size.y)};
    fiber.what = "start";
    fiber.group_first = fiber.barrier = -1;
    fiber.waited = !cluster->launch->dependent;
    fiber.proxy_fences = 1;
    start_fiber(fiber);
    make_ready(fiber);
}

// Make a block the current one, and its shared memory that of the operating-system thread.
static void enter(Block& next) {
    block = &next;
    if (cluster->resident == &next) return;
    char *out = cluster->resident->shared.data(), *in = next.shared.data();
    for (auto [start, bytes] : cluster->shared_memory) {
        memcpy(out, start, bytes);
        memcpy(start, in, bytes);
        out += bytes;
        in += bytes;
    }
    cluster->resident = &next;
}

// Whether something could happen in the current block: the turn of a fiber, or a barrier's end.
static bool advance() {
    const bool random = cluster->launch->order == RANDOM;
    const size_t loads = block->tma.size();
    if (random && loads && next_random() % 4 == 0) land_tma(next_random() % loads);
    if (Fiber* fiber = next_fiber()) switch_to(*fiber);
    else if (barrier_is_complete()) open_barrier(0);
    else return false;
    return true;
}

// A copy lands, or a cluster's threads pass their barrier: what waits until nothing else can happen.
static bool advance_at_last() {
    if (cluster_barrier_is_complete()) {
        open_cluster_barrier();
        return true;
    }
    for (const auto& b : cluster->blocks) {
        if (b->tma.empty()) continue;
        enter(*b);
        land_tma(cluster->launch->order == RANDOM ? next_random() % b->tma.size() : 0);
        return true;
    }
    return false;
}

static void run_blocks() {
    const bool random = cluster->launch->order == RANDOM, reverse = cluster->launch->order == REVERSE;
    const size_t count = cluster->blocks.size();
    for (;;) {
        bool advanced = false, alive = false;
        for (size_t i = 0; i < count; i++) {
            enter(*cluster->blocks[reverse ? count - 1 - i : i]);
            while (!cluster->failed && advance()) {
                advanced = true;
                if (random && count > 1 && next_random() % 64 == 0) break;  // another block's turn
            }
            if (cluster->failed) return;
        }
        if (advanced && count > 1) continue;
        for (const auto& b : cluster->blocks) alive |= b->alive > 0;
        if (!alive) return;
        if (!advance_at_last()) report_deadlock();
    }
}

static void start_block(Block& b, u64 number) {
    const u64 x = cluster->grid.x, y = cluster->grid.y;
    block = &b;
    b.index = {(u32)(number % x), (u32)(number / x % y), (u32)(number / (x * y))};
    b.alive = cluster->threads;
    b.ready.clear();
    b.ready_head = 0;
    b.polling.clear();
    b.mbarriers.clear();
    b.tma.clear();
    b.visits.assign(cluster->clocks.empty() || cluster->blocks.size() == 1 ? 0 : cluster->all_threads(), 0);
    std::fill(b.shared.begin(), b.shared.end(), (char)0xff);  // NaN in every float format
    for (Barrier& barrier : b.barriers) barrier.arrived = 0;
    const bool reverse = cluster->launch->order == REVERSE;
    for (int i = 0; i < cluster->threads; i++) {
        const int id = reverse ? cluster->threads - 1 - i : i;
        reset_fiber(b.fibers[id], id);
    }
}

// Its blocks lie side by side in x.
void run_cluster(u64 first_block) {
    cluster->cluster_generation = ++cluster->generation;
    cluster->barrier_arrived = cluster->barrier_phases = 0;
    cluster->barrier_clock.assign(cluster->clocks.empty() ? 0 : cluster->all_threads(), 0);
    cluster->barrier_passed = cluster->barrier_clock;
    for (const auto& b : cluster->blocks) start_block(*b, first_block + b->rank);
    for (auto [start, bytes] : cluster->shared_memory) memset(start, 0xff, bytes);
    cluster->resident = cluster->blocks[0].get();
    try {
        if (!sigsetjmp(cluster->escape, 0)) run_blocks();
    } catch (Failed&) {
    }
    current = nullptr;
    cluster->in_fiber = false;
}

}  // namespace emu
