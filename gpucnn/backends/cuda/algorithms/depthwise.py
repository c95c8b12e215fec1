"""Depthwise convolution, each channel with a window of its own (kernels/conv_depthwise*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape
from ...base import Array, accumulator
from ..geometry import geometry_record
from ..kernel import DTYPE, Axis, KernelFamily
from ..launch import KernelCaller, aligned, ceil_div, even, whole_warps
from ..spatial import DIVISOR, divisor, per_axis
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
from .depthwise_tiles import (
    GATHER_TILES,
    TRANSPOSED_TILES,
    VECTOR_BYTES,
    WGRAD_TILES,
    Tile,
)

MAX_THREADS = 128  # as in kernels/depthwise.cuh
WINDOW_BYTES = 12 * 1024  # as in kernels/conv_depthwise.cu

_GATHER: Axis = {
    tile: (tile.tag, {**tile.macros, "TRANSPOSED": int(tile.transposed)})
    for tile in GATHER_TILES + TRANSPOSED_TILES
}
_WGRAD: Axis = {
    tile: (tile.tag, {**tile.macros, "WINDOW_ROWS": tile.window_rows}) for tile in WGRAD_TILES
}
GATHER = KernelFamily("conv_depthwise.cu", "conv_depthwise", DTYPE, _GATHER)
WGRAD = KernelFamily("conv_depthwise_wgrad.cu", "conv_depthwise_wgrad", DTYPE, _WGRAD)

# struct Tiling of kernels/depthwise.cuh
_TILING = np.dtype(
    [(name, "i4") for name in ("rows", "block_rows")]
    + [(f"by_{name}", DIVISOR) for name in ("lanes", "columns", "channel_blocks", "column_blocks")]
    + [(f"by_{name}", DIVISOR) for name in ("row_tiles", "taps")]
)
# struct Splitting of kernels/conv_depthwise_wgrad.cu
_SPLITTING = np.dtype(
    [(name, "i4") for name in ("tiles", "tiles_per_split", "groups")]
    + [(f"by_{name}", DIVISOR) for name in ("lanes", "slots", "row_tiles", "column_tiles")]
    + [(f"by_{name}", DIVISOR) for name in ("down", "across", "sums")]
)

# The share of the multiply-adds that is reached, and the threads that it takes to reach it; and how
# long it takes until memory is busy.
EFFICIENCY = 0.7
RAMP_US = 3.0
THREADS_WANTED = MULTIPROCESSORS * 256


@dataclass(frozen=True)
class Block:
    """A block of the gather: tiles along the channels, along a row and down the map."""

    tile: Tile
    lanes: int
    columns: int
    rows: int


@dataclass(frozen=True)
class Split:
    """A block of wgrad: channels, groups of taps, threads that share its tiles; a split's tiles."""

    tile: Tile
    lanes: int
    groups: int
    slots: int
    tiles_per_split: int


def as_gather(problem: Problem) -> tuple[ConvShape, bool]:
    """Return the shape that the gather runs on, and whether the window is turned."""
    s = problem.shape
    if problem.direction != "dgrad" or math.prod(s.strides) > 1:
        return s, False
    return dgrad_as_fprop(s), True


def _targets(s: ConvShape, tile: Tile) -> tuple[int, int, int]:
    """Maps of the batch, tiles down one and tiles across it."""
    o, p, q = per_axis(s.input if tile.transposed else s.output)
    before = (0, 0)
    if tile.transposed:  # the first tile begins before the map, where a window's first tap lies
        before = per_axis([pad % tile.stride for pad, _ in s.padding], neutral=0)[1:]
    return s.batch * o, ceil_div(p + before[0], tile.rows), ceil_div(q + before[1], tile.columns)


def _down(tile: Tile, problem: Problem) -> bool:
    """Return whether a tile for this row of the window also suits the rows below it."""
    s = problem.shape
    if s.rank == 1:
        return tile.channels_last and not tile.transposed
    stride, dilation, taps = s.strides[-2], s.dilation[-2], s.kernel[-2]
    if problem.direction == "wgrad":
        return tile.window_rows == 1 or (stride, dilation) == (tile.stride, 1)
    if tile.transposed or not tile.channels_last:
        return (taps, stride, dilation) == (tile.taps, tile.stride, 1)
    return tile.rows == 1 or dilation == 1


def _tap_groups(s: ConvShape, tile: Tile) -> tuple[int, int, int]:
    """Groups of taps, which a thread of wgrad sums, along the axes of a window."""
    t, r, taps = per_axis(s.kernel)
    return t, ceil_div(r, tile.window_rows), ceil_div(taps, tile.taps or 1)


def _held(tile: Tile, problem: Problem) -> int:
    """Return how many blocks of wgrad a multiprocessor holds: one more would wait for all."""
    if not (tile.vector and tile.window_rows > 1):
        return 4
    return 2 if problem.itemsize == 2 else 3


# The least and the largest number that an activation lets through.
INFINITY = float("inf")
BOUNDS = {"linear": (-INFINITY, INFINITY), "relu": (0.0, INFINITY), "relu6": (0.0, 6.0)}


class Depthwise(Algorithm):
    name = "depthwise"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s = problem.shape
        if s.groups != s.channels or (problem.direction == "dgrad" and s.filters != s.channels):
            return
        for tile in self._tiles(problem):
            channels = tile.channels(problem)
            vectors = ceil_div(s.filters, channels)
            limits = (8, 16) if tile.vector else (32,) if tile.channels_last else (1,)
            build = self._split
            if problem.direction != "wgrad":  # the windows of a block lie in shared memory
                build = self._block
                fitting = WINDOW_BYTES // (s.taps * channels * problem.itemsize)
                limits = [min(limit, fitting) for limit in limits if fitting]
            for lanes in sorted({even(vectors, limit) for limit in limits}):
                yield build(problem, tile, lanes)

    @staticmethod
    def _tiles(problem: Problem) -> Iterator[Tile]:
        """Tiles made for this row of the window; then those for any, the scalar one last."""
        s = problem.shape
        tiles = WGRAD_TILES if problem.direction == "wgrad" else GATHER_TILES
        if problem.direction == "dgrad" and math.prod(s.strides) > 1:
            tiles = TRANSPOSED_TILES
        vectors = s.filters == s.channels and s.filters * problem.itemsize % VECTOR_BYTES == 0
        row = (s.kernel[-1], s.strides[-1]) if s.dilation[-1] == 1 else None
        for tile in sorted(tiles, key=lambda tile: (not tile.taps, not tile.vector)):
            suits = not tile.taps or ((tile.taps, tile.stride) == row and _down(tile, problem))
            if suits and tile.channels_last == s.channels_last and vectors >= tile.vector:
                yield tile

    def _block(self, problem: Problem, tile: Tile, lanes: int) -> Plan:
        s, _ = as_gather(problem)
        maps, down, across = _targets(s, tile)
        threads, wanted = MAX_THREADS // lanes, 4 if tile.channels_last else MAX_THREADS
        columns = even(across, min(wanted, threads))
        rows = min(threads // columns, maps * down)
        columns = even(across, threads // rows)
        channel_blocks = ceil_div(s.filters, lanes * tile.channels(problem))
        blocks = ceil_div(maps * down, rows) * ceil_div(across, columns) * channel_blocks
        settings = Block(tile, lanes, columns, rows)
        return Plan(
            self.name, settings, (blocks, 1, 1), whole_warps(lanes * columns * rows), WINDOW_BYTES
        )

    def _split(self, problem: Problem, tile: Tile, lanes: int) -> Plan:
        s, channels = problem.shape, tile.channels(problem)
        taps, down, across = _tap_groups(s, tile)
        groups = even(taps * down * across, min(16, MAX_THREADS // lanes))
        slots = MAX_THREADS // (lanes * groups)
        tiles = math.prod(_targets(s, tile))
        grid = (ceil_div(s.filters, lanes * channels), ceil_div(taps * down * across, groups))
        splits = min(
            max(1, MULTIPROCESSORS * _held(tile, problem) // math.prod(grid)),
            ceil_div(tiles, 2 * slots),
            max(1, PARTIAL_ELEMENTS // (s.taps * s.filters)),
        )
        per_split = ceil_div(ceil_div(tiles, splits), slots) * slots  # the slots sum as many each
        settings = Split(tile, lanes, groups, slots, per_split)
        shared = (tile.taps or 1) * MAX_THREADS * channels * problem.accumulator_bytes
        return Plan(
            self.name, settings, (*grid, ceil_div(tiles, per_split)),
            whole_warps(lanes * groups * slots), shared,
        )  # fmt: skip

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What memory takes for both maps at a tile's share of the bandwidth, or the arithmetic."""
        s, tile, bytes_each = problem.shape, plan.settings.tile, problem.itemsize
        if tile.vector:
            share = 0.82 if tile.rows > 1 else 0.8
        else:  # bound by the instructions for a number, whatever its size
            share = min(0.6, (0.06 if tile.channels_last else 0.15) * bytes_each)
        if not tile.taps:  # every tap is loaded by itself, out of the caches
            share *= min(1, 5 / s.taps)
        share *= min(1, math.prod(plan.grid) * plan.threads / THREADS_WANTED)
        gathered, _ = as_gather(problem)
        maps, down, across = _targets(gathered, tile)
        targets = per_axis(s.input if problem.direction == "dgrad" else s.output)
        share *= s.batch * math.prod(targets) / (maps * down * across * tile.rows * tile.columns)
        numbers = math.prod(s.x_shape) + math.prod(s.y_shape) + math.prod(s.w_shape)
        memory_us = numbers * bytes_each / (BYTES * share)
        rate = MULTIPROCESSORS * MULTIPLY_ADDS * EFFICIENCY
        if problem.dtype == "float64":
            rate /= 2
        launches = 2 if problem.direction == "wgrad" and plan.grid[2] > 1 else 1
        return LAUNCH_US * launches + RAMP_US + max(memory_us, s.multiply_adds / rate)

    def fuses(self, problem: Problem, plan: Plan) -> bool:
        return problem.activation in BOUNDS and replace(problem, activation="linear").is_plain

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        maps = arrays if problem.direction == "wgrad" else arrays[:1]
        if plan.settings.tile.vector and not aligned(*maps, to=VECTOR_BYTES):
            *_, plan = self.plans(problem)  # the scalar one
        if problem.direction == "wgrad":
            return self._sum(caller, problem, plan, *arrays)
        return self._gather(caller, problem, plan, *arrays)

    @staticmethod
    def _gather(
        caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        b: Array | None,
    ) -> Array:  # fmt: skip
        s, turned = as_gather(problem)
        tile, shape = plan.settings.tile, problem.shape
        target_shape = shape.y_shape if problem.direction == "fprop" else shape.x_shape
        target = caller.xp.empty(target_shape, source.dtype)
        caller.launch(
            GATHER(source.dtype, tile), plan.grid, plan.threads, source, w, b, target, turned,
            *map(accumulator(source.dtype).type, BOUNDS[problem.activation]), geometry_record(s),
            _tiling(s, plan.settings, tile.channels(problem)),
        )  # fmt: skip
        return target

    @staticmethod
    def _sum(caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array) -> Array:
        s, tile = problem.shape, plan.settings.tile
        partial = caller.xp.empty((plan.grid[2], *s.w_shape), accumulator(x.dtype))
        caller.launch(
            WGRAD(x.dtype, tile), plan.grid, plan.threads, x, dy, partial, geometry_record(s),
            _splitting(s, plan.settings),
        )  # fmt: skip
        return split_sum(caller, partial, x.dtype)


@lru_cache(maxsize=1024)
def _tiling(s: ConvShape, block: Block, channels: int) -> np.ndarray:
    maps, down, across = _targets(s, block.tile)
    divisors = (
        block.lanes, block.columns, ceil_div(s.filters, block.lanes * channels),
        ceil_div(across, block.columns), down, s.taps,
    )  # fmt: skip
    return np.array([(maps * down, block.rows, *map(divisor, divisors))], _TILING)


@lru_cache(maxsize=1024)
def _splitting(s: ConvShape, split: Split) -> np.ndarray:
    maps, down, across = _targets(s, split.tile)
    _, groups_down, groups_across = _tap_groups(s, split.tile)
    sums = split.groups * split.lanes
    divisors = (split.lanes, split.slots, down, across, groups_down, groups_across, sums)
    sizes = (maps * down * across, split.tiles_per_split, split.groups)
    return np.array([(*sizes, *map(divisor, divisors))], _SPLITTING)
