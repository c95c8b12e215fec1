"""Activations: those with a layer of ours, and others composed."""

from __future__ import annotations

import math

import numpy as np

from ... import functional as F
from ...backends.base import SELU_ALPHA, SELU_SCALE, Array
from ...layers import (
    ELU,
    GELU,
    SELU,
    Clip,
    HardSigmoid,
    HardSiLU,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    Shrink,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from ...network import Node
from ..call import Call, Value
from .registry import operator

PLAIN = {
    "HardSwish": HardSiLU,
    "Mish": Mish,
    "Sigmoid": Sigmoid,
    "Softplus": Softplus,
    "Softsign": Softsign,
    "Tanh": Tanh,
}


@operator(*PLAIN)
def plain(call: Call, x: Value) -> Value:
    return call.apply(PLAIN[call.kind](), x)


@operator("Relu")
def relu(call: Call, x: Value) -> Value:
    if not isinstance(x, Node) and x.dtype.kind in "iu":
        return call.xp.maximum(x, x.dtype.type(0))
    return call.apply(ReLU(), x)


@operator("LeakyRelu")
def leaky_relu(call: Call, x: Value) -> Value:
    return _leaky(call, x, call.get("alpha", 0.01))


@operator("PRelu")
def prelu(call: Call, x: Value, slope: Value) -> Value:
    if isinstance(slope, Node):
        raise call.refuse("the slope must be known when the model is loaded")
    rank = len(call.sizes(x))
    channels = call.sizes(x)[1] if rank > 1 else 0
    per_channel = (channels,) + (1,) * (rank - 2)
    floating = isinstance(x, Node) or x.dtype.kind not in "iu"
    shapes = [per_channel, (1, *per_channel)] + [(channels,)] * (call.opset < 7)
    if rank > 1 and floating and slope.shape in shapes:
        return call.apply(PReLU(axis=1), x, alpha=slope.reshape(channels))
    low = call.binary("multiply", call.binary("minimum", x, 0), slope)
    return call.binary("add", call.binary("maximum", x, 0), low)


@operator("ThresholdedRelu")
def thresholded_relu(call: Call, x: Value) -> Value:
    return call.apply(Shrink(call.get("alpha", 1.0), positive=True), x)


@operator("Elu")
def elu(call: Call, x: Value) -> Value:
    return _elu(call, x, call.get("alpha", 1.0))


@operator("Celu")
def celu(call: Call, x: Value) -> Value:
    """x, or alpha * (exp(x / alpha) - 1): alpha * elu(x / alpha)."""
    alpha = call.get("alpha", 1.0)
    y = _elu(call, x if alpha == 1 else call.binary("divide", x, alpha), 1.0)
    return y if alpha == 1 else call.binary("multiply", y, alpha)


@operator("Selu")
def selu(call: Call, x: Value) -> Value:
    usual = {"alpha": SELU_ALPHA, "gamma": SELU_SCALE}
    alpha, gamma = (call.get(name, value) for name, value in usual.items())
    # Attributes are float32.
    if all(math.isclose(call.get(n, v), v, rel_tol=1e-6) for n, v in usual.items()):
        return call.apply(SELU(), x)
    return call.binary("multiply", _elu(call, x, alpha), gamma)


@operator("HardSigmoid")
def hard_sigmoid(call: Call, x: Value) -> Value:
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-6) and beta == 0.5:
        return call.apply(HardSigmoid(), x)
    line = call.binary("add", call.binary("multiply", x, alpha), beta)
    return call.apply(Clip(0, 1), line)


@operator("Gelu")
def gelu(call: Call, x: Value) -> Value:
    return call.apply(GELU(approximate=call.get("approximate", "none") == "tanh"), x)


@operator("Swish")
def swish(call: Call, x: Value) -> Value:
    alpha = call.get("alpha", 1.0)
    if alpha == 1:
        return call.apply(SiLU(), x)
    gate = call.apply(Sigmoid(), call.binary("multiply", x, alpha))
    return call.binary("multiply", x, gate)


@operator("Shrink")
def shrink(call: Call, x: Value) -> Value:
    threshold, bias = call.get("lambd", 0.5), call.get("bias", 0.0)
    if not isinstance(x, Node):  # of integers, too
        return F.shrink_forward(x, threshold, bias, owner=call.label)
    return call.apply(Shrink(threshold, bias=bias), x)


@operator("Clip")
def clip(call: Call, x: Value, low: Array | None = None, high: Array | None = None) -> Value:
    """Bounds are attributes before opset 11, inputs from then on."""
    if call.opset < 11:
        low, high = call.get("min"), call.get("max")
    elif low is not None or high is not None:
        low, high = (b if b is None else call.known(b, "a bound").item() for b in (low, high))
    if isinstance(x, Node):
        most = float(np.finfo(np.float32).max)
        low, high = (None if b is None or abs(b) >= most else b for b in (low, high))
        if low == 0 and high in (None, 6):
            return call.apply(ReLU(high and 6), x)
        return call.apply(Clip(low, high), x)
    return F.clip_forward(x, low, high, owner=call.label)


@operator("Softmax", "LogSoftmax")
def softmax(call: Call, x: Value) -> Value:
    """Over one axis; before opset 13 over all axes from one on."""
    kind = Softmax if call.kind == "Softmax" else LogSoftmax
    rank = len(call.sizes(x))
    axis = call.axis(x, call.get("axis", -1 if call.opset >= 13 else 1))
    if call.opset >= 13 or axis == rank - 1:
        return call.apply(kind(axis=axis), x)
    sizes = call.sizes(x)
    flat = call.reshape(x, (*sizes[:axis], math.prod(sizes[axis:])))
    return call.reshape(call.apply(kind(axis=-1), flat), sizes)


@operator("Hardmax", known=True)
def hardmax(call: Call, x: Array) -> Array:
    """1 at the first largest number, 0 elsewhere."""
    axis = call.axis(x, call.get("axis", -1 if call.opset >= 13 else 1))
    rows = x if call.opset >= 13 else x.reshape(*x.shape[:axis], -1)
    largest = call.xp.expand_dims(call.xp.argmax(rows, axis=axis), axis)
    y = call.xp.zeros_like(rows)
    call.xp.put_along_axis(y, largest, y.dtype.type(1), axis=axis)
    return y.reshape(x.shape)


def _elu(call: Call, x: Value, alpha: float) -> Value:
    if alpha < 0:
        raise call.refuse(f"a negative alpha={alpha}")
    return call.apply(ELU(alpha), x)


def _leaky(call: Call, x: Value, alpha: float) -> Value:
    if alpha >= 0:
        return call.apply(LeakyReLU(alpha), x)
    low = call.binary("multiply", call.binary("minimum", x, 0), alpha)
    return call.binary("add", call.binary("maximum", x, 0), low)
