"""Winograd's F(2x2, 3x3) for 3x3 windows of stride 1 (kernels/conv_winograd.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from ...base import Array
from ..kernel import CHANNELS_LAST, DTYPE, Axis, KernelFamily
from ..launch import BLOCK_THREADS, KernelCaller, ceil_div
from ..spatial import DIVISOR, divisor
from .base import (
    BYTES,
    LAUNCH_US,
    MULTIPLY_ADDS,
    MULTIPROCESSORS,
    Algorithm,
    Plan,
    Problem,
    dgrad_as_fprop,
)

POINTS = 16  # of a transformed 4x4 patch
SLAB = 4  # channels that a block multiplies at once, as in the kernel
# Fewer channels or filters in a group, and the transforms cost more than they save; with few
# terms the error, which is that of a whole patch, would also be large beside a small result.
MIN_DEPTH = 16


@dataclass(frozen=True)
class Block:
    """What a block computes: tiles of 2x2 outputs times filters; a thread corner x corner of both.

    The larger corner multiplies faster; the smaller makes more blocks of a small map.
    """

    tiles: int
    filters: int
    corner: int

    def shared_bytes(self, channels_last: bool) -> int:
        """Two slabs, or the rows in which the accumulators change hands."""
        slabs = 2 * POINTS * SLAB * (self.tiles + self.filters)
        fast, slow = (self.filters, self.tiles) if channels_last else (self.tiles, self.filters)
        row = fast + 8 if channels_last else fast + (fast + 16) % 32
        return 4 * max(slabs, POINTS * 2 * slow // self.corner * row)


BLOCKS: Axis = {
    block: (
        f"{block.tiles}x{block.filters}",
        {"TILES": block.tiles, "FILTERS": block.filters, "CORNER": block.corner},
    )
    for block in (Block(32, 64, 8), Block(64, 32, 8), Block(16, 32, 4))
}

_AXES = (CHANNELS_LAST, {"float32": DTYPE["float32"]}, BLOCKS)
CONV = KernelFamily("conv_winograd.cu", "conv_winograd", *_AXES)
FILTERS = KernelFamily("conv_winograd.cu", "conv_winograd_filters", *_AXES)

# The share of a multiprocessor's multiply-adds that a corner reaches, and of the memory's pace.
EFFICIENCY = {8: 0.6, 4: 0.35}
MEMORY_SHARE = 0.75
ENDS_US = 1.5  # a block's first fetch and its exchange of accumulators

# struct WinogradGeometry of kernels/conv_winograd.cu
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("channels", "filters", "group_channels", "group_filters")]
    + [(name, "i4", 2) for name in ("input", "output", "pad")]
    + [("tiles", "i4"), ("by_tiles", DIVISOR, 2)]
)


def as_forward(problem: Problem) -> ConvShape:
    """Return the convolution whose forward pass computes the problem."""
    return problem.shape if problem.direction == "fprop" else dgrad_as_fprop(problem.shape)


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


class Winograd(Algorithm):
    """fprop and dgrad in float32. An infinity or NaN also reaches the rest of its 2x2 tile."""

    name = "winograd"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s = problem.shape
        if not (
            problem.direction in ("fprop", "dgrad")
            and problem.dtype == "float32"
            and s.kernel == (3, 3)
            and s.strides == s.dilation == (1, 1)
            and min(s.channels, s.filters) // s.groups >= MIN_DEPTH
            # what the kernel counts in 32 bits: an image's elements and the tiles of the batch
            and max(math.prod(s.x_shape[1:]), math.prod(s.y_shape[1:])) < 2**31
            and s.batch * max(math.prod(s.input), math.prod(s.output)) < 2**31
        ):
            return
        s = as_forward(problem)
        for block in BLOCKS:
            grid = (
                ceil_div(s.batch * math.prod(_tiles(s)), block.tiles),
                ceil_div(s.filters // s.groups, block.filters),
                s.groups,
            )
            shared = block.shared_bytes(s.channels_last)
            yield Plan(self.name, block, grid, BLOCK_THREADS, shared)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """Waves of blocks, but no less than memory takes, and the pass over the filters."""
        s, block = as_forward(problem), plan.settings
        depth = ceil_div(s.channels // s.groups, SLAB) * SLAB
        products = POINTS * depth * block.tiles * block.filters
        block_us = products / (MULTIPLY_ADDS * EFFICIENCY[block.corner]) + ENDS_US
        waves = ceil_div(math.prod(plan.grid), MULTIPROCESSORS)
        memory_us = 4 * (math.prod(s.x_shape) + math.prod(s.y_shape)) / (BYTES * MEMORY_SHARE)
        filters_us = 4 * (9 + POINTS) * s.channels // s.groups * s.filters / (BYTES * MEMORY_SHARE)
        return 2 * LAUNCH_US + filters_us + max(waves * block_us, memory_us)

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        (x, w, b), s, block = arrays, as_forward(problem), plan.settings
        slabs = ceil_div(s.channels // s.groups, SLAB)
        _, filter_blocks, groups = plan.grid
        grid = (slabs, filter_blocks, groups)
        # (groups, blocks of filters, slabs, points, channels, filters)
        u = caller.xp.empty((groups, filter_blocks, slabs, POINTS, SLAB, block.filters), x.dtype)
        y = caller.xp.empty(s.y_shape, x.dtype)
        choice, record = (s.channels_last, x.dtype, block), _record(s)
        turned = problem.direction == "dgrad"
        caller.launch(FILTERS(*choice), grid, SLAB * block.filters, w, u, turned, record)
        relu = problem.activation == "relu"
        caller.launch(CONV(*choice), plan.grid, plan.threads, x, u, b, y, slabs, relu, record)
        return y
