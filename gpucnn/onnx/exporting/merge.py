"""Layers of several inputs."""

from __future__ import annotations

from dataclasses import replace

from ...layers.merge import Add, Average, Broadcast, Concatenate, MatMul
from .builder import Builder, Value
from .registry import exports

OPERATIONS = {
    "add": "Add",
    "divide": "Div",
    "maximum": "Max",
    "minimum": "Min",
    "multiply": "Mul",
    "power": "Pow",
    "subtract": "Sub",
}


@exports(Broadcast)
def broadcast(builder: Builder, layer: Broadcast, values: list[Value]) -> Value:
    return _chained(builder, OPERATIONS[layer.function], layer, values)


@exports(Add)
def add(builder: Builder, layer: Add, values: list[Value]) -> Value:
    return _chained(builder, "Add", layer, values)


@exports(Average)
def average(builder: Builder, layer: Average, values: list[Value]) -> Value:
    total = _chained(builder, "Add", layer, values)
    return builder.apply("Div", total, builder.number(len(values), builder.dtype))


@exports(MatMul)
def matmul(builder: Builder, layer: MatMul, values: list[Value]) -> Value:
    a, b = map(builder.arranged, values)
    output = layer.output_shape([a.shape, b.shape])
    return Value.of(builder.node("MatMul", a.name, b.name), output)


@exports(Concatenate)
def concatenate(builder: Builder, layer: Concatenate, values: list[Value]) -> Value:
    output = layer.output_shape([x.shape for x in values])
    values = builder.alike(values)
    place = values[0].place(layer.axis)
    name = builder.node("Concat", *(x.name for x in values), axis=place)
    return replace(values[0], name=name, shape=output)


def _chained(builder: Builder, op: str, layer: Broadcast, values: list[Value]) -> Value:
    first, *others = builder.alike(values)
    output = layer.output_shape([x.shape for x in values])
    for x in others:
        first = builder.apply(op, first, x.name)
    return replace(first, shape=output)
