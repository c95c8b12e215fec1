"""Arithmetic on each number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...layers.elementwise import Arithmetic, Clip, Constant, Elementwise, Shrink
from .builder import Builder, Value
from .merge import OPERATIONS
from .registry import exports

_OTHER_NAMES = {"negative": "Neg"}  # the others' are ours with a capital


@exports(Elementwise)
def elementwise(builder: Builder, layer: Elementwise, x: Value) -> Value:
    if layer.function == "square":
        return builder.apply("Mul", x, x.name)
    return builder.apply(_OTHER_NAMES.get(layer.function, layer.function.capitalize()), x)


@exports(Arithmetic)
def arithmetic(builder: Builder, layer: Arithmetic, x: Value) -> Value:
    x = builder.arranged(x, x.order)
    behind = (1,) * (x.rank - len(layer.shape))  # the batch's axis, too

    def laid(operand: np.ndarray) -> np.ndarray:
        operand = operand.astype(builder.dtype)
        return operand.reshape(*behind, *layer.shape).transpose(x.order) if layer.shape else operand

    inputs = x.name, builder.parameter(layer, "operand", laid)
    name = builder.node(OPERATIONS[layer.function], *(inputs[::-1] if layer.reverse else inputs))
    return replace(x, name=name, shape=layer.output_shape(x.shape))


@exports(Constant)
def constant(builder: Builder, layer: Constant, x: Value) -> Value:
    """The array, stretched to the batch's size."""
    operand = builder.parameter(layer, "operand", lambda array: array.astype(builder.dtype))
    batch = builder.node("Shape", x.name, start=0, end=1)
    sizes = builder.constant("shape", np.array(layer.shape, np.int64))
    whole = builder.node("Concat", batch, sizes, axis=0)
    return Value.of(builder.node("Expand", operand, whole), layer.shape)


@exports(Clip)
def clip(builder: Builder, layer: Clip, x: Value) -> Value:
    bounds = [
        "" if bound is None else builder.number(bound, builder.dtype)
        for bound in (layer.low, layer.high)
    ]
    return builder.apply("Clip", x, *bounds)


@exports(Shrink)
def shrink(builder: Builder, layer: Shrink, x: Value) -> Value:
    """In steps: the attributes of ONNX's Shrink and ThresholdedRelu are float32."""
    threshold, shift, zero = (
        builder.number(value, builder.dtype) for value in (layer.threshold, layer.bias, 0)
    )
    above = builder.node("Greater", x.name, threshold)
    y = builder.node("Where", above, builder.node("Sub", x.name, shift), zero)
    if not layer.positive:
        below = builder.node("Less", x.name, builder.number(-layer.threshold, builder.dtype))
        y = builder.node("Where", below, builder.node("Add", x.name, shift), y)
    return replace(x, name=y)
