"""Pooling of whole maps on the GPU (kernels/global_pool*.cu)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ...shapes import PoolShape
from ..base import Array, accumulator
from .kernel import CHANNELS_LAST, DTYPE, Axis, KernelFamily
from .launch import BLOCK_THREADS, KernelCaller, aligned, ceil_div
from .pool_plans import WholePlan, whole_plan
from .spatial import DIVISOR, check_sizes, divisor

REDUCTION: Axis = {  # a minimum is chosen as a maximum is, and an average summed
    True: ("max", {"MODE": "MAX"}),
    False: ("sum", {"MODE": "SUM"}),
}
WHOLE = KernelFamily("global_pool.cu", "global_pool", REDUCTION, CHANNELS_LAST, DTYPE)
FINISH = KernelFamily("global_pool.cu", "global_pool_finish", REDUCTION, CHANNELS_LAST, DTYPE)
ROWS = KernelFamily("global_pool_backward.cu", "global_pool_backward", REDUCTION, DTYPE)

# struct GlobalGeometry of kernels/global_pool.cu
_NUMBERS = (
    "units", "pitch", "per_split", "columns", "width", "slots", "splits", "aligned", "minimum",
    "average", "index_bytes", "relu",
)  # fmt: skip
_GEOMETRY = np.dtype(
    [(name, "i4") for name in _NUMBERS] + [(f"by_{name}", DIVISOR) for name in ("lanes", "units")]
)


@lru_cache(maxsize=1024)
def _record(
    shape: PoolShape, width: int, at_once: bool, relu: bool
) -> tuple[np.ndarray, WholePlan]:
    image, results = shape.channels * shape.taps, shape.batch * shape.channels
    check_sizes("pooling", ("one image", image, 31), ("the output", results, 31))
    plan = whole_plan(shape, width)
    record = np.zeros(1, _GEOMETRY)
    numbers = (
        plan.units, shape.channels if shape.channels_last else width, plan.per_split, plan.columns,
        width, plan.slots, plan.splits, at_once, shape.mode == "min", shape.mode == "average",
        np.dtype(shape.index_dtype).itemsize, relu,
    )  # fmt: skip
    for name, number in zip(_NUMBERS, numbers, strict=True):
        record[name] = number
    neighbours = BLOCK_THREADS // plan.slots if shape.channels_last else plan.slots
    record["by_lanes"] = divisor(neighbours)
    record["by_units"] = divisor(shape.channels // width if shape.channels_last else 1)
    return record, plan


def whole_forward(
    caller: KernelCaller, x: Array, y: Array, index: Array | None, shape: PoolShape, width: int,
    relu: bool,
) -> None:  # fmt: skip
    """Reduce each whole map to one number of y, and of the index if there is one."""
    record, plan = _record(shape, width, aligned(x), relu)
    selects = shape.mode in ("max", "min")
    choice = (selects, shape.channels_last, x.dtype)
    partial = places = None
    if plan.splits > 1:
        partial = caller.xp.empty((plan.splits, y.size), accumulator(x.dtype))
        places = caller.xp.empty(partial.shape, "int32") if selects else None
    grid = (ceil_div(plan.columns * plan.slots, BLOCK_THREADS), plan.splits)
    caller.launch(WHOLE(*choice), grid, BLOCK_THREADS, x, y, index, partial, places, record)
    if plan.splits > 1:
        caller.launch_elements(
            FINISH(*choice), y.size, partial, places, y, index, y.size, record
        )  # fmt: skip


def rows_backward(
    caller: KernelCaller, dy: Array, index: Array | None, dx: Array, shape: PoolShape
) -> None:
    """Spread each number of dy over its row of dx, or give it to the one that the index names."""
    bytes_each = 0 if index is None else index.dtype.itemsize
    caller.launch_packs(
        ROWS(index is not None, dy.dtype), dx, dy, index, dx, shape.mode == "average", bytes_each,
        np.array([divisor(shape.taps)], DIVISOR),
    )  # fmt: skip
