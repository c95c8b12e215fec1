"""Pooling on the GPU (kernels/pool*.cu, and kernels/global_pool*.cu for whole maps)."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import numpy as np

from ...shapes import PoolShape
from ..base import Array
from .global_pool import REDUCTION, rows_backward, whole_forward
from .kernel import DTYPE, Axis, KernelFamily
from .launch import KernelCaller, aligned, batch_parts
from .pool_plans import PoolPlan, backward_plan, forward_plan
from .spatial import AXES, DIVISOR, check_sizes, divisor, padded_sizes, per_axis

_MODE: Axis = {mode: (mode, {"MODE": mode.upper()}) for mode in ("max", "min", "sum")}
_UNIT: Axis = {unit: (unit, {"UNIT": unit.upper()}) for unit in ("one", "channels", "pairs")}
_GATHERED: Axis = {unit: _UNIT[unit] for unit in ("one", "channels")}
FORWARD = KernelFamily("pool.cu", "pool_forward", _MODE, _UNIT, DTYPE)
GATHER = KernelFamily("pool_gather.cu", "pool_gather", REDUCTION, _GATHERED, DTYPE)
CELLS = KernelFamily("pool_cells.cu", "pool_cells", REDUCTION, _UNIT, DTYPE)

_NUMBERS = ("depth", "average", "count_padding", "index_bytes")
_PER_AXIS = (
    "input", "window", "output", "stride", "dilation", "reach", "overlap", "pad", "pad_after",
)  # fmt: skip
_DIVISORS = ("input", "output", "stride", "dilation")
# struct PoolGeometry of kernels/pool_geometry.cuh
_GEOMETRY = np.dtype(
    [(name, "i4") for name in _NUMBERS]
    + [(name, "i4", AXES) for name in _PER_AXIS]
    + [(f"by_{name}", DIVISOR, AXES) for name in _DIVISORS]
    + [("by_depth", DIVISOR)]
)


def _largest_map(shape: PoolShape) -> int:
    """Elements of one input or output image, whichever has more."""
    return shape.channels * max(math.prod(shape.input), math.prod(shape.output))


@lru_cache(maxsize=1024)
def pool_record(shape: PoolShape, plan: PoolPlan) -> np.ndarray:
    """Return a shape, seen in a plan's units, as the struct that the kernels take by value.

    Raises:
        ValueError: one image, or an axis, passes what the kernels count to.
    """
    check_sizes(
        "pooling",
        ("one image", _largest_map(shape), 31),
        ("an axis of the padded input", max(padded_sizes(shape.input, shape.padding)), 30),
    )
    depth = shape.channels if shape.channels_last else 1
    if plan.unit == "channels":
        depth //= plan.width
    elif plan.unit == "pairs":  # the last axis lies inside the units
        units = (*shape.input[:-1], shape.input[-1] // plan.width)
        window, strides = ((*sizes[:-1], 1) for sizes in (shape.window, shape.strides))
        shape = replace(shape, input=units, window=window, strides=strides)
    reach = [d * (r - 1) + 1 for r, d in zip(shape.window, shape.dilation, strict=True)]
    overlap = [-(-r // stride) for r, stride in zip(reach, shape.strides, strict=True)]
    before, after = zip(*shape.padding, strict=True)
    axes = (
        shape.input, shape.window, shape.output, shape.strides, shape.dilation, reach, overlap,
        before, after,
    )  # fmt: skip
    index_bytes = np.dtype(shape.index_dtype).itemsize
    numbers = (depth, shape.mode == "average", shape.count_padding, index_bytes)
    record = np.zeros(1, _GEOMETRY)
    for name, number in zip(_NUMBERS, numbers, strict=True):
        record[name] = number
    record["by_depth"] = divisor(depth)
    for name, values in zip(_PER_AXIS, axes, strict=True):
        padded = per_axis(values, neutral=0 if name.startswith("pad") else 1)
        record[name] = padded
        if name in _DIVISORS:
            record[f"by_{name}"] = list(map(divisor, padded))
    return record


class Pools(KernelCaller):
    """``pool_forward`` and ``pool_backward``."""

    def pool_forward(
        self, x: Array, shape: PoolShape, with_index: bool = True
    ) -> tuple[Array, Array | None]:
        y = self.xp.empty(shape.y_shape, x.dtype)
        selects = shape.mode in ("max", "min")
        index = self.xp.empty(shape.y_shape, shape.index_dtype) if selects and with_index else None
        plan = forward_plan(shape, x.dtype.itemsize, aligned(x))
        if plan.kernel == "whole":
            whole_forward(self, x, y, index, shape, plan.width)
            return y, index
        kernel = FORWARD(shape.mode if selects else "sum", plan.unit, x.dtype)
        record = pool_record(shape, plan)
        for x_part, part, index_part in batch_parts(_largest_map(shape), x, y, index):
            count = part.size // plan.results
            self.launch_elements(kernel, count, x_part, part, index_part, count, record)
        return y, index

    def pool_backward(self, dy: Array, index: Array | None, shape: PoolShape) -> Array:
        dx = self.xp.empty(shape.x_shape, dy.dtype)
        plan = backward_plan(shape, dy.dtype.itemsize, aligned(dy, index))
        for dy_part, index_part, part in batch_parts(_largest_map(shape), dy, index, dx):
            if plan.kernel == "rows":
                rows_backward(self, dy_part, index_part, part, shape)
                continue
            cells = plan.kernel == "cells"
            kernel = (CELLS if cells else GATHER)(index is not None, plan.unit, dy.dtype)
            count = dy_part.size // plan.results if cells else part.size // plan.width
            record = pool_record(shape, plan)
            self.launch_elements(kernel, count, dy_part, index_part, part, count, record)
        return dx
