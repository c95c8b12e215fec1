"""The first rungs of docs/ladder.md: kernels to learn from (kernels/ladder_*.cu).

No plan chooses them. They are asked for by name, as ``LADDER["naive"]``, by the tests and the
benchmark, so that what they are the beginning of can be measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from ...base import Array
from ..geometry import geometry_record
from ..kernel import DTYPE, RANK, KernelFamily
from ..launch import BLOCK_THREADS, KernelCaller, ceil_div
from .base import LAUNCH_US, MULTIPLY_ADDS, MULTIPROCESSORS, Algorithm, Plan, Problem

WARP = 32
CLOCKS = MULTIPLY_ADDS / 128  # of a multiprocessor in a microsecond
_ELEMENT = {"float32": ("f32", {**DTYPE["float32"][1], **RANK[2][1], "CHANNELS_LAST": 1})}


@dataclass(frozen=True)
class Settings:
    """Pixels and filters of a block, a thread for each pair of them."""

    pixels: int
    filters: int


class Rung(Algorithm):
    """fprop in float32, channels last, one group, one or two axes: a thread for each output.

    Args:
        name: what it is asked for by, and its kernel's, ``conv_NAME`` of ``ladder_NAME.cu``.
        settings: what a block computes.
        shared_bytes: what it has of shared memory.
        wavefronts: how often the cache or shared memory is read for a multiply-add of a warp.
    """

    def __init__(self, name: str, settings: Settings, shared_bytes: int, wavefronts: float) -> None:
        self.name, self.settings, self.shared_bytes = name, settings, shared_bytes
        self.wavefronts = wavefronts
        self.family = KernelFamily(f"ladder_{name}.cu", f"conv_{name}", _ELEMENT)

    def plans(self, problem: Problem) -> Iterator[Plan]:
        s, block = problem.shape, self.settings
        if (
            problem.direction == "fprop"
            and problem.dtype == "float32"
            and s.channels_last
            and s.groups == 1
            and s.rank <= 2
        ):
            pixels = ceil_div(s.batch * math.prod(s.output), block.pixels)
            grid = (pixels, ceil_div(s.filters, block.filters), 1)
            threads = block.pixels * block.filters
            yield Plan(self.name, block, grid, threads, self.shared_bytes)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What its reads take, at one wavefront a clock; nothing else comes near."""
        warps = plan.threads // WARP * math.prod(plan.grid)
        terms = problem.shape.taps * problem.shape.channels
        return LAUNCH_US + warps * terms * self.wavefronts / (MULTIPROCESSORS * CLOCKS)

    def run(self, caller: KernelCaller, problem: Problem, plan: Plan, *arrays: Array) -> Array:
        x, w, b = arrays
        s, relu = problem.shape, problem.activation == "relu"
        y = caller.xp.empty(s.y_shape, x.dtype)
        record = geometry_record(s)
        caller.launch(self.family(x.dtype), plan.grid, plan.threads, x, w, b, relu, y, record)
        return y


# A warp of the first reads one pixel, and the weights of 32 filters from 32 lines; one of the
# second reads four numbers of its pixel at once, half a warp at a time, and of each filter one.
NAIVE = Rung("naive", Settings(BLOCK_THREADS // WARP, WARP), 0, wavefronts=1 + 32)
TILED = Rung("tiled", Settings(32, 32), 4 * (32 * 32 + 32 * 33), wavefronts=2 / 4 + 1)
