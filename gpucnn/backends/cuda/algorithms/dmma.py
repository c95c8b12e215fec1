"""Implicit GEMM in float64 on tensor cores (kernels/conv_*.cu with tile_mma_f64.cuh)."""

from __future__ import annotations

from collections.abc import Iterator

from ..kernel import DTYPE
from .base import MULTIPLY_ADDS, Plan, Problem
from .implicit_gemm import ImplicitGemm, kernel_families
from .tiles import Tile, tile_axis

# A warp computes 8 * thread_m rows and 4 * thread_n columns.
SQUARE = Tile(64, 64, 4, 8, blocks=2)
SLIM = Tile(64, 16, 4, 2, blocks=2)  # few filters or channels in a group, or a small grid

# The share of a multiprocessor's multiply-adds, as many as in float32, that 1 and 2 blocks reach.
PACE = {SQUARE: (0.35, 0.58), SLIM: (0.12, 0.24)}
# GPUs for computing. The others multiply 2 doubles a clock, on tensor cores as elsewhere.
FAST = (80, 90, 100)
SLOWDOWN = 64


class Dmma(ImplicitGemm):
    """For float64 on sm_80 or newer."""

    name = "dmma"
    tiles = (SQUARE, SLIM)
    pace = PACE
    skew = 8  # of the slabs of kernels/tile_mma_f64.cuh
    kernels = kernel_families(
        {"float64": DTYPE["float64"]}, tile_axis(tiles, "mma", MULTIPLY="MMA_F64"),
        minimum_architecture=80,
    )  # fmt: skip

    def plans(self, problem: Problem) -> Iterator[Plan]:
        if problem.dtype == "float64" and problem.architecture >= 80:
            yield from super().plans(problem)

    def rate(self, problem: Problem) -> float:
        return MULTIPLY_ADDS / (1 if problem.architecture in FAST else SLOWDOWN)
