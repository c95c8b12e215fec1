"""Implicit GEMM through shared-memory tiles: every convolution there is (kernels/conv_*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...base import Array, accumulator
from ..geometry import geometry_record, residue_table
from ..kernel import CHANNELS_LAST, DTYPE, RANK, Axis, Kernel, KernelFamily
from ..launch import KernelCaller, ceil_div
from ..split_sum import split_sum
from .base import LAUNCH_US, MULTIPLY_ADDS, MULTIPROCESSORS, Algorithm, Plan, Problem
from .tiles import NARROW, TILE_K, TILES, WIDE, Tile, matrix_of, split_pixels


def kernel_families(*axes: Axis, **options: int) -> dict[str, KernelFamily]:
    """Declare the kernels of all directions, specialised along the same axes."""
    functions = {
        "fprop": ("conv_fprop.cu", "conv_fprop_implicit_gemm"),
        "dgrad": ("conv_dgrad.cu", "conv_dgrad_implicit_gemm"),
        "wgrad": ("conv_wgrad.cu", "conv_wgrad_implicit_gemm"),
    }
    return {name: KernelFamily(*where, *axes, **options) for name, where in functions.items()}


# The share of a multiprocessor's multiply-adds that a tile reaches.
EFFICIENCY = {WIDE: 0.6, NARROW: 0.2}


@dataclass(frozen=True)
class Settings:
    """The block's tile; for wgrad, how many output pixels one split sums."""

    tile: Tile
    pixels_per_split: int = 0


class ImplicitGemm(Algorithm):
    name = "implicit_gemm"
    tiles: tuple[Tile, ...] = (WIDE, NARROW)
    kernels = kernel_families(RANK, CHANNELS_LAST, DTYPE, TILES)

    def plans(self, problem: Problem) -> Iterator[Plan]:
        matrix = matrix_of(problem)
        itemsize = accumulator_bytes(problem)
        for tile in self.tiles:
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
        rate, blocks = self.speed(problem, tile)
        waves = ceil_div(x * y * z, MULTIPROCESSORS * blocks)
        return LAUNCH_US * (2 if z > 1 else 1) + waves * blocks * tile.m * tile.n * depth / rate

    def speed(self, problem: Problem, tile: Tile) -> tuple[float, int]:
        """Return a multiprocessor's multiply-adds in a microsecond, and how many blocks it runs."""
        if accumulator_bytes(problem) == 8:
            return MULTIPLY_ADDS / 2 * EFFICIENCY[tile], 1
        return MULTIPLY_ADDS * EFFICIENCY[tile], 2

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        return getattr(self, f"_{problem.direction}")(caller, problem, plan, *arrays)

    def _kernel(self, name: str, problem: Problem, plan: Plan) -> Kernel:
        shape = problem.shape
        return self.kernels[name](
            shape.rank, shape.channels_last, problem.dtype, plan.settings.tile
        )

    def _fprop(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, w: Array,
        b: Array | None,
    ) -> Array:  # fmt: skip
        y = caller.xp.empty(problem.shape.y_shape, x.dtype)
        caller.launch(
            self._kernel("fprop", problem, plan), plan.grid, plan.threads, x, w, b,
            problem.activation == "relu", y, geometry_record(problem.shape),
        )  # fmt: skip
        return y

    def _dgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, dy: Array, w: Array,
        b: Array | None,
    ) -> Array:  # fmt: skip
        dx = caller.xp.empty(problem.shape.x_shape, dy.dtype)
        caller.launch(
            self._kernel("dgrad", problem, plan), plan.grid, plan.threads, dy, w, b, dx,
            caller.constant(residue_table, problem.shape), math.prod(problem.shape.strides),
            geometry_record(problem.shape),
        )  # fmt: skip
        return dx

    def _wgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array
    ) -> Array:
        shape = problem.shape
        partial = caller.xp.empty((plan.grid[2], *shape.w_shape), accumulator(x.dtype))
        caller.launch(
            self._kernel("wgrad", problem, plan), plan.grid, plan.threads, x, dy, partial,
            plan.settings.pixels_per_split, geometry_record(shape),
        )  # fmt: skip
        return split_sum(caller, partial, x.dtype)


def accumulator_bytes(problem: Problem) -> int:
    return 8 if problem.dtype == "float64" else 4
