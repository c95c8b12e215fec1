"""Norms."""

from __future__ import annotations

import math

import numpy as np

from ...layers.base import Shape
from ...layers.norm import BatchNorm, GroupNorm, LayerNorm, LocalResponseNorm
from .activation import activated
from .builder import Builder, Value
from .registry import exports


@exports(BatchNorm)
def batch_norm(builder: Builder, layer: BatchNorm, x: Value) -> Value:
    """By the moving statistics, as in inference."""
    # The attribute is a float32; what it cannot hold of epsilon goes to the variance.
    rest = layer.epsilon - float(np.float32(layer.epsilon))
    arrays = [
        builder.parameter(layer, "gamma"),
        builder.parameter(layer, "beta"),
        builder.parameter(layer, "moving_mean"),
        builder.parameter(layer, "moving_variance", lambda v: (v + rest).astype(v.dtype)),
    ]
    x = builder.channels_first(x, layer.axis)
    y = builder.apply("BatchNormalization", x, *arrays, epsilon=layer.epsilon)
    return activated(builder, y, layer.activation, axis=layer.softmax_axis)


@exports(GroupNorm)
def group_norm(builder: Builder, layer: GroupNorm, x: Value) -> Value:
    x = builder.channels_first(x, layer.axis)
    channels = layer.params["gamma"].size
    groups = channels if layer.groups == -1 else layer.groups
    if groups == channels and x.rank > 2 and builder.holds(layer.epsilon):
        weights = builder.parameter(layer, "gamma"), builder.parameter(layer, "beta")
        return builder.apply("InstanceNormalization", x, *weights, epsilon=layer.epsilon)
    return builder.widened(x, lambda x: _by_groups(builder, layer, x, channels, groups))


def _by_groups(builder: Builder, layer: GroupNorm, x: Value, channels: int, groups: int) -> Value:
    """(N, C, ...) -> (N, G, C / G * ...), normalised over the last axis -> (N, C, ...)"""
    size = math.prod(x.shape) // groups
    rows = Value.of(builder.reshaped(x, (groups, size)), (groups, size))
    tensor_shape = [x.shape[axis - 1] for axis in x.order[1:]]
    if builder.holds(layer.epsilon):
        ones = builder.constant("ones", np.ones(groups, builder.accumulator))
        zeros = builder.constant("zeros", np.zeros(groups, builder.accumulator))
        rows = builder.apply("InstanceNormalization", rows, ones, zeros, epsilon=layer.epsilon)
    else:
        rows = _normalised(builder, rows, [2], layer.epsilon)
    y = Value(builder.reshaped(rows, tensor_shape), x.shape, x.order)
    return _scaled(builder, layer, y, (channels, *(1,) * (x.rank - 2)))


@exports(LayerNorm)
def layer_norm(builder: Builder, layer: LayerNorm, x: Value) -> Value:
    x = builder.arranged(x)
    shape = layer.params["gamma"].shape
    if builder.holds(layer.epsilon):
        weights = builder.parameter(layer, "gamma"), builder.parameter(layer, "beta")
        return builder.apply(
            "LayerNormalization", x, *weights, axis=-len(shape), epsilon=layer.epsilon
        )
    axes = list(range(x.rank - len(shape), x.rank))
    return _scaled(builder, layer, _normalised(builder, x, axes, layer.epsilon), shape)


@exports(LocalResponseNorm)
def local_response_norm(builder: Builder, layer: LocalResponseNorm, x: Value) -> Value:
    x = builder.channels_first(x, layer.axis)
    held = all(map(builder.holds, (layer.alpha, layer.beta, layer.bias)))
    if held and layer.size % 2 and x.rank > 2:  # runtimes take odd sizes alone
        options = {"alpha": layer.alpha, "beta": layer.beta, "bias": layer.bias}
        return builder.apply("LRN", x, size=layer.size, **options)
    return builder.widened(x, lambda x: _by_neighbours(builder, layer, x))


def _by_neighbours(builder: Builder, layer: LocalResponseNorm, x: Value) -> Value:
    """x / (bias + alpha / size * d)^beta, d the sum of the neighbours' squares: (N, 1, C, ...)"""
    tensor_shape = [x.shape[axis - 1] for axis in x.order[1:]]
    channels, length = tensor_shape[0], math.prod(tensor_shape[1:])
    square = builder.apply("Mul", x, x.name)
    ones = builder.constant("ones", np.ones((1, 1, layer.size, 1), builder.accumulator))
    pads = [(layer.size - 1) // 2, 0, layer.size // 2, 0]
    total = builder.node("Conv", builder.reshaped(square, (1, channels, length)), ones, pads=pads)
    total = builder.reshaped(Value.of(total, ()), tensor_shape)
    scaled = builder.node("Mul", total, builder.number(layer.alpha / layer.size))
    divisor = builder.node("Add", scaled, builder.number(layer.bias))
    return builder.apply("Div", x, builder.node("Pow", divisor, builder.number(layer.beta)))


def _normalised(builder: Builder, x: Value, axes: list[int], epsilon: float) -> Value:
    """(x - mean) / sqrt(variance + epsilon) over axes, with an epsilon of float64."""
    over = builder.constant("axes", np.array(axes))
    apart = builder.apply("Sub", x, builder.node("ReduceMean", x.name, over))
    square = builder.node("Mul", apart.name, apart.name)
    variance = builder.node("ReduceMean", square, over)
    shifted = builder.node("Add", variance, builder.number(epsilon))
    return builder.apply("Div", apart, builder.node("Sqrt", shifted))


def _scaled(builder: Builder, layer: GroupNorm | LayerNorm, x: Value, shape: Shape) -> Value:
    """gamma * x + beta, with both in a shape that stretches to the tensor's"""
    gamma, beta = (
        builder.parameter(layer, key, lambda w: w.reshape(shape).astype(builder.accumulator))
        for key in ("gamma", "beta")
    )
    return builder.apply("Add", builder.apply("Mul", x, gamma), beta)
