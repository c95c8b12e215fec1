"""A whole network as an ONNX model: its inputs and outputs, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ... import __version__
from ...files import place
from ...layers.base import Layer, Shape
from ...network import Network
from ..errors import UnsupportedError
from . import (  # noqa: F401 - each registers its exporters
    arithmetic,
    arrange,
    conv,
    merge,
    networks,
    norm,
    pool,
    reduce,
    reshape,
    resize,
)  # fmt: skip
from .builder import Builder, Value, channels_first_order, element_type
from .registry import exporter_of, refusal_of

if TYPE_CHECKING:
    from onnx import ModelProto

    from ...data import Normalize


def save(
    model: Layer,
    path: str | Path,
    input_shape: Shape | None = None,
    *,
    channels_first: bool = False,
    normalize: Normalize | None = None,
    classes: Sequence[str] | None = None,
) -> Path:
    """Write a network as an ONNX file, in one step, and return its path; see ``export``."""
    file = Path(path)
    made = export(
        model, input_shape, channels_first=channels_first, normalize=normalize, classes=classes
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    place(file, made.SerializeToString())
    return file


def export(
    model: Layer,
    input_shape: Shape | None = None,
    *,
    channels_first: bool = False,
    normalize: Normalize | None = None,
    classes: Sequence[str] | None = None,
) -> ModelProto:
    """Return a network, as it is in inference, as an ONNX model.

    The size of the batch is left open, all others are fixed. Initializers are called by the paths
    of ``state_dict``, inputs "input" or as their ``Input``, outputs "output" or, where there are
    several, as the layers that make them.

    Args:
        model: a network, or a single layer.
        input_shape: shape of one input without the batch axis; by default the one that the network
            is built for. A network that is not built yet is built for it.
        channels_first: let inputs and outputs that the network takes as (N, ..., C) be
            (N, C, ...), as ONNX's operations have them: the file then needs no transposes.
        normalize: what is done to images before the network; it becomes the first step.
        classes: the name of each label, kept as JSON in the metadata "classes".

    Raises:
        UnsupportedError: there are layers that ONNX cannot express; all are listed. A ValueError.
        ValueError: the network is not built and no ``input_shape`` is given, or
            ``channels_first`` is asked of a network with layers that are.
        ModuleNotFoundError: the package onnx is missing.

    Example:
        >>> made = export(Conv2D(10, 3), input_shape=(8, 8, 1), channels_first=True)
        >>> [node.op_type for node in made.graph.node]
        ['Conv']
    """
    from .. import require_onnx

    require_onnx()
    from onnx import helper

    shape = _shape(model, input_shape)
    _check(model, channels_first)
    builder = Builder(model.dtype)
    inputs = [builder.input(x) for x in _inputs(model, shape, channels_first)]
    values = [_normalised(builder, x, normalize) for x in inputs] if normalize else inputs
    results = builder.run_whole(model, values if model.takes_many else values[0])
    outputs = _outputs(builder, model, results, channels_first)
    graph = helper.make_graph(
        builder.nodes,
        model.name,
        [_described(builder, x) for x in inputs],
        [_described(builder, x) for x in outputs],
        list(builder.initializers.values()),
    )
    opset = helper.make_opsetid("", builder.opset)
    made = helper.make_model(
        graph,
        opset_imports=[opset],
        ir_version=helper.find_min_ir_version_for([opset]),
        producer_name="gpucnn",
        producer_version=__version__,
    )
    if classes is not None:
        helper.set_model_props(made, {"classes": json.dumps(list(classes))})
    return made


def _shape(model: Layer, input_shape: Shape | None) -> Shape:
    """Return the shape of a sample, with the network built."""
    if not isinstance(model, Layer):
        raise TypeError(f"onnx.export: model must be a network or a layer. Received: {model!r}")
    shape = model.input_shape if input_shape is None else model._as_shape(input_shape)
    if shape is None:
        raise ValueError(
            f"onnx.export: {model.label} is not built yet; give input_shape, the shape of one input"
            " without the batch axis. Received: input_shape=None"
        )
    if not model.built:
        model.build(shape)
    model.output_shape(shape)
    return shape


def _check(model: Layer, channels_first: bool) -> None:
    """Raise for all that cannot be expressed, together."""
    layers = list(_leaves(model))
    problems = [
        f"{path} ({type(layer).__name__}): {problem}"
        for path, layer in layers
        if (problem := _problem(layer))
    ]
    if problems:
        raise UnsupportedError(
            f"onnx.export: {model.label} has layers that ONNX cannot express:"
            f" {'; '.join(problems)}. Received: {len(problems)} such layers of {len(layers)}"
        )
    if channels_first:
        first = [
            path for path, layer in layers if getattr(layer, "data_format", "") == "channels_first"
        ]
        if first:
            raise ValueError(
                "onnx.export: channels_first is for networks that take their channels last."
                f" Received: {model.label} with channels first in {', '.join(first)}"
            )


def _leaves(model: Layer, path: str = "") -> Iterator[tuple[str, Layer]]:
    """Yield (path, layer) for all layers but networks that have an exporter."""
    if isinstance(model, Network) and exporter_of(model):
        for layer in model.layers:
            yield from _leaves(layer, f"{path}/{layer.name}" if path else layer.name)
    else:
        yield path or model.name, model


def _problem(layer: Layer) -> str | None:
    if exporter_of(layer) is None:
        return "a class without an exporter"
    if layer.dtype.kind == "c":
        return f"ONNX has no {layer.dtype.name} arithmetic"
    return refusal_of(layer)


def _inputs(model: Layer, shape: Any, first: bool) -> list[Value]:
    shapes = shape if model.takes_many else (shape,)
    nodes = getattr(model, "inputs", None)
    if nodes:
        names = [node.name for node in nodes]
    else:
        names = [f"input_{i}" if i else "input" for i in range(len(shapes))]
    values = [Value.of(name, one) for name, one in zip(names, shapes, strict=True)]
    if first:
        values = [replace(x, order=channels_first_order(x.rank)) for x in values]
    return values


def _normalised(builder: Builder, x: Value, normalize: Normalize) -> Value:
    """(x - mean) / std, in float32 or better as ``Normalize`` does."""
    behind = (1,) * (x.rank - 1 - x.place(-1))

    def compute(x: Value) -> Value:
        for op, key in (("Sub", "mean"), ("Div", "std")):
            array = np.array(getattr(normalize, key), np.float32).astype(builder.accumulator)
            name = builder.constant(f"normalize/{key}", array.reshape(-1, *behind))
            x = builder.apply(op, x, name)
        return x

    return builder.widened(x, compute)


def _outputs(builder: Builder, model: Layer, results: Any, first: bool) -> list[Value]:
    """Return the results under their names, with their axes where they are wanted."""
    results = results if isinstance(results, list) else [results]
    names = ["output"]
    if model.gives_many:
        names = [(node.layer or node).name for node in model.outputs]
    orders = [channels_first_order(x.rank) if first else None for x in results]
    arranged = [builder.arranged(x, order) for x, order in zip(results, orders, strict=True)]
    return [builder.output(x, name) for x, name in zip(arranged, names, strict=True)]


def _described(builder: Builder, x: Value) -> Any:
    from onnx import helper

    sizes = ["batch", *(x.shape[axis - 1] for axis in x.order[1:])]
    return helper.make_tensor_value_info(x.name, element_type(x.dtype or builder.dtype), sizes)
