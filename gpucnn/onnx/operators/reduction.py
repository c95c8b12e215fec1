"""Reduce*, ArgMax and ArgMin."""

from __future__ import annotations

from ...backends.base import Array
from ...functional.reduce import MODES
from ...layers import (
    ArgMax,
    GlobalAveragePool1D,
    GlobalAveragePool2D,
    GlobalAveragePool3D,
)
from ...network import Node
from ..call import Call, Value
from ..exporting.reduce import operation
from .registry import operator

OF_NAME = {operation(mode): mode for mode in MODES}
POOLS = {1: GlobalAveragePool1D, 2: GlobalAveragePool2D, 3: GlobalAveragePool3D}


@operator(*OF_NAME)
def reduce(call: Call, x: Value, axes: Array | None = None) -> Value:
    """The axes are an attribute before opset 18 (ReduceSum: 13), an input from then on."""
    rank, mode = len(call.sizes(x)), OF_NAME[call.kind]
    places = call.get("axes") if axes is None else call.integers(axes, "the axes")
    if not places:
        if call.get("noop_with_empty_axes", 0):
            return call.reduce(x, mode, ())
        places = range(rank)
    keepdims = bool(call.get("keepdims", 1))
    if isinstance(x, Node) and mode == "mean":
        behind = {axis % rank for axis in places} == set(range(2, rank))
        if behind and rank - 2 in POOLS:
            layer = POOLS[rank - 2](keepdims=keepdims, data_format="channels_first")
            return call.apply(layer, x)
    return call.reduce(x, mode, places, keepdims)


@operator("ArgMax", "ArgMin")
def argmax(call: Call, x: Value) -> Value:
    axis, keepdims = call.axis(x, call.get("axis", 0)), bool(call.get("keepdims", 1))
    last = call.get("select_last_index", 0)
    if isinstance(x, Node):
        if last:
            raise call.refuse("select_last_index=1")
        x = x if call.kind == "ArgMax" else call.unary("negative", x)
        return call.apply(ArgMax(axis, keepdims=keepdims), x)
    xp = call.xp
    pick = xp.argmax if call.kind == "ArgMax" else xp.argmin
    place = pick(xp.flip(x, axis) if last else x, axis=axis)
    place = (x.shape[axis] - 1 - place if last else place).astype("int64")
    return xp.expand_dims(place, axis) if keepdims else place
