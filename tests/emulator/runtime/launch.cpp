// The entry point: works through a grid's blocks on one or more operating-system threads.
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

// ---- a thread that works through blocks ---------------------------------------------------------
struct Grid {
    explicit Grid(const EmuLaunch& launch)
        : launch(launch), blocks((u64)launch.grid[0] * launch.grid[1] * launch.grid[2]) {}
    const EmuLaunch& launch;
    const u64 blocks;
    std::atomic<u64> next{0};
    std::atomic<bool> stop{false};
    std::mutex mutex;
    std::string error;
};

class Worker {
public:
    Worker() = default;
    Worker(const Worker&) = delete;
    ~Worker() {
        if (b.stacks) munmap(b.stacks, stack_count * STACK_BYTES);
    }

    void run(Grid& grid) {
        const EmuLaunch& launch = grid.launch;
        block = &b;
        b.launch = &launch;
        b.failed = false;
        b.size = {launch.block[0], launch.block[1], launch.block[2]};
        b.grid = {launch.grid[0], launch.grid[1], launch.grid[2]};
        memset(b.stats, 0, sizeof b.stats);
        resize((int)(b.size.x * b.size.y * b.size.z));
        const auto shared_memory = find_memory();

        std::vector<char> signal_stack(64 << 10);
        stack_t alternate{}, before;
        alternate.ss_sp = signal_stack.data();
        alternate.ss_size = signal_stack.size();
        sigaltstack(&alternate, &before);
        for (u64 i; !grid.stop && (i = grid.next++) < grid.blocks;) {
            if (launch.order == REVERSE) i = grid.blocks - 1 - i;
            b.random = ((launch.seed + 1) * 0x9e3779b97f4a7c15ull ^ (i * 0xbf58476d1ce4e5b9ull + 1)) | 1;
            const u64 x = b.grid.x, y = b.grid.y;
            run_block({(u32)(i % x), (u32)(i / x % y), (u32)(i / (x * y))}, shared_memory);
            if (!b.failed) continue;
            std::lock_guard<std::mutex> guard(grid.mutex);
            if (grid.error.empty()) grid.error = b.error;
            grid.stop = true;
        }
        sigaltstack(&before, nullptr);
        block = nullptr;
    }

    const u64* stats() const { return b.stats; }

private:
    void resize(int threads) {
        if ((size_t)threads > stack_count) {
            if (b.stacks) munmap(b.stacks, stack_count * STACK_BYTES);
            stack_count = (size_t)threads;
            b.stacks = (char*)mmap(nullptr, stack_count * STACK_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            for (size_t i = 0; i < stack_count; i++)  // a guard page below each stack
                mprotect(b.stacks + i * STACK_BYTES, PAGE_BYTES, PROT_NONE);
        }
        if (b.threads != threads) {
            b.threads = threads;
            b.fibers.resize(threads);
            b.clocks.clear();
        }
        if (b.launch->check && b.clocks.empty()) {
            b.clocks.assign((size_t)threads * threads, 0);
            for (int i = 0; i < threads; i++) clock_of(i)[i] = 1;
        }
    }

    // The pieces of shared memory; with the checker, also the regions that the kernel may touch.
    std::vector<std::pair<char*, size_t>> find_memory() {
        const EmuLaunch& launch = *b.launch;
        launch.touch_shared();  // makes this thread's segment exist
        Library lib;
        lib.inside = (Address)launch.kernel;
        dl_iterate_phdr(visit_library, &lib);
        b.library_start = lib.start;
        b.library_end = lib.end;
        b.dynamic_shared = (char*)launch.dynamic_shared();

        // The dynamic array lies somewhere in the segment, longer than this launch asked for.
        std::vector<std::pair<char*, size_t>> pieces;
        char* const tls_end = lib.tls + lib.tls_bytes;
        if (b.dynamic_shared) {
            char* const after = b.dynamic_shared + launch.dynamic_capacity;
            pieces.emplace_back(b.dynamic_shared, launch.dynamic_bytes);
            pieces.emplace_back(lib.tls, b.dynamic_shared - lib.tls);
            pieces.emplace_back(after, tls_end - after);
        } else {
            pieces.emplace_back(lib.tls, lib.tls_bytes);
        }
        b.launch_generation = ++b.generation;
        b.regions.clear();
        b.last_region = 0;
        if (!launch.check) return pieces;

        constexpr u32 SHARED_SHIFT = 1, SHARED_CELL = 1 << SHARED_SHIFT;
        constexpr u64 GUARD_BYTES = 8;
        shared_cells.assign(lib.tls_bytes / SHARED_CELL + 1, {});
        for (u64 i = 0; i < launch.guard_count; i++)
            for (u64 byte = 0; byte < GUARD_BYTES; byte += SHARED_CELL)
                shared_cells[(launch.guards[i] + byte) / SHARED_CELL].flags = IGNORED;
        for (auto [start, bytes] : pieces) {
            const bool dynamic = start == b.dynamic_shared;
            const u64 offset = (u64)(start - lib.tls);
            b.regions.push_back({(Address)start, bytes, dynamic ? 0 : offset, SHARED_SHIFT, true, false,
                                 dynamic ? "dynamic shared memory" : "static shared memory",
                                 shared_cells.data() + offset / SHARED_CELL});
        }
        global_cells.assign(launch.buffer_count, {});
        for (u64 i = 0; i < launch.buffer_count; i++) {
            const EmuBuffer& buffer = launch.buffers[i];
            const u32 shift = buffer.itemsize >= 4 ? 2 : buffer.itemsize >= 2 ? 1 : 0;
            global_cells[i].resize((buffer.bytes >> shift) + 1);
            b.regions.push_back({(Address)buffer.start, buffer.bytes, 0, shift, false, buffer.read_only != 0,
                                 buffer.name, global_cells[i].data()});
        }
        return pieces;
    }

    Block b;
    size_t stack_count = 0;
    std::vector<Cell> shared_cells;
    std::vector<std::vector<Cell>> global_cells;
};

static const char* invalid(const EmuLaunch& launch) {
    const u64 threads = (u64)launch.block[0] * launch.block[1] * launch.block[2];
    const bool grid_fits = launch.grid[0] <= 0x7fffffff && launch.grid[1] <= 65535 && launch.grid[2] <= 65535;
    if (!threads || threads > 1024 || launch.block[2] > 64) return "invalid block size";
    if (!launch.grid[0] || !launch.grid[1] || !launch.grid[2] || !grid_fits) return "invalid grid size";
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
        for (u64 i = 1; i < std::min(wanted, grid.blocks); i++)
            threads.emplace_back([&grid] { Worker().run(grid); });
        main_worker.run(grid);
        for (std::thread& thread : threads) thread.join();
        catch_signals(false);
        memcpy(launch->stats, main_worker.stats(), sizeof launch->stats);
    }
    snprintf(launch->error, launch->error_capacity, "%s", grid.error.c_str());
    return !grid.error.empty();
}
