// Which tile of a matrix product a block computes.
//
// Macros: TILE_M, TILE_N.
#pragma once

// TILE_M rows from row0 and TILE_N columns from col0, of one of several products. Blocks that read the same
// rows are neighbours and find them in the cache.
struct BlockTile {
    unsigned product, row0, col0;
};

__device__ __forceinline__ BlockTile block_tile(unsigned products, unsigned columns) {
    const unsigned across = (columns + TILE_N - 1) / TILE_N, rest = blockIdx.x / across;
    return {rest % products, rest / products * TILE_M, blockIdx.x % across * TILE_N};
}
