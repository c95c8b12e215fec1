"""Layers that give a sample another shape, and Dropout, which in inference does nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ...layers.dropout import Dropout
from ...layers.reshape import Permute, Reshape
from .builder import Builder, Value
from .registry import exports


@exports(Dropout)
def dropout(builder: Builder, layer: Dropout, x: Value) -> Value:
    return x


@exports(Reshape)
def reshape(builder: Builder, layer: Reshape, x: Value) -> Value:
    """Reshape, or Flatten, which leaves the columns as the tensor has them."""
    output = layer.output_shape(x.shape)
    if len(output) > 1:
        return Value.of(builder.reshaped(builder.arranged(x), output), output)
    if x.rank == 2:
        return x
    count = math.prod(x.shape)
    columns = np.arange(count).reshape(x.shape).transpose([axis - 1 for axis in x.order[1:]])
    in_order = x.order == tuple(range(x.rank)) or (np.diff(columns.ravel()) == 1).all()
    name = builder.node("Flatten", x.name, axis=1)
    return Value(name, output, (0, 1), None if in_order else columns.ravel())


@exports(Permute)
def permute(builder: Builder, layer: Permute, x: Value) -> Value:
    """The same tensor, whose axes are now called otherwise."""
    if x.rank == 2:
        return x
    order = tuple(0 if axis == 0 else layer.dims.index(axis) + 1 for axis in x.order)
    return replace(x, shape=layer.output_shape(x.shape), order=order)
