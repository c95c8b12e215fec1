"""A network of gpucnn's layers as PyTorch's modules, with the same weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .. import layers
from ..layers.base import Layer, Shape
from ..network import Residual, Sequential


class Sum(nn.Module):
    """activation(body(x) + shortcut(x))"""

    def __init__(self, body: nn.Module, shortcut: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.activation = body, shortcut, activation

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.shortcut(x))


def translate(model: Sequential) -> nn.Module:
    """Return a built network as one for (N, C, H, W); its weights and statistics are copied.

    Parameters are float32, whatever the network's dtype. A strided convolution with "same" padding
    gets PyTorch's usual padding, (window - 1) / 2 on both sides, where gpucnn pads as Keras does:
    the work is the same, and so is the output's size.

    Raises:
        TypeError: a layer or an option is of no network of the benchmark.
    """
    module, _ = _chain(model.layers, model.input_shape)
    return module


def _chain(chain: Sequence[Layer], shape: Shape) -> tuple[nn.Sequential, Shape]:
    """Return layers that take one input of this shape as a module, and the output's shape."""
    made, flattened = nn.Sequential(), None
    for layer in chain:
        if isinstance(layer, layers.Flatten):
            flattened = shape
        module = _module(layer, shape, flattened)
        if isinstance(layer, layers.Dense):
            flattened = None
        made.append(module)
        shape = layer.output_shape(shape)
    return made, shape


def _module(layer: Layer, shape: Shape, flattened: Shape | None) -> nn.Module:
    """Return one layer; ``flattened`` is the shape of a map that lies flat in its input."""
    if isinstance(layer, Residual):
        body, _ = _chain(layer.body, shape)
        shortcut, _ = _chain(layer.shortcut, shape)
        last = [] if layer.activation is None else [layer.activation]
        return Sum(body, shortcut, _chain(last, layer.output_shape(shape))[0])
    if isinstance(layer, layers.Conv2D | layers.DepthwiseConv2D):
        return _conv(layer, shape)
    if isinstance(layer, layers.Dense):
        return _dense(layer, flattened)
    if isinstance(layer, layers.BatchNorm):
        return _batch_norm(layer, of_maps=len(shape) == 3)
    if isinstance(layer, layers.ReLU | layers.Activation) and layer.kind in ("relu", "relu6"):
        return nn.ReLU(inplace=True) if layer.kind == "relu" else nn.ReLU6(inplace=True)
    if isinstance(layer, layers.MaxPool2D) and layer.padding != "same":
        return nn.MaxPool2d(layer.pool_size, layer.strides, _both_sides(layer))
    if isinstance(layer, layers.GlobalAveragePool2D):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if isinstance(layer, layers.Flatten):
        return nn.Flatten()
    if isinstance(layer, layers.Dropout):
        return nn.Dropout(layer.rate)
    raise TypeError(f"translate: knows no such layer. Received: {layer.label}")


def _conv(layer: layers.Conv2D, shape: Shape) -> nn.Conv2d:
    if layer.activation != "linear":
        raise TypeError(f"translate: knows no such convolution. Received: {layer.label}")
    filters, *window, _ = layer.params["kernel"].shape
    depthwise = isinstance(layer, layers.DepthwiseConv2D)
    made = nn.Conv2d(
        shape[-1], filters, tuple(window), layer.strides,
        padding=_both_sides(layer),
        groups=shape[-1] if depthwise else layer.groups, bias=layer.use_bias,
    )  # fmt: skip
    _set(made.weight, layer.params["kernel"].transpose(0, 3, 1, 2))  # (K, R, S, C) -> (K, C, R, S)
    if layer.use_bias:
        _set(made.bias, layer.params["bias"])
    return made


def _both_sides(layer: layers.Conv2D | layers.MaxPool2D) -> tuple[int, ...]:
    """Return the padding of each axis, which PyTorch has the same on both sides."""
    if layer.padding == "valid":
        return (0, 0)
    if layer.padding == "same":
        return tuple((r - 1) // 2 for r in layer.kernel_size)
    if any(before != after for before, after in layer.padding):
        raise TypeError(f"translate: knows no such padding, of one side. Received: {layer.label}")
    return tuple(before for before, _ in layer.padding)


def _dense(layer: layers.Dense, flattened: Shape | None) -> nn.Linear:
    kernel = layer.params["kernel"]  # (units, inputs)
    if flattened:  # a map lies flat as (H, W, C) there, as (C, H, W) here
        kernel = kernel.reshape(-1, *flattened).transpose(0, 3, 1, 2).reshape(kernel.shape)
    made = nn.Linear(*kernel.shape[::-1], bias=layer.use_bias)
    _set(made.weight, kernel)
    if layer.use_bias:
        _set(made.bias, layer.params["bias"])
    return made


def _batch_norm(layer: layers.BatchNorm, of_maps: bool) -> nn.Module:
    kind = nn.BatchNorm2d if of_maps else nn.BatchNorm1d
    channels = layer.params["gamma"].size
    made = kind(channels, eps=layer.epsilon, momentum=1 - layer.momentum)
    _set(made.weight, layer.params["gamma"])
    _set(made.bias, layer.params["beta"])
    _set(made.running_mean, layer.state["moving_mean"])
    _set(made.running_var, layer.state["moving_variance"])
    return made


def _set(tensor: Tensor, values: np.ndarray) -> None:
    with torch.no_grad():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(values, np.float32)))
