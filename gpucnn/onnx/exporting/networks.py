"""Networks: what runs after what."""

from __future__ import annotations

from collections.abc import Iterable

from ...layers.base import Layer
from ...network import Graph, Residual, Sequential
from .builder import Builder, Value
from .registry import exports


@exports(Sequential)
def sequential(builder: Builder, network: Sequential, x: Value) -> Value:
    return _chain(builder, network.layers, x)


@exports(Residual)
def residual(builder: Builder, network: Residual, x: Value) -> Value:
    y = _chain(builder, network.body, x)
    side = _chain(builder, network.shortcut, x)
    y, side = builder.alike([y, side])
    y = builder.apply("Add", y, side.name)
    return y if network.activation is None else builder.run(network.activation, y)


@exports(Graph)
def graph(builder: Builder, network: Graph, x: Value | list[Value]) -> Value | list[Value]:
    given = x if network.takes_many else [x]
    values = {node.name: value for node, value in zip(network.inputs, given, strict=True)}
    shapes = tuple(value.shape for value in given)
    for layer, _, _, sources in network._flow(shapes if network.takes_many else shapes[0])[0]:
        given = [values[name] for name in sources]
        values[layer.name] = builder.run(layer, given if layer.takes_many else given[0])
    results = [values[(node.layer or node).name] for node in network.outputs]
    return results if network.gives_many else results[0]


def _chain(builder: Builder, layers: Iterable[Layer], x: Value) -> Value:
    for layer in layers:
        x = builder.run(layer, x)
    return x
