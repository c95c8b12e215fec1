"""Implicit GEMM through shared-memory tiles: every convolution there is (kernels/conv_*.cu)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...base import Array, accumulator
from ..epilogue import Epilogue
from ..geometry import RESIDUE, geometry_record, residue_table
from ..kernel import CHANNELS_LAST, DTYPE, RANK, Axis, Kernel, KernelFamily
from ..launch import KernelCaller, aligned, aligned_copy, ceil_div
from ..spatial import AXES
from ..split_sum import NOTHING, in_splits, split_sum
from .base import (
    BYTES,
    LAUNCH_US,
    MULTIPLY_ADDS,
    MULTIPROCESSORS,
    FusingAlgorithm,
    Plan,
    Problem,
)
from .tiles import (
    LARGE,
    NARROW,
    PLAIN,
    SLIM,
    SQUARE,
    SQUARE_FIRST,
    STRIP,
    TALL,
    TALL_FIRST,
    THIN,
    WIDE,
    Tile,
    matrix_of,
    tile_axis,
    vectors_fit,
)

FUNCTIONS = {
    direction: (f"conv_{direction}.cu", f"conv_{direction}_implicit_gemm")
    for direction in ("fprop", "dgrad", "wgrad")
}
# A convolution along one axis is one along two, the first of them of size 1.
KERNEL_RANK: Axis = {rank: RANK[rank] for rank in (2, 3)}


def kernel_families(dtypes: Axis, tiles: Axis, **options: int) -> dict[str, KernelFamily]:
    """Declare the kernels of all directions over these dtypes and tiles."""
    axes = (KERNEL_RANK, CHANNELS_LAST, dtypes, tiles)
    return {name: KernelFamily(*where, *axes, **options) for name, where in FUNCTIONS.items()}


# By direction and channels_last.
VECTOR_TILES = {
    ("fprop", True): (TALL, SQUARE, SLIM, STRIP, THIN),
    ("dgrad", True): (TALL, SQUARE, SLIM, STRIP, THIN),
    ("wgrad", True): (TALL, SQUARE, SLIM, STRIP),
    **{(direction, False): (TALL_FIRST, SQUARE_FIRST) for direction in FUNCTIONS},
}
VECTOR_KERNELS = {
    (direction, channels_last): KernelFamily(
        *FUNCTIONS[direction], KERNEL_RANK, {channels_last: CHANNELS_LAST[channels_last]},
        {"float32": DTYPE["float32"]}, tile_axis(tiles),
    )
    for (direction, channels_last), tiles in VECTOR_TILES.items()
}  # fmt: skip
# Channels last, for maps of two axes at most: those of three take more registers. The large one
# leaves too few for places that differ from row to row.
FLAT_TILES = {"fprop": (WIDE,), "dgrad": (WIDE,), "wgrad": (LARGE,)}
FLAT_KERNELS = {
    direction: KernelFamily(
        *FUNCTIONS[direction], {2: RANK[2]}, {True: CHANNELS_LAST[True]},
        {"float32": DTYPE["float32"]}, tile_axis(tiles),
    )
    for direction, tiles in FLAT_TILES.items()
}  # fmt: skip
# The share of a multiprocessor's multiply-adds that 1, 2 ... blocks of a tile reach on it together.
PACE: dict[Tile, tuple[float, ...]] = {
    LARGE: (0.42, 0.62),
    WIDE: (0.3, 0.62, 0.65),
    TALL: (0.26, 0.55, 0.58),
    SQUARE: (0.3, 0.5, 0.55, 0.56),
    SLIM: (0.2, 0.4, 0.54, 0.55),
    STRIP: (0.11, 0.22, 0.38, 0.42),
    THIN: (0.03, 0.06, 0.09, 0.1, 0.12, 0.13),
    TALL_FIRST: (0.26, 0.5),
    SQUARE_FIRST: (0.25, 0.4, 0.45),
    PLAIN: (0.25, 0.34, 0.37),
    NARROW: (0.08, 0.15, 0.2, 0.25),
}
TURNED = 0.86  # of the time, for wgrad: its vectors already lie as they are multiplied
ENDS_US = 1.3  # of a block: places to work out, the first slab on its way, and the stores
MEMORY_WAIT = 0.5  # the share of what memory takes that no arithmetic hides
RESIDUES = ceil_div(AXES * RESIDUE.itemsize, 16) * 16  # bytes of a block's in dgrad, aligned


@dataclass(frozen=True)
class Settings:
    """The block's tile, and how many terms one split sums."""

    tile: Tile
    terms: int


def _asynchronous(problem: Problem, tile: Tile) -> bool:
    """Return whether kernels/tile_gemm_async.cuh brings the operands."""
    whole_vectors = tile.vector > 1 and tile.vector_n > 1 and problem.shape.channels_last
    return whole_vectors and problem.architecture >= 80


class ImplicitGemm(FusingAlgorithm):
    name = "implicit_gemm"
    tiles: tuple[Tile, ...] = (PLAIN, NARROW)  # in any dtype
    skew = 12  # of the slabs of kernels/tile_fma.cuh
    kernels = kernel_families(DTYPE, tile_axis(tiles))
    pace = PACE

    def plans(self, problem: Problem) -> Iterator[Plan]:
        matrix = matrix_of(problem)
        tiles = self.tiles
        if problem.dtype == "float32":
            tiles += VECTOR_TILES[problem.direction, problem.shape.channels_last]
            if problem.shape.channels_last and problem.shape.rank < 3:
                tiles += FLAT_TILES[problem.direction]
        for tile in tiles:
            if vectors_fit(problem, tile):
                for splits, terms in matrix.splits(tile):
                    yield self._plan(problem, tile, splits, terms)

    def _plan(self, problem: Problem, tile: Tile, splits: int, terms: int) -> Plan:
        grid = (matrix_of(problem).blocks(tile), 1, splits)
        shared, line = tile.shared_bytes(problem.accumulator_bytes, self.skew), 1
        if _asynchronous(problem, tile):
            shared, line = tile.async_bytes(problem.direction), 128  # its slabs begin at lines
        shared += ceil_div(RESIDUES, line) * line if problem.direction == "dgrad" else 0
        return Plan(self.name, Settings(tile, terms), grid, tile.threads, shared)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the blocks take, what memory adds or takes at least, and the splits' sum."""
        s, splits, bytes_each = problem.shape, plan.grid[2], problem.accumulator_bytes
        result = {"fprop": s.y_shape, "dgrad": s.x_shape, "wgrad": s.w_shape}[problem.direction]
        numbers = sum(map(math.prod, (s.x_shape, s.y_shape, s.w_shape)))
        memory_us = numbers * bytes_each / BYTES
        arithmetic_us = self.arithmetic_us(problem, plan)
        total_us = LAUNCH_US + max(arithmetic_us + MEMORY_WAIT * memory_us, memory_us)
        if splits > 1 or problem.wide:
            total_us += LAUNCH_US + 2 * splits * math.prod(result) * bytes_each / BYTES
        return total_us

    def arithmetic_us(self, problem: Problem, plan: Plan) -> float:
        """Estimate what the busiest multiprocessor's blocks take: whole waves, and one that is not.

        After several waves the blocks are no longer in step, and less of the last one stands alone.
        """
        tile, blocks, matrix = plan.settings.tile, math.prod(plan.grid), matrix_of(problem)
        work = tile.m * tile.n * plan.settings.terms / self.rate(problem)
        # of dgrad's classes of pixels the matrix is the one with the most taps
        work *= problem.shape.multiply_adds / matrix.multiply_adds
        if problem.direction == "wgrad" and tile.vector_n > 1:
            work *= TURNED
        pace, held = self.pace[tile], tile.blocks
        wave_us = held * work / pace[-1] + ENDS_US
        waves, left = divmod(ceil_div(blocks, MULTIPROCESSORS), held)
        if not left:
            return waves * wave_us
        alone_us = left * work / pace[left - 1] + ENDS_US
        among_us = max(0, blocks / (MULTIPROCESSORS * held) - waves) * wave_us
        return waves * wave_us + among_us + (alone_us - among_us) / max(1, waves)

    def rate(self, problem: Problem) -> float:
        """Return a multiprocessor's multiply-adds in a microsecond; ``pace`` is a share of them."""
        return MULTIPLY_ADDS / (2 if problem.dtype == "float64" else 1)

    def moment_parts(self, problem: Problem, plan: Plan) -> int:
        """A part is the rows of a warp."""
        tile = plan.settings.tile
        if plan.grid[2] > 1 or problem.dtype == "float64":
            return 0
        across = min(8, tile.n // tile.thread_n)  # threads of a warp, as in kernels/tile_fma.cuh
        rows = 32 // across * tile.thread_m
        return ceil_div(matrix_of(problem).m, tile.m) * (tile.m // rows)

    def widens(self, problem: Problem, plan: Plan) -> bool:
        return True

    def _for_addresses(
        self, caller: KernelCaller, problem: Problem, plan: Plan, arrays: tuple[Array, ...]
    ) -> Plan:
        """Return the plan, or where vectors cannot be loaded one with the same order of sums."""
        if plan.settings.tile.vector == 1 or aligned(*arrays):
            return plan
        return self._plan(problem, PLAIN, plan.grid[2], plan.settings.terms)

    def _kernel(self, problem: Problem, plan: Plan) -> Kernel:
        shape, tile = problem.shape, plan.settings.tile
        family = self.kernels[problem.direction]
        if tile in FLAT_TILES[problem.direction]:
            family = FLAT_KERNELS[problem.direction]
        elif tile.vector > 1:
            family = VECTOR_KERNELS[problem.direction, shape.channels_last]
        return family(max(2, shape.rank), shape.channels_last, problem.dtype, tile)

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        s = problem.shape
        if epilogue.moments is None:  # of which another tile has other parts
            plan = self._for_addresses(caller, problem, plan, (source, w))
        else:
            source, w = map(aligned_copy, (source, w))
        size = s.y_shape if problem.direction == "fprop" else s.x_shape
        return in_splits(
            caller, plan.grid[2], size, source.dtype,
            lambda *ends: self._launch(caller, problem, plan, source, w, *ends), epilogue,
            s.channels_last, problem.wide,
        )  # fmt: skip

    def run_wgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array
    ) -> Array:
        plan = self._for_addresses(caller, problem, plan, (x, dy))
        partial = caller.xp.empty((plan.grid[2], *problem.shape.w_shape), accumulator(x.dtype))
        self._launch(caller, problem, plan, x, dy, NOTHING, None, partial)
        return split_sum(caller, partial, x.dtype)

    def partial_sums(
        self, caller: KernelCaller, problem: Problem, plan: Plan, a: Array, b: Array,
        partial: Array,
    ) -> None:  # fmt: skip
        """Write what each split sums into ``partial`` (splits, *shape of the result).

        a, b: x, w for fprop; dy, w for dgrad; x, dy for wgrad.
        """
        plan = self._for_addresses(caller, problem, plan, (a, b))
        self._launch(caller, problem, plan, a, b, NOTHING, None, partial)

    def _launch(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, other: Array,
        epilogue: Epilogue, target: Array | None, partial: Array | None,
    ) -> None:  # fmt: skip
        """Write the result into ``target``, or the splits' sums into ``partial``."""
        s, terms = problem.shape, plan.settings.terms
        residual, function = aligned_copy(epilogue.residual), epilogue.function(source.dtype)
        if problem.direction == "fprop":
            arguments = (
                source, other, epilogue.b, residual, *function, epilogue.moments, target, partial,
                terms,
            )  # fmt: skip
        elif problem.direction == "dgrad":
            residues = caller.constant(residue_table, s), math.prod(s.strides)
            arguments = (
                source, other, epilogue.b, residual, *function, target, partial, terms, *residues
            )  # fmt: skip
        else:
            arguments = (source, other, partial, terms)
        caller.launch(
            self._kernel(problem, plan), plan.grid, plan.threads, *arguments, geometry_record(s)
        )
