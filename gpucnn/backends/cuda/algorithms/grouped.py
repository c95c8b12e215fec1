"""Grouped convolution with few channels a group (kernels/conv_grouped*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from ...base import Array, accumulator
from ..kernel import DTYPE, Axis, KernelFamily
from ..launch import KernelCaller, aligned, ceil_div, even, whole_warps
from ..spatial import DIVISOR, check_sizes, divisor
from ..split_sum import split_sum
from .base import (
    BYTES,
    LAUNCH_US,
    MULTIPLY_ADDS,
    MULTIPROCESSORS,
    PARTIAL_ELEMENTS,
    Algorithm,
    Plan,
    Problem,
    dgrad_as_fprop,
)

# As in kernels/grouped.cuh, conv_grouped.cu and conv_grouped_wgrad.cu.
ROWS, FILTERS, WEIGHTS = 7, 4, 4096
GATHER_THREADS, WGRAD_THREADS = 256, 128


@dataclass(frozen=True)
class Tile:
    """What a kernel is made for; see kernels/grouped.cuh.

    Attributes:
        channels_last: the layout.
        channels: that a thread takes at once.
        taps: rows of the window, with dilation 1; 0 for any window.
        stride: down the map; 1 for any window.
    """

    channels_last: bool
    channels: int = 4
    taps: int = 0
    stride: int = 1

    @property
    def tag(self) -> str:
        layout = "nhwc" if self.channels_last else "nchw"
        window = f"{self.taps}s{self.stride}" if self.taps else "any"
        return f"{layout}{self.channels}_{window}"

    @property
    def macros(self) -> dict[str, int]:
        return {
            "CHANNELS_LAST": int(self.channels_last),
            "CHANNELS": self.channels,
            "TAPS": self.taps,
            "STRIDE": self.stride,
        }


TILES = (
    *(Tile(True, 4, *window) for window in ((3, 1), (3, 2), (0, 1))),
    *(Tile(False, 4, *window) for window in ((3, 1), (0, 1))),
    *(Tile(last, 1) for last in (True, False)),
)
_TILE: Axis = {tile: (tile.tag, tile.macros) for tile in TILES}
_DTYPE: Axis = {name: DTYPE[name] for name in ("float16", "bfloat16", "float32")}
GATHER = KernelFamily("conv_grouped.cu", "conv_grouped", _DTYPE, _TILE)
WGRAD = KernelFamily("conv_grouped_wgrad.cu", "conv_grouped_wgrad", _DTYPE, _TILE)

# struct GroupedGeometry of kernels/grouped.cuh
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("channels", "filters", "group_channels", "group_filters")]
    + [(name, "i4", 2) for name in ("input", "kernel", "output", "stride", "pad", "dilation")]
    + [(name, "i4") for name in ("slices", "tiles")]
    + [(f"by_{name}", DIVISOR) for name in ("group_slices", "rows", "columns")]
    + [(f"by_{name}", DIVISOR) for name in ("lanes", "slots", "taps", "units")]
)

MOST_IN_GROUP = 64  # channels or filters; beyond, an implicit GEMM has use for all of its tile
# Slices of a block: with channels last neighbours in memory, of 128 bytes or more in float32.
GATHER_LANES = {True: 16, False: 4}
WGRAD_LANES = {True: 8, False: 1}
BLOCKS_WANTED = 396  # that wgrad is split into: three on each multiprocessor of an H100

# The share of the multiply-adds that is reached with a known window, with any, and with any and
# channels one by one; that of the memory's pace; and the threads that it takes to reach them.
EFFICIENCY, ANY_EFFICIENCY, SINGLE_EFFICIENCY = 0.27, 0.14, 0.07
MEMORY_SHARE = 0.8
THREADS_WANTED = MULTIPROCESSORS * 256


@dataclass(frozen=True)
class Block:
    """Threads of a block along the slices of filters and along the tiles of pixels.

    For wgrad also along the units, channels under a column of the window; and a split's tiles.
    """

    tile: Tile
    lanes: int
    slots: int
    units: int = 1
    tiles_per_split: int = 0


def as_map(shape: ConvShape) -> ConvShape:
    """Return a convolution of sequences as one of maps of one column."""
    if shape.rank == 2:
        return shape
    return replace(
        shape, input=(*shape.input, 1), kernel=(*shape.kernel, 1), strides=(*shape.strides, 1),
        padding=(*shape.padding, (0, 0)), dilation=(*shape.dilation, 1),
    )  # fmt: skip


def as_gather(problem: Problem) -> ConvShape:
    """Return the map that the kernels run on: for dgrad, of the convolution that it is."""
    s = problem.shape
    return as_map(dgrad_as_fprop(s) if problem.direction == "dgrad" else s)


def _slices(s: ConvShape) -> int:
    """Pieces of ``FILTERS`` filters in a group."""
    return ceil_div(s.filters // s.groups, FILTERS)


def _tiles(s: ConvShape) -> int:
    return s.batch * ceil_div(s.output[0], ROWS) * s.output[1]


def _units(s: ConvShape, tile: Tile) -> int:
    """Pieces of the sums of a slice that are threads of their own in wgrad."""
    rows = 1 if tile.taps else s.kernel[0]
    return s.channels // s.groups // tile.channels * rows * s.kernel[1]


class Grouped(Algorithm):
    name = "grouped"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s = problem.shape
        most = max(s.channels, s.filters) // s.groups
        if (
            s.groups == 1
            or s.rank > 2
            or not 1 < most <= MOST_IN_GROUP
            or problem.dtype not in _DTYPE
            or (problem.direction == "dgrad" and math.prod(s.strides) > 1)
        ):
            return
        g = as_gather(problem)
        for tile in self._tiles(g):
            plan = (self._split if problem.direction == "wgrad" else self._block)(g, tile)
            if plan:
                yield plan

    @staticmethod
    def _tiles(g: ConvShape) -> Iterator[Tile]:
        """Tiles made for this window; then those for any, that for any channels last."""
        down = g.kernel[0], g.strides[0]
        for tile in TILES:
            suits = not tile.taps or ((tile.taps, tile.stride) == down and g.dilation[0] == 1)
            whole = g.channels // g.groups % tile.channels == 0
            if suits and whole and tile.channels_last == g.channels_last:
                yield tile

    def _block(self, g: ConvShape, tile: Tile) -> Plan | None:
        slices = _slices(g) * g.groups
        row = WEIGHTS // (math.prod(g.kernel) * tile.channels)  # four and a multiple of 32 are used
        most = min(GATHER_LANES[tile.channels_last], (row - 4) // 32 * 32 // FILTERS)
        if most < 1:  # a slice's weights do not fit
            return None
        lanes = even(slices, most)
        slots = even(_tiles(g), GATHER_THREADS // lanes)
        grid = (ceil_div(_tiles(g), slots), ceil_div(slices, lanes), 1)
        return Plan(
            self.name, Block(tile, lanes, slots), grid, whole_warps(lanes * slots), 4 * WEIGHTS
        )

    def _split(self, g: ConvShape, tile: Tile) -> Plan:
        slices, all_units, tiles = _slices(g) * g.groups, _units(g, tile), _tiles(g)
        lanes = even(slices, WGRAD_LANES[tile.channels_last])
        units = even(all_units, min(4, WGRAD_THREADS // lanes))
        slots = min(WGRAD_THREADS // (lanes * units), tiles)
        grid = ceil_div(slices, lanes), ceil_div(all_units, units)
        splits = min(
            ceil_div(BLOCKS_WANTED, math.prod(grid)),
            ceil_div(tiles, 4 * slots),
            max(1, PARTIAL_ELEMENTS // math.prod(g.w_shape)),
        )
        per_split = ceil_div(tiles, splits)
        settings = Block(tile, lanes, slots, units, per_split)
        threads = whole_warps(lanes * units * slots)
        return Plan(
            self.name, settings, (*grid, ceil_div(tiles, per_split)), threads,
            4 * WGRAD_THREADS * FILTERS,
        )  # fmt: skip

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What memory takes for both maps, or the arithmetic of whole tiles."""
        g, tile = as_gather(problem), plan.settings.tile
        memory = (
            (math.prod(g.x_shape) + math.prod(g.y_shape))
            * problem.itemsize
            / (BYTES * MEMORY_SHARE)
        )
        sums = _tiles(g) * ROWS * _slices(g) * FILTERS * g.groups
        share = EFFICIENCY if tile.taps else ANY_EFFICIENCY
        rate = MULTIPROCESSORS * MULTIPLY_ADDS * (share if tile.channels > 1 else SINGLE_EFFICIENCY)
        busy = min(1, math.prod(plan.grid) * plan.threads / THREADS_WANTED)
        launches = 2 if plan.grid[2] > 1 else 1
        work = sums * (g.channels // g.groups) * math.prod(g.kernel) / rate
        return LAUNCH_US * launches + max(memory, work) / busy

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        tile, maps = plan.settings.tile, arrays if problem.direction == "wgrad" else arrays[:1]
        together = tile.channels_last and tile.channels > 1
        if together and not aligned(*maps, to=4 * maps[0].dtype.itemsize):
            *_, plan = self.plans(problem)  # the one that takes channels one by one
        if problem.direction == "wgrad":
            return self._sum(caller, problem, plan, *arrays)
        return self._gather(caller, problem, plan, *arrays)

    @staticmethod
    def _gather(
        caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        b: Array | None,
    ) -> Array:  # fmt: skip
        turned, s = problem.direction == "dgrad", problem.shape
        target = caller.xp.empty(s.x_shape if turned else s.y_shape, source.dtype)
        caller.launch(
            GATHER(source.dtype, plan.settings.tile), plan.grid, plan.threads, source, w, b,
            target, turned, problem.activation == "relu",
            _record(as_gather(problem), plan.settings),
        )  # fmt: skip
        return target

    @staticmethod
    def _sum(caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array) -> Array:
        filters = problem.shape.filters // problem.shape.groups
        whole = filters % FILTERS == 0 and aligned(dy, to=FILTERS * dy.dtype.itemsize)
        partial = caller.xp.empty((plan.grid[2], *problem.shape.w_shape), accumulator(x.dtype))
        caller.launch(
            WGRAD(x.dtype, plan.settings.tile), plan.grid, plan.threads, x, dy, partial,
            plan.settings.tiles_per_split, whole, _record(as_gather(problem), plan.settings),
        )  # fmt: skip
        return split_sum(caller, partial, x.dtype)


@lru_cache(maxsize=1024)
def _record(g: ConvShape, block: Block) -> np.ndarray:
    """Return struct GroupedGeometry.

    Raises:
        ValueError: an image, the pixels of the batch or the filters pass 2^31.
    """
    check_sizes(
        "convolution",
        ("one input image", math.prod(g.x_shape[1:]), 31),
        ("one output image", math.prod(g.y_shape[1:]), 31),
        ("the pixels of the batch", g.batch * math.prod(g.output), 31),
        ("the filters", math.prod(g.w_shape), 31),
    )
    slices = _slices(g)
    pairs = (
        g.input, g.kernel, g.output, g.strides, tuple(before for before, _ in g.padding),
        g.dilation,
    )  # fmt: skip
    divisors = (
        slices, ceil_div(g.output[0], ROWS), g.output[1], block.lanes, block.slots,
        math.prod(g.kernel), block.units,
    )  # fmt: skip
    row = (g.channels, g.filters, g.channels // g.groups, g.filters // g.groups, *pairs)
    return np.array([(*row, slices * g.groups, _tiles(g), *map(divisor, divisors))], _GEOMETRY)
