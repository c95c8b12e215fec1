"""Reductions, over axes wherever these lie in the tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...layers.reduce import ArgMax, Reduce
from .builder import Builder, Value
from .registry import exports


def operation(mode: str) -> str:
    """Return ONNX's name of one of ``functional.reduce_forward``'s modes.

    >>> operation("log_sum_exp")
    'ReduceLogSumExp'
    """
    return f"Reduce{mode.title().replace('_', '')}"


@exports(Reduce)
def reduce(builder: Builder, layer: Reduce, x: Value) -> Value:
    return reduced(builder, x, layer.mode, layer.axes, layer.keepdims)


@exports(ArgMax)
def arg_max(builder: Builder, layer: ArgMax, x: Value) -> Value:
    x = builder.arranged(x, x.order)
    place, keepdims = x.place(layer.axis), layer.keepdims
    name = builder.node("ArgMax", x.name, axis=place, keepdims=int(keepdims))
    return _left(x, name, [layer.axis], keepdims, np.dtype(np.int64))


def reduced(builder: Builder, x: Value, mode: str, axes: Sequence[int], keepdims: bool) -> Value:
    """Reduce axes of the array by one of ``functional.reduce_forward``'s modes."""
    x = builder.arranged(x, x.order)
    places = builder.constant("axes", np.array(sorted(map(x.place, axes))))
    name = builder.node(operation(mode), x.name, places, keepdims=int(keepdims))
    return _left(x, name, axes, keepdims)


def _left(
    x: Value, name: str, axes: Sequence[int], keepdims: bool, dtype: np.dtype | None = None
) -> Value:
    """Return what is left of x without some of its axes, or with sizes of 1 in their place."""
    gone = {axis % x.rank for axis in axes}
    sizes = enumerate((0, *x.shape))
    if keepdims:
        shape = tuple(1 if axis in gone else size for axis, size in sizes)[1:]
        return Value(name, shape, x.order, dtype=dtype)
    shape = tuple(size for axis, size in sizes if axis not in gone)[1:]
    kept = [axis for axis in range(x.rank) if axis not in gone]
    order = tuple(kept.index(axis) for axis in x.order if axis not in gone)
    return Value(name, shape, order, dtype=dtype)
