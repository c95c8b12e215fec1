"""Pooling on the GPU (kernels/pool*.cu, and kernels/global_pool*.cu for whole maps)."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ...shapes import PoolShape
from ..base import Array
from .global_pool import REDUCTION, rows_backward, whole_forward
from .kernel import DTYPE, Axis, Kernel, KernelFamily
from .launch import KernelCaller, aligned, batch_parts
from .pool_plans import (
    PoolPlan,
    backward_plan,
    cells,
    forward_plan,
    seen_in_units,
    strips_of_a_row,
    units_of_a_sample,
)
from .spatial import AXES, DIVISOR, check_sizes, divisor, padded_sizes, per_axis

_MODE: Axis = {mode: (mode, {"MODE": mode.upper()}) for mode in ("max", "min", "sum")}
_UNIT: Axis = {unit: (unit, {"UNIT": unit.upper()}) for unit in ("one", "channels", "pairs")}
GATHERED_UNITS: Axis = {unit: _UNIT[unit] for unit in ("one", "channels")}
FORWARD = KernelFamily("pool.cu", "pool_forward", _MODE, _UNIT, DTYPE)
STRIPS = KernelFamily("pool_strips.cu", "pool_strips", _MODE, {"one": _UNIT["one"]}, DTYPE)
BACKWARD = {
    "gather": KernelFamily("pool_gather.cu", "pool_gather", REDUCTION, GATHERED_UNITS, DTYPE),
    "cells": KernelFamily("pool_cells.cu", "pool_cells", REDUCTION, _UNIT, DTYPE),
    "shared_cells": KernelFamily("pool_cells.cu", "pool_shared_cells", REDUCTION, _UNIT, DTYPE),
}

_NUMBERS = ("depth", "average", "count_padding", "index_bytes", "relu")
_PER_AXIS = (
    "input", "window", "output", "stride", "dilation", "cells", "reach", "pad", "pad_after",
)  # fmt: skip
_DIVISORS = ("input", "output", "stride", "dilation", "cells")
# struct PoolGeometry of kernels/pool_geometry.cuh
_GEOMETRY = np.dtype(
    [(name, "i4") for name in _NUMBERS]
    + [(name, "i4", AXES) for name in _PER_AXIS]
    + [(f"by_{name}", DIVISOR, AXES) for name in _DIVISORS]
    + [("by_depth", DIVISOR)]
)


def largest_map(shape: PoolShape) -> int:
    """Elements of an image, numbered by its inputs, outputs or cells, whichever are more."""
    return shape.channels * max(map(math.prod, (shape.input, shape.output, cells(shape))))


@lru_cache(maxsize=1024)
def pool_record(shape: PoolShape, plan: PoolPlan, relu: bool = False) -> np.ndarray:
    """Return a shape, seen in a plan's units, as the struct that the kernels take by value.

    Raises:
        ValueError: one image, or an axis, passes what the kernels count to.
    """
    check_sizes(
        "pooling",
        ("one image", largest_map(shape), 31),
        ("an axis of the padded input", max(padded_sizes(shape.input, shape.padding)), 30),
    )
    index_bytes = np.dtype(shape.index_dtype).itemsize
    seen = seen_in_units(shape, plan)
    reach = [d * (r - 1) + 1 for r, d in zip(seen.window, seen.dilation, strict=True)]
    before, after = zip(*seen.padding, strict=True)
    axes = (
        seen.input, seen.window, seen.output, seen.strides, seen.dilation, cells(seen), reach,
        before, after,
    )  # fmt: skip
    numbers = (seen.channels, seen.mode == "average", seen.count_padding, index_bytes, relu)
    record = np.zeros(1, _GEOMETRY)
    for name, number in zip(_NUMBERS, numbers, strict=True):
        record[name] = number
    record["by_depth"] = divisor(seen.channels)
    for name, values in zip(_PER_AXIS, axes, strict=True):
        padded = per_axis(values, neutral=0 if name.startswith("pad") else 1)
        record[name] = padded
        if name in _DIVISORS:
            record[f"by_{name}"] = list(map(divisor, padded))
    return record


class Pools(KernelCaller):
    """``pool_forward`` and ``pool_backward``."""

    def pool_forward(
        self, x: Array, shape: PoolShape, with_index: bool = True, activation: str = "linear"
    ) -> tuple[Array, Array | None]:
        y = self.xp.empty(shape.y_shape, x.dtype)
        selects = shape.mode in ("max", "min")
        index = self.xp.empty(shape.y_shape, shape.index_dtype) if selects and with_index else None
        plan = forward_plan(shape, x.dtype.itemsize, aligned(x))
        if plan.kernel == "whole":
            whole_forward(self, x, y, index, shape, plan.width, activation == "relu")
            return y, index
        record = pool_record(shape, plan, activation == "relu")
        mode, strips = shape.mode if selects else "sum", plan.kernel == "strips"
        kernel = (STRIPS if strips else FORWARD)(mode, plan.unit, x.dtype)
        for parts in batch_parts(largest_map(shape), x, y, index):
            if strips:
                self._launch_strips(kernel, shape, record, *parts)
            else:
                self._launch_units(kernel, shape, plan, record, *parts)
        return y, index

    def pool_backward(self, dy: Array, index: Array | None, shape: PoolShape) -> Array:
        dx = self.xp.empty(shape.x_shape, dy.dtype)
        plan = backward_plan(shape, dy.dtype.itemsize, aligned(dy, index))
        for dy_part, index_part, part in batch_parts(largest_map(shape), dy, index, dx):
            if plan.kernel == "rows":
                rows_backward(self, dy_part, index_part, part, shape)
            else:
                kernel = BACKWARD[plan.kernel](index is not None, plan.unit, dy.dtype)
                record = pool_record(shape, plan)
                self._launch_units(kernel, shape, plan, record, dy_part, index_part, part)
        return dx

    def _launch_strips(
        self, kernel: Kernel, shape: PoolShape, record: np.ndarray, *arrays: Array | None
    ) -> None:
        strips = strips_of_a_row(shape)
        count = len(arrays[0]) * shape.channels * shape.output[0] * strips
        by_strips = np.array([divisor(max(1, strips))], DIVISOR)
        self.launch_elements(kernel, count, *arrays, count, record, by_strips)

    def _launch_units(
        self, kernel: Kernel, shape: PoolShape, plan: PoolPlan, record: np.ndarray,
        *arrays: Array | None,
    ) -> None:  # fmt: skip
        """Launch a thread for each unit of samples; the arrays are in the kernel's order."""
        count = len(arrays[0]) * units_of_a_sample(shape, plan)
        self.launch_elements(kernel, count, *arrays, count, record)
