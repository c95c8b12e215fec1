// cp.async, mbarriers and TMA: bytes are read when the copy is issued, and land when the program
// waits for them (cp.async) or when nothing else can run (TMA loads); a TMA store happens when its
// thread waits for it. So a missing wait shows.
#include <algorithm>

#include "state.h"

namespace emu {

// ---- mbarriers ----------------------------------------------------------------------------------
static Mbarrier& mbarrier_at(u64* bar) {
    auto found = block->mbarriers.find(bar);
    if (found == block->mbarriers.end()) fail("use of an mbarrier that was not initialised");
    return found->second;
}

// The block whose mbarrier the current thread is about to use: its own, or another of the cluster.
static Block* visited(u32 rank, u64* bar) {
    if (rank == (u32)current->home->rank) return current->home;
    if (rank >= cluster->blocks.size())
        fail("the cluster has %zu blocks, none of rank %u", cluster->blocks.size(), rank);
    Block* other = cluster->blocks[rank].get();
    if (!other->alive) fail("use of the shared memory of block %u of the cluster, which has ended", rank);
    if (!other->mbarriers.count(bar)) fail("block %u of the cluster has not initialised the mbarrier", rank);
    if (!cluster->clocks.empty()) other->visits[current->number] = clock_of(*current)[current->number];
    return other;
}

static void end_phase_if_complete(Mbarrier& m) {
    if (m.pending || m.bytes_due) return;
    m.phase ^= 1;
    m.pending = m.count;
}

// ---- TMA ----------------------------------------------------------------------------------------
// What tensor_map.py put in the 128 bytes of a tensor map.
struct TensorMapFields {
    u32 magic;
    uint8_t itemsize, rank, swizzle, im2col;
    u64 base;
    u32 dims[5], padding;
    u64 strides[5];
    uint16_t box[5];
    int8_t lower[3], upper[3];
    uint16_t channels, pixels;
    uint8_t steps[3];  // from pixel to pixel along W, H
};
static_assert(sizeof(TensorMapFields) <= 128, "a tensor map has 128 bytes");
constexpr u32 TENSOR_MAP_MAGIC = 0x544d4150;

// Swizzle `mode` 1, 2, 3 (32, 64, 128 bytes) exchanges 16-byte chunks within rows of that width.
u32 swizzled(u32 offset, int mode) {
    const u32 chunk_bits = (1u << mode) - 1;
    return offset ^ (offset >> 7 & chunk_bits) << 4;
}

class TmaWalk {  // visits the addresses of one copy's elements, in order; outside the tensor they are 0
public:
    explicit TmaWalk(const TensorMapFields& map) : map(map) {}

    template <class Visit> void tile(const int* coords, Visit visit) const {
        u64 elements = 1;
        for (int d = 0; d < map.rank; d++) elements *= map.box[d];
        for (u64 i = 0; i < elements; i++) {
            long at[5];
            u64 rest = i;
            for (int d = 0; d < map.rank; d++) {
                at[d] = coords[d] + (long)(rest % map.box[d]);
                rest /= map.box[d];
            }
            visit(address(at));
        }
    }

    // 4D, dims C W H N: walks the pixels of the bounding box, W fastest, then H, then N.
    template <class Visit> void im2col(const int* coords, const int* offsets, Visit visit) const {
        long w = coords[1], h = coords[2], n = coords[3];
        const long w_end = (long)map.dims[1] + map.upper[0], h_end = (long)map.dims[2] + map.upper[1];
        for (int pixel = 0; pixel < map.pixels; pixel++) {
            for (int c = 0; c < map.channels; c++) {
                const long at[5] = {coords[0] + c, w + offsets[0], h + offsets[1], n};
                visit(address(at));
            }
            if ((w += map.steps[0]) < w_end) continue;
            w = map.lower[0];
            if ((h += map.steps[1]) < h_end) continue;
            h = map.lower[1];
            n++;
        }
    }

private:
    Address address(const long* at) const {
        Address address = map.base;
        for (int d = 0; d < map.rank; d++) {
            if (at[d] < 0 || at[d] >= (long)map.dims[d]) return 0;
            address += at[d] * map.strides[d];
        }
        return address;
    }

    const TensorMapFields& map;
};

static const TensorMapFields& fields_of(const void* map, const void* shared, bool im2col, void* pc) {
    const TensorMapFields& m = *(const TensorMapFields*)map;
    if (m.magic != TENSOR_MAP_MAGIC) fail("not a tensor map at " PC_FORMAT, relative_pc(pc));
    if ((Address)shared & 127) fail("TMA's shared address is not 128-byte aligned at " PC_FORMAT, relative_pc(pc));
    if (im2col != (bool)m.im2col)
        fail("tile or im2col mode differs from the tensor map's at " PC_FORMAT, relative_pc(pc));
    const u32 row_bytes = (m.im2col ? m.channels : m.box[0]) * m.itemsize;
    if (m.swizzle && row_bytes > 16u << m.swizzle)
        fail("TMA inner box of %u bytes exceeds the swizzle span", row_bytes);
    return m;
}

static u64 bytes_of(const TensorMapFields& m) {
    u64 bytes = m.itemsize;
    if (m.im2col) return bytes * m.channels * m.pixels;
    for (int d = 0; d < m.rank; d++) bytes *= m.box[d];
    return bytes;
}

static void store(const TmaStore& s) {
    const TensorMapFields& m = *(const TensorMapFields*)s.map;
    check_access((Address)s.src, bytes_of(m), READ, s.pc);
    const u32 base = emu_shared_address(s.src);
    u32 i = 0;
    auto put = [&](Address to) {
        const u32 from = swizzled(base + i, m.swizzle) - base;
        i += m.itemsize;
        if (!to) return;
        check_access(to, m.itemsize, WRITE, s.pc);
        memcpy((void*)to, (const char*)s.src + from, m.itemsize);
    };
    TmaWalk(m).tile(s.coords, put);
}

void land_tma(size_t i) {
    TmaLoad load = std::move(block->tma[i]);
    block->tma.erase(block->tma.begin() + (long)i);
    current = load.issuer;  // the checker attributes the write to it
    const u64 bytes = load.data.size();
    check_access((Address)load.dst, bytes, WRITE, load.pc, true);
    set_flag(load.dst, bytes, ASYNC_PROXY, true);
    memcpy(load.dst, load.data.data(), bytes);
    Mbarrier& m = mbarrier_at(load.bar);
    m.bytes_due -= (long)bytes;
    if (!m.clock.empty()) {
        const int issuer = current->number;
        u32& now = clock_of(*current)[issuer];
        m.clock[issuer] = std::max(m.clock[issuer], now);
        if (current->home != block) block->visits[issuer] = now;
        now++;
    }
    end_phase_if_complete(m);
    current = nullptr;
}

}  // namespace emu

using namespace emu;

extern "C" {
uint32_t emu_shared_address(const void* p) {
    const u64 offset = (u64)((char*)p - cluster->dynamic_shared);
    if (offset >= cluster->launch->dynamic_capacity)
        fail("a 32-bit shared address is only known for dynamic shared memory");
    return (u32)offset;
}

// ---- cp.async -----------------------------------------------------------------------------------
void emu_cp_async(void* dst, const void* src, int bytes, int src_bytes) {
    void* pc = CALLER_PC;
    if (src_bytes < 0 || src_bytes > bytes)
        fail("cp.async at " PC_FORMAT ": source size %d of %d bytes", relative_pc(pc), src_bytes, bytes);
    if ((Address)dst % bytes || (src_bytes && (Address)src % bytes))
        fail("misaligned cp.async of %d bytes at " PC_FORMAT, bytes, relative_pc(pc));
    if (!is_shared(dst)) fail("cp.async destination is not in shared memory at " PC_FORMAT, relative_pc(pc));
    if (src_bytes) check_access((Address)src, src_bytes, READ, pc);
    check_access((Address)dst, bytes, WRITE, pc);
    set_flag(dst, bytes, PENDING, true);
    CpAsync copy{current->copy_group, dst, bytes, {}, pc};  // bytes after src_bytes are 0
    memcpy(copy.data, src, src_bytes);
    current->copies.push_back(copy);
}

void emu_cp_async_commit() { current->copy_group++; }

void emu_cp_async_wait(int groups) {
    std::deque<CpAsync>& copies = current->copies;
    while (!copies.empty() && copies.front().group < current->copy_group - groups) {
        const CpAsync& copy = copies.front();
        check_access((Address)copy.dst, copy.bytes, WRITE, copy.pc, true);
        memcpy(copy.dst, copy.data, copy.bytes);
        copies.pop_front();
    }
}

// ---- mbarriers ----------------------------------------------------------------------------------
void emu_mbarrier_init(uint64_t* bar, uint32_t count, int) {
    check_access((Address)bar, 8, WRITE, CALLER_PC);
    Mbarrier m;
    m.count = m.pending = (int)count;
    m.clock.assign(cluster->clocks.empty() ? 0 : cluster->all_threads(), 0);
    block->mbarriers[bar] = m;
}

static void arrive(uint64_t* bar, uint32_t expect_bytes, int line, void* pc) {
    check_access((Address)bar, 8, ATOMIC, pc);
    Mbarrier& m = mbarrier_at(bar);
    m.bytes_due += expect_bytes;
    if (m.pending == 0)
        fail("mbarrier (line %d): more arrivals than its count %d in one phase", line, m.count);
    if (!m.clock.empty()) {
        u32* mine = clock_of(*current);
        join(m.clock, mine);
        mine[current->number]++;
    }
    m.pending--;
    end_phase_if_complete(m);
}

void emu_mbarrier_arrive(uint64_t* bar, uint32_t expect_bytes, int line) {
    arrive(bar, expect_bytes, line, CALLER_PC);
}

// A shared::cluster address: the block's rank above the address in its own window.
constexpr u32 RANK_SHIFT = 24;

uint32_t emu_cluster_map(const void* p, uint32_t rank) {
    if (rank >= cluster->blocks.size())
        fail("mapa: the cluster has %zu blocks, none of rank %u", cluster->blocks.size(), rank);
    return rank << RANK_SHIFT | emu_shared_address(p);
}

void emu_mbarrier_arrive_cluster(uint32_t address, int line) {
    u64* bar = (u64*)(cluster->dynamic_shared + (address & ((1u << RANK_SHIFT) - 1)));
    block = visited(address >> RANK_SHIFT, bar);
    arrive(bar, 0, line, CALLER_PC);
    block = current->home;
}

void emu_mbarrier_wait(uint64_t* bar, uint32_t parity, int line) {
    check_access((Address)bar, 8, ATOMIC, CALLER_PC);
    parity &= 1;
    if (mbarrier_at(bar).phase == parity) {
        current->mbarrier = bar;
        current->parity = parity;
        block->polling.push_back(current->id);
        wait_here("mbarrier wait", line);
    }
    const Mbarrier& m = mbarrier_at(bar);
    u32* mine = m.clock.empty() ? nullptr : clock_of(*current);
    for (size_t i = 0; i < m.clock.size(); i++) mine[i] = std::max(mine[i], m.clock[i]);
}

// ---- TMA ----------------------------------------------------------------------------------------
void emu_tma_load(void* dst, const void* map, uint64_t* bar, const int* coords, const int* offsets,
                  uint32_t blocks) {
    void* pc = CALLER_PC;
    const TensorMapFields& m = fields_of(map, dst, offsets != nullptr, pc);
    std::vector<unsigned char> rows;
    rows.reserve(bytes_of(m));
    auto take = [&](Address from) {
        rows.resize(rows.size() + m.itemsize);
        if (!from) return;
        check_access(from, m.itemsize, READ, pc);
        memcpy(rows.data() + rows.size() - m.itemsize, (void*)from, m.itemsize);
    };
    if (offsets) TmaWalk(m).im2col(coords, offsets, take);
    else TmaWalk(m).tile(coords, take);
    TmaLoad load{(unsigned char*)dst, {}, bar, current, pc};
    load.data.resize(rows.size());
    const u32 base = emu_shared_address(dst);
    for (u32 i = 0; i < rows.size(); i++) {
        const u32 to = swizzled(base + i, m.swizzle) - base;
        if (to >= rows.size()) fail("TMA destination is not aligned to its swizzle pattern");
        load.data[to] = rows[i];
    }
    if (!blocks) blocks = 1u << block->rank;
    for (u32 rank = 0; rank < 32; rank++) {
        if (!(blocks >> rank & 1)) continue;
        block = visited(rank, bar);
        if (block != current->home) check_access((Address)bar, 8, ATOMIC, pc);
        check_access((Address)dst, rows.size(), WRITE, pc);
        set_flag(dst, rows.size(), PENDING, true);
        block->tma.push_back(load);
    }
    block = current->home;
}

void emu_tma_store(const void* map, const void* src, const int* coords, int rank) {
    void* pc = CALLER_PC;
    const TensorMapFields& m = fields_of(map, src, false, pc);
    check_async_read("TMA store", src, bytes_of(m), pc);
    TmaStore s{current->store_group, map, src, {}, pc};
    memcpy(s.coords, coords, rank * sizeof(int));
    current->stores.push_back(s);
}

void emu_tma_store_commit() { current->store_group++; }

void emu_tma_store_wait(int groups) {
    std::deque<TmaStore>& stores = current->stores;
    while (!stores.empty() && stores.front().group < current->store_group - groups) {
        store(stores.front());
        stores.pop_front();
    }
}

void emu_fence_proxy() { current->proxy_fences++; }
}  // extern "C"
