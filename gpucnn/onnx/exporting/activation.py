"""Activations, as layers and behind a layer of weights.

ONNX's own operation where there is one and it gives the same numbers; else the formula of
``functional.activation_forward``, computed as there: float16 and bfloat16 in float32.
"""

from __future__ import annotations

import math
from dataclasses import replace

from ...backends.base import SELU_ALPHA, SELU_SCALE
from ...functional.activation import ALPHA
from ...layers.activation import Pointwise, PReLU
from .builder import Builder, Value
from .registry import exports

_SAME = {
    "relu": "Relu",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "softplus": "Softplus",
    "softsign": "Softsign",
    "mish": "Mish",
}
_WITH_ALPHA = {"leaky_relu": "LeakyRelu", "elu": "Elu"}
_SOFTMAX = {"softmax": "Softmax", "log_softmax": "LogSoftmax"}


@exports(Pointwise)
def elementwise(builder: Builder, layer: Pointwise, x: Value) -> Value:
    return activated(builder, x, layer.kind, layer.alpha, layer.axis)


@exports(PReLU)
def prelu(builder: Builder, layer: PReLU, x: Value) -> Value:
    x = builder.arranged(x, x.order)
    behind = (1,) * (x.rank - 1 - x.place(layer.axis))  # the slopes meet the last axes
    slope = builder.parameter(layer, "alpha", lambda alpha: alpha.reshape(-1, *behind))
    return builder.apply("PRelu", x, slope)


def activated(
    builder: Builder, x: Value, kind: str, alpha: float | None = None, axis: int = -1
) -> Value:
    """Export one of ``functional.activation_forward``'s kinds; ``axis`` is the softmax's."""
    alpha = ALPHA.get(kind) if alpha is None else alpha
    if kind == "linear":
        return x
    if kind in _SAME:
        return builder.apply(_SAME[kind], x)
    if kind in _SOFTMAX:
        x = builder.arranged(x, x.order)
        return builder.apply(_SOFTMAX[kind], x, axis=x.place(axis))
    if kind in _WITH_ALPHA and builder.holds(alpha):
        return builder.apply(_WITH_ALPHA[kind], x, alpha=alpha)
    if kind == "selu" and builder.holds(SELU_ALPHA):
        return builder.apply("Selu", x, alpha=SELU_ALPHA, gamma=SELU_SCALE)
    return builder.widened(x, lambda x: _FORMULAS[kind](builder, x, alpha))


def _relu6(builder: Builder, x: Value, _: None = None) -> Value:
    return _clipped_relu(builder, x, 6)


def _clipped_relu(builder: Builder, x: Value, ceiling: float) -> Value:
    return builder.apply("Clip", x, builder.number(0), builder.number(ceiling))


def _hard_sigmoid(builder: Builder, x: Value, _: None = None) -> Value:
    shifted = builder.apply("Add", x, builder.number(3))
    return builder.apply("Div", _relu6(builder, shifted), builder.number(6))


def _hard_silu(builder: Builder, x: Value, _: None) -> Value:
    return builder.apply("Mul", x, _hard_sigmoid(builder, x).name)


def _silu(builder: Builder, x: Value, _: None) -> Value:
    return builder.apply("Mul", x, builder.node("Sigmoid", x.name))


def _leaky_relu(builder: Builder, x: Value, alpha: float) -> Value:
    return _rectified(builder, x, x.name, alpha)


def _elu(builder: Builder, x: Value, alpha: float) -> Value:
    return _rectified(builder, x, builder.node("Elu", x.name), alpha)


def _rectified(builder: Builder, x: Value, below: str, alpha: float) -> Value:
    """x where x > 0, else alpha * below"""
    positive = builder.node("Greater", x.name, builder.number(0))
    scaled = builder.node("Mul", below, builder.number(alpha))
    return replace(x, name=builder.node("Where", positive, x.name, scaled))


def _selu(builder: Builder, x: Value, _: None) -> Value:
    return builder.apply("Mul", _elu(builder, x, SELU_ALPHA), builder.number(SELU_SCALE))


def _gelu(builder: Builder, x: Value, _: None) -> Value:
    """x * (1 + erf(x / sqrt(2))) / 2"""
    error = builder.node("Erf", builder.node("Div", x.name, builder.number(math.sqrt(2))))
    twice = builder.apply("Mul", x, builder.node("Add", error, builder.number(1)))
    return builder.apply("Mul", twice, builder.number(0.5))


def _gelu_tanh(builder: Builder, x: Value, _: None) -> Value:
    """x * sigmoid(2u) = x * (1 + tanh(u)) / 2 for u = sqrt(2 / pi) * x * (1 + 0.044715 x^2)"""
    square = builder.node("Mul", builder.node("Mul", x.name, x.name), builder.number(0.044715))
    inner = builder.node("Mul", x.name, builder.node("Add", square, builder.number(1)))
    scaled = builder.node("Mul", inner, builder.number(math.sqrt(8 / math.pi)))
    return builder.apply("Mul", x, builder.node("Sigmoid", scaled))


_FORMULAS = {
    "relu6": _relu6,
    "clipped_relu": _clipped_relu,
    "hard_sigmoid": _hard_sigmoid,
    "hard_silu": _hard_silu,
    "silu": _silu,
    "leaky_relu": _leaky_relu,
    "elu": _elu,
    "selu": _selu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
}
