"""QuantizeLinear and DequantizeLinear: numbers on a grid, as quantised networks round them.

On arrays the grid's integers are integers. In a graph they are floating numbers of the same values,
so that a network that was trained for integers computes what they would give, by ordinary layers.
"""

from __future__ import annotations

import numpy as np
import onnx

from ...backends.base import Array
from ...layers import Clip
from ...network import Node
from ..call import Call, Value
from .registry import operator

GRIDS = ("int8", "uint8", "int16", "uint16")


@operator("QuantizeLinear")
def quantize(call: Call, x: Value, scale: Array, zero: Array | None = None) -> Value:
    """saturate(round(x / scale) + zero), halves to even."""
    kind = call.get("output_dtype", 0)
    if zero is not None:
        grid = zero.dtype
    else:
        grid = onnx.helper.tensor_dtype_to_np_dtype(kind) if kind else np.dtype("uint8")
    if grid.name not in GRIDS:
        raise call.refuse(f"a grid of {grid.name}")
    scale, zero = _along(call, x, scale), _along(call, x, zero)
    ends = np.iinfo(grid)
    steps = call.unary("round", call.binary("divide", _wide(call, x), _wide(call, scale)))
    if zero is not None:
        steps = call.binary("add", steps, _wide(call, zero))
    if isinstance(x, Node):
        return call.apply(Clip(ends.min, ends.max), steps)
    return call.xp.clip(steps, ends.min, ends.max).astype(grid)


@operator("DequantizeLinear")
def dequantize(call: Call, x: Value, scale: Array, zero: Array | None = None) -> Value:
    """(x - zero) * scale."""
    if not isinstance(x, Node) and x.dtype.name not in (*GRIDS, "int32"):
        raise call.refuse(f"a grid of {x.dtype.name}")
    dtype = scale.dtype
    kind = call.get("output_dtype", 0)
    scale, zero = _along(call, x, scale), _along(call, x, zero)
    steps = x if isinstance(x, Node) else x.astype("float32")
    if zero is not None:
        steps = call.binary("subtract", steps, _wide(call, zero))
    y = call.binary("multiply", steps, _wide(call, scale))
    if isinstance(x, Node):
        return y
    return y.astype(onnx.helper.tensor_dtype_to_np_dtype(kind) if kind else dtype)


def _wide(call: Call, value: Value) -> Value:
    return value if isinstance(value, Node) else value.astype("float32")


def _along(call: Call, x: Value, values: Array | None) -> Array | None:
    """Return one value for all, one for each place of an axis, or for each block of one (opset 21).

    They are given the axes that they need to broadcast against x.
    """
    if values is None or values.size == 1:
        return None if values is None else values.reshape(())
    sizes = call.sizes(x)
    axis = call.get("axis", 1) % len(sizes)
    if isinstance(x, Node) and axis == 0:
        raise call.refuse("a scale for each sample")
    if values.ndim == 1:
        return values.reshape((-1,) + (1,) * (len(sizes) - axis - 1))
    blocks = call.xp.repeat(values, call.get("block_size"), axis=axis)
    return blocks[tuple(slice(n) for n in sizes)]
