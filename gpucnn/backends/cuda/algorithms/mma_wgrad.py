"""The filters' gradient in 16 bits on tensor cores (kernels/conv_wgrad_mma.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...base import Array
from ..geometry import geometry_record
from ..kernel import DTYPE, RANK, Axis, KernelFamily
from ..launch import KernelCaller, aligned, ceil_div
from ..split_sum import split_sum
from .base import BYTES, LAUNCH_US, MULTIPROCESSORS, PARTIAL_ELEMENTS, Algorithm, Plan, Problem
from .tiles import matrix_of

LOOP_PIXELS = 32  # that a block of the kernel sums in one step of its loop
CHUNK = 8  # neighbours that are loaded together
PIXELS_PER_SPLIT = 128  # at least: with less, adding the splits up costs more
WAVES = range(1, 5)  # of blocks on a whole GPU, that splits are made for


@dataclass(frozen=True)
class Tile:
    """A block's tile: m weights of a filter by n filters; a warp's part of it.

    Attributes:
        m, n, warp_m, warp_n: the sizes of both.
        slab: pixels that are loaded at once; stages: how many of them are in shared memory.
        blocks: how many blocks a multiprocessor should hold.
    """

    m: int
    n: int
    warp_m: int
    warp_n: int
    slab: int
    stages: int
    blocks: int

    @property
    def threads(self) -> int:
        return (self.m // self.warp_m) * (self.n // self.warp_n) * 32

    @property
    def shared_bytes(self) -> int:
        return self.stages * self.slab * (self.m + self.n) * 2


HUGE = Tile(256, 128, 64, 64, slab=16, stages=4, blocks=1)
LARGE = Tile(128, 128, 64, 64, slab=32, stages=3, blocks=2)
TALL = Tile(192, 64, 48, 64, slab=32, stages=3, blocks=2)
SMALL = Tile(64, 64, 32, 32, slab=32, stages=4, blocks=4)
TILES: Axis = {
    tile: (
        f"{tile.m}x{tile.n}",
        {
            "TILE_M": tile.m, "TILE_N": tile.n, "WARP_M": tile.warp_m, "WARP_N": tile.warp_n,
            "SLAB": tile.slab, "STAGES": tile.stages, "BLOCKS": tile.blocks,
        },
    )
    for tile in (HUGE, LARGE, TALL, SMALL)
}  # fmt: skip

# A convolution along one axis is one along two, the first of them of size 1.
WGRAD = KernelFamily(
    "conv_wgrad_mma.cu", "conv_wgrad_mma", {rank: RANK[rank] for rank in (2, 3)},
    {name: DTYPE[name] for name in ("float16", "bfloat16")}, TILES, minimum_architecture=80,
)  # fmt: skip

# For the cost estimate: the multiply-adds of a multiprocessor in a microsecond, 1024 a clock at
# 1.9 GHz, and the share of them that a tile reached on an H200 (what a smaller one loads for each
# of them is more).
PEAK = 1024 * 1900.0
EFFICIENCY = {HUGE: 0.85, LARGE: 0.82, TALL: 0.7, SMALL: 0.48}


@dataclass(frozen=True)
class Settings:
    """The block's tile, and how many pixels one split sums."""

    tile: Tile
    pixels: int


def whole_us(problem: Problem, compute_us: float, splits: int) -> float:
    """Return the estimate of a filters' gradient: its sums or its memory, and adding splits up."""
    s = problem.shape
    numbers = sum(map(math.prod, (s.x_shape, s.y_shape, s.w_shape)))
    total_us = LAUNCH_US + max(compute_us, numbers * problem.itemsize / BYTES)
    if splits > 1:
        total_us += LAUNCH_US + 2 * splits * math.prod(s.w_shape) * 4 / BYTES
    return total_us


class MmaWgrad(Algorithm):
    """For float16 and bfloat16, channels last, on sm_80 or newer."""

    name = "mma_wgrad"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s = problem.shape
        if not (
            problem.direction == "wgrad"
            and problem.dtype in ("float16", "bfloat16")
            and problem.architecture >= 80
            and s.channels_last
            and s.channels // s.groups % CHUNK == 0
            and s.filters // s.groups % CHUNK == 0
        ):
            return
        matrix = matrix_of(problem)
        for tile in TILES:
            blocks = matrix.blocks(tile)
            slots = MULTIPROCESSORS * tile.blocks
            most = min(
                ceil_div(matrix.k, PIXELS_PER_SPLIT), PARTIAL_ELEMENTS // math.prod(s.w_shape)
            )
            wanted = {max(1, min(most, waves * slots // blocks)) for waves in (0, *WAVES)}
            for splits in sorted(wanted):
                pixels = ceil_div(ceil_div(matrix.k, splits), LOOP_PIXELS) * LOOP_PIXELS
                grid = (blocks, 1, ceil_div(matrix.k, pixels))
                yield Plan(self.name, Settings(tile, pixels), grid, tile.threads, tile.shared_bytes)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the busiest multiprocessor's blocks take, or what memory takes, and the splits'."""
        tile, (blocks, _, splits) = plan.settings.tile, plan.grid
        each = tile.m * tile.n * plan.settings.pixels / (PEAK * EFFICIENCY[tile])
        waves, left = divmod(ceil_div(blocks * splits, MULTIPROCESSORS), tile.blocks)
        # a multiprocessor that holds fewer blocks than it could waits for memory
        compute_us = each * (waves * tile.blocks + (left + tile.blocks) / 2 * bool(left))
        return whole_us(problem, compute_us, splits)

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array) -> Array:
        s, splits = problem.shape, plan.grid[2]
        # 16 bytes are copied at a time: what begins elsewhere is moved
        x, dy = (a if aligned(a) else a.copy() for a in (x, dy))
        dw = partial = None
        if splits == 1:
            dw = caller.xp.empty(s.w_shape, x.dtype)
        else:
            partial = caller.xp.empty((splits, *s.w_shape), np.float32)
        caller.launch(
            WGRAD(max(2, s.rank), problem.dtype, plan.settings.tile), plan.grid, plan.threads,
            x, dy, dw, partial, plan.settings.pixels, geometry_record(s),
        )  # fmt: skip
        return split_sum(caller, partial, x.dtype) if dw is None else dw
