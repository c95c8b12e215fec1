// The memory checker: every access of a kernel built in mode `check` comes here.
//
// Each 1, 2 or 4 bytes of memory have a Cell that remembers the last write and two reads since. An
// access that no barrier or clock orders after a conflicting one is a race, whatever the numbers.
#include <algorithm>

#include "state.h"

namespace emu {

// ---- order: what happened before what -----------------------------------------------------------
u32* clock_of(const Fiber& fiber) { return &cluster->clocks[(size_t)fiber.number * cluster->all_threads()]; }

void join(std::vector<u32>& into, const u32* from) {
    for (size_t i = 0; i < into.size(); i++) into[i] = std::max(into[i], from[i]);
}

// The fibers synchronise: afterwards each knows what any of them knew.
void join_clocks(const std::vector<Fiber*>& fibers) {
    if (cluster->clocks.empty()) return;
    std::vector<u32> joined(cluster->all_threads());
    for (const Fiber* fiber : fibers)
        if (fiber) join(joined, clock_of(*fiber));
    for (const Fiber* fiber : fibers) {
        if (!fiber) continue;
        u32* clock = clock_of(*fiber);
        std::copy(joined.begin(), joined.end(), clock);
        clock[fiber->number]++;
    }
}

static bool of_this_cluster(const Access& a) { return a.generation >= cluster->cluster_generation; }

// Whether `earlier` happened before what the current thread does now.
static bool is_ordered(const Region& region, const Access& earlier) {
    if (earlier.generation < cluster->launch_generation) return true;
    if (!of_this_cluster(earlier)) return region.shared || !cluster->launch->block_races;
    if (earlier.generation < cluster->generation || earlier.thread == current->number) return true;
    return clock_of(*current)[earlier.thread] >= earlier.clock;
}

// The current block ends: what others do in its shared memory must be known to be over.
void check_end_of_block() {
    bool under_way = false;
    for (const TmaLoad& load : block->tma) under_way |= load.issuer->home != block;
    std::vector<u32> known(block->visits.size());
    for (const Fiber& fiber : block->fibers)
        if (!known.empty()) join(known, clock_of(fiber));
    for (size_t i = 0; i < known.size(); i++) under_way |= block->visits[i] > known[i];
    if (under_way) fail("a block ends while another of its cluster may still use its shared memory");
}

// ---- memory -------------------------------------------------------------------------------------
Region* find_region(Address a) {
    std::vector<Region>& regions = block->regions;
    auto holds = [a](const Region& r) { return a - r.start < r.bytes; };
    if (block->last_region < regions.size() && holds(regions[block->last_region]))
        return &regions[block->last_region];
    for (size_t i = 0; i < regions.size(); i++)
        if (holds(regions[i])) {
            block->last_region = i;
            return &regions[i];
        }
    return nullptr;
}

// For the few functions that work on shared memory alone; without the checker, true.
bool is_shared(const void* p) {
    if (!cluster->launch->check) return true;
    const Region* region = find_region((Address)p);
    return region && region->shared;
}

void set_flag(const void* p, u64 bytes, CellFlag flag, bool on) {
    Region* region = cluster->launch->check ? find_region((Address)p) : nullptr;
    if (!region) return;
    const u64 start = (Address)p - region->start, end = std::min(start + bytes, region->bytes);
    for (u64 i = start >> region->cell_shift; i << region->cell_shift < end; i++) {
        uint8_t& flags = region->cells[i].flags;
        flags = on ? flags | flag : flags & ~flag;
    }
}

// A read of shared memory by wgmma or TMA: what threads wrote they must have fenced since.
void check_async_read(const char* what, const void* p, u64 bytes, void* pc) {
    if (!cluster->launch->check) return;
    check_access((Address)p, bytes, READ, pc);
    const Region& region = *find_region((Address)p);
    const u64 start = (Address)p - region.start;
    for (u64 i = start >> region.cell_shift; i << region.cell_shift < start + bytes; i++) {
        const Cell& cell = region.cells[i];
        const int writer = cell.write.thread % cluster->threads;  // stores are to a block's own
        if (!(cell.flags & ASYNC_PROXY) && cell.proxy_fences == block->fibers[writer].proxy_fences)
            fail("%s at " PC_FORMAT " reads %s+%llu, written by thread %d without a following fence.proxy.async",
                 what, relative_pc(pc), region.name, (unsigned long long)region.offset((Address)p), writer);
    }
}

// ---- reports ------------------------------------------------------------------------------------
static const char* name(Kind kind) { return kind == READ ? "read" : kind == WRITE ? "write" : "atomic"; }

[[noreturn]] static void report_out_of_bounds(Address a, u64 bytes, Kind kind, void* pc) {
    const Region* nearest = nullptr;
    u64 distance = 1 << 16;  // farther than this tells nothing
    for (const Region& r : block->regions) {
        const u64 away = a < r.start ? r.start - a : a < r.start + r.bytes ? 0 : a - r.start - r.bytes;
        if (away < distance) nearest = &r, distance = away;
    }
    if (!nearest)
        fail("out-of-bounds %s of %llu bytes at " PC_FORMAT ": the address is in no known buffer", name(kind),
             (unsigned long long)bytes, relative_pc(pc));
    fail("out-of-bounds %s of %llu bytes at " PC_FORMAT ": byte %lld of %s, which has %llu bytes", name(kind),
         (unsigned long long)bytes, relative_pc(pc), (long long)(a - nearest->start), nearest->name,
         (unsigned long long)nearest->bytes);
}

[[noreturn]] static void report_race(const Region& r, Address a, Kind kind, void* pc, const Access& other) {
    const bool same_block = of_this_cluster(other) && other.thread / cluster->threads == current->home->rank;
    fail("data race on %s+%llu: %s at " PC_FORMAT " conflicts with %s at " PC_FORMAT " by %s %d", r.name,
         (unsigned long long)r.offset(a), name(kind), relative_pc(pc), name(other.kind), other.pc,
         same_block ? "thread" : "another block, thread", other.thread % cluster->threads);
}

// ---- the check ----------------------------------------------------------------------------------
static bool conflicts(const Region& region, const Access& earlier, const Access& now) {
    if (!earlier.generation || !(earlier.bytes & now.bytes)) return false;
    if (earlier.kind == ATOMIC && now.kind == ATOMIC) return false;
    return !is_ordered(region, earlier);
}

static void check_cell(const Region& r, Cell& cell, const Access& now, Address a, void* pc, bool lands) {
    if (cell.flags & IGNORED) return;
    if (cell.flags & PENDING && of_this_cluster(cell.write) && !lands)
        fail("%s of %s+%llu at " PC_FORMAT " while the asynchronous copy into it (" PC_FORMAT
             ", thread %d) has not been waited for",
             name(now.kind), r.name, (unsigned long long)r.offset(a), now.pc, cell.write.pc,
             cell.write.thread % cluster->threads);
    if (conflicts(r, cell.write, now)) report_race(r, a, now.kind, pc, cell.write);
    if (now.kind == READ) {
        if (r.shared && !of_this_cluster(cell.write))
            fail("read of uninitialised %s+%llu at " PC_FORMAT, r.name, (unsigned long long)r.offset(a),
                 now.pc);
        const Access& first = cell.reads[0];
        const bool replace = first.thread == now.thread || is_ordered(r, first);
        cell.reads[replace ? 0 : 1] = now;
        return;
    }
    for (const Access& read : cell.reads)
        if (conflicts(r, read, now)) report_race(r, a, now.kind, pc, read);
    cell.write = now;
    cell.reads[0] = cell.reads[1] = Access();
    cell.proxy_fences = current->proxy_fences;
    cell.flags = 0;
}

// `lands`: an asynchronous copy that completes, into cells marked as pending.
void check_access(Address a, u64 bytes, Kind kind, void* pc, bool lands) {
    if (!current || !cluster->launch->check) return;
    if (a - (Address)current->stack < STACK_BYTES) return;  // its own local memory
    const Region* region = find_region(a);
    if (!region) {
        if (a - cluster->library_start < cluster->library_end - cluster->library_start) return;  // __constant__
        if (a - (Address)block->stacks < cluster->threads * STACK_BYTES)
            fail("%s of another thread's local memory at " PC_FORMAT, name(kind), relative_pc(pc));
        report_out_of_bounds(a, bytes, kind, pc);
    }
    const Region& r = *region;
    if (a + bytes > r.start + r.bytes) report_out_of_bounds(a, bytes, kind, pc);
    const bool power_of_two = bytes <= 16 && !(bytes & (bytes - 1));
    if (power_of_two && a & (bytes - 1))
        fail("misaligned %s of %d bytes at " PC_FORMAT ": %s+%llu", name(kind), (int)bytes, relative_pc(pc),
             r.name, (unsigned long long)r.offset(a));
    if (!r.shared && !current->waited)
        fail("%s of %s+%llu at " PC_FORMAT " before the wait for the kernels before", name(kind), r.name,
             (unsigned long long)r.offset(a), relative_pc(pc));
    if (kind != READ && r.read_only)
        fail("write to read-only buffer %s at " PC_FORMAT, r.name, relative_pc(pc));
    cluster->stats[ACCESSES]++;

    Access now;
    now.generation = cluster->generation;
    now.clock = clock_of(*current)[current->number];
    now.pc = relative_pc(pc);
    now.thread = (uint16_t)current->number;
    now.kind = kind;
    const u32 shift = r.cell_shift, size = 1u << shift;
    const u64 start = a - r.start, end = start + bytes;
    for (u64 i = start >> shift; i << shift < end; i++) {
        const u64 first = i << shift;  // byte of the cell
        const u32 from = start > first ? (u32)(start - first) : 0, to = (u32)std::min<u64>(end - first, size);
        now.bytes = (uint8_t)((1u << to) - (1u << from));
        check_cell(r, r.cells[i], now, a, pc, lands);
    }
}

}  // namespace emu
