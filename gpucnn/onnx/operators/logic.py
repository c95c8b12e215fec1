"""Comparisons, logic and bits: of masks and shapes, which are known when a model is loaded."""

from __future__ import annotations

from ...backends.base import Array
from ..call import Call
from .registry import operator

BINARY = {
    "And": "logical_and",
    "BitwiseAnd": "bitwise_and",
    "BitwiseOr": "bitwise_or",
    "BitwiseXor": "bitwise_xor",
    "Equal": "equal",
    "Greater": "greater",
    "GreaterOrEqual": "greater_equal",
    "Less": "less",
    "LessOrEqual": "less_equal",
    "Or": "logical_or",
    "Xor": "logical_xor",
}
UNARY = {"BitwiseNot": "invert", "IsNaN": "isnan", "Not": "logical_not"}


@operator(*BINARY, known=True)
def binary(call: Call, a: Array, b: Array) -> Array:
    axis = call.get("axis")
    if call.opset < 7 and axis is not None:
        b = b.reshape(*b.shape, *(1,) * (a.ndim - axis % a.ndim - b.ndim))
    return getattr(call.xp, BINARY[call.kind])(a, b)


@operator(*UNARY, known=True)
def unary(call: Call, x: Array) -> Array:
    return getattr(call.xp, UNARY[call.kind])(x)


@operator("IsInf", known=True)
def is_infinite(call: Call, x: Array) -> Array:
    xp = call.xp
    up, down = call.get("detect_positive", 1), call.get("detect_negative", 1)
    return (xp.isposinf(x) & bool(up)) | (xp.isneginf(x) & bool(down))


@operator("BitShift", known=True)
def bit_shift(call: Call, a: Array, b: Array) -> Array:
    return a << b if call.get("direction") == "LEFT" else a >> b


@operator("Where", known=True)
def where(call: Call, condition: Array, a: Array, b: Array) -> Array:
    return call.xp.where(condition, a, b)
