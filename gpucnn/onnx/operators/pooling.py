"""Pools over windows and over whole maps, and the way back from a max-pool."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from ... import functional as F
from ...backends.base import Array
from ...layers import (
    AveragePool1D,
    AveragePool2D,
    AveragePool3D,
    GlobalAveragePool1D,
    GlobalAveragePool2D,
    GlobalAveragePool3D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPool3D,
    Layer,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
    MaxUnpool1D,
    MaxUnpool2D,
    MaxUnpool3D,
    SumPool1D,
    SumPool2D,
    SumPool3D,
)
from ...network import Node
from ...shapes import PoolShape
from ..call import Call, Value
from .convolution import by_rank, padding
from .registry import operator

MAX = {1: MaxPool1D, 2: MaxPool2D, 3: MaxPool3D}
AVERAGE = {1: AveragePool1D, 2: AveragePool2D, 3: AveragePool3D}
SUM = {1: SumPool1D, 2: SumPool2D, 3: SumPool3D}
UNPOOL = {1: MaxUnpool1D, 2: MaxUnpool2D, 3: MaxUnpool3D}
GLOBAL_AVERAGE = {1: GlobalAveragePool1D, 2: GlobalAveragePool2D, 3: GlobalAveragePool3D}
GLOBAL_MAX = {1: GlobalMaxPool1D, 2: GlobalMaxPool2D, 3: GlobalMaxPool3D}


@dataclass(frozen=True)
class Indices:
    """The indices of a max-pool in a graph to be: the layer, and the map that it reads."""

    pool: Layer
    source: Node


@operator("MaxPool")
def max_pool(call: Call, x: Value) -> Value | tuple:
    layer = _pool(call, MAX, x)
    y = _as_floats(call, layer, x)
    if not call.wants(1):
        return y
    if isinstance(x, Node):
        return y, Indices(layer, x)
    return y, _flat_indices(call, layer, x)


@operator("AveragePool")
def average_pool(call: Call, x: Value) -> Value:
    return _as_floats(call, _pool(call, AVERAGE, x, count_padding=_counts(call)), x)


@operator("LpPool")
def lp_pool(call: Call, x: Value) -> Value:
    """(sum of |x|^p)^(1/p)."""
    p = call.get("p", 2)
    powers = call.binary("power", call.unary("abs", x), float(p))
    return call.binary("power", call.apply(_pool(call, SUM, x), powers), 1 / p)


@operator("MaxUnpool")
def max_unpool(call: Call, x: Value, indices: Any, output_shape: Array | None = None) -> Value:
    if isinstance(indices, Indices):
        pool = indices.pool
        options = {name: getattr(pool, name) for name in pool.arguments if name != "count_padding"}
        layer = UNPOOL[pool.rank](options.pop("pool_size"), **options)
        return call.apply(layer, x, indices.source)
    if isinstance(x, Node):
        raise call.refuse("the indices must be those of a MaxPool")
    # An index counts the numbers of the whole array that the pool read, as far as it is known.
    shape = (*x.shape[:2], *_unpooled(call, x))
    places = indices.astype("int64") % math.prod(shape[2:])
    y = F.max_unpool_forward(x, places, shape, channels_last=False, owner=call.label)
    wanted = shape if output_shape is None else call.integers(output_shape, "output_shape")
    more = [(0, after - before) for before, after in zip(shape, wanted, strict=True)]
    return F.pad_forward(y, more, owner=call.label)


@operator("GlobalAveragePool")
def global_average_pool(call: Call, x: Value) -> Value:
    return _global(call, GLOBAL_AVERAGE, "mean", x)


@operator("GlobalMaxPool")
def global_max_pool(call: Call, x: Value) -> Value:
    return _global(call, GLOBAL_MAX, "max", x)


@operator("GlobalLpPool")
def global_lp_pool(call: Call, x: Value) -> Value:
    p = call.get("p", 2)
    powers = call.binary("power", call.unary("abs", x), float(p))
    total = call.reduce(powers, "sum", range(2, len(call.sizes(x))))
    return call.binary("power", total, 1 / p)


def _global(call: Call, kinds: dict[int, type], mode: str, x: Value) -> Value:
    rank = len(call.sizes(x)) - 2
    if rank not in kinds:
        return call.reduce(x, mode, range(2, rank + 2))
    return call.apply(kinds[rank](keepdims=True, data_format="channels_first"), x)


def _pool(call: Call, kinds: dict[int, type], x: Value, **options: Any) -> Layer:
    kind = by_rank(call, kinds, x)
    window = tuple(call.get("kernel_shape"))
    pairs = padding(call, x, window)
    return kind(
        window,
        strides=tuple(call.get("strides", (1,) * len(window))),
        dilation_rate=tuple(call.get("dilations", (1,) * len(window))),
        padding=pairs,
        ceil_mode=bool(call.get("ceil_mode", 0)),
        data_format="channels_first",
        **options,
    )


def _counts(call: Call) -> bool:
    return bool(call.get("count_include_pad", 0))


def _as_floats(call: Call, layer: Layer, x: Value) -> Value:
    """Run a pool; on integers of 8 bits, too, which float32 holds as they are."""
    if isinstance(x, Node) or x.dtype.kind not in "iu":
        return call.apply(layer, x)
    return call.apply(layer, x.astype("float32")).astype(x.dtype)


def _flat_indices(call: Call, layer: Layer, x: Array) -> Array:
    """Return where in the whole array each maximum lies; maps in column order on demand."""
    shape: PoolShape = layer._geometry(x.shape)
    _, index = F.pool_forward(x.astype("float32") if x.dtype.kind in "iu" else x, shape=shape)
    places = F.pool_places(index, shape)
    if call.get("storage_order", 0):
        flat, transposed = places, 0
        for size in reversed(shape.input):  # the last axis counts most
            flat, place = flat // size, flat % size
            transposed = transposed * size + place
        places = transposed
    maps = call.xp.arange(shape.batch * shape.channels).reshape(
        shape.batch, shape.channels, *(1,) * shape.rank
    )
    return places + maps * math.prod(shape.input)


def _unpooled(call: Call, x: Array) -> tuple[int, ...]:
    """Return the size of the map that a pool without ceil mode had: MaxUnpool's own rule."""
    window = call.get("kernel_shape")
    strides = call.get("strides", (1,) * len(window))
    pads = call.get("pads", (0,) * 2 * len(window))
    return tuple(
        (n - 1) * stride - before - after + taps
        for n, stride, taps, before, after in zip(
            x.shape[2:], strides, window, pads[: len(window)], pads[len(window) :], strict=True
        )
    )
