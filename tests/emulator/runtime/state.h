// The state of a running grid, shared by the parts of the runtime.
//
// A block runs on one operating-system thread. Each of its CUDA threads is a Fiber: a stack and a
// saved stack pointer. The scheduler switches to a fiber, which runs until it must wait for others
// (a barrier, a warp collective, an mbarrier) and switches back. So only one thread of a block runs
// at any moment, nothing here needs locks, and the order of turns is ours to choose.
//
// __shared__ variables are thread_local: the kernel library's thread-local segment is the block's
// shared memory, and several blocks can run at a time on several operating-system threads.
//
// The blocks of a cluster run on one operating-system thread, each as far as it comes. One of them
// is resident: what the others have in shared memory is kept aside meanwhile. So a shared address
// means the same place in each, as it does on a GPU.
#pragma once
#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "include/emu_interface.h"

// Filled in by launch.py, whose ctypes structures mirror these two.
extern "C" {
struct EmuBuffer {
    void* start;
    uint64_t bytes;
    uint32_t itemsize, read_only;
    const char* name;
};
struct EmuLaunch {
    void (*kernel)(void** args);
    void** args;
    void* (*dynamic_shared)();
    void (*touch_shared)();
    uint32_t grid[3], block[3];
    uint64_t dynamic_bytes, dynamic_capacity;  // of this launch, and of the array in the library
    uint64_t seed;
    uint32_t order, check, block_races, threads, dependent;
    uint32_t cluster[3];  // blocks
    double time_limit;  // CPU seconds
    const EmuBuffer* buffers;
    uint64_t buffer_count;
    const uint64_t* guards;  // offsets in the thread-local segment, see symbols.py
    uint64_t guard_count;
    char* error;
    uint64_t error_capacity;
    uint64_t stats[8];
};
}

namespace emu {

using u32 = uint32_t;
using u64 = uint64_t;
using Address = uintptr_t;

constexpr size_t STACK_BYTES = 128 << 10, PAGE_BYTES = 4096;
enum Order : u32 { FORWARD, REVERSE, RANDOM };
enum Stat { WAITS, ACCESSES, BARRIERS, LDMATRIX, LDMATRIX_CONFLICTS, MMA, WGMMA };
enum class State { READY, WAITING, DONE };

// ---- asynchronous work: kept aside and done at the last moment that the program allows ----------
struct CpAsync {
    int group;
    void* dst;
    int bytes;
    unsigned char data[16];
    void* pc;
};
struct Wgmma {
    int kind, n, scale_d, trans_a, trans_b;
    u64 a, b;
    float* d[128];  // each thread's accumulators
    bool done = false;
};
struct TmaLoad {
    unsigned char* dst;
    std::vector<unsigned char> data;
    u64* bar;
    struct Fiber* issuer;  // of any block of the cluster
    void* pc;
};
struct TmaStore {
    int group;
    const void *map, *src;
    int coords[4];
    void* pc;
};
struct Mbarrier {
    int count = 0, pending = 0;
    long bytes_due = 0;
    u32 phase = 0;
    std::vector<u32> clock;  // joined clocks of the threads that arrived
};

struct Barrier {  // __syncthreads is number 0, with threads = 0: all
    int arrived, threads, votes, line, first_thread;
};

// ---- a CUDA thread ------------------------------------------------------------------------------
struct Fiber {
    void* stack_pointer;
    char* stack;
    uint3 index;
    struct Block* home;
    int id;      // linear index in the block
    int number;  // and in the cluster
    State state;

    const char* what;  // why it waits, and where in the source
    int line;
    int group_first, group_size;  // the threads it meets (group_first < 0: none) ...
    u32 mask;                     // ... of which only these, if they are one warp
    void* payload;                // what it brings to the meeting
    int barrier;        // the one it waits at, or -1
    int votes, voters;  // what the last barrier counted
    u64* mbarrier;
    u32 parity;
    int cluster_phases;      // of the cluster's barrier, up to that for which it has arrived and not waited; or 0
    bool waits_for_cluster;  // to end

    bool waited;  // for the kernels before, in a dependent launch
    u32 proxy_fences;
    std::deque<CpAsync> copies;
    int copy_group;
    std::deque<TmaStore> stores;
    int store_group;
    std::deque<std::pair<int, std::shared_ptr<Wgmma>>> wgmmas;
    int wgmma_group;
    void* asan_stack;
};

// ---- the checker's shadow memory ----------------------------------------------------------------
enum Kind : uint8_t { READ, WRITE, ATOMIC };
struct Access {  // by whom and when; generation 0: never
    u32 generation = 0, clock = 0, pc = 0;
    uint16_t thread = 0;
    uint8_t bytes = 0;  // of the cell, as bits
    Kind kind = READ;
};
enum CellFlag : uint8_t { PENDING = 1, ASYNC_PROXY = 2, IGNORED = 4 };  // copied into; written by TMA
struct Cell {  // 1, 2 or 4 bytes of memory
    Access write, reads[2];
    u32 proxy_fences = 0;  // the writer's count when it wrote
    uint8_t flags = 0;
};
struct Region {  // memory that the kernel may touch
    Address start;
    u64 bytes, name_offset;
    u32 cell_shift;  // a cell is 1 << cell_shift bytes
    bool shared, read_only;
    const char* name;
    Cell* cells;
    u64 offset(Address a) const { return a - start + name_offset; }
};

// ---- a block, its cluster, and the thread that works through a grid's clusters ------------------
struct Block {
    uint3 index;
    int rank;  // in the cluster
    int alive = 0;
    std::vector<Fiber> fibers;
    char* stacks;
    const int stack_count;
    std::vector<char> shared;  // what it has in shared memory while another block is resident

    std::vector<int> ready;  // fibers whose turn comes, from ready[ready_head] on
    size_t ready_head = 0;
    std::vector<int> polling;  // fibers that wait for an mbarrier

    Barrier barriers[16] = {};
    std::map<u64*, Mbarrier> mbarriers;
    std::deque<TmaLoad> tma;  // into its shared memory
    std::vector<u32> visits;  // when each thread of the cluster's other blocks last did something there; with the checker

    std::vector<Region> regions;
    size_t last_region = 0;
    std::vector<Cell> shared_cells;

    explicit Block(int stack_count);
    ~Block();
};

struct Cluster {  // mostly of one block
    const EmuLaunch* launch;
    uint3 size, grid;  // of a block, and of all
    int threads = 0;   // of a block
    std::vector<std::unique_ptr<Block>> blocks;
    Block* resident = nullptr;

    void* main_stack_pointer = nullptr;
    u64 random = 1;
    bool in_fiber = false, failed = false;
    std::string error;
    sigjmp_buf escape;

    int barrier_arrived = 0, barrier_phases = 0;  // barrier.cluster: threads, and phases that have ended
    std::vector<u32> barrier_clock, barrier_passed;  // of this phase and of the one before

    Address library_start = 0, library_end = 0;
    char* dynamic_shared = nullptr;
    std::vector<std::pair<char*, size_t>> shared_memory;  // its pieces
    // A generation ends at every __syncthreads of a block that is alone in its cluster. Accesses of
    // older generations of the cluster are ordered; within one, the vector clocks decide
    // (clocks[t * all_threads() + u]: what t knows of u).
    u32 generation = 1, cluster_generation = 1, launch_generation = 1;
    std::vector<u32> clocks;
    u64 stats[8] = {};

    void* asan_stack;
    const void* asan_main_stack;
    size_t asan_main_bytes;

    int all_threads() const { return threads * (int)blocks.size(); }
};

// __thread, not thread_local: no initialisation wrapper around every use.
#define EMU_THREAD_LOCAL __thread __attribute__((tls_model("initial-exec")))
extern EMU_THREAD_LOCAL Cluster* cluster;  // of this operating-system thread
extern EMU_THREAD_LOCAL Block* block;      // whose shared memory and barriers are meant: that of ...
extern EMU_THREAD_LOCAL Fiber* current;    // ... the CUDA thread at work; null between turns

struct Failed {};  // thrown by the scheduler's own code; a fiber switches away instead

// fibers.cpp
void start_fiber(Fiber& fiber);
void switch_to(Fiber& fiber);
void switch_to_scheduler(bool for_ever = false);

// scheduler.cpp
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void make_ready(Fiber& fiber);
void wait_here(const char* what, int line);
void run_cluster(u64 first_block);
void catch_signals(bool install, double time_limit = 0);

// collectives.cpp
void open_barrier(int id);
bool cluster_barrier_is_complete();
void open_cluster_barrier();

// checker.cpp
void check_access(Address a, u64 bytes, Kind kind, void* pc, bool lands = false);
void check_async_read(const char* what, const void* p, u64 bytes, void* pc);
void set_flag(const void* p, u64 bytes, CellFlag flag, bool on);
Region* find_region(Address a);
bool is_shared(const void* p);
u32* clock_of(const Fiber& fiber);
void join(std::vector<u32>& into, const u32* from);
void check_end_of_block();
void join_clocks(const std::vector<Fiber*>& fibers);

// async_copies.cpp
void land_tma(size_t i);

// numerics.cpp
float to_float(int kind, u32 bits);

// In messages, PC_FORMAT with relative_pc(pc): launch.py replaces it by file:line.
#define PC_FORMAT "<pc:%x>"
#define CALLER_PC ((char*)__builtin_return_address(0) - 1)
inline u32 relative_pc(void* pc) { return (u32)((Address)pc - cluster->library_start); }

}  // namespace emu
