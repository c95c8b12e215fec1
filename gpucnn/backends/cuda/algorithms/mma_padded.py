"""Tensor cores for any number of channels: they are padded to whole chunks (kernels/pad_rows.cu).

Zeros are appended to the channels of each group, as far as the direction needs it: what a product
with them adds to a sum is 0. A gradient's own zeros are cut off again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ....shapes import ConvShape
from ...base import Array
from ..epilogue import Epilogue
from ..kernel import Axis, KernelFamily
from ..launch import KernelCaller, ceil_div
from ..spatial import DIVISOR, divisor
from .base import BYTES, LAUNCH_US, FusingAlgorithm, Plan, Problem
from .mma import Mma
from .mma_formats import chunk
from .mma_wgrad import MmaWgrad

BYTES_OF: Axis = {size: (f"b{8 * size}", {"BYTES": size}) for size in (2, 4)}
PAD = KernelFamily("pad_rows.cu", "pad_rows", BYTES_OF)
CROP = KernelFamily("pad_rows.cu", "crop_rows", BYTES_OF)

# What sums of few terms, as those of a picture's three channels, take over the estimate.
FEW_TERMS = 1.5


def padded(problem: Problem) -> Problem:
    """Return the problem with whole chunks of what the kernels move 16 bytes at a time."""
    s, whole = problem.shape, chunk(problem)
    deep = s.groups * whole * ceil_div(s.channels // s.groups, whole)
    wide = s.groups * whole * ceil_div(s.filters // s.groups, whole)
    if problem.direction == "fprop":
        wide = s.filters  # its last chunk may be any part of one
    return replace(problem, shape=replace(s, channels=deep, filters=wide), prologue=False)


class PaddedMma(FusingAlgorithm):
    """Where ``Mma`` and ``MmaWgrad`` do not apply for channels that are no whole chunks."""

    name = "mma_padded"

    def __init__(self) -> None:
        mma = Mma()
        self.by_direction = {"fprop": mma, "dgrad": mma, "wgrad": MmaWgrad()}

    def plans(self, problem: Problem) -> Iterator[Plan]:
        """Yield the plan that the other has for what is padded, where anything is."""
        whole, mma = padded(problem), self.by_direction[problem.direction]
        plans = mma.plans(whole) if whole.shape != problem.shape else ()
        best = min(plans, key=lambda plan: mma.cost(whole, plan), default=None)
        if best is not None:
            yield replace(best, algorithm=self.name)

    def cost(self, problem: Problem, plan: Plan) -> float:
        """What the padded problem takes, and a pass over all that is padded or cropped."""
        whole = padded(problem)
        sizes = ([math.prod(size) for size in (s.x_shape, s.y_shape, s.w_shape)]
                 for s in (problem.shape, whole.shape))  # fmt: skip
        passes = [a + b for a, b in zip(*sizes, strict=True) if a != b]
        passes_us = len(passes) * LAUNCH_US + sum(passes) * problem.itemsize / BYTES
        return FEW_TERMS * (self.by_direction[problem.direction].cost(whole, plan) + passes_us)

    def fuses(self, problem: Problem, plan: Plan) -> bool:
        joins = problem.through or (problem.direction == "dgrad" and problem.residual)
        return super().fuses(problem, plan) and not joins  # what is as dx would have to be padded

    def moment_parts(self, problem: Problem, plan: Plan) -> int:
        return self.by_direction["fprop"].moment_parts(padded(problem), plan)

    def pools(self, problem: Problem, plan: Plan) -> bool:
        return self.by_direction["fprop"].pools(padded(problem), plan)

    def widens(self, problem: Problem, plan: Plan) -> bool:
        return True

    def masks(self, problem: Problem, plan: Plan) -> bool:
        return self.by_direction["fprop"].masks(padded(problem), plan)

    def run_wgrad(
        self, caller: KernelCaller, problem: Problem, plan: Plan, x: Array, dy: Array
    ) -> Array:
        whole = padded(problem)
        s, t = problem.shape, whole.shape
        (deep, wide), (to_deep, to_wide) = rows(s), rows(t)
        x = resize_rows(caller, x, deep, to_deep, t.x_shape)
        dy = resize_rows(caller, dy, wide, to_wide, t.y_shape)
        dw = self.by_direction["wgrad"].run(caller, whole, plan, x, dy)
        filter_size, deep_filters = s.taps * to_deep, (*s.w_shape[:-1], to_deep)
        dw = resize_rows(caller, dw, to_wide * filter_size, wide * filter_size, deep_filters)
        return resize_rows(caller, dw, to_deep, deep, s.w_shape)

    def run_fused(
        self, caller: KernelCaller, problem: Problem, plan: Plan, source: Array, w: Array,
        epilogue: Epilogue,
    ) -> Array:  # fmt: skip
        whole, mma = padded(problem), self.by_direction[problem.direction]
        s, t = problem.shape, whole.shape
        (deep, wide), (to_deep, to_wide) = rows(s), rows(t)
        deep_filters = (*s.w_shape[:-1], to_deep)
        filter_size = s.taps * to_deep
        w = resize_rows(caller, w, deep, to_deep, deep_filters)
        if problem.direction == "fprop":
            source = resize_rows(caller, source, deep, to_deep, t.x_shape)
            return mma.run_fused(caller, whole, plan, source, w, epilogue)
        source = resize_rows(caller, source, wide, to_wide, t.y_shape)
        w = resize_rows(caller, w, wide * filter_size, to_wide * filter_size, t.w_shape)
        if epilogue.b is not None:
            b = resize_rows(caller, epilogue.b, deep, to_deep, (t.channels,))
            epilogue = replace(epilogue, b=b)
        dx = mma.run_fused(caller, whole, plan, source, w, epilogue)
        return resize_rows(caller, dx, to_deep, deep, s.x_shape)


def rows(shape: ConvShape) -> tuple[int, int]:
    """Return the channels and the filters of a group."""
    return shape.channels // shape.groups, shape.filters // shape.groups


def resize_rows(
    caller: KernelCaller, array: Array, width: int, to: int, shape: tuple[int, ...]
) -> Array:
    """Return rows of ``width`` numbers as rows of ``to``, padded by zeros or cropped, in a shape.

    The longer ones are whole chunks.
    """
    if width == to:
        return array
    result = caller.xp.empty(shape, array.dtype)
    itemsize = array.dtype.itemsize
    chunks = max(width, to) * itemsize // 16
    count = array.size // width * chunks
    kernel = (PAD if width < to else CROP)(itemsize)
    by_chunks = np.array([divisor(chunks)], DIVISOR)
    caller.launch_elements(kernel, count, array, result, min(width, to), count, by_chunks)
    return result
