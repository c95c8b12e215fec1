"""Which layers read the columns of a flattened map: in PyTorch these lie otherwise.

A map with channels last is flattened as (H, W, C), PyTorch's always as (C, H, W).
"""

from __future__ import annotations

from math import prod
from typing import NamedTuple

import numpy as np

from ..layers.base import Layer, Shape
from ..layers.dense import Dense
from ..layers.reshape import Permute, Reshape
from ..network import Graph, Network, Residual


class _Origin(NamedTuple):
    """Where a value's channels lie, and the map, channels last, whose columns it holds."""

    channels_last: bool = True
    map: Shape | None = None


def column_orders(model: Network) -> dict[str, np.ndarray]:
    """Return, by the path of a layer, PyTorch's column at each column of its input.

    Layers that are not listed have PyTorch's order.

    Raises:
        ValueError: a layer adds or joins such columns, so that no order is right.
    """
    maps: dict[str, Shape] = {}
    _follow(model, "", _Origin(), model.input_shape, maps)
    orders = {}
    for path, (*spatial, channels) in maps.items():
        theirs = np.arange(channels * prod(spatial)).reshape(channels, *spatial)
        orders[path] = np.moveaxis(theirs, 0, -1).ravel()
    return orders


def _follow(
    layer: Layer, path: str, origin: _Origin, shape: Shape, maps: dict[str, Shape]
) -> _Origin:
    """Note the layers with parameters that read columns of a map; return what comes out."""
    if isinstance(layer, Network):
        return _within(layer, path, origin, shape, maps)
    if origin.map and layer.params:
        maps[path] = origin.map
    if isinstance(layer, Permute):  # a person's own order: as in PyTorch, if that was meant
        return _Origin(channels_last=False)
    if isinstance(layer, Reshape) and len(layer.output_shape(shape)) == 1:  # or Flatten
        by_columns = origin.channels_last and len(shape) > 1
        return origin._replace(map=shape) if by_columns else origin
    kept = None if isinstance(layer, (Dense, Reshape)) else origin.map
    data_format = getattr(layer, "data_format", None)
    return _Origin(data_format == "channels_last" if data_format else origin.channels_last, kept)


def _within(
    network: Network, path: str, origin: _Origin, shape: Shape, maps: dict[str, Shape]
) -> _Origin:
    values = {node.name: origin for node in getattr(network, "inputs", ())}
    last = origin
    for layer, given, _, sources in network._flow(shape)[0]:
        if isinstance(network, Residual) and layer in network.shortcut[:1]:
            last = origin
        came = [values[name] for name in sources] if isinstance(network, Graph) else [last]
        merges = layer.takes_many or (isinstance(network, Residual) and origin.map)
        if merges and any(one.map for one in came):
            raise ValueError(
                f"{network.label}: the columns of a flattened map meet others in {layer.label}, and"
                " PyTorch's order of them fits neither; put Permute((3, 1, 2)) before Flatten."
                f" Received: a map of shape {next(one.map for one in came if one.map)}"
            )
        inner = f"{path}/{layer.name}" if path else layer.name
        last = values[layer.name] = _follow(layer, inner, came[0], given, maps)
    if isinstance(network, Graph):
        node = network.outputs[0]
        return values[(node.layer or node).name]
    return last
