// The entry point: works through a grid's clusters, mostly of one block, on one or more
// operating-system threads.
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <link.h>
#include <mutex>
#include <sys/mman.h>
#include <thread>

#include "state.h"

namespace emu {

// ---- the kernel library in memory ---------------------------------------------------------------
struct Library {
    Address inside;  // an address in it, to find it by
    Address start = 0, end = 0;
    char* tls = nullptr;  // this thread's copy of its thread-local segment
    size_t tls_bytes = 0;
};

static int visit_library(dl_phdr_info* info, size_t, void* data) {
    Library& found = *(Library*)data;
    Library lib = found;
    lib.start = ~(Address)0;
    bool holds = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const auto& segment = info->dlpi_phdr[i];
        const Address start = info->dlpi_addr + segment.p_vaddr, end = start + segment.p_memsz;
        if (segment.p_type == PT_LOAD) {
            holds |= found.inside >= start && found.inside < end;
            lib.start = std::min(lib.start, start);
            lib.end = std::max(lib.end, end);
        } else if (segment.p_type == PT_TLS) {
            lib.tls = (char*)info->dlpi_tls_data;
            lib.tls_bytes = segment.p_memsz;
        }
    }
    if (!holds) return 0;
    found = lib;
    return 1;
}

// ---- a block's stacks ---------------------------------------------------------------------------
Block::Block(int stack_count) : stack_count(stack_count) {
    stacks = (char*)mmap(nullptr, stack_count * STACK_BYTES, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    for (int i = 0; i < stack_count; i++)  // a guard page below each
        mprotect(stacks + i * STACK_BYTES, PAGE_BYTES, PROT_NONE);
}

Block::~Block() { munmap(stacks, stack_count * STACK_BYTES); }

// ---- a thread that works through clusters -------------------------------------------------------
struct Grid {
    explicit Grid(const EmuLaunch& launch)
        : launch(launch), clusters((u64)launch.grid[0] / launch.cluster[0] * launch.grid[1] * launch.grid[2]) {}
    const EmuLaunch& launch;
    const u64 clusters;
    std::atomic<u64> next{0};
    std::atomic<bool> stop{false};
    std::mutex mutex;
    std::string error;
};

class Worker {
public:
    Worker() = default;
    Worker(const Worker&) = delete;

    void run(Grid& grid) {
        const EmuLaunch& launch = grid.launch;
        cluster = &c;
        c.launch = &launch;
        c.failed = false;
        c.size = {launch.block[0], launch.block[1], launch.block[2]};
        c.grid = {launch.grid[0], launch.grid[1], launch.grid[2]};
        memset(c.stats, 0, sizeof c.stats);
        resize((int)(c.size.x * c.size.y * c.size.z), launch.cluster[0]);
        find_memory();

        std::vector<char> signal_stack(64 << 10);
        stack_t alternate{}, before;
        alternate.ss_sp = signal_stack.data();
        alternate.ss_size = signal_stack.size();
        sigaltstack(&alternate, &before);
        for (u64 i; !grid.stop && (i = grid.next++) < grid.clusters;) {
            if (launch.order == REVERSE) i = grid.clusters - 1 - i;
            c.random = ((launch.seed + 1) * 0x9e3779b97f4a7c15ull ^ (i * 0xbf58476d1ce4e5b9ull + 1)) | 1;
            run_cluster(i * launch.cluster[0]);
            if (!c.failed) continue;
            std::lock_guard<std::mutex> guard(grid.mutex);
            if (grid.error.empty()) grid.error = c.error;
            grid.stop = true;
        }
        sigaltstack(&before, nullptr);
        cluster = nullptr;
    }

    const u64* stats() const { return c.stats; }

private:
    void resize(int threads, size_t blocks) {
        if (c.threads == threads && c.blocks.size() == blocks) return;
        c.threads = threads;
        c.clocks.clear();
        c.blocks.resize(blocks);
        for (size_t rank = 0; rank < blocks; rank++) {
            std::unique_ptr<Block>& b = c.blocks[rank];
            if (!b || b->stack_count < threads) b = std::make_unique<Block>(threads);
            b->rank = (int)rank;
            b->fibers.resize(threads);
        }
    }

    // The pieces of shared memory; with the checker, also the regions that the kernel may touch.
    void find_memory() {
        const EmuLaunch& launch = *c.launch;
        launch.touch_shared();  // makes this thread's segment exist
        Library lib;
        lib.inside = (Address)launch.kernel;
        dl_iterate_phdr(visit_library, &lib);
        c.library_start = lib.start;
        c.library_end = lib.end;
        c.dynamic_shared = (char*)launch.dynamic_shared();

        // The dynamic array lies somewhere in the segment, longer than this launch asked for.
        auto& pieces = c.shared_memory;
        pieces.clear();
        char* const tls_end = lib.tls + lib.tls_bytes;
        if (c.dynamic_shared) {
            char* const after = c.dynamic_shared + launch.dynamic_capacity;
            pieces.emplace_back(c.dynamic_shared, launch.dynamic_bytes);
            pieces.emplace_back(lib.tls, c.dynamic_shared - lib.tls);
            pieces.emplace_back(after, tls_end - after);
        } else {
            pieces.emplace_back(lib.tls, lib.tls_bytes);
        }
        c.launch_generation = ++c.generation;
        for (const auto& b : c.blocks) {
            b->regions.clear();
            b->last_region = 0;
            size_t bytes = 0;
            for (const auto& piece : pieces) bytes += piece.second;
            b->shared.resize(c.blocks.size() > 1 ? bytes : 0);
        }
        if (!launch.check) return;

        const size_t all = (size_t)c.all_threads();
        if (c.clocks.empty()) {
            c.clocks.assign(all * all, 0);
            for (size_t i = 0; i < all; i++) c.clocks[i * all + i] = 1;
        }
        global_cells.assign(launch.buffer_count, {});
        for (const auto& b : c.blocks) add_regions(*b, lib);
    }

    void add_regions(Block& b, const Library& lib) {
        const EmuLaunch& launch = *c.launch;
        constexpr u32 SHARED_SHIFT = 1, SHARED_CELL = 1 << SHARED_SHIFT;
        constexpr u64 GUARD_BYTES = 8;
        b.shared_cells.assign(lib.tls_bytes / SHARED_CELL + 1, {});
        for (u64 i = 0; i < launch.guard_count; i++)
            for (u64 byte = 0; byte < GUARD_BYTES; byte += SHARED_CELL)
                b.shared_cells[(launch.guards[i] + byte) / SHARED_CELL].flags = IGNORED;
        for (auto [start, bytes] : c.shared_memory) {
            const bool dynamic = start == c.dynamic_shared;
            const u64 offset = (u64)(start - lib.tls);
            b.regions.push_back({(Address)start, bytes, dynamic ? 0 : offset, SHARED_SHIFT, true, false,
                                 dynamic ? "dynamic shared memory" : "static shared memory",
                                 b.shared_cells.data() + offset / SHARED_CELL});
        }
        for (u64 i = 0; i < launch.buffer_count; i++) {
            const EmuBuffer& buffer = launch.buffers[i];
            const u32 shift = buffer.itemsize >= 4 ? 2 : buffer.itemsize >= 2 ? 1 : 0;
            global_cells[i].resize((buffer.bytes >> shift) + 1);
            b.regions.push_back({(Address)buffer.start, buffer.bytes, 0, shift, false, buffer.read_only != 0,
                                 buffer.name, global_cells[i].data()});
        }
    }

    Cluster c;
    std::vector<std::vector<Cell>> global_cells;
};

static const char* invalid(const EmuLaunch& launch) {
    const u64 threads = (u64)launch.block[0] * launch.block[1] * launch.block[2];
    const bool grid_fits = launch.grid[0] <= 0x7fffffff && launch.grid[1] <= 65535 && launch.grid[2] <= 65535;
    if (!threads || threads > 1024 || launch.block[2] > 64) return "invalid block size";
    if (!launch.grid[0] || !launch.grid[1] || !launch.grid[2] || !grid_fits) return "invalid grid size";
    const uint32_t* cluster = launch.cluster;
    if (!cluster[0] || cluster[0] > 8 || cluster[1] != 1 || cluster[2] != 1)
        return "the emulator's clusters have 1 to 8 blocks, side by side in x";
    if (launch.grid[0] % cluster[0]) return "the grid is no multiple of the cluster";
    if (launch.dynamic_bytes > launch.dynamic_capacity)
        return "too much dynamic shared memory, or the kernel file declares none";
    return nullptr;
}

}  // namespace emu

using namespace emu;

extern "C" __attribute__((visibility("default"))) int emu_launch(EmuLaunch* launch) {
    static thread_local Worker main_worker;
    static std::mutex one_launch;  // signal handlers and the timer are the process's
    const std::lock_guard<std::mutex> guard(one_launch);
    Grid grid(*launch);
    if (const char* reason = invalid(*launch)) {
        grid.error = reason;
    } else {
        catch_signals(true, launch->time_limit);
        const u64 wanted = launch->check || !launch->threads ? 1 : launch->threads;
        std::vector<std::thread> threads;
        for (u64 i = 1; i < std::min(wanted, grid.clusters); i++)
            threads.emplace_back([&grid] { Worker().run(grid); });
        main_worker.run(grid);
        for (std::thread& thread : threads) thread.join();
        catch_signals(false);
        memcpy(launch->stats, main_worker.stats(), sizeof launch->stats);
    }
    snprintf(launch->error, launch->error_capacity, "%s", grid.error.c_str());
    return !grid.error.empty();
}
