"""Arithmetic on each number, of one value, two or many."""

from __future__ import annotations

from functools import reduce

import numpy as np

from ...backends.base import Array
from ...network import Node
from .. import patterns
from ..call import Call, Value
from .registry import operator

UNARY = {
    "Abs": "abs",
    "Acos": "acos",
    "Acosh": "acosh",
    "Asin": "asin",
    "Asinh": "asinh",
    "Atan": "atan",
    "Atanh": "atanh",
    "Ceil": "ceil",
    "Cos": "cos",
    "Cosh": "cosh",
    "Erf": "erf",
    "Exp": "exp",
    "Floor": "floor",
    "Log": "log",
    "Neg": "negative",
    "Reciprocal": "reciprocal",
    "Round": "round",
    "Sign": "sign",
    "Sin": "sin",
    "Sinh": "sinh",
    "Sqrt": "sqrt",
    "Tan": "tan",
}
BINARY = {"Add": "add", "Sub": "subtract", "Mul": "multiply", "Div": "divide"}
MANY = {"Sum": "add", "Max": "maximum", "Min": "minimum"}


@operator(*UNARY)
def unary(call: Call, x: Value) -> Value:
    return call.unary(UNARY[call.kind], x)


@operator(*BINARY)
def binary(call: Call, a: Value, b: Value) -> Value:
    b, function = _placed(call, a, b), BINARY[call.kind]
    found = _pattern(call, function, a, b) if isinstance(a, Node) else None
    if found is None:
        return call.binary(function, a, b)
    layer, x, weights = found
    return call.apply(layer, x, **weights)


def _pattern(call: Call, function: str, a: Node, b: Value) -> tuple | None:
    """Return the layer that this node and those before it are, what it reads, and its weights."""
    found = None
    if isinstance(b, Node):
        found = patterns.product(a, b) if function == "multiply" else None
    elif function in ("multiply", "divide") and b.size == 1:
        found = patterns.scaled(function, a, call.number(b, "a factor"))
    if found is not None:
        return *found, {}
    if isinstance(b, Node) or function not in ("add", "multiply") or not call.alone[0]:
        return None
    return patterns.rescaled(function, a, call.per_sample(b, len(a.shape)))


@operator("Pow")
def power(call: Call, a: Value, b: Value) -> Value:
    b = _placed(call, a, b)
    if isinstance(a, Node) and not isinstance(b, Node) and b.size == 1:
        simple = {2.0: "square", 0.5: "sqrt", 1.0: None}.get(call.number(b, "an exponent"), "")
        if simple != "":
            return a if simple is None else call.unary(simple, a)
    return call.binary("power", a, b)


@operator(*MANY)
def many(call: Call, *values: Value) -> Value:
    return reduce(lambda a, b: call.binary(MANY[call.kind], a, b), values)


@operator("Mean")
def mean(call: Call, *values: Value) -> Value:
    total = reduce(lambda a, b: call.binary("add", a, b), values)
    return call.binary("divide", total, float(len(values))) if len(values) > 1 else total


@operator("Mod", known=True)
def mod(call: Call, a: Array, b: Array) -> Array:
    """The remainder with b's sign or, with fmod=1, with a's."""
    return call.xp.fmod(a, b) if call.get("fmod", 0) else call.xp.mod(a, b)


@operator("CumSum", known=True)
def cumulative_sum(call: Call, x: Array, axis: Array) -> Array:
    (axis,) = call.integers(axis, "the axis")
    backwards = slice(None, None, -1) if call.get("reverse", 0) else slice(None)
    x = call.xp.moveaxis(x, axis, 0)[backwards]
    y = call.xp.cumsum(x, axis=0, dtype=x.dtype)
    if call.get("exclusive", 0):
        y = call.xp.concatenate([call.xp.zeros_like(y[:1]), y[:-1]])
    return call.xp.moveaxis(y[backwards], 0, axis)


def _placed(call: Call, a: Value, b: Value) -> Value:
    """Before opset 7 ``broadcast`` and ``axis`` say which axes of a those of b are."""
    axis = call.get("axis")
    if call.opset >= 7 or axis is None or isinstance(b, Node):
        return b
    rank = len(call.sizes(a))
    return b.reshape(*b.shape, *(1,) * (rank - (axis % rank) - np.ndim(b)))
