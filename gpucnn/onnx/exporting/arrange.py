"""Layers that pick, repeat and pad the numbers of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...functional.arrange import pad_places
from ...layers.arrange import Pad, Slice, Take, Tile
from .builder import Builder, Value
from .registry import exports


@exports(Pad)
def pad(builder: Builder, layer: Pad, x: Value) -> Value:
    """ONNX's Pad for constants; the other modes, of which it has not all, by their places."""
    x = builder.arranged(x, x.order)
    if layer.mode == "constant":
        pairs = _by_place(x, layer.padding, (0, 0))
        ends = builder.constant("pads", np.array(pairs).T.ravel())  # all before, then all behind
        y = builder.apply("Pad", x, ends, builder.number(layer.value, builder.dtype))
    else:
        y = x
        for axis, pair in enumerate(layer.padding, 1):
            if pair != (0, 0):
                places = pad_places(x.shape[axis - 1], pair, layer.mode)
                y = _taken(builder, y, places, axis)
    return replace(y, shape=layer.output_shape(x.shape))


@exports(Slice)
def slices(builder: Builder, layer: Slice, x: Value) -> Value:
    x = builder.arranged(x, x.order)
    whole = [slice(*item).indices(size) for item, size in zip(layer.slices, x.shape, strict=True)]
    # Where a step backwards goes to the front, -1 would be the last place: any number below is not.
    stops = [-n - 1 if stop < 0 else stop for (_, stop, _), n in zip(whole, x.shape, strict=True)]
    starts, steps = [start for start, _, _ in whole], [step for _, _, step in whole]
    places = [x.place(axis) for axis in range(1, x.rank)]
    numbers = {"starts": starts, "stops": stops, "axes": places, "steps": steps}
    inputs = [builder.constant(key, np.array(values)) for key, values in numbers.items()]
    y = builder.apply("Slice", x, *inputs)
    return replace(y, shape=layer.output_shape(x.shape))


@exports(Take)
def take(builder: Builder, layer: Take, x: Value) -> Value:
    x = builder.arranged(x, x.order)
    y = _taken(builder, x, layer.places, layer.axis)
    return replace(y, shape=layer.output_shape(x.shape))


@exports(Tile)
def tile(builder: Builder, layer: Tile, x: Value) -> Value:
    x = builder.arranged(x, x.order)
    repeats = builder.constant("repeats", np.array(_by_place(x, layer.repeats, 1)))
    return replace(builder.apply("Tile", x, repeats), shape=layer.output_shape(x.shape))


def _taken(builder: Builder, x: Value, places: Sequence[int], axis: int) -> Value:
    indices = builder.constant("places", np.array(places, np.int64))
    return builder.apply("Gather", x, indices, axis=x.place(axis))


def _by_place(x: Value, of_axes: Sequence, of_batch: object) -> list:
    """Return what belongs to each axis of a sample in the order of the tensor's axes."""
    return [of_batch if axis == 0 else of_axes[axis - 1] for axis in x.order]
