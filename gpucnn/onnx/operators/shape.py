"""Shapes: what computes with them, and what changes them and moves no number."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx

from ...backends.base import Array
from ...layers import Dropout
from ...network import Node
from ..call import Call, Value
from .registry import operator


@operator("Identity")
def identity(call: Call, x: Value) -> Value:
    return x


@operator("Dropout")
def dropout(
    call: Call, x: Value, ratio: Array | None = None, training: Array | None = None
) -> Value | tuple:
    """The ratio is an attribute before opset 12; a graph drops when it is trained."""
    rate = call.get("ratio", 0.5) if ratio is None else call.number(ratio, "the ratio")
    if isinstance(x, Node):
        if call.wants(1):
            raise call.refuse("the mask is not an output")
        return call.apply(Dropout(rate), x)
    if training is not None and call.number(training, "training_mode") and rate:
        raise call.refuse("training_mode: which numbers are dropped is every library's own affair")
    return x, call.xp.ones(x.shape, bool)


@operator("Shape")
def shape(call: Call, x: Value) -> Array:
    sizes = call.sizes(x)[slice(call.get("start", 0), call.get("end"))]
    return call.xp.asarray(sizes, "int64")


@operator("Size")
def size(call: Call, x: Value) -> Array:
    return call.xp.asarray(math.prod(call.sizes(x)), "int64")


@operator("Constant")
def constant(call: Call) -> Array:
    for name, kind in (
        ("value", None),
        ("value_float", "float32"),
        ("value_floats", "float32"),
        ("value_int", "int64"),
        ("value_ints", "int64"),
    ):
        if name in call.attributes:
            return call.xp.asarray(call.get(name), kind)
    raise call.refuse(f"a constant of {', '.join(call.attributes)}")


@operator("ConstantOfShape", known=True)
def constant_of_shape(call: Call, sizes: Array) -> Array:
    value = call.get("value", call.xp.zeros(1, "float32"))
    return call.xp.full(call.integers(sizes, "the shape"), value.reshape(()), value.dtype)


@operator("Cast", "CastLike")
def cast(call: Call, x: Value, like: Any = None) -> Value:
    if call.kind == "CastLike":
        dtype = call.context.dtype if isinstance(like, Node) else like.dtype
    else:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(call.get("to"))
    if dtype.name not in CASTABLE:
        raise call.refuse(f"a cast to {dtype.name}")
    if isinstance(x, Node):
        if dtype.name not in ("float16", "bfloat16", "float32", "float64"):
            raise call.refuse(f"a cast to {dtype.name}; a graph computes with floating numbers")
        return x  # a graph has one dtype
    if x.dtype.name not in CASTABLE:
        raise call.refuse(f"a cast from {x.dtype.name}")
    with np.errstate(all="ignore"):
        return x.astype(dtype)


CASTABLE = {
    "float16", "bfloat16", "float32", "float64", "bool",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}  # fmt: skip


@operator("Reshape")
def reshape(call: Call, x: Value, target: Array | None = None) -> Value:
    """A size of 0 is the input's own, unless allowzero says otherwise (opset 14)."""
    sizes = call.sizes(x)
    wanted = call.get("shape") if target is None else call.integers(target, "the shape")
    if not call.get("allowzero", 0):
        wanted = [sizes[place] if n == 0 else n for place, n in enumerate(wanted)]
    return call.reshape(x, wanted)


@operator("Flatten")
def flatten(call: Call, x: Value) -> Value:
    """Two axes: those before ``axis`` as one, the others as one."""
    sizes, axis = call.sizes(x), call.get("axis", 1)
    axis += len(sizes) if axis < 0 else 0
    return call.reshape(x, (math.prod(sizes[:axis]), math.prod(sizes[axis:])))


@operator("Squeeze")
def squeeze(call: Call, x: Value, axes: Array | None = None) -> Value:
    """The axes are an attribute before opset 13; by default all of size 1 (but a node's batch)."""
    sizes = call.sizes(x)
    given = call.get("axes") if axes is None else call.integers(axes, "the axes")
    if given is None:
        first = 1 if isinstance(x, Node) else 0
        given = [place for place in range(first, len(sizes)) if sizes[place] == 1]
    places = {call.axis(x, axis) for axis in given}
    if any(sizes[place] != 1 for place in places):
        raise call.refuse(f"axes {sorted(places)} of {sizes} are not all of size 1")
    return call.reshape(x, [n for place, n in enumerate(sizes) if place not in places])


@operator("Unsqueeze")
def unsqueeze(call: Call, x: Value, axes: Array | None = None) -> Value:
    """The axes, counted in the output, are an attribute before opset 13."""
    given = call.get("axes") if axes is None else call.integers(axes, "the axes")
    left = list(call.sizes(x))
    rank = len(left) + len(given)
    places = {axis % rank for axis in given}
    if isinstance(x, Node) and 0 in places:
        raise call.refuse("the samples of a batch would no longer lie first")
    return call.reshape(x, [1 if place in places else left.pop(0) for place in range(rank)])


@operator("Transpose")
def transpose(call: Call, x: Value) -> Value:
    rank = len(call.sizes(x))
    return call.transpose(x, call.get("perm", range(rank - 1, -1, -1)))


@operator("DepthToSpace")
def depth_to_space(call: Call, x: Value) -> Value:
    """(N, C, H, W) -> (N, C / b^2, H * b, W * b); the block's axes lie before C or behind it."""
    batch, channels, height, width = call.sizes(x)
    b = call.get("blocksize")
    depth = channels // (b * b)
    if call.get("mode", "DCR") == "DCR":
        blocks = call.reshape(x, (batch, b, b, depth, height, width))
        blocks = call.transpose(blocks, (0, 3, 4, 1, 5, 2))
    else:
        blocks = call.reshape(x, (batch, depth, b, b, height, width))
        blocks = call.transpose(blocks, (0, 1, 4, 2, 5, 3))
    return call.reshape(blocks, (batch, depth, height * b, width * b))


@operator("SpaceToDepth")
def space_to_depth(call: Call, x: Value) -> Value:
    """(N, C, H, W) -> (N, C * b^2, H / b, W / b)."""
    batch, channels, height, width = call.sizes(x)
    b = call.get("blocksize")
    blocks = call.reshape(x, (batch, channels, height // b, b, width // b, b))
    first = (0, 3, 5, 1, 2, 4) if call.get("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    blocks = call.transpose(blocks, first)
    return call.reshape(blocks, (batch, channels * b * b, height // b, width // b))
