"""Batch, instance, group, layer and local response normalisation, and some composed ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ... import functional as F
from ...backends.base import Array
from ...layers import BatchNorm, GroupNorm, InstanceNorm, Layer, LayerNorm, LocalResponseNorm
from ...network import Node
from ..call import Call, Value, fill
from .registry import operator


@operator("BatchNormalization")
def batch_norm(
    call: Call, x: Value, gamma: Array, beta: Array, mean: Array, variance: Array
) -> Value | tuple:
    """By the moving statistics; on arrays in training mode (opset 14) by the batch's own."""
    _check_known(call, gamma, beta, mean, variance)
    if not call.get("spatial", 1):
        raise call.refuse("spatial=0, statistics for each position")
    # 1 keeps the statistics for ever, as the largest number does that the layer takes.
    momentum = min(call.get("momentum", 0.9), np.nextafter(1, 0).item())
    layer = BatchNorm(epsilon=call.get("epsilon", 1e-5), momentum=momentum, axis=1)
    weights = {"gamma": gamma, "beta": beta, "moving_mean": mean, "moving_variance": variance}
    if isinstance(x, Node) and call.wants(1):
        raise call.refuse("the statistics are no outputs; training keeps them in the layer")
    if isinstance(x, Node) or not call.get("training_mode", 0):
        return call.apply(layer, x, **weights)
    fill(layer, x.shape[1:], x.dtype, call.context.backend, weights)
    y = layer.forward(x, training=True)
    state = layer.state["moving_mean"], layer.state["moving_variance"]
    return y, *(array.astype(mean.dtype) for array in state)


@operator("InstanceNormalization")
def instance_norm(call: Call, x: Value, gamma: Array, beta: Array) -> Value:
    layer = InstanceNorm(epsilon=call.get("epsilon", 1e-5), axis=1)
    return _with_affine(call, layer, x, gamma, beta)


@operator("GroupNormalization")
def group_norm(call: Call, x: Value, gamma: Array, beta: Array) -> Value:
    """Scale and bias are for each group before opset 21, for each channel from then on."""
    _check_known(call, gamma, beta)
    groups = call.get("num_groups")
    if call.opset < 21:
        each = call.sizes(x)[1] // groups
        gamma, beta = (call.xp.repeat(value, each) for value in (gamma, beta))
    layer = GroupNorm(groups, epsilon=call.get("epsilon", 1e-5), axis=1)
    return _with_affine(call, layer, x, gamma, beta)


@operator("LayerNormalization")
def layer_norm(call: Call, x: Value, gamma: Array, beta: Array | None = None) -> Value | tuple:
    sizes = call.sizes(x)
    axis = call.axis(x, call.get("axis", -1))
    _check_known(call, gamma, beta)
    epsilon, last = call.get("epsilon", 1e-5), sizes[axis:]
    gamma = call.xp.broadcast_to(gamma, last)
    beta = call.xp.zeros_like(gamma) if beta is None else call.xp.broadcast_to(beta, last)
    if isinstance(x, Node):
        if call.wants(1) or call.wants(2):
            raise call.refuse("the mean and the deviation are no outputs")
        axes = -1 if len(last) == 1 else tuple(range(-len(last), 0))
        return _with_affine(call, LayerNorm(epsilon=epsilon, axis=axes), x, gamma, beta)
    rows = call.xp.ascontiguousarray(x).reshape(-1, *last)
    y, mean, variance = F.layer_norm_forward(
        rows, gamma.astype(x.dtype), beta.astype(x.dtype), epsilon=epsilon, owner=call.label
    )
    kept = (*sizes[:axis], *(1,) * len(last))
    deviation = 1 / call.xp.sqrt(variance + epsilon)
    return y.reshape(sizes), mean.reshape(kept), deviation.reshape(kept).astype(mean.dtype)


def _with_affine(call: Call, layer: Layer, x: Value, gamma: Value, beta: Value) -> Value:
    _check_known(call, gamma, beta)
    return call.apply(layer, x, gamma=gamma, beta=beta)


def _check_known(call: Call, *parameters: Value | None) -> None:
    if any(isinstance(value, Node) for value in parameters):
        raise call.refuse("the parameters must be known when the model is loaded")


@operator("RMSNormalization")
def rms_norm(call: Call, x: Value, scale: Array) -> Value:
    """x / sqrt(mean(x^2) + epsilon) * scale."""
    axis = call.axis(x, call.get("axis", -1))
    axes = range(axis, len(call.sizes(x)))
    square = call.reduce(call.unary("square", x), "mean", axes)
    root = call.unary("sqrt", call.binary("add", square, call.get("epsilon", 1e-5)))
    return call.binary("multiply", call.binary("divide", x, root), scale)


@operator("LRN")
def local_response_norm(call: Call, x: Value) -> Value:
    layer = LocalResponseNorm(
        call.get("size"),
        alpha=call.get("alpha", 1e-4),
        beta=call.get("beta", 0.75),
        bias=call.get("bias", 1.0),
        axis=1,
    )
    return call.apply(layer, x)


@operator("LpNormalization")
def lp_norm(call: Call, x: Value) -> Value:
    """x over its l1 or l2 norm along an axis; 0 stays 0."""
    mode = {1: "l1", 2: "l2"}[call.get("p", 2)]
    norm = call.reduce(x, mode, [call.axis(x, call.get("axis", -1))])
    # The smallest number there is, so that a norm of 0 alone is replaced.
    least = 2.0**-24 if (call.context.dtype or x.dtype).itemsize == 2 else 2.0**-149
    return call.binary("divide", x, call.binary("maximum", norm, least))


@operator("MeanVarianceNormalization")
def mean_variance_norm(call: Call, x: Value) -> Value:
    axes: Sequence[int] = call.get("axes", (0, 2, 3))
    centred = call.binary("subtract", x, call.reduce(x, "mean", axes))
    variance = call.reduce(call.unary("square", centred), "mean", axes)
    return call.binary("divide", centred, call.binary("add", call.unary("sqrt", variance), 1e-9))
