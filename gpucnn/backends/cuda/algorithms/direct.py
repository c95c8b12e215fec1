"""Direct convolution of few channels, and of the pooling behind it (kernels/conv_direct*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ....shapes import ConvShape, PoolShape
from ...base import Array, accumulator
from ..kernel import DTYPE, Axis, KernelFamily
from ..launch import KernelCaller, ceil_div
from ..spatial import DIVISOR, check_sizes, divisor
from ..split_sum import split_sum
from . import direct_tiles as tiles
from .base import (
    BYTES,
    LAUNCH_US,
    MULTIPLY_ADDS,
    MULTIPROCESSORS,
    Algorithm,
    Plan,
    Problem,
)
from .direct_tiles import Settings

_WINDOW: Axis = {
    (taps, stride): (f"{taps}s{stride}", {"TAPS": taps, "STRIDE": stride})
    for taps, stride in tiles.WINDOWS
}
_DTYPE: Axis = {name: DTYPE[name] for name in ("float16", "bfloat16", "float32")}
FPROP = KernelFamily("conv_direct.cu", "conv_direct", _DTYPE, _WINDOW)
_WGRAD_WINDOW: Axis = {
    (taps, stride, channels): (f"{tag}_{channels}", {**macros, "CHANNELS": channels})
    for (taps, stride), (tag, macros) in _WINDOW.items()
    for channels in ((1, 3) if taps == 3 else (1,))
}
WGRAD = KernelFamily("conv_direct_wgrad.cu", "conv_direct_wgrad", _DTYPE, _WGRAD_WINDOW)

_PAIRS = ("input", "output", "target", "pad", "quads")
_NUMBERS = ("pitch", "plane", "lanes", "slots", "tiles", "tiles_per_block")
_DIVISORS = (
    "channels", "plane", "copied", "row_tiles", "column_tiles", "lanes", "slots", "columns",
)  # fmt: skip
# struct DirectGeometry of kernels/direct.cuh
_GEOMETRY = np.dtype(
    [(name, "i4") for name in ("channels", "filters", "channels_last", "pooled", "interleaved")]
    + [(name, "i4", 2) for name in _PAIRS]
    + [(name, "i4") for name in _NUMBERS]
    + [(f"by_{name}", DIVISOR) for name in _DIVISORS]
)
# struct Splitting of kernels/conv_direct_wgrad.cu
_SPLITTING = np.dtype([(f"by_{name}", DIVISOR) for name in ("units", "chunks", "width")])

# The share of its instructions that a multiprocessor issues, by direction: the rest of the time it
# waits for memory, shared memory and barriers.
EFFICIENCY = {"fprop": 0.4, "wgrad": 0.6}
THREADS_WANTED = {"fprop": 128, "wgrad": 256}  # on each, that it takes to reach it


class Direct(Algorithm):
    name = "direct"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        return self.pooled_plans(problem, None)

    def pooled_plans(self, problem: Problem, pool: PoolShape | None) -> Iterator[Plan]:
        """Yield the best plan of a convolution and, if there is a pooling behind it, of both."""
        s = problem.shape
        if problem.direction == "dgrad" or s.batch == 0 or not tiles.suits(s, problem.dtype):
            return
        if pool and not tiles.pools_quads(s, pool):
            return
        if problem.direction == "fprop":
            found = tiles.fprop_settings(s, pool, problem.dtype)
        else:
            found = tiles.wgrad_settings(s, pool)
        plans = [self._plan(problem, pool, settings) for settings in found]
        yield from sorted(plans, key=lambda plan: self.pooled_cost(problem, pool, plan))[:1]

    def _plan(self, problem: Problem, pool: PoolShape | None, settings: Settings) -> Plan:
        s = problem.shape
        count = ceil_div(tiles.count_tiles(s, pool, settings.quads), settings.tiles_per_block)
        if problem.direction == "fprop":
            threads, slices = tiles.fprop_threads(settings), tiles.fprop_slices(s)
            shared = tiles.PATCH + tiles.MAX_CHANNELS * s.taps * (tiles.SLICE + 4)
        else:
            threads, slices = tiles.wgrad_threads(s, settings), tiles.wgrad_slices(s)
            shared = tiles.PATCH
        return Plan(self.name, settings, (count, slices, 1), threads, 4 * shared)

    def cost(self, problem: Problem, plan: Plan) -> float:
        return self.pooled_cost(problem, None, plan)

    def pooled_cost(self, problem: Problem, pool: PoolShape | None, plan: Plan) -> float:
        """Estimate the larger of what memory and what the instructions take."""
        s, fprop = problem.shape, problem.direction == "fprop"
        y = math.prod((pool or s).y_shape)
        memory = (math.prod(s.x_shape) + y) * problem.itemsize
        work = (tiles.fprop_work if fprop else tiles.wgrad_work)(s, pool, plan.settings)
        blocks, wanted = math.prod(plan.grid) / MULTIPROCESSORS, THREADS_WANTED[problem.direction]
        busy = min(1.0, blocks) * min(1.0, max(1.0, blocks) * plan.threads / wanted)
        rate = MULTIPROCESSORS * MULTIPLY_ADDS * EFFICIENCY[problem.direction] * busy
        return LAUNCH_US * (1 if fprop else 2) + max(memory / BYTES, work / rate)

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        if problem.direction == "fprop":
            y, _ = self.forward(caller, problem, plan, None, *arrays)
            return y
        dw, _ = self.gradients(caller, problem, plan, None, *arrays, None)
        return dw

    @staticmethod
    def forward(
        caller: KernelCaller, problem: Problem, plan: Plan, pool: PoolShape | None, x: Array,
        w: Array, b: Array | None, with_index: bool = False,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Return y and, of a pooling, where in its window each maximum lies; 4: cut by ReLU."""
        s = problem.shape
        y = caller.xp.empty((pool or s).y_shape, x.dtype)
        index = caller.xp.empty(y.shape, pool.index_dtype) if pool and with_index else None
        caller.launch(
            FPROP(x.dtype, (s.kernel[0], s.strides[0])), plan.grid, plan.threads, x, w, b,
            problem.activation == "relu", y, index, _record(s, pool, plan.settings),
        )  # fmt: skip
        return y, index

    @staticmethod
    def gradients(
        caller: KernelCaller, problem: Problem, plan: Plan, pool: PoolShape | None, x: Array,
        dy: Array, index: Array | None,
    ) -> tuple[Array, Array | None]:  # fmt: skip
        """Return dw and, behind a pooling, db."""
        s, weights = problem.shape, math.prod(problem.shape.w_shape)
        size = weights + (s.filters if pool else 0)
        partial = caller.xp.empty((plan.grid[0], size), accumulator(x.dtype))
        kernel = WGRAD(x.dtype, (s.kernel[0], s.strides[0], tiles.wgrad_channels(s)))
        caller.launch(
            kernel, plan.grid, plan.threads, x, dy, index, partial,
            _record(s, pool, plan.settings), _splitting(s, plan.settings),
        )  # fmt: skip
        total = split_sum(caller, partial, x.dtype)
        return total[:weights].reshape(s.w_shape), total[weights:] if pool else None


@lru_cache(maxsize=1024)
def _record(s: ConvShape, pool: PoolShape | None, settings: Settings) -> np.ndarray:
    """Return struct DirectGeometry.

    Raises:
        ValueError: one image passes the 2^31 elements that the kernels count to.
    """
    check_sizes(
        "convolution",
        ("one input image", math.prod(s.input) * s.channels, 31),
        ("one output image", math.prod(s.output) * s.filters, 31),
    )
    pitch, plane = tiles.patch_of(s, settings.quads)
    down, across = tiles.tiles_of(s, pool, settings.quads)
    interleaved = s.channels_last and s.channels > 1
    pairs = (
        s.input, s.output, (pool or s).output, tuple(before for before, _ in s.padding),
        settings.quads,
    )  # fmt: skip
    numbers = (
        pitch, plane, settings.lanes, settings.slots,
        tiles.count_tiles(s, pool, settings.quads), settings.tiles_per_block,
    )  # fmt: skip
    divisors = (
        s.channels, plane, pitch * (s.channels if interleaved else 1), down, across,
        settings.lanes, settings.slots, max(1, settings.columns),
    )  # fmt: skip
    flags = (s.channels_last, pool is not None, interleaved)
    row = (s.channels, s.filters, *flags, *pairs, *numbers)
    return np.array([(*row, *map(divisor, divisors))], _GEOMETRY)


@lru_cache(maxsize=1024)
def _splitting(s: ConvShape, settings: Settings) -> np.ndarray:
    """Return struct Splitting."""
    units = s.channels // tiles.wgrad_channels(s)
    width = settings.lanes * tiles.wgrad_filters(s.kernel[0]) * units
    return np.array([tuple(map(divisor, (units, settings.quads[1] // 2, width)))], _SPLITTING)
