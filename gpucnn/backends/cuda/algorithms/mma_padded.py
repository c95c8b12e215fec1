"""Tensor cores for any number of channels: they are padded to whole chunks (kernels/pad_rows.cu).

Zeros are appended to the channels of each group, as far as the direction needs it: what a product
with them adds to a sum is 0. A gradient's own zeros are cut off again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...base import Array
from ..epilogue import Epilogue
from ..kernel import KernelFamily
from ..launch import KernelCaller, ceil_div
from ..spatial import DIVISOR, divisor
from .base import BYTES, LAUNCH_US, FusingAlgorithm, Plan, Problem
from .mma import CHUNK, Mma

PAD = KernelFamily("pad_rows.cu", "pad_rows")
CROP = KernelFamily("pad_rows.cu", "crop_rows")

# What sums of few terms, as those of a picture's three channels, take over the estimate.
FEW_TERMS = 1.5


def padded(problem: Problem) -> Problem:
    """Return the problem with whole chunks of what the kernels move 16 bytes at a time."""
    s = problem.shape
    deep = s.groups * CHUNK * ceil_div(s.channels // s.groups, CHUNK)
    wide = s.groups * CHUNK * ceil_div(s.filters // s.groups, CHUNK)
    if problem.direction == "fprop":
        wide = s.filters  # its last chunk may be any part of one
    return replace(problem, shape=replace(s, channels=deep, filters=wide))


class PaddedMma(FusingAlgorithm):
    """Where ``Mma`` does not apply for the sake of channels that are no whole chunks."""

    name = "mma_padded"

    def __init__(self) -> None:
        self.mma = Mma()

    def plans(self, problem: Problem) -> Iterator[Plan]:
        """Yield the plan that ``Mma`` has for what is padded, where anything is."""
        whole = padded(problem)
        plans = self.mma.plans(whole) if whole != problem else ()
        best = min(plans, key=lambda plan: self.mma.cost(whole, plan), default=None)
        if best is not None:
            yield replace(best, algorithm=self.name)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the padded problem takes, and a pass over all that is padded or cropped."""
        whole = padded(problem)
        sizes = ([math.prod(size) for size in (s.x_shape, s.y_shape, s.w_shape)]
                 for s in (problem.shape, whole.shape))  # fmt: skip
        passes = [a + b for a, b in zip(*sizes, strict=True) if a != b]
        passes_us = len(passes) * LAUNCH_US + sum(passes) * problem.itemsize / BYTES
        return FEW_TERMS * (self.mma.cost(whole, plan) + passes_us)

    def moment_parts(self, problem: Problem, plan: Plan) -> int:
        return self.mma.moment_parts(padded(problem), plan)

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        whole = padded(problem)
        s, t = problem.shape, whole.shape
        (deep, wide), (to_deep, to_wide) = (
            (shape.channels // shape.groups, shape.filters // shape.groups) for shape in (s, t)
        )
        w = resize_rows(caller, w, deep, to_deep, (*s.w_shape[:-1], to_deep))
        if problem.direction == "fprop":
            source = resize_rows(caller, source, deep, to_deep, t.x_shape)
            return self.mma.run_fused(caller, whole, plan, source, w, epilogue)
        source = resize_rows(caller, source, wide, to_wide, t.y_shape)
        filter_size = s.taps * to_deep
        w = resize_rows(caller, w, wide * filter_size, to_wide * filter_size, t.w_shape)
        if epilogue.b is not None:
            b = resize_rows(caller, epilogue.b, deep, to_deep, (t.channels,))
            epilogue = replace(epilogue, b=b)
        dx = self.mma.run_fused(caller, whole, plan, source, w, epilogue)
        return resize_rows(caller, dx, to_deep, deep, s.x_shape)


def resize_rows(
    caller: KernelCaller, array: Array, width: int, to: int, shape: tuple[int, ...]
) -> Array:
    """Return rows of ``width`` numbers as rows of ``to``, padded by zeros or cropped, in a shape.

    The longer ones are whole chunks.
    """
    if width == to:
        return array
    result = caller.xp.empty(shape, array.dtype)
    chunks = max(width, to) // CHUNK
    count = array.size // width * chunks
    kernel = (PAD if width < to else CROP)()
    by_chunks = np.array([divisor(chunks)], DIVISOR)
    caller.launch_elements(kernel, count, array, result, min(width, to), count, by_chunks)
    return result
