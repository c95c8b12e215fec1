"""A model becomes a ``Graph``: its nodes are run on symbolic inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from numbers import Number
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.checker
import onnx.inliner
from google.protobuf.message import DecodeError, Message

from ..arguments import as_shape
from ..backends import default_backend, use_backend
from ..layers import Activation, Arithmetic, Constant
from ..network import Graph, Input, Node
from .call import Context, Value
from .errors import UnsupportedError
from .interpreter import Interpreter, legal, values_of

FLOATS = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.DOUBLE: "float64",
}


def import_model(source: Any, input_shapes: Mapping[str, Sequence[int]], name: str | None) -> Graph:
    """Return ``load``'s network; see there."""
    model = read(source)
    try:
        return _imported(model, input_shapes, name)
    except (IndexError, KeyError, TypeError, UnicodeDecodeError) as error:
        reason = _flaw(model)
        if reason is None:
            raise
        raise ValueError(f"load: the model is damaged. Received: {reason}") from error


def _flaw(model: onnx.ModelProto) -> str | None:
    """Return what makes it none of ONNX's models, if that can be found."""
    garbled = next(_garbled(model), None)
    if garbled is not None:
        return f"a name that is not UTF-8, {garbled!r}"
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
        return " ".join(str(error).split()).rstrip(".")
    except ValueError:  # above 2 GiB, which the checker does not take
        pass
    return None


def _garbled(message: Message) -> Iterator[bytes]:
    """Yield the texts that are not UTF-8, which protobuf hands over as bytes."""
    for field, value in message.ListFields():
        for item in [value] if isinstance(value, (str, bytes, Message, Number)) else value:
            if isinstance(item, Message):
                yield from _garbled(item)
            elif isinstance(item, bytes) and field.type == field.TYPE_STRING:
                yield item


def _imported(
    model: onnx.ModelProto, input_shapes: Mapping[str, Sequence[int]], name: str | None
) -> Graph:
    graph = model.graph
    given = {item.name for item in graph.initializer}
    inputs = [item for item in graph.input if item.name not in given]
    unknown = set(input_shapes) - {item.name for item in inputs}
    if unknown:
        raise ValueError(
            f"load: input_shapes must name inputs of the model,"
            f" {', '.join(item.name for item in inputs)}. Received: {', '.join(sorted(unknown))}"
        )
    samples = {item.name: _sample(item, input_shapes.get(item.name)) for item in inputs}
    batch, others = _batches(model, inputs)
    network = _network(model, samples, batch, name)
    if others and _computes_sizes(graph):
        _compare(network, _network(model, samples, others, name))
    return network


def _network(
    model: onnx.ModelProto, samples: Mapping[str, tuple[int, ...]], batch: int, name: str | None
) -> Graph:
    """Run the nodes on symbolic inputs, with a batch of so many samples where they ask for it."""
    graph, dtype = model.graph, np.dtype(_dtype(model.graph))
    values: dict[str, Value] = {
        key: Input(shape, name=legal(key)) for key, shape in samples.items()
    }
    inputs, target = list(values.values()), default_backend()
    with use_backend("numpy") as host:  # constants and sizes are the host's affair
        context = Context(host, target, batch, dtype)
        interpreter = Interpreter(model, context, taken={node.name for node in inputs})
        results = interpreter.run(graph, values)
    _report(interpreter, graph, results)
    # A model that hands an input through has a layer that does.
    results = [Activation("linear")(value) if value in inputs else value for value in results]
    inputs = [node for node in inputs if _depends(results, node)]
    return Graph(inputs, results, name=name or legal(graph.name) or "onnx", dtype=dtype)


def _compare(network: Graph, other: Graph) -> None:
    """Raise where a layer would be another one for another batch, and so fit none but one."""
    for one, two in zip(network.layers, other.layers, strict=True):
        same = one.config() == two.config()
        if same and isinstance(one, (Arithmetic, Constant)):
            holder, twin = (one.params, two.params) if one.learned else (one.state, two.state)
            same = bool((holder["operand"] == twin["operand"]).all())
        if not same:
            raise UnsupportedError(
                f"load: the numbers of {one.label} are computed from the batch's size, which is"
                f" free. Received: {one!r} for one size, {two!r} for another"
            )


def _computes_sizes(graph: onnx.GraphProto) -> bool:
    return any(node.op_type in ("Shape", "Size") for node in graph.node)


def read(source: Any) -> onnx.ModelProto:
    """Return a model that can be run, with its local functions put in their places; see parsed."""
    model = parsed(source)
    if not model.graph.node:
        raise ValueError("load: the model has no nodes. Received: an empty graph")
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    return model


def parsed(source: Any) -> onnx.ModelProto:
    """Return a model from a path, bytes or itself.

    Raises:
        ValueError: it is no model, or the file beside it that has its numbers is missing.
        FileNotFoundError: there is no such file.
    """
    try:
        if isinstance(source, onnx.ModelProto):
            return source
        if isinstance(source, bytes):
            return onnx.load_from_string(source)
        return onnx.load(Path(source))
    except (DecodeError, onnx.checker.ValidationError) as error:
        reason = str(error).rstrip(".")
        raise ValueError(
            f"load: not an ONNX model, or damaged. {reason}. Received: {_named(source)}"
        ) from error


def _named(source: Any) -> str:
    return f"{len(source)} bytes" if isinstance(source, bytes) else str(source)


def _sizes(item: onnx.ValueInfoProto) -> list[int | None] | None:
    """Return an input's sizes, None for those left open; None where even their number is."""
    tensor = item.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None
        for dim in tensor.shape.dim
    ]


def _sample(item: onnx.ValueInfoProto, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        return as_shape("load", f"input_shapes[{item.name!r}]", given, minimum=1)
    sizes = _sizes(item)
    if not sizes or None in sizes[1:]:
        shown = "unknown" if sizes is None else tuple("?" if n is None else n for n in sizes)
        raise ValueError(
            f"load: the sizes of the input {item.name!r} must be known, behind a batch axis; give"
            f' input_shapes={{"{item.name}": (3, 224, 224)}}, say. Received: the shape {shown}'
        )
    return tuple(sizes[1:])


def _batches(
    model: onnx.ModelProto, inputs: Sequence[onnx.ValueInfoProto]
) -> tuple[int, int | None]:
    """Return the batch that stands for all: the model's own, else two that it uses nowhere."""
    first = [sizes[0] for sizes in map(_sizes, inputs) if sizes]
    if first and None not in first:
        if len(set(first)) > 1:
            raise ValueError(
                f"load: all inputs must have the batch as their first axis. Received: {first}"
            )
        return first[0], None
    used = set(_numbers(model.graph))
    free = (number for number in count(61, 2) if number not in used)
    return next(free), next(free)


def _numbers(graph: onnx.GraphProto) -> Iterator[int]:
    """Yield the sizes and integers that stand in a model."""
    for item in graph.input:
        yield from (n or 0 for n in _sizes(item) or ())
    tensors = list(graph.initializer)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.i
            yield from attribute.ints
            if attribute.type == onnx.AttributeProto.TENSOR:
                tensors.append(attribute.t)
    for tensor in tensors:
        yield from tensor.dims
        if tensor.data_type in (onnx.TensorProto.INT32, onnx.TensorProto.INT64):
            yield from values_of(tensor).ravel()[:1000].tolist()


def _dtype(graph: onnx.GraphProto) -> str:
    """Return the dtype of most of the weights, else of the inputs."""
    sizes: Counter[str] = Counter()
    for tensor in graph.initializer:
        if tensor.data_type in FLOATS:
            sizes[FLOATS[tensor.data_type]] += int(np.prod(tensor.dims))
    for item in graph.input:
        kind = item.type.tensor_type.elem_type
        if kind in FLOATS and not sizes:
            sizes[FLOATS[kind]] += 1
    name = sizes.most_common(1)[0][0] if sizes else "float32"
    if name == "bfloat16":
        from ..layers.base import as_dtype

        return as_dtype("load", name)
    return name


def _depends(values: Sequence[Node], node: Node) -> bool:
    """Return whether one of the values is made of a node."""
    waiting, seen = list(values), set()
    while waiting:
        value = waiting.pop()
        if value is node:
            return True
        if value.serial not in seen:
            seen.add(value.serial)
            waiting += value.inputs
    return False


def _report(interpreter: Interpreter, graph: onnx.GraphProto, results: Sequence[Value]) -> None:
    """Raise where nodes are not supported, or an output is no value of the graph."""
    if interpreter.problems:
        lines = "; ".join(f"{kind} {name!r}: {why}" for kind, name, why in interpreter.problems)
        kinds = sorted({kind for kind, _, _ in interpreter.problems})
        raise UnsupportedError(
            f"load: the model holds what is not supported. {lines}."
            f" Received: a model with {', '.join(kinds)}"
        )
    for item, value in zip(graph.output, results, strict=True):
        if not isinstance(value, Node):
            raise UnsupportedError(
                "load: each output must depend on an input, and be no index of a max-pool."
                f" Received: {item.name!r}"
            )
