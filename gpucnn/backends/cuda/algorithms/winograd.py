"""Winograd's F(2x2, 3x3) for 3x3 windows of stride 1 (kernels/conv_winograd*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from ...base import Array
from ..epilogue import Epilogue
from ..kernel import CHANNELS_LAST, DTYPE, Axis, KernelFamily
from ..launch import BLOCK_THREADS, KernelCaller, ceil_div
from ..spatial import DIVISOR, divisor
from ..split_sum import split_sum
from .base import (
    BYTES,
    LAUNCH_US,
    MULTIPLY_ADDS,
    MULTIPROCESSORS,
    FusingAlgorithm,
    Plan,
    Problem,
    dgrad_as_fprop,
)

POINTS = 16  # of a transformed 4x4 patch
SLAB = 4  # channels that a block multiplies at once, as in the kernel
# Fewer channels or filters in a group, and the transforms cost more than they save; with few
# terms the error, which is that of a whole patch, would also be large beside a small result. So it
# would with the gradient of filters over a few pixels.
MIN_DEPTH = 16
MIN_PIXELS = 128


@dataclass(frozen=True)
class Block:
    """What a block computes: rows times columns of the products, a thread corner x corner of both.

    The rows are tiles of 2x2 outputs, for wgrad channels; the columns are filters. The larger
    corner multiplies faster; the smaller makes more blocks of a small map.
    """

    rows: int
    columns: int
    corner: int

    def shared_bytes(self, columns_fast: bool) -> int:
        """Two slabs, or the lines in which the accumulators change hands."""
        slabs = 2 * POINTS * SLAB * (self.rows + self.columns)
        fast, slow = (self.columns, self.rows) if columns_fast else (self.rows, self.columns)
        line = fast + 8 if columns_fast else fast + (fast + 16) % 32
        return 4 * max(slabs, POINTS * 2 * slow // self.corner * line)


def _axis(*blocks: Block) -> Axis:
    return {
        block: (
            f"{block.rows}x{block.columns}",
            {"ROWS": block.rows, "COLS": block.columns, "CORNER": block.corner},
        )
        for block in blocks
    }


BLOCKS = _axis(Block(32, 64, 8), Block(64, 32, 8), Block(16, 32, 4))
WGRAD_BLOCK = Block(32, 64, 8)

_AXES = (CHANNELS_LAST, {"float32": DTYPE["float32"]})
CONV = KernelFamily("conv_winograd.cu", "conv_winograd", *_AXES, BLOCKS)
FILTERS = KernelFamily("conv_winograd.cu", "conv_winograd_filters", *_AXES, BLOCKS)
WGRAD = KernelFamily("conv_winograd_wgrad.cu", "conv_winograd_wgrad", *_AXES, _axis(WGRAD_BLOCK))


@dataclass(frozen=True)
class Settings:
    """The block, and for wgrad how many tiles one split sums."""

    block: Block
    tiles_per_split: int = 0


# The share of a multiprocessor's multiply-adds that a corner reaches, and of the memory's pace.
EFFICIENCY = {8: 0.47, 4: 0.32}
WGRAD_EFFICIENCY = 0.42
MEMORY_SHARE = 0.75
ENDS_US = {True: 4.0, False: 2.0}  # a block's first fetch and exchange of sums, by channels_last
TILES_PER_SPLIT = 64  # that wgrad sums at least: fewer, and the ends take longer

# struct WinogradGeometry of kernels/conv_winograd.cu
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("channels", "filters", "group_channels", "group_filters")]
    + [(name, "i4", 2) for name in ("input", "output", "pad")]
    + [("tiles", "i4"), ("by_tiles", DIVISOR, 2)]
)


def as_forward(problem: Problem) -> ConvShape:
    """Return the convolution whose tiles are cut: for dgrad, that of dy which gives dx."""
    return dgrad_as_fprop(problem.shape) if problem.direction == "dgrad" else problem.shape


def _tiles(s: ConvShape) -> tuple[int, int]:
    """Tiles of an image, down and across."""
    return ceil_div(s.output[0], 2), ceil_div(s.output[1], 2)


@lru_cache(maxsize=1024)
def _record(s: ConvShape) -> np.ndarray:
    record = np.zeros(1, _GEOMETRY)
    record["channels"], record["filters"] = s.channels, s.filters
    record["group_channels"] = s.channels // s.groups
    record["group_filters"] = s.filters // s.groups
    record["input"], record["output"] = s.input, s.output
    record["pad"] = [before for before, _ in s.padding]
    record["tiles"] = s.batch * math.prod(_tiles(s))
    record["by_tiles"] = list(map(divisor, _tiles(s)))
    return record


class Winograd(FusingAlgorithm):
    """fprop, dgrad and wgrad in float32.

    An infinity or NaN also reaches the rest of its 2x2 tile, or of the window's gradient.
    """

    name = "winograd"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s, wgrad = problem.shape, problem.direction == "wgrad"
        if not (
            problem.dtype == "float32"
            and problem.math != "exact"
            and s.kernel == (3, 3)
            and s.strides == s.dilation == (1, 1)
            and min(s.channels, s.filters) // s.groups >= MIN_DEPTH
            and not (wgrad and (s.groups > 1 or s.batch * math.prod(s.output) < MIN_PIXELS))
            # what the kernel counts in 32 bits: an image's elements and the tiles of the batch
            and max(math.prod(s.x_shape[1:]), math.prod(s.y_shape[1:])) < 2**31
            and s.batch * max(math.prod(s.input), math.prod(s.output)) < 2**31
        ):
            return
        s = as_forward(problem)
        tiles = s.batch * math.prod(_tiles(s))
        if wgrad:
            block = WGRAD_BLOCK
            across = ceil_div(s.channels, block.rows), ceil_div(s.filters, block.columns)
            splits = min(MULTIPROCESSORS // math.prod(across), tiles // TILES_PER_SPLIT)
            per_split = ceil_div(ceil_div(tiles, max(1, splits)), SLAB) * SLAB
            settings, grid = Settings(block, per_split), (*across, ceil_div(tiles, per_split))
            yield Plan(self.name, settings, grid, BLOCK_THREADS, block.shared_bytes(False))
            return
        for block in BLOCKS:
            filter_blocks = ceil_div(s.filters // s.groups, block.columns)
            grid = (ceil_div(tiles, block.rows), filter_blocks, s.groups)
            shared = block.shared_bytes(s.channels_last)
            yield Plan(self.name, Settings(block), grid, BLOCK_THREADS, shared)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """Waves of blocks, but no less than memory takes, and what stands before or behind."""
        s, settings = as_forward(problem), plan.settings
        block, wgrad = settings.block, problem.direction == "wgrad"
        depth = settings.tiles_per_split if wgrad else s.channels // s.groups
        products = POINTS * ceil_div(depth, SLAB) * SLAB * block.rows * block.columns
        rate = MULTIPLY_ADDS * (WGRAD_EFFICIENCY if wgrad else EFFICIENCY[block.corner])
        waves = ceil_div(math.prod(plan.grid), MULTIPROCESSORS)
        compute_us = waves * (products / rate + ENDS_US[s.channels_last])
        bytes_per_us = BYTES * MEMORY_SHARE
        memory_us = 4 * (math.prod(s.x_shape) + math.prod(s.y_shape)) / bytes_per_us
        # the transformed filters, or the splits' sums
        copies = 2 * 9 * plan.grid[2] if wgrad else 9 + POINTS
        filters_us = 4 * copies * math.prod(s.w_shape) / 9 / bytes_per_us
        return 2 * LAUNCH_US + filters_us + max(compute_us, memory_us)

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        s, block = as_forward(problem), plan.settings.block
        slabs = ceil_div(s.channels // s.groups, SLAB)
        _, filter_blocks, groups = plan.grid
        grid = (slabs, filter_blocks, groups)
        # (groups, blocks of filters, slabs, points, channels, filters)
        u = caller.xp.empty(
            (groups, filter_blocks, slabs, POINTS, SLAB, block.columns), source.dtype
        )
        y = caller.xp.empty(s.y_shape, source.dtype)
        choice, record = (s.channels_last, source.dtype, block), _record(s)
        turned = problem.direction == "dgrad"
        caller.launch(FILTERS(*choice), grid, SLAB * block.columns, w, u, turned, record)
        caller.launch(
            CONV(*choice), plan.grid, plan.threads, source, u, epilogue.b, epilogue.residual,
            *epilogue.function(w.dtype), y, slabs, record,
        )  # fmt: skip
        return y

    def run_wgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array
    ) -> Array:
        s, settings = problem.shape, plan.settings
        partial = caller.xp.empty((plan.grid[2], *s.w_shape), x.dtype)
        caller.launch(
            WGRAD(s.channels_last, x.dtype, settings.block), plan.grid, plan.threads, x, dy,
            partial, settings.tiles_per_split, _record(s),
        )  # fmt: skip
        return split_sum(caller, partial, x.dtype)
