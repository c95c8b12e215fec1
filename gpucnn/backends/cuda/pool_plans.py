"""How a pooling runs on the GPU: a pure function of its shape, the size of a number and alignment.

A kernel moves units (kernels/pool_geometry.cuh): 16 bytes of channels or of a row where all of them
begin on such addresses, else an element. A map that is pooled whole has kernels of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache

from ...shapes import PoolShape
from .launch import BLOCK_THREADS, ceil_div

UNIT_BYTES = 16
STRIP, STRIP_COLUMNS = 4, 8  # outputs of a thread, and the columns under them: of pool_strips.cu
LARGEST_CELL = 16  # inputs that one thread writes
# A whole map's reduction is split until so many blocks run, four on each multiprocessor of an H100,
# but not below so many units a thread.
BLOCKS_WANTED = 528
UNITS_WANTED = 8


@dataclass(frozen=True)
class PoolPlan:
    """Which kernel runs a pass of a pooling, and what its threads move.

    Attributes:
        kernel: "windows", "strips" or "whole" forward; "gather", "cells", "shared_cells" or "rows"
            backward.
        unit: of windows, gather and cells: "one", "channels" or "pairs".
        width: elements of x in a unit.
    """

    kernel: str
    unit: str = ""
    width: int = 1


@lru_cache(maxsize=1024)
def forward_plan(shape: PoolShape, itemsize: int, aligned: bool) -> PoolPlan:
    """Choose forward's kernel; ``aligned`` says that x begins at a multiple of 16 bytes.

    >>> forward_plan(PoolShape.of((8, 28, 28, 64), 2, mode="max", rank=2), 4, True)
    PoolPlan(kernel='windows', unit='channels', width=4)
    """
    width = UNIT_BYTES // itemsize
    if aligned and in_strips(shape):
        return PoolPlan("strips", "one")
    if not is_whole(shape):
        return _in_units("windows", shape, width, aligned)
    # whether it is aligned must not change the order of a sum: the kernel sees to that
    line = shape.channels if shape.channels_last else shape.taps
    return PoolPlan("whole", width=1 if line % width else width)


@lru_cache(maxsize=1024)
def backward_plan(shape: PoolShape, itemsize: int, aligned: bool) -> PoolPlan:
    """Choose backward's kernel; ``aligned`` is said of dy and of the index."""
    if is_whole(shape) and not shape.channels_last:
        return PoolPlan("rows")
    overlap = overlaps(shape)
    few = max(overlap) <= 2 and set(overlap[:-2]) <= {1} and set(shape.dilation) == {1}
    cell = math.prod(map(min, shape.input, shape.strides))
    kernel = "gather"
    if few and cell <= LARGEST_CELL and shape.index_dtype == "uint8":
        kernel = "cells" if max(overlap) == 1 else "shared_cells"
    return _in_units(kernel, shape, UNIT_BYTES // itemsize, aligned)


def overlaps(shape: PoolShape) -> tuple[int, ...]:
    """Return how many windows lie over an input at most, along each axis.

    >>> overlaps(PoolShape.of((1, 28, 28, 8), (3, 2), strides=(1, 2), mode="max", rank=2))
    (3, 1)
    """
    axes = zip(shape.window, shape.dilation, shape.strides, strict=True)
    return tuple(ceil_div(step * (taps - 1) + 1, stride) for taps, step, stride in axes)


def cells(shape: PoolShape) -> tuple[int, ...]:
    """Return into how many cells the strides cut each axis, from where the padding begins.

    >>> cells(PoolShape.of((1, 7, 8, 8), 3, strides=2, padding=1, mode="max", rank=2))
    (4, 5)
    """
    axes = zip(shape.input, shape.padding, shape.strides, strict=True)
    return tuple(ceil_div(size + before, stride) for size, (before, _), stride in axes)


@lru_cache(maxsize=1024)
def seen_in_units(shape: PoolShape, plan: PoolPlan) -> PoolShape:
    """Return the pooling as its kernel sees it: of units, which lie like channels, the last axis.

    Channels first, each channel is a map of its own; the last axis of pairs lies inside the units.
    """
    batch, depth = shape.batch, shape.channels
    if not shape.channels_last:
        batch, depth = batch * depth, 1
    seen = replace(shape, batch=batch, channels=depth, channels_last=True)
    if plan.unit == "channels":
        return replace(seen, channels=depth // plan.width)
    if plan.unit == "pairs":
        *window, _ = shape.window
        *strides, _ = shape.strides
        *size, row = shape.input
        return replace(
            seen, input=(*size, row // plan.width), window=(*window, 1), strides=(*strides, 1)
        )
    return seen


@lru_cache(maxsize=1024)
def units_of_a_sample(shape: PoolShape, plan: PoolPlan) -> int:
    """Return how many threads of a plan work on a sample."""
    seen = seen_in_units(shape, plan)
    places = {"windows": seen.output, "gather": seen.input}.get(plan.kernel, cells(seen))
    return math.prod(places) * (seen.channels if shape.channels_last else shape.channels)


def in_strips(shape: PoolShape) -> bool:
    """Return whether kernels/pool_strips.cu computes it: 3x3 windows two apart along whole rows.

    >>> in_strips(PoolShape.of((8, 16, 16, 1), 3, strides=2, padding=1, mode="max", rank=2))
    True
    """
    in_rows = not shape.channels_last or shape.channels == 1
    columns, (left, _) = shape.input[-1], shape.padding[-1]
    return (
        in_rows
        and shape.window == (3, 3)
        and (shape.strides[-1], shape.dilation[-1]) == (2, 1)
        and left <= 1
        and columns % STRIP_COLUMNS == 0
        and strips_of_a_row(shape) * STRIP_COLUMNS <= columns
    )


def strips_of_a_row(shape: PoolShape) -> int:
    """Return how many threads of kernels/pool_strips.cu compute a row of y."""
    return ceil_div(shape.output[-1], STRIP)


def is_whole(shape: PoolShape) -> bool:
    """Return whether the one window is the whole map."""
    no_padding = not any(map(any, shape.padding))
    return shape.window == shape.input and no_padding and set(shape.output) == {1}


def _in_units(kernel: str, shape: PoolShape, width: int, aligned: bool) -> PoolPlan:
    if aligned and shape.channels_last and shape.channels % width == 0:
        return PoolPlan(kernel, "channels", width)
    in_rows = not shape.channels_last or shape.channels == 1
    last = (shape.window[-1], shape.strides[-1], shape.dilation[-1], shape.padding[-1])
    halved = last == (2, 2, 1, (0, 0)) and shape.input[-1] % width == 0
    if aligned and in_rows and halved and kernel != "gather":
        return PoolPlan(kernel, "pairs", width)
    return PoolPlan(kernel, "one")


@dataclass(frozen=True)
class WholePlan:
    """How the threads of blocks share the reduction of whole maps (kernels/global_pool.cu).

    Attributes:
        columns: reductions, each to a unit of results.
        units: what one of them reduces.
        slots: threads that share one; the other threads of a block take other columns.
        splits: blocks that share one.
        per_split: the units of each.
    """

    columns: int
    units: int
    slots: int
    splits: int
    per_split: int


@lru_cache(maxsize=1024)
def whole_plan(shape: PoolShape, width: int) -> WholePlan:
    """Return how the whole maps of a shape are reduced in units of ``width``."""
    columns, units, slots = shape.batch * shape.channels, shape.taps, 8
    if shape.channels_last:
        columns //= width
    else:
        units //= width
        while slots < BLOCK_THREADS and slots * UNITS_WANTED < units:
            slots *= 2
    blocks = max(1, ceil_div(columns * slots, BLOCK_THREADS))
    splits = min(ceil_div(BLOCKS_WANTED, blocks), ceil_div(units, slots * UNITS_WANTED))
    per_split = ceil_div(units, splits)
    return WholePlan(columns, units, slots, ceil_div(units, per_split), per_split)
