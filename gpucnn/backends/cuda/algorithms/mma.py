"""Implicit GEMM of 16-bit numbers on tensor cores (kernels/conv_{fprop,dgrad}_mma.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ....shapes import ConvShape
from ...base import Array
from ..geometry import geometry_record, residue_table
from ..kernel import DTYPE, Axis, KernelFamily
from ..launch import KernelCaller, aligned, ceil_div
from ..spatial import AXES
from ..split_sum import split_sum
from .base import BYTES, LAUNCH_US, MULTIPROCESSORS, Algorithm, Plan, Problem
from .implicit_gemm import RESIDUES
from .tiles import Matrix, matrix_of

CHUNK = 8  # elements of 16 bytes, as in kernels/tile_mma.cuh
TAPS, PLACES = 256, 31  # as in kernels/conv_mma.cuh: those of a table, and along all axes together
ROW_BYTES, TAP_BYTES = 12, 12
SUMMED_AT_ONCE = 64  # terms; a split has whole multiples of it
TERMS_PER_SPLIT = 256  # at least; with less, adding the splits up costs more
PARTIAL_ELEMENTS = 2**25  # more partial sums than these cost more than splitting saves

# Kilobytes of shared memory that a block may have, by the architecture.
MOST_SHARED = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99, 121: 99}


@dataclass(frozen=True)
class MmaTile:
    """A block's tile, and how its warps share it.

    Attributes:
        m, n: rows and columns of a block.
        warp_m, warp_n: those of a warp.
        k: terms of a slab.
        stages: slabs in shared memory.
        blocks: how many blocks a multiprocessor should hold.
        share: of ``PEAK``, what so many blocks reach, for the cost model.
    """

    m: int
    n: int
    warp_m: int
    warp_n: int
    k: int
    stages: int
    blocks: int
    share: float

    @property
    def threads(self) -> int:
        return 32 * (self.m // self.warp_m) * (self.n // self.warp_n)

    @property
    def dynamic_bytes(self) -> int:
        """Return the slabs' bytes and those of the tables of rows and taps."""
        slabs = self.stages * (self.m + self.n) * self.k * 2
        return slabs + self.m * ROW_BYTES + TAPS * TAP_BYTES


# For the cost model: multiply-adds of an H100's multiprocessor in a microsecond, 2048 a clock at
# 1.7 GHz (920 TFLOP/s in all); mma.sync reaches some 0.6 of it, wgmma the rest.
PEAK = 2048 * 1700.0
WIDE = MmaTile(128, 256, 64, 64, k=32, stages=4, blocks=1, share=0.52)
SQUARE = MmaTile(128, 128, 64, 64, k=32, stages=4, blocks=2, share=0.5)
TALL = MmaTile(256, 64, 64, 64, k=32, stages=4, blocks=2, share=0.48)
HALF = MmaTile(128, 64, 64, 32, k=32, stages=4, blocks=3, share=0.4)
SMALL = MmaTile(64, 64, 32, 32, k=32, stages=4, blocks=4, share=0.3)
STRIP = MmaTile(128, 32, 32, 32, k=32, stages=4, blocks=4, share=0.25)
TILES = (WIDE, SQUARE, TALL, HALF, SMALL, STRIP)
BLOCK_US = 1.0  # until the first slab is there, and from the last one to the end
FULL_BLOCKS = 2  # a multiprocessor with one alone waits at its barriers

TILE: Axis = {
    tile: (
        f"{tile.m}x{tile.n}",
        {
            "TILE_M": tile.m,
            "TILE_N": tile.n,
            "WARP_M": tile.warp_m,
            "WARP_N": tile.warp_n,
            "TILE_K": tile.k,
            "STAGES": tile.stages,
            "BLOCKS": tile.blocks,
            "SHARED_BYTES": tile.dynamic_bytes,
        },
    )
    for tile in TILES
}
# Channels last, and every rank as three axes.
ELEMENT: Axis = {
    name: (tag, {**macros, "RANK": 3, "CHANNELS_LAST": 1})
    for name, (tag, macros) in DTYPE.items()
    if name in ("float16", "bfloat16")
}
KERNELS = {
    direction: KernelFamily(
        f"conv_{direction}_mma.cu", f"conv_{direction}_mma", ELEMENT, TILE, minimum_architecture=80
    )
    for direction in ("fprop", "dgrad")
}


@dataclass(frozen=True)
class Settings:
    """The block's tile, and how many terms one split sums."""

    tile: MmaTile
    terms: int


def applies(problem: Problem) -> bool:
    """Return whether chunks of channels are whole, and the tables hold the window."""
    s = problem.shape
    return (
        problem.direction in KERNELS
        and problem.dtype in ELEMENT
        and problem.architecture >= 80
        and s.channels_last
        and s.channels // s.groups % CHUNK == 0
        and (problem.direction == "fprop" or s.filters // s.groups % CHUNK == 0)
        and s.taps <= TAPS - SUMMED_AT_ONCE // CHUNK
        and sum(s.kernel) + 3 - s.rank <= PLACES
        and max(map(math.prod, (s.x_shape, s.y_shape))) < 2**33
    )


def splits(matrix: Matrix, tile: MmaTile) -> Iterator[tuple[int, int]]:
    """Yield (splits, terms of each): the whole sum, and enough for one wave of blocks or two."""
    most = min(
        matrix.k // TERMS_PER_SPLIT, PARTIAL_ELEMENTS // (matrix.m * matrix.n * matrix.groups)
    )
    wave = MULTIPROCESSORS * tile.blocks // matrix.blocks(tile)
    seen = set()
    for wanted in (1, min(wave, most), min(2 * wave, most)):
        terms = ceil_div(ceil_div(matrix.k, max(1, wanted)), SUMMED_AT_ONCE) * SUMMED_AT_ONCE
        count = ceil_div(matrix.k, terms)
        if count not in seen:
            seen.add(count)
            yield count, terms


def all_residues(shape: ConvShape) -> np.ndarray:
    """Return ``residue_table`` for kernels of three axes."""
    return residue_table(shape, AXES)


class Mma(Algorithm):
    """For float16 and bfloat16 on sm_80 or newer, channels last, in whole chunks of channels."""

    name = "mma"

    def plans(self, problem: Problem) -> Iterator[Plan]:
        if not applies(problem):
            return
        matrix, limit = matrix_of(problem), 1024 * MOST_SHARED.get(problem.architecture, 99)
        static = RESIDUES if problem.direction == "dgrad" else 0
        for tile in TILES:
            if tile.dynamic_bytes + static <= limit:
                for count, terms in splits(matrix, tile):
                    grid = (matrix.blocks(tile), 1, count)
                    yield Plan(self.name, Settings(tile, terms), grid, tile.threads, static)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the busiest multiprocessor's blocks take, and memory, and the splits' sum."""
        s, tile, (blocks, _, count) = problem.shape, plan.settings.tile, plan.grid
        matrix = matrix_of(problem)
        work = tile.m * tile.n * min(plan.settings.terms, matrix.k)
        # of dgrad's classes of pixels the matrix is the one with the most taps
        work *= s.multiply_adds / matrix.multiply_adds
        of_one = ceil_div(blocks * count, MULTIPROCESSORS)
        together = min(of_one, tile.blocks)
        alone = 0.7 if together * tile.threads < 256 else 1.0
        compute_us = of_one * work / (PEAK * tile.share * alone) + BLOCK_US * of_one / together
        sizes = map(math.prod, (s.x_shape, s.y_shape, s.w_shape))
        # by an H200, where a block's first loads and its stores keep nothing else busy
        total_us = LAUNCH_US + compute_us + sum(sizes) * problem.itemsize / BYTES
        if count > 1:
            result = {"fprop": s.y_shape, "dgrad": s.x_shape}[problem.direction]
            numbers = math.prod(result) * problem.accumulator_bytes
            total_us += LAUNCH_US + 2 * count * numbers / BYTES
        return total_us

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        source, w, b = arrays
        # what begins inside another array may lie at any address; a copy begins at a good one
        source, w = (array if aligned(array) else array.copy() for array in (source, w))
        s, count = problem.shape, plan.grid[2]
        size = s.y_shape if problem.direction == "fprop" else s.x_shape
        if count == 1:
            target = caller.xp.empty(size, source.dtype)
            self._launch(caller, problem, plan, source, w, b, target, None)
            return target
        partial = caller.xp.empty((count, *size), "float32")
        self._launch(caller, problem, plan, source, w, None, None, partial)
        return split_sum(caller, partial, source.dtype, b, problem.activation == "relu")

    def _launch(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        b: Array | None, target: Array | None, partial: Array | None,
    ) -> None:  # fmt: skip
        """Write the result into ``target``, or the splits' sums into ``partial``."""
        s, (tile, terms) = problem.shape, (plan.settings.tile, plan.settings.terms)
        if problem.direction == "fprop":
            arguments = (source, w, b, problem.activation == "relu", target, partial, terms)
        else:
            residues = caller.constant(all_residues, s), math.prod(s.strides)
            arguments = (source, w, b, target, partial, terms, *residues)
        kernel = KERNELS[problem.direction](problem.dtype, tile)
        caller.launch(kernel, plan.grid, plan.threads, *arguments, geometry_record(s))
