"""From a shape to the way it is computed: pure functions, tested without a GPU.

A plan fixes the order of every sum, so the same shape gives the same bits on every call.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...shapes import ConvShape
from .kernel import Axis
from .launch import ceil_div

TILE_K = 16  # as in kernels/tile_gemm.cuh


@dataclass(frozen=True)
class Tile:
    """A block's tile of the implicit GEMM, and the corner of it that one thread computes."""

    m: int
    n: int
    thread_m: int
    thread_n: int

    @property
    def threads(self) -> int:
        return (self.m // self.thread_m) * (self.n // self.thread_n)


WIDE = Tile(128, 64, 8, 4)
NARROW = Tile(64, 16, 2, 2)  # few filters or channels in a group, or a small grid

TILES: Axis = {
    tile: (
        f"{tile.m}x{tile.n}",
        {
            "TILE_M": tile.m,
            "TILE_N": tile.n,
            "THREAD_M": tile.thread_m,
            "THREAD_N": tile.thread_n,
        },
    )
    for tile in (WIDE, NARROW)
}

# Fewer blocks than this leave most of a large GPU idle (an H100 has 132 multiprocessors).
BLOCKS_WANTED = 256
# Pixels that one split of wgrad sums at least: less, and reducing the partials costs more.
PIXELS_PER_SPLIT = 512
# Partial sums of wgrad may take this much memory before splitting stops.
PARTIAL_ELEMENTS = 2**24


@dataclass(frozen=True)
class ConvPlan:
    """How one direction of a convolution runs.

    Attributes:
        tile: the block's tile.
        grid: blocks along x (tiles of GEMM_M times groups), y (tiles of GEMM_N) and z (splits).
        pixels_per_split: wgrad only, how many of the GEMM_K pixels one split sums.
    """

    tile: Tile
    grid: tuple[int, int, int]
    pixels_per_split: int = 0

    @property
    def splits(self) -> int:
        return self.grid[2]


def _tiled(gemm_m: int, gemm_n: int, groups: int) -> tuple[Tile, tuple[int, int]]:
    def grid(tile: Tile) -> tuple[int, int]:
        return ceil_div(gemm_m, tile.m) * groups, ceil_div(gemm_n, tile.n)

    wide = grid(WIDE)
    if gemm_n <= 2 * NARROW.n or wide[0] * wide[1] < BLOCKS_WANTED // 4:
        return NARROW, grid(NARROW)
    return WIDE, wide


def plan_fprop(shape: ConvShape) -> ConvPlan:
    """GEMM_M = output pixels of the batch, GEMM_N = filters of a group."""
    pixels = shape.batch * math.prod(shape.output)
    tile, grid = _tiled(pixels, shape.filters // shape.groups, shape.groups)
    return ConvPlan(tile, (*grid, 1))


def plan_dgrad(shape: ConvShape) -> ConvPlan:
    """GEMM_M = input pixels of the batch, GEMM_N = channels of a group."""
    pixels = shape.batch * math.prod(shape.input)
    tile, grid = _tiled(pixels, shape.channels // shape.groups, shape.groups)
    return ConvPlan(tile, (*grid, 1))


def plan_wgrad(shape: ConvShape) -> ConvPlan:
    """GEMM_M = weights of a filter, GEMM_N = filters of a group, GEMM_K = output pixels, split."""
    weights = shape.taps * (shape.channels // shape.groups)
    pixels = shape.batch * math.prod(shape.output)
    tile, grid = _tiled(weights, shape.filters // shape.groups, shape.groups)
    splits = min(
        ceil_div(BLOCKS_WANTED, grid[0] * grid[1]),
        ceil_div(pixels, PIXELS_PER_SPLIT),
        max(1, PARTIAL_ELEMENTS // (weights * shape.filters)),
    )
    # whole slabs of TILE_K, so that only the last split has a ragged end
    per_split = ceil_div(ceil_div(pixels, splits), TILE_K) * TILE_K
    return ConvPlan(tile, (*grid, ceil_div(pixels, per_split)), per_split)
