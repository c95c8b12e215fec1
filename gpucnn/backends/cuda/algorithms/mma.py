"""Implicit GEMM on tensor cores, in 16 bits or in TF32 (kernels/conv_{fprop,dgrad}_mma.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....shapes import ConvShape
from ...base import Array
from ..epilogue import Epilogue
from ..geometry import geometry_record, residue_table
from ..kernel import Axis, KernelFamily
from ..launch import KernelCaller, aligned_copy, ceil_div
from ..prologue import Normed, read_as
from ..spatial import AXES
from ..split_sum import in_splits
from .base import BYTES, LAUNCH_US, MULTIPROCESSORS, FusingAlgorithm, Plan, Problem
from .implicit_gemm import RESIDUES
from .mma_formats import FAST, HALVES, SLOWDOWN, axis, chunk, format_of
from .mma_tiles import (
    BLOCK_US,
    BUSY,
    CACHE,
    FP32X3_TILES,
    NORM_CHANNELS,
    NORM_TILES,
    PLACES,
    TAPS,
    TF32_TILES,
    TILES,
    MmaTile,
    tile_axis,
)  # fmt: skip
from .tiles import Matrix, matrix_of

SUMMED_AT_ONCE = 64  # terms; a split has whole multiples of it
TERMS_PER_SPLIT = 256  # at least; with less, adding the splits up costs more
PARTIALS_16BIT = 2**25  # of tensor cores, which make more of them in the time of adding them up

# Kilobytes of shared memory that a block may have, by the architecture.
MOST_SHARED = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99}


def kernel_families(
    formats: Axis, tiles: tuple[MmaTile, ...], norm_tiles: tuple[MmaTile, ...] = ()
) -> dict[str, KernelFamily]:
    """Declare the kernels of both directions for these formats and tiles."""
    return {
        direction: KernelFamily(
            f"conv_{direction}_mma.cu", f"conv_{direction}_mma", formats, tile_axis(its_tiles),
            minimum_architecture=80,
        )
        for direction, its_tiles in (("fprop", tiles + norm_tiles), ("dgrad", tiles))
    }  # fmt: skip


# Channels last, and every rank as three axes.
GEOMETRY = {"RANK": 3, "CHANNELS_LAST": 1}
ELEMENT = axis(*HALVES, **GEOMETRY)
KERNELS = kernel_families(ELEMENT, TILES, NORM_TILES)
# By the format: the tiles, and the kernels of each direction.
WAYS = {
    **dict.fromkeys(HALVES, (TILES, KERNELS)),
    "tf32": (TF32_TILES, kernel_families(axis("tf32", **GEOMETRY), TF32_TILES)),
    "fp32x3": (FP32X3_TILES, kernel_families(axis("fp32x3", **GEOMETRY), FP32X3_TILES)),
}


@dataclass(frozen=True)
class Settings:
    """The block's tile, and how many terms one split sums."""

    tile: MmaTile
    terms: int


def applies(problem: Problem) -> bool:
    """Return whether chunks of channels are whole, and the tables hold the window."""
    s, whole = problem.shape, chunk(problem)
    return (
        problem.direction in KERNELS
        and format_of(problem) is not None
        and s.channels_last
        and s.channels // s.groups % whole == 0
        and (problem.direction == "fprop" or s.filters // s.groups % whole == 0)
        and s.taps <= TAPS - SUMMED_AT_ONCE // whole
        and sum(s.kernel) + 3 - s.rank <= PLACES
        and max(map(math.prod, (s.x_shape, s.y_shape))) < 2**30 * whole
    )


def takes_norms(problem: Problem) -> bool:
    """Return whether x is to be read through a norm, and the kernels can: each number once."""
    s = problem.shape
    return (
        problem.prologue
        and problem.dtype in HALVES
        and s.taps == s.groups == 1
        and not any(map(any, s.padding))
    )


def splits(matrix: Matrix, tile: MmaTile) -> Iterator[tuple[int, int]]:
    """Yield (splits, terms of each): the whole sum, and as many as make whole waves of blocks."""
    blocks, results = matrix.blocks(tile), matrix.m * matrix.n * matrix.groups
    most = min(matrix.k // TERMS_PER_SPLIT, PARTIALS_16BIT // results)
    waves = (MULTIPROCESSORS * n // blocks for n in range(1, 2 * tile.blocks + 1))
    found = {}
    for wanted in (1, *(min(wave, most) for wave in waves)):
        terms = ceil_div(ceil_div(matrix.k, max(1, wanted)), SUMMED_AT_ONCE) * SUMMED_AT_ONCE
        found[ceil_div(matrix.k, terms)] = terms
    yield from found.items()


def all_residues(shape: ConvShape) -> np.ndarray:
    """Return ``residue_table`` for kernels of three axes."""
    return residue_table(shape, AXES)


class Mma(FusingAlgorithm):
    """On sm_80 or newer, channels last, in whole chunks of channels: float16, bfloat16, and float32
    where ``math`` permits it.
    """

    name = "mma"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        if not applies(problem):
            return
        matrix, limit = matrix_of(problem), 1024 * MOST_SHARED.get(problem.architecture, 99)
        static = RESIDUES if problem.direction == "dgrad" else 0
        tiles = WAYS[format_of(problem)][0]
        if takes_norms(problem) and problem.shape.channels <= NORM_CHANNELS:
            tiles += NORM_TILES
        for tile in tiles:
            if tile.dynamic_bytes + static <= limit:
                for count, terms in splits(matrix, tile):
                    grid = (matrix.blocks(tile), 1, count)
                    yield Plan(self.name, Settings(tile, terms), grid, tile.threads, static)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the busiest multiprocessor or a cache takes, and memory, and the splits' sum."""
        s, tile, (blocks, _, count) = problem.shape, plan.settings.tile, plan.grid
        matrix = matrix_of(problem)
        terms = min(plan.settings.terms, matrix.k)
        # of dgrad's classes of pixels the matrix is the one with the most taps
        terms *= s.multiply_adds / matrix.multiply_adds
        waves, left = divmod(ceil_div(blocks * count, MULTIPROCESSORS), tile.blocks)
        compute_us = waves * self._wave_us(tile, terms, tile.blocks)
        compute_us += self._wave_us(tile, terms, left) if left else 0
        if tile.itemsize == 4 and problem.architecture not in FAST:
            compute_us *= SLOWDOWN
        gathered = blocks * count * terms * (tile.m + tile.n) * problem.itemsize
        sizes = map(math.prod, (s.x_shape, s.y_shape, s.w_shape))
        # a block's first loads and its stores keep nothing else busy
        total_us = LAUNCH_US + max(compute_us, gathered / CACHE)
        total_us += sum(sizes) * problem.itemsize / BYTES
        if count > 1:
            result = {"fprop": s.y_shape, "dgrad": s.x_shape}[problem.direction]
            numbers = math.prod(result) * problem.accumulator_bytes
            total_us += LAUNCH_US + 2 * count * numbers / BYTES
        return total_us

    def _wave_us(self, tile: MmaTile, terms: float, together: int) -> float:
        """Return what so many blocks take that a multiprocessor has at a time."""
        warps = together * tile.warps / 4  # of a quarter of it
        return BLOCK_US + together * terms * tile.term_us / BUSY.get(int(warps), 1)

    def norms_on_load(self, problem: Problem, plan: Plan) -> bool:
        return plan.settings.tile.norms

    def moment_parts(self, problem: Problem, plan: Plan) -> int:
        """A part is the rows of a warp."""
        tile = plan.settings.tile
        down = ceil_div(matrix_of(problem).m, tile.m) * (tile.m // tile.warp_m)
        return down if plan.grid[2] == 1 else 0

    def pools(self, problem: Problem, plan: Plan) -> bool:
        return plan.grid[2] == 1 and problem.shape.rank == 2 and plan.settings.tile.has_room

    def widens(self, problem: Problem, plan: Plan) -> bool:
        return True

    def masks(self, problem: Problem, plan: Plan) -> bool:
        """Where a byte of it is of one pixel and, of whole sums, of one tile."""
        s = problem.shape
        return (s.filters if plan.grid[2] > 1 else s.filters // s.groups) % 8 == 0

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array | Normed,
        w: Array, epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        source, norm = read_as(source)
        source, w = map(aligned_copy, (source, w))
        s, count = problem.shape, plan.grid[2]
        size = s.y_shape if problem.direction == "fprop" else s.x_shape
        if count == 1 and problem.wide:  # the sums' own way to memory
            sums = caller.xp.empty(size, "float32")
            self._launch(caller, problem, plan, source, w, norm, epilogue, None, sums)
            return sums
        return in_splits(
            caller, count, size, source.dtype,
            lambda *ends: self._launch(caller, problem, plan, source, w, norm, *ends), epilogue,
            wide=problem.wide,
        )  # fmt: skip

    def _launch(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        norm: tuple[Any, ...], epilogue: Epilogue, target: Array | None, partial: Array | None,
    ) -> None:  # fmt: skip
        """Write the result into ``target``, or what is not rounded into ``partial``."""
        s, (tile, terms) = problem.shape, (plan.settings.tile, plan.settings.terms)
        residual, function = aligned_copy(epilogue.residual), epilogue.function(source.dtype)
        if problem.direction == "fprop":
            arguments = (
                source, w, epilogue.b, residual, *function, epilogue.moments, target, epilogue.kept,
                epilogue.pooled is not None, partial, terms, *norm,
            )  # fmt: skip
        else:
            residues = caller.constant(all_residues, s), math.prod(s.strides)
            arguments = (
                source, w, epilogue.b, residual, *function, target, partial, terms, *residues
            )  # fmt: skip
        number_format = format_of(problem)
        kernel = WAYS[number_format][1][problem.direction](number_format, tile)
        caller.launch(kernel, plan.grid, plan.threads, *arguments, geometry_record(s))
