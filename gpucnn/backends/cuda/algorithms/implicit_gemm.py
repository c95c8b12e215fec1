"""Implicit GEMM through shared-memory tiles: every convolution there is (kernels/conv_*.cu)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...base import Array, accumulator
from ..geometry import geometry_record
from ..kernel import CHANNELS_LAST, DTYPE, RANK, KernelFamily
from ..launch import KernelCaller, ceil_div
from .base import Algorithm, Plan, Problem
from .tiles import NARROW, TILE_K, TILES, WIDE, Tile, matrix_of, split_pixels

_AXES = (RANK, CHANNELS_LAST, DTYPE)
FPROP = KernelFamily("conv_fprop.cu", "conv_fprop_implicit_gemm", *_AXES, TILES)
DGRAD = KernelFamily("conv_dgrad.cu", "conv_dgrad_implicit_gemm", *_AXES, TILES)
WGRAD = KernelFamily("conv_wgrad.cu", "conv_wgrad_implicit_gemm", *_AXES, TILES)
WGRAD_SUM = KernelFamily("conv_wgrad.cu", "conv_wgrad_sum", *_AXES, TILES)

# For the cost model: an H100's multiprocessors, and multiply-adds a microsecond of one of them
# that a tile reaches, as shares of 128 a clock at 1.7 GHz (64 in double precision).
MULTIPROCESSORS = 132
PEAK = 128 * 1700.0
EFFICIENCY = {WIDE: 0.6, NARROW: 0.2}
LAUNCH_US = 2.5


@dataclass(frozen=True)
class Settings:
    """The block's tile; for wgrad, how many output pixels one split sums."""

    tile: Tile
    pixels_per_split: int = 0


class ImplicitGemm(Algorithm):
    name = "implicit_gemm"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        matrix = matrix_of(problem)
        itemsize = accumulator_bytes(problem)
        for tile in (WIDE, NARROW):
            splits, per_split = 1, 0
            if problem.direction == "wgrad":
                splits, per_split = split_pixels(matrix, tile)
            grid = (*matrix.grid(tile), splits)
            shared = tile.shared_bytes(itemsize)
            yield Plan(self.name, Settings(tile, per_split), grid, tile.threads, shared)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """Waves of blocks, each as long as its multiply-adds take at the tile's efficiency."""
        tile, matrix = plan.settings.tile, matrix_of(problem)
        x, y, z = plan.grid
        depth = ceil_div(ceil_div(matrix.k, z), TILE_K) * TILE_K
        at_once = MULTIPROCESSORS * (1 if accumulator_bytes(problem) == 8 else 2)
        waves = ceil_div(x * y * z, at_once)
        rate = PEAK * EFFICIENCY[tile] * (0.5 if accumulator_bytes(problem) == 8 else 1)
        block_us = tile.m * tile.n * depth / (rate * MULTIPROCESSORS / at_once)
        return LAUNCH_US * (2 if z > 1 else 1) + waves * block_us

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        return getattr(self, f"_{problem.direction}")(caller, problem, plan, *arrays)

    @staticmethod
    def _choice(problem: Problem, plan: Plan, array: Array) -> tuple:
        shape = problem.shape
        return shape.rank, shape.channels_last, array.dtype, plan.settings.tile

    def _fprop(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, w: Array,
        b: Array | None,
    ) -> Array:  # fmt: skip
        y = caller.xp.empty(problem.shape.y_shape, x.dtype)
        caller.launch(
            FPROP(*self._choice(problem, plan, x)), plan.grid, plan.threads, x, w, b,
            problem.activation == "relu", y, geometry_record(problem.shape),
        )  # fmt: skip
        return y

    def _dgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, dy: Array, w: Array,
        b: Array | None,
    ) -> Array:  # fmt: skip
        dx = caller.xp.empty(problem.shape.x_shape, dy.dtype)
        caller.launch(
            DGRAD(*self._choice(problem, plan, dy)), plan.grid, plan.threads, dy, w, b, dx,
            geometry_record(problem.shape),
        )  # fmt: skip
        return dx

    def _wgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array
    ) -> Array:
        shape, sums = problem.shape, accumulator(x.dtype)
        choice, splits = self._choice(problem, plan, x), plan.grid[2]
        dw = caller.xp.empty(shape.w_shape, x.dtype)
        # one split of a dtype that is its own accumulator needs no second pass
        direct = splits == 1 and sums == x.dtype
        partial = dw if direct else caller.xp.empty((splits, *shape.w_shape), sums)
        caller.launch(
            WGRAD(*choice), plan.grid, plan.threads, x, dy, partial,
            plan.settings.pixels_per_split, geometry_record(shape),
        )  # fmt: skip
        if not direct:
            caller.launch_elements(
                WGRAD_SUM(*choice), dw.size, partial, dw, np.int64(dw.size), splits
            )
        return dw


def accumulator_bytes(problem: Problem) -> int:
    return 8 if problem.dtype == "float64" else 4
