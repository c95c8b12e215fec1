"""Convolutions and dense layers: filters KRSC become ONNX's KCRS."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...layers.conv import Conv
from ...layers.conv_transpose import ConvTranspose
from ...layers.dense import Dense
from ...layers.separable import SeparableConv
from ...shapes import ConvShape
from .activation import activated
from .builder import Builder, Value, channels_first_order
from .registry import exports


@exports(Conv)
def conv(builder: Builder, layer: Conv, x: Value) -> Value:
    shape = layer._geometry((1, *x.shape))
    y = _convolved(builder, layer, x, "kernel", shape, layer.use_bias)
    return activated(builder, y, layer.activation, axis=layer.softmax_axis)


@exports(SeparableConv)
def separable(builder: Builder, layer: SeparableConv, x: Value) -> Value:
    depthwise, pointwise = layer._geometries((1, *x.shape))
    x = _convolved(builder, layer, x, "depthwise_kernel", depthwise, False)
    y = _convolved(builder, layer, x, "pointwise_kernel", pointwise, layer.use_bias)
    return activated(builder, y, layer.activation, axis=layer.softmax_axis)


@exports(ConvTranspose)
def conv_transpose(builder: Builder, layer: ConvTranspose, x: Value) -> Value:
    shape = layer._geometry((1, *x.shape))  # of the convolution from our output to our input
    reach = [step * (taps - 1) + 1 for taps, step in zip(shape.kernel, shape.dilation, strict=True)]
    behind = [
        size - ((count - 1) * stride + window - before - after)
        for size, count, stride, window, (before, after) in zip(
            shape.input, shape.output, shape.strides, reach, shape.padding, strict=True
        )
    ]
    x = builder.channels_first(x, _channel_axis(shape))
    name = builder.node(
        "ConvTranspose",
        x.name,
        *_weights(builder, layer, "kernel", layer.use_bias),
        output_padding=behind,
        **_attributes(shape),
    )
    y = Value(name, shape.x_shape[1:], x.order)
    return activated(builder, y, layer.activation, axis=layer.softmax_axis)


@exports(Dense)
def dense(builder: Builder, layer: Dense, x: Value) -> Value:
    if layer.output_dtype:
        raise ValueError(
            f"{layer.label}: ONNX has no product of 16-bit numbers that gives float32; set"
            f" out_dtype to None. Received: out_dtype={layer.out_dtype!r}"
        )
    output = layer.output_shape(x.shape)
    if x.rank == 2:  # the kernel's columns follow those of what was flattened
        columns = slice(None) if x.columns is None else x.columns
        inputs = [builder.parameter(layer, "kernel", lambda kernel: kernel[:, columns])]
        inputs += [builder.parameter(layer, "bias")] if layer.use_bias else []
        y = Value.of(builder.node("Gemm", x.name, *inputs, transB=1), output)
    elif x.order == channels_first_order(x.rank):  # over the channels of a map: a 1x1 convolution
        ones = (1,) * (x.rank - 2)
        inputs = [builder.parameter(layer, "kernel", lambda w: w.reshape(*w.shape, *ones))]
        inputs += [builder.parameter(layer, "bias")] if layer.use_bias else []
        y = Value(builder.node("Conv", x.name, *inputs), output, x.order)
    else:
        x = builder.arranged(x)
        kernel = builder.parameter(layer, "kernel", lambda kernel: kernel.T)
        y = Value.of(builder.node("MatMul", x.name, kernel), output)
        y = builder.apply("Add", y, builder.parameter(layer, "bias")) if layer.use_bias else y
    return activated(builder, y, layer.activation, axis=layer.softmax_axis)


def _convolved(
    builder: Builder, layer: Conv, x: Value, key: str, shape: ConvShape, with_bias: bool
) -> Value:
    x = builder.channels_first(x, _channel_axis(shape))
    weights = _weights(builder, layer, key, with_bias)
    name = builder.node("Conv", x.name, *weights, **_attributes(shape))
    return Value(name, shape.y_shape[1:], x.order)


def _weights(builder: Builder, layer: Conv, key: str, with_bias: bool) -> list[str]:
    kernel = builder.parameter(layer, key, lambda w: np.moveaxis(w, -1, 1))  # KRSC -> KCRS
    return [kernel, builder.parameter(layer, "bias")] if with_bias else [kernel]


def _attributes(shape: ConvShape) -> dict[str, Any]:
    return {
        "kernel_shape": shape.kernel,
        "strides": shape.strides,
        "pads": [*(before for before, _ in shape.padding), *(after for _, after in shape.padding)],
        "dilations": shape.dilation,
        "group": shape.groups,
    }


def _channel_axis(shape: ConvShape) -> int:
    return -1 if shape.channels_last else 1
