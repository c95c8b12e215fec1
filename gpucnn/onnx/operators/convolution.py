"""Conv and ConvTranspose; ONNX's KCRS filters become our KRSC."""

from __future__ import annotations

import math
from typing import Any

from ...arguments import pad_pairs
from ...backends.base import Array
from ...layers import (
    Conv1D,
    Conv1DTranspose,
    Conv2D,
    Conv2DTranspose,
    Conv3D,
    Conv3DTranspose,
)
from ...network import Node
from ..call import Call, Value
from .registry import operator

CONV = {1: Conv1D, 2: Conv2D, 3: Conv3D}
TRANSPOSED = {1: Conv1DTranspose, 2: Conv2DTranspose, 3: Conv3DTranspose}

Pairs = tuple[tuple[int, int], ...]


@operator("Conv")
def conv(call: Call, x: Value, w: Array, b: Array | None = None) -> Value:
    kernel, options = _common(call, w, b)
    _check_channels(call, x, kernel.shape[-1] * options["groups"])
    window = kernel.shape[1:-1]
    layer = by_rank(call, CONV, x)(
        kernel.shape[0], window, padding=padding(call, x, window), **options
    )
    return call.apply(layer, x, kernel=kernel, **_bias(b))


@operator("ConvTranspose")
def conv_transpose(call: Call, x: Value, w: Array, b: Array | None = None) -> Value:
    kernel, options = _common(call, w, b)
    _check_channels(call, x, kernel.shape[0])
    window, rank = kernel.shape[1:-1], kernel.ndim - 2
    extra = tuple(call.get("output_padding", (0,) * rank))
    pairs = _cut(call, x, window, options["strides"], options["dilation_rate"], extra)
    # Where less than nothing is cut off, rows that only the bias reaches are added behind.
    extra = tuple(
        more - min(before + after, 0) for more, (before, after) in zip(extra, pairs, strict=True)
    )
    pairs = tuple(pair if sum(pair) >= 0 else (0, 0) for pair in pairs)
    layer = by_rank(call, TRANSPOSED, x)(
        kernel.shape[-1] * options["groups"],
        window,
        padding=pairs,
        output_padding=extra,
        **options,
    )
    return call.apply(layer, x, kernel=kernel, **_bias(b))


def _common(call: Call, w: Value, b: Value | None) -> tuple[Array, dict[str, Any]]:
    """Return the kernel in our layout, and the arguments that every convolution has."""
    for what, value in (("the filters", w), ("the bias", b)):
        if isinstance(value, Node):
            raise call.refuse(f"{what} must be known when the model is loaded")
    rank = w.ndim - 2
    options = {
        "strides": tuple(call.get("strides", (1,) * rank)),
        "dilation_rate": tuple(call.get("dilations", (1,) * rank)),
        "groups": call.get("group", 1),
        "data_format": "channels_first",
        "use_bias": b is not None,
    }
    return call.xp.moveaxis(w, 1, -1), options  # (K, C, R, S) -> (K, R, S, C)


def _check_channels(call: Call, x: Value, channels: int) -> None:
    if call.sizes(x)[1] != channels:
        raise call.refuse(
            f"the filters are for {channels} channels, the input has {call.sizes(x)[1]}"
        )


def _bias(b: Array | None) -> dict[str, Array]:
    return {} if b is None else {"bias": b}


def by_rank(call: Call, kinds: dict[int, type], x: Value) -> type:
    """Return the layer for a map of one, two or three axes."""
    rank = len(call.sizes(x)) - 2
    if rank not in kinds:
        raise call.refuse(f"a map of {rank} axes; 1, 2 and 3 are supported")
    return kinds[rank]


def padding(call: Call, x: Value, window: tuple[int, ...]) -> Pairs:
    """Return the (before, after) pairs that ``pads`` or ``auto_pad`` say."""
    rank = len(window)
    auto, pads = call.get("auto_pad", "NOTSET"), call.get("pads", (0,) * 2 * rank)
    if auto == "NOTSET":
        if min(pads) < 0:
            raise call.refuse(f"negative pads={list(pads)}")
        return tuple(zip(pads[:rank], pads[rank:], strict=True))
    if auto == "VALID":
        return ((0, 0),) * rank
    strides = call.get("strides", (1,) * rank)
    dilation = call.get("dilations", (1,) * rank)
    pairs = pad_pairs("same", call.sizes(x)[2:], window, strides, dilation)
    return pairs if auto == "SAME_UPPER" else tuple((after, before) for before, after in pairs)


def _cut(
    call: Call, x: Value, window: tuple[int, ...], strides: tuple[int, ...],
    dilation: tuple[int, ...], extra: tuple[int, ...],
) -> Pairs:  # fmt: skip
    """Return what a transposed convolution cuts off its output's ends, perhaps less than 0."""
    auto, rank = call.get("auto_pad", "NOTSET"), len(window)
    size = call.sizes(x)[2:]
    wanted = call.get("output_shape")
    if wanted is None and auto in ("NOTSET", "VALID"):
        pads = call.get("pads", (0,) * 2 * rank)
        return tuple(zip(pads[:rank], pads[rank:], strict=True))
    if wanted is None:
        wanted = [extent * stride for extent, stride in zip(size, strides, strict=True)]
    pairs = []
    for n, stride, taps, step, more, out in zip(
        size, strides, window, dilation, extra, wanted[-rank:], strict=True
    ):
        total = stride * (n - 1) + more + step * (taps - 1) + 1 - out
        half = math.trunc(total / 2)
        pairs.append((half, total - half) if auto == "SAME_UPPER" else (total - half, half))
    return tuple(pairs)
