// How a block on Hopper hands what TMA brings from its producer to its consumers (sm_90a): rings of stages.
//
// The last warp of a block is the producer: one thread of it has TMA fill stages of shared memory. Every other
// warpgroup is a consumer. `full` ends a phase when a stage's bytes are there, `empty` when every warp of those that
// read the stage has done so.
//
// The blocks of a cluster may have an operand in common: the producer of each has TMA bring its share to all of them.
// So nobody refills a stage of a shared ring before the readers in every block have released it, and no block ends
// while another may still arrive at its barriers.
//
// The file that includes this one first says how many CONSUMERS there are, and how many READERS a stage has in a block.
#pragma once
#include "conv_geometry.cuh"
#include "pairs.cuh"

#ifndef CLUSTER
#define CLUSTER 1  // blocks of a cluster
#endif

const int ROW_BYTES = 128;             // 64 elements of 16 bits, 32 floats: as far as the swizzle reaches
const int EIGHT_ROWS = 8 * ROW_BYTES;  // the pattern of the swizzle
const int THREADS = 128 * CONSUMERS + 32;

extern __shared__ __align__(1024) unsigned char smem[];

__device__ __forceinline__ int warpgroup() { return threadIdx.x / 128; }
__device__ __forceinline__ bool is_consumer() { return warpgroup() < CONSUMERS; }
__device__ __forceinline__ bool is_producer() { return threadIdx.x == 128 * CONSUMERS; }

const unsigned ALL_BLOCKS = (1u << CLUSTER) - 1;  // of the cluster, for TMA

// A stage that its warpgroup's multiplications may still be reading: released when they have ended, to all SHARERS,
// each from a lane of its own.
template <int SHARERS = 1> struct Reading {
    uint64_t* empty = nullptr;

    __device__ __forceinline__ void release() {
        const int lane = threadIdx.x % 32;
        if (empty && lane < SHARERS) {
            if (SHARERS > 1)
                mbarrier_arrive_cluster(cluster_map(empty, lane));
            else
                mbarrier_arrive(empty);
        }
        empty = nullptr;
    }
};

// One side's way round the stages of a ring, which so many blocks fill together.
template <int COUNT, int SHARERS = 1> struct Ring {
    uint64_t *full, *empty;  // of each stage
    int stage = 0;
    unsigned parity = 0;

    static const int BYTES = 2 * COUNT * sizeof(uint64_t);
    __device__ __forceinline__ explicit Ring(unsigned char* barriers)
        : full((uint64_t*)barriers), empty(full + COUNT) {}
    // By one thread, before anyone uses it.
    __device__ __forceinline__ void init() const {
        for (int i = 0; i < COUNT; ++i) {
            mbarrier_init(full + i, 1);
            mbarrier_init(empty + i, SHARERS * 4 * READERS);
        }
    }
    // The producer: wait until everyone has read what is in the stage, then announce what will come to this block.
    __device__ __forceinline__ uint64_t* refill(unsigned bytes) const {
        mbarrier_wait(empty + stage, parity ^ 1);
        mbarrier_arrive_expect_tx(full + stage, bytes);
        return full + stage;
    }
    // A consumer: wait until the stage is full.
    __device__ __forceinline__ void await() const { mbarrier_wait(full + stage, parity); }
    __device__ __forceinline__ void next() {
        if (++stage == COUNT) stage = 0, parity ^= 1;
    }
    // A consumer: leave so many stages to others.
    __device__ __forceinline__ void skip(int stages) {
        stage += stages;
        parity ^= stage / COUNT & 1;
        stage %= COUNT;
    }
};

// All threads of the cluster wait for each other.
__device__ __forceinline__ void meet_cluster() {
    if (CLUSTER == 1) return;
    cluster_arrive();
    cluster_wait();
}

// Make the barriers of rings ready, before a block's warps part.
template <class... Rings> __device__ __forceinline__ void start(const Rings&... rings) {
    if (threadIdx.x == 0) {
        (rings.init(), ...);
        fence_mbarrier_init();
    }
    __syncthreads();  // the barriers are ready
    meet_cluster();   // everywhere
}

// The same rows, or 16 channels of them, so many bytes further: a change to what wgmma_desc_sw128 gave.
__device__ __forceinline__ uint64_t further(uint64_t rows, unsigned bytes) { return rows + bytes / 16; }
