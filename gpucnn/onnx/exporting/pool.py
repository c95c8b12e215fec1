"""Pools: over windows, and over the whole map."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce

import numpy as np

from ...layers.pool import GlobalPool, Pool
from ...layers.unpool import MaxUnpool
from ...shapes import Pairs, PoolShape
from .builder import Builder, Value
from .reduce import reduced
from .registry import exports


@exports(GlobalPool)
def global_pool(builder: Builder, layer: GlobalPool, x: Value) -> Value:
    first = 1 if layer.data_format == "channels_last" else 2
    axes = range(first, first + layer.rank)
    mode = {"average": "mean"}.get(layer.mode, layer.mode)
    return reduced(builder, x, mode, axes, layer.keepdims)


@exports(Pool)
def pool(builder: Builder, layer: Pool, x: Value) -> Value:
    shape = layer._geometry((1, *x.shape))
    x = builder.channels_first(x, -1 if shape.channels_last else 1)
    run = {"max": _maximum, "min": _maximum, "average": _average, "sum": _sum}[shape.mode]
    return replace(run(builder, x, shape, _reached(shape)), shape=shape.y_shape[1:])


def _is_dilated_and_padded(layer: MaxUnpool) -> str | None:
    if max(layer.dilation_rate) > 1 and layer.padding != "valid":
        return "a MaxUnpool of dilated windows on a padded map"
    return None


@exports(MaxUnpool, unless=_is_dilated_and_padded)
def max_unpool(builder: Builder, layer: MaxUnpool, values: list[Value]) -> Value:
    """The pool is computed once more, for the places of its maxima."""
    shape = layer._geometry((1, *values[1].shape))
    axis = -1 if shape.channels_last else 1
    y, x = (builder.channels_first(value, axis) for value in values)
    attributes = _attributes(shape, _reached(shape))
    _, places = builder.nodes_of("MaxPool", 2, x.name, dilations=shape.dilation, **attributes)
    size = builder.node("Shape", x.name)
    return replace(x, name=builder.node("MaxUnpool", y.name, places, size, **attributes))


def _maximum(builder: Builder, x: Value, shape: PoolShape, pads: Pairs) -> Value:
    """Add a MaxPool; a minimum is the negative of the negatives' maximum."""
    x = x if shape.mode == "max" else builder.apply("Neg", x)
    if any(max(pair) for pair in pads) and max(shape.dilation) > 1:
        # A dilated window may fall between the inputs, and its maximum is -inf. Runtimes refuse a
        # padding as large as the window besides.
        lowest = builder.constant("lowest", np.array(-np.inf).astype(builder.dtype))
        places = builder.constant("pads", np.array(_ends(((0, 0), (0, 0), *pads))))
        x = builder.apply("Pad", x, places, lowest)
        pads = ((0, 0),) * shape.rank
    y = builder.apply("MaxPool", x, dilations=shape.dilation, **_attributes(shape, pads))
    return y if shape.mode == "max" else builder.apply("Neg", y)


def _average(builder: Builder, x: Value, shape: PoolShape, pads: Pairs) -> Value:
    """Add an AveragePool where it divides as we do, else a sum and a division.

    It knows no dilation before opset 19, and cannot count the padding but not what lies beyond.
    """
    if max(shape.dilation) == 1 and (pads == shape.padding or not shape.count_padding):
        counting = {"count_include_pad": int(shape.count_padding)}
        return builder.apply("AveragePool", x, **counting, **_attributes(shape, pads))
    counts = _counts(shape)[None, None].astype(builder.accumulator)

    def divided(x: Value) -> Value:
        total = _sum(builder, x, shape, pads, builder.accumulator)
        return builder.apply("Div", total, builder.constant("counts", counts))

    return builder.widened(x, divided)


def _sum(
    builder: Builder, x: Value, shape: PoolShape, pads: Pairs, dtype: np.dtype | None = None
) -> Value:
    """Add a depthwise convolution with ones."""
    ones = np.ones((shape.channels, 1, *shape.window), dtype or builder.dtype)
    attributes = _attributes(shape, pads) | {"dilations": shape.dilation, "group": shape.channels}
    return builder.apply("Conv", x, builder.constant("ones", ones), **attributes)


def _counts(shape: PoolShape) -> np.ndarray:
    """Return what an average divides by at each place: the inputs, or with padding, under it."""
    axes = []
    for size, taps, stride, (before, after), step, count in zip(
        shape.input, shape.window, shape.strides, shape.padding, shape.dilation, shape.output,
        strict=True,
    ):  # fmt: skip
        reads = np.arange(count)[:, None] * stride + np.arange(taps) * step - before
        low, high = (-before, size + after) if shape.count_padding else (0, size)
        axes.append(((reads >= low) & (reads < high)).sum(axis=1))
    return np.maximum(reduce(np.multiply.outer, axes), 1)  # 0 inputs have the sum 0


def _reached(shape: PoolShape) -> Pairs:
    """Return the padding, longer behind where ceil mode lets the last window stick out."""
    pads = []
    for size, taps, stride, (before, after), step, count in zip(
        shape.input, shape.window, shape.strides, shape.padding, shape.dilation, shape.output,
        strict=True,
    ):  # fmt: skip
        end = (count - 1) * stride + step * (taps - 1) + 1
        pads.append((before, max(after, end - size - before)))
    return tuple(pads)


def _attributes(shape: PoolShape, pads: Pairs) -> dict[str, list[int]]:
    return {"kernel_shape": shape.window, "strides": shape.strides, "pads": _ends(pads)}


def _ends(pads: Pairs) -> list[int]:
    """Return ONNX's order of a padding: all that is before, then all that is behind."""
    return [*(before for before, _ in pads), *(after for _, after in pads)]
