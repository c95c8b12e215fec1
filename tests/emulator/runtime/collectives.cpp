// Barriers and warp collectives: threads wait until all that take part have come; the last one to
// come does the work for all, from what each brought (its payload).
#include <algorithm>

#include "state.h"

namespace emu {

static int lane(const Fiber& fiber) { return fiber.id & 31; }

// The threads [first, first + count) meet; of a warp (count = 32), only those in `mask`. The last to
// arrive calls run(fibers), with a null pointer for each thread outside the mask.
template <class Run>
static void meet(const char* what, int line, int first, int count, u32 mask, void* payload, Run run) {
    Fiber& self = *current;
    auto takes_part = [&](int i) { return count > 32 || (mask >> i & 1); };
    if (!takes_part(self.id - first))
        fail("%s (line %d): the calling lane %d is not in its mask %08x", what, line, lane(self), mask);
    self.mask = mask;
    self.payload = payload;
    self.group_first = first;
    self.group_size = count;

    bool all_here = true;
    for (int i = 0; i < count; i++) {
        if (!takes_part(i)) continue;
        if (first + i >= cluster->threads)
            fail("%s (line %d): mask %08x names lane %d, but the block has %d threads", what, line, mask, i,
                 cluster->threads);
        const Fiber& other = block->fibers[first + i];
        if (&other == &self) continue;
        if (other.state == State::DONE)
            fail("%s (line %d): thread %d of the mask has already exited", what, line, other.id);
        const bool same_group = other.group_size == count && other.mask == mask;
        if (other.state == State::READY || other.group_first < 0 || !same_group) {
            all_here = false;
        } else if (strcmp(other.what, what) || other.line != line) {
            fail("divergent warp collective: lane %d is at %s (line %d, mask %08x), lane %d at %s (line %d, "
                 "mask %08x)",
                 lane(self), what, line, mask, lane(other), other.what, other.line, other.mask);
        }
    }
    if (!all_here) {
        wait_here(what, line);
        return;
    }
    std::vector<Fiber*> fibers(count);
    for (int i = 0; i < count; i++)
        if (takes_part(i)) fibers[i] = &block->fibers[first + i];
    run(fibers);
    for (Fiber* fiber : fibers) {
        if (!fiber) continue;
        fiber->group_first = -1;
        if (fiber != &self) make_ready(*fiber);
    }
}

template <class Run> void meet_warp(const char* what, int line, u32 mask, void* payload, Run run) {
    meet(what, line, current->id & ~31, 32, mask, payload, run);
}

// All threads of the `count` that share this thread's warp (32) or warpgroup (128).
template <class Run> void meet_all(const char* what, int line, int count, void* payload, Run run) {
    const int first = current->id & -count;
    if (first + count > cluster->threads) fail("%s (line %d) needs all %d threads", what, line, count);
    meet(what, line, first, count, ~0u, payload, run);
}

template <class T> T& payload(Fiber* fiber) { return *(T*)fiber->payload; }

// All have come to barrier `id`: they go on, and what each did before it is ordered before what any
// does after it.
void open_barrier(int id) {
    Barrier& barrier = block->barriers[id];
    std::vector<Fiber*> here;
    for (Fiber& fiber : block->fibers) {
        if (fiber.barrier != id) continue;
        here.push_back(&fiber);
        fiber.barrier = -1;
        fiber.votes = barrier.votes;
        fiber.voters = barrier.arrived;
        if (fiber.state == State::WAITING) make_ready(fiber);
    }
    if (barrier.arrived == block->alive && cluster->blocks.size() == 1) cluster->generation++;
    else join_clocks(here);
    barrier.arrived = 0;
}

// ---- barrier.cluster: threads that have ended are not waited for --------------------------------
bool cluster_barrier_is_complete() {
    int alive = 0;
    for (const auto& b : cluster->blocks) alive += b->alive;
    return cluster->barrier_arrived > 0 && cluster->barrier_arrived == alive;
}

void open_cluster_barrier() {
    cluster->barrier_arrived = 0;
    cluster->barrier_phases++;
    std::swap(cluster->barrier_passed, cluster->barrier_clock);
    std::fill(cluster->barrier_clock.begin(), cluster->barrier_clock.end(), 0);
    for (const auto& b : cluster->blocks)
        for (Fiber& fiber : b->fibers)
            if (fiber.state == State::WAITING && fiber.waits_for_cluster) make_ready(fiber);
}

}  // namespace emu

using namespace emu;

extern "C" {
int emu_barrier(int id, int threads, int predicate, int result, int line) {
    if (id < 0 || id > 15) fail("bar.sync %d (line %d): barriers are numbered 0 to 15", id, line);
    if (threads & 31) fail("bar.sync %d (line %d): thread count %d is no multiple of 32", id, line, threads);
    Fiber& self = *current;
    Barrier& barrier = block->barriers[id];
    if (barrier.arrived == 0) barrier = {0, threads, 0, line, self.id};
    if (barrier.threads != threads)
        fail("bar.sync %d: thread count %d at line %d, %d at line %d", id, threads, line, barrier.threads,
             barrier.line);
    if (id == 0 && barrier.line != line)
        fail("divergent __syncthreads: thread %d waits at line %d, thread %d at line %d", self.id, line,
             barrier.first_thread, barrier.line);
    self.barrier = id;
    barrier.arrived++;
    barrier.votes += predicate != 0;
    cluster->stats[BARRIERS]++;
    if (barrier.arrived < (threads ? threads : block->alive)) {
        wait_here(id ? "bar.sync" : "__syncthreads", line);
    } else {
        open_barrier(id);
    }
    return result == EMU_COUNT ? self.votes
           : result == EMU_AND ? self.votes == self.voters
           : result == EMU_OR  ? self.votes > 0
                               : 0;
}

void emu_cluster_arrive(int line) {
    if (current->cluster_phases > cluster->barrier_phases)
        fail("barrier.cluster.arrive (line %d): the thread has arrived and not waited", line);
    current->cluster_phases = cluster->barrier_phases + 1;
    cluster->barrier_arrived++;
    if (cluster->clocks.empty()) return;
    join(cluster->barrier_clock, clock_of(*current));
    clock_of(*current)[current->number]++;
}

void emu_cluster_wait(int line) {
    if (!current->cluster_phases) fail("barrier.cluster.wait (line %d): the thread has not arrived", line);
    if (current->cluster_phases > cluster->barrier_phases) {
        current->waits_for_cluster = true;
        wait_here("barrier.cluster.wait", line);
        current->waits_for_cluster = false;
    }
    current->cluster_phases = 0;
    if (cluster->clocks.empty()) return;
    const u32* passed = cluster->barrier_passed.data();
    u32* mine = clock_of(*current);
    for (int i = 0; i < cluster->all_threads(); i++) mine[i] = std::max(mine[i], passed[i]);
}

void emu_syncwarp(unsigned mask, int line) {
    meet_warp("__syncwarp", line, mask, nullptr, [](auto& fibers) { join_clocks(fibers); });
}

void emu_shuffle(unsigned mask, void* value, int bytes, int lane, int width, int mode, int line) {
    static const char* const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync",
                                        "__shfl_xor_sync"};
    struct Shuffle {
        void* value;
        int lane, width;
        unsigned char received[16];
    } mine{value, lane, width, {}};
    meet_warp(names[mode], line, mask, &mine, [&](auto& fibers) {
        for (int i = 0; i < 32; i++) {
            if (!fibers[i]) continue;
            Shuffle& s = payload<Shuffle>(fibers[i]);
            const int first = i & -s.width;
            int from = mode == EMU_INDEX  ? first + (s.lane & (s.width - 1))
                       : mode == EMU_UP   ? i - s.lane
                       : mode == EMU_DOWN ? i + s.lane
                                          : i ^ s.lane;
            const bool below = mode == EMU_UP && from < first;
            const bool above = mode >= EMU_DOWN && from >= first + s.width;
            if (below || above) from = i;  // its own value
            if (!fibers[from])
                fail("%s (line %d): lane %d reads lane %d, which is not in the mask %08x", names[mode],
                     line, i, from, mask);
            memcpy(s.received, payload<Shuffle>(fibers[from]).value, bytes);
        }
        for (Fiber* fiber : fibers)
            if (fiber) memcpy(payload<Shuffle>(fiber).value, payload<Shuffle>(fiber).received, bytes);
    });
}

unsigned emu_ballot(unsigned mask, int predicate, int line) {
    struct Vote {
        int predicate;
        u32 ballot;
    } mine{predicate, 0};
    meet_warp("vote", line, mask, &mine, [](auto& fibers) {
        u32 ballot = 0;
        for (int i = 0; i < 32; i++)
            if (fibers[i] && payload<Vote>(fibers[i]).predicate) ballot |= 1u << i;
        for (Fiber* fiber : fibers)
            if (fiber) payload<Vote>(fiber).ballot = ballot;
    });
    return mine.ballot;
}

unsigned emu_match(unsigned mask, const void* value, int bytes, int line) {
    struct Match {
        const void* value;
        u32 equal;
    } mine{value, 0};
    meet_warp("__match_any_sync", line, mask, &mine, [=](auto& fibers) {
        for (Fiber* fiber : fibers)
            for (int j = 0; fiber && j < 32; j++) {
                Match& m = payload<Match>(fiber);
                if (fibers[j] && !memcmp(m.value, payload<Match>(fibers[j]).value, bytes)) m.equal |= 1u << j;
            }
    });
    return mine.equal;
}

void emu_reduce(unsigned mask, void* value, int op, int is_signed, int line) {
    meet_warp("__reduce_sync", line, mask, value, [=](auto& fibers) {
        u32 total = 0;
        bool first = true;
        for (Fiber* fiber : fibers) {
            if (!fiber) continue;
            const u32 v = payload<u32>(fiber);
            const bool less = is_signed ? (int)v < (int)total : v < total;
            if (first) total = v;
            else if (op == EMU_SUM) total += v;
            else if ((op == EMU_SMALLEST) == less) total = v;
            first = false;
        }
        for (Fiber* fiber : fibers)
            if (fiber) payload<u32>(fiber) = total;
    });
}

unsigned emu_active_mask() {
    u32 mask = 0;
    const int first = current->id & ~31;
    for (int i = 0; i < 32 && first + i < cluster->threads; i++)
        mask |= (u32)(block->fibers[first + i].state != State::DONE) << i;
    return mask;
}

void emu_griddepcontrol_wait() { current->waited = true; }

void emu_yield() {
    block->ready.push_back(current->id);
    switch_to_scheduler();
}

// ---- who am I -----------------------------------------------------------------------------------
uint3 emu_thread_index() { return current->index; }
uint3 emu_block_index() { return current->home->index; }
uint3 emu_block_size() { return cluster->size; }
uint3 emu_grid_size() { return cluster->grid; }
uint32_t emu_cluster_rank() { return (u32)current->home->rank; }
void emu_fail(const char* what, const char* file, int line) { fail("%s at %s:%d", what, file, line); }
}  // extern "C"
