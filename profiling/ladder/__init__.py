"""The rungs of docs/ladder.md: kernels of one convolution, from the first idea to the fastest.

A rung is a file of kernels/ and the plans of an algorithm that are it. ``python -m
profiling.ladder`` writes what the page counts and has measured; ``python -m profiling.gpu ladder``
measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gpucnn.backends.cuda.algorithms import ALGORITHMS, LADDER, Algorithm, Plan, Problem
from gpucnn.shapes import ConvShape

# What is measured: VGG-16's conv3_2 and ResNet-50's conv4_1.1x1b, as in profiling/gpu/networks.py.
LAYERS = {
    "3x3": ConvShape.of((64, 56, 56, 256), (256, 3, 3, 256), padding=1),
    "1x1": ConvShape.of((32, 14, 14, 256), (1024, 1, 1, 256)),
}


@dataclass(frozen=True)
class Rung:
    """One kernel of the ladder.

    Attributes:
        name: what it is asked for by.
        title: what is new in it.
        file: of kernels/, where to read on.
        dtype: of x, w and y.
        algorithm: its name among ``ALGORITHMS`` or ``LADDER``.
        symbol: a pattern that the name of its kernel begins with.
        takes: whether a plan of the algorithm is this rung, and not another.
    """

    name: str
    title: str
    file: str
    dtype: str
    algorithm: str
    symbol: str
    takes: Callable[[Any], bool] = lambda settings: True

    @property
    def number(self) -> int:
        return RUNGS.index(self)

    def problem(self, shape: ConvShape, architecture: int = 90) -> Problem:
        return Problem("fprop", shape, self.dtype, architecture=architecture)

    def run_by(self) -> Algorithm:
        return {**ALGORITHMS, **LADDER}[self.algorithm]

    def plan(self, shape: ConvShape, architecture: int = 90) -> Plan | None:
        """Return its best plan by the algorithm's estimate, None where it does not apply."""
        problem, algorithm = self.problem(shape, architecture), self.run_by()
        plans = filter(Plan.is_legal, algorithm.plans(problem))
        mine = (plan for plan in plans if self.takes(plan.settings))
        return min(mine, key=partial(algorithm.cost, problem), default=None)


def _vectors(settings: Any) -> bool:
    return settings.tile.vector > 1


def _patches(settings: Any) -> bool:
    return settings.tile.patches > 0 and settings.tile.cluster == 1


def _in_order(settings: Any) -> bool:
    """Return whether all consumers multiply one tile, none stores while others multiply, and the
    block brings all of it."""
    tile = settings.tile
    return not tile.patches and tile.teams == tile.cluster == 1


def _clusters(settings: Any) -> bool:
    return not settings.tile.patches and settings.tile.cluster > 1


def _other(takes: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda settings: not takes(settings)


_F32, _BF16 = "float32", "bfloat16"
_GEMM = ("implicit_gemm", r"conv_fprop_implicit_gemm_2d_nhwc_f32_\d+x\d+")
RUNGS: Sequence[Rung] = (
    Rung("naive", "one thread an output", "ladder_naive.cu", _F32, "naive", "conv_naive_"),
    Rung("tiled", "tiles in shared memory", "ladder_tiled.cu", _F32, "tiled", "conv_tiled_"),
    Rung(
        "registers", "a tile in each thread's registers", "conv_fprop.cu", _F32,
        _GEMM[0], _GEMM[1] + "$", _other(_vectors),
    ),
    Rung(
        "pipelined", "16 bytes at a time, ahead of time", "tile_gemm_async.cuh", _F32,
        _GEMM[0], _GEMM[1] + "_v", _vectors,
    ),
    Rung(
        "winograd", "fewer multiplications", "conv_winograd.cu", _F32, "winograd",
        "conv_winograd_nhwc",
    ),
    Rung(
        "winograd4", "fewer still, by way of memory", "conv_winograd4.cu", _F32, "winograd4",
        "winograd4_",
    ),
    Rung("mma", "tensor cores", "conv_fprop_mma.cu", _BF16, "mma", "conv_fprop_mma_"),
    Rung(
        "wgmma", "Hopper's, with a producer and consumers", "conv_wgmma.cu", _BF16, "wgmma",
        r"conv_wgmma_b?f16", _in_order,
    ),
    Rung(
        "patches", "each pixel fetched once for nine taps", "conv_wgmma_patch.cu", _BF16, "wgmma",
        "conv_wgmma_patch_", _patches,
    ),
    Rung(
        "clusters", "what two blocks need fetched once", "conv_wgmma.cu", _BF16, "wgmma",
        r"conv_wgmma_b?f16\w*_cluster", _clusters,
    ),
)  # fmt: skip
BY_NAME = {rung.name: rung for rung in RUNGS}
