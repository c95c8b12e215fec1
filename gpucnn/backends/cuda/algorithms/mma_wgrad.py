"""The filters' gradient in 16 bits on tensor cores (kernels/conv_wgrad_mma.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ...base import Array
from ..epilogue import Epilogue
from ..geometry import geometry_record
from ..kernel import RANK, Axis, KernelFamily
from ..launch import KernelCaller, aligned_copy, ceil_div
from ..prologue import Normed, read_as
from ..split_sum import in_splits
from .base import BYTES, LAUNCH_US, MULTIPROCESSORS, PARTIAL_ELEMENTS, Algorithm, Plan, Problem
from .mma import takes_norms
from .mma_formats import FAST, HALVES, PRODUCTS, SLOWDOWN, axis, chunk, format_of
from .mma_tiles import CLOCKS, NORM_CLOCKS
from .tiles import matrix_of

LOOP_PIXELS = 32  # that a block of the kernel sums in one step of its loop
PIXELS_PER_SPLIT = 128  # at least: with less, adding the splits up costs more
WAVES = range(1, 5)  # of blocks on a whole GPU, that splits are made for


@dataclass(frozen=True)
class Tile:
    """A block's tile: m weights of a filter by n filters; a warp's part of it.

    Attributes:
        m, n, warp_m, warp_n: the sizes of both.
        slab: pixels that are loaded at once; stages: how many of them are in shared memory.
        blocks: how many blocks a multiprocessor should hold.
        itemsize: bytes of an element.
        products: multiplications for one of two numbers.
        norms: whether x is read through a batch norm.
    """

    m: int
    n: int
    warp_m: int
    warp_n: int
    slab: int
    stages: int
    blocks: int
    itemsize: int = 2
    products: int = 1
    norms: bool = False

    @property
    def threads(self) -> int:
        return (self.m // self.warp_m) * (self.n // self.warp_n) * 32

    @property
    def shared_bytes(self) -> int:
        return self.stages * self.slab * (self.m + self.n) * self.itemsize


HUGE = Tile(256, 128, 64, 64, slab=16, stages=4, blocks=1)
LARGE = Tile(128, 128, 64, 64, slab=32, stages=3, blocks=2)
TALL = Tile(192, 64, 48, 64, slab=32, stages=3, blocks=2)
SMALL = Tile(64, 64, 32, 32, slab=32, stages=4, blocks=4)
# For the cost estimate: the multiply-adds of a multiprocessor in a microsecond, 1024 a clock at
# 1.9 GHz, and the share of them that a tile reached on an H200 (what a smaller one loads for each
# of them is more).
PEAK = 1024 * 1900.0
EFFICIENCY = {HUGE: 0.85, LARGE: 0.82, TALL: 0.7, SMALL: 0.48}
NORM_EFFICIENCY = {replace(tile, norms=True): EFFICIENCY[tile] for tile in (TALL, SMALL)}
# In TF32 tensor cores do half of that, and floats are rounded or split on the way: estimates.
TF32_EFFICIENCY = {
    replace(LARGE, slab=16, itemsize=4): 0.37,
    replace(TALL, slab=16, itemsize=4): 0.31,
    replace(SMALL, slab=16, itemsize=4): 0.21,
}
# A warp has the parts of what it splits in registers, and room for fewer sums.
_SPLIT = {"slab": 16, "itemsize": 4, "products": PRODUCTS["fp32x3"]}
FP32X3_EFFICIENCY = {
    replace(TALL, warp_n=32, blocks=1, **_SPLIT): 0.11,
    replace(SMALL, blocks=3, **_SPLIT): 0.08,
}


def wgrad_family(
    formats: Axis, tiles: Iterable[Tile], ranks: Iterable[int] = (2, 3)
) -> KernelFamily:
    """Declare the kernels; a convolution along one axis is one along two, the first of size 1."""
    return KernelFamily(
        "conv_wgrad_mma.cu", "conv_wgrad_mma", {rank: RANK[rank] for rank in ranks}, formats,
        {
            tile: (
                f"{tile.m}x{tile.n}" + "_norm" * tile.norms,
                {
                    **({"NORMS": 1} if tile.norms else {}),
                    "TILE_M": tile.m, "TILE_N": tile.n, "WARP_M": tile.warp_m,
                    "WARP_N": tile.warp_n, "SLAB": tile.slab, "STAGES": tile.stages,
                    "BLOCKS": tile.blocks,
                },
            )
            for tile in tiles
        },
        minimum_architecture=80,
    )  # fmt: skip


TILES = tuple(EFFICIENCY)
WGRAD = wgrad_family(axis(*HALVES), TILES)
NORMED_WGRAD = wgrad_family(axis(*HALVES), NORM_EFFICIENCY, ranks=(2,))
# By the format: what its tiles reach, and the kernels.
WAYS = {
    **dict.fromkeys(HALVES, (EFFICIENCY, WGRAD)),
    "tf32": (TF32_EFFICIENCY, wgrad_family(axis("tf32"), TF32_EFFICIENCY)),
    "fp32x3": (FP32X3_EFFICIENCY, wgrad_family(axis("fp32x3"), FP32X3_EFFICIENCY)),
}


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
    """On sm_80 or newer, channels last, in whole chunks: as ``Mma``."""

    name = "mma_wgrad"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s = problem.shape
        if not (
            problem.direction == "wgrad"
            and format_of(problem) is not None
            and s.channels_last
            and s.channels // s.groups % chunk(problem) == 0
            and s.filters // s.groups % chunk(problem) == 0
        ):
            return
        matrix, tiles = matrix_of(problem), list(WAYS[format_of(problem)][0])
        if takes_norms(problem) and s.rank < 3:
            tiles += NORM_EFFICIENCY
        for tile in tiles:
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
        efficiency = (NORM_EFFICIENCY if tile.norms else WAYS[format_of(problem)][0])[tile]
        pixel_us = tile.m * tile.n / (PEAK * efficiency)
        if tile.norms:  # warps of other filters have the same weights
            pixel_us += tile.m * tile.n // tile.warp_n * NORM_CLOCKS / CLOCKS
        each = plan.settings.pixels * pixel_us
        if tile.itemsize == 4 and problem.architecture not in FAST:
            each *= SLOWDOWN
        waves, left = divmod(ceil_div(blocks * splits, MULTIPROCESSORS), tile.blocks)
        # a multiprocessor that holds fewer blocks than it could waits for memory
        compute_us = each * (waves * tile.blocks + (left + tile.blocks) / 2 * bool(left))
        return whole_us(problem, compute_us, splits)

    def norms_on_load(self, problem: Problem, plan: Plan) -> bool:
        return plan.settings.tile.norms

    def run(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array | Normed, dy: Array
    ) -> Array:
        s, tile = problem.shape, plan.settings.tile
        x, norm = read_as(x)
        # 16 bytes are copied at a time: what begins elsewhere is moved
        x, dy = map(aligned_copy, (x, dy))
        number_format = format_of(problem)
        family = NORMED_WGRAD if tile.norms else WAYS[number_format][1]
        kernel = family(max(2, s.rank), number_format, tile)

        def launch(_: Epilogue, dw: Array | None, partial: Array | None) -> None:
            caller.launch(
                kernel, plan.grid, plan.threads, x, dy, dw, partial, plan.settings.pixels, *norm,
                geometry_record(s),
            )  # fmt: skip

        return in_splits(caller, plan.grid[2], s.w_shape, x.dtype, launch)
