"""The walk over a model's nodes, in their order, with the values that they pass on."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import numpy as np
import onnx
import onnx.checker
from onnx import numpy_helper

from ..functional.elementwise import quiet
from .call import Call, Context, Value
from .errors import UnsupportedError
from .operators import OPERATORS
from .operators.pooling import Indices


def legal(name: str) -> str:
    """Return an ONNX name as one of ours, which hold no "/".

    >>> legal("/layer1/conv/Conv")
    'layer1.conv.Conv'
    """
    return re.sub(r"[/\\]+", ".", name).strip(".")


def values_of(tensor: onnx.TensorProto) -> np.ndarray:
    """Return a tensor of a file as an array.

    Raises:
        ValueError: it is damaged, or its numbers lie in a file that has not been read.
    """
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError, onnx.checker.ValidationError) as error:
        raise ValueError(
            "load: a tensor's type, sizes and numbers must fit each other. Received:"
            f" {tensor.name!r} of type {tensor.data_type}, sizes {tuple(tensor.dims)}: {error}"
        ) from error


class Missing:
    """A value that is not there because the node that makes it is not supported."""


class Interpreter:
    """Runs the nodes of a model on arrays or on the values of a graph to be.

    Attributes:
        problems: (operator, node, reason) of each node that is not supported.
    """

    def __init__(self, model: onnx.ModelProto, context: Context, taken: Iterable[str] = ()) -> None:
        """``taken`` are names that no node may have; those of nodes are made legal and unique."""
        self.context = context
        self.taken = set(taken)
        self.reads: Counter[str] = Counter()
        self.opsets = {item.domain: item.version for item in model.opset_import}
        self.ir_version = model.ir_version
        self.problems: list[tuple[str, str, str]] = []

    def run(self, graph: onnx.GraphProto, values: dict[str, Value]) -> list[Value]:
        """Return the outputs of a graph; ``values`` holds its inputs by name and gets all others.

        An output that could not be had is a ``Missing``, and the reason is in ``problems``.

        Raises:
            ValueError: no node makes an output.
        """
        self.reads.update(_read(graph))
        for initializer in graph.initializer:
            if initializer.name not in values:
                values[initializer.name] = self.array(initializer)
        for node in graph.node:
            results = self._node(node, values)
            values.update((name, v) for name, v in zip(node.output, results, strict=False) if name)
        unmade = [item.name for item in graph.output if item.name not in values]
        if unmade:
            raise ValueError(
                "load: each output must be made by a node, or be an input."
                f" Received: {', '.join(map(repr, unmade))}"
            )
        return [values[item.name] for item in graph.output]

    def array(self, tensor: onnx.TensorProto) -> Any:
        """Return a tensor of the file as an array of the backend."""
        return self.context.backend.asarray(values_of(tensor))

    def _node(self, node: onnx.NodeProto, values: dict[str, Value]) -> Sequence[Value]:
        missing = [Missing()] * len(node.output)
        inputs = [values.get(name) if name else None for name in node.input]
        if any(isinstance(value, Missing) for value in inputs):
            return missing
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            if domain:
                raise UnsupportedError(f"operators of the domain {domain!r} are not known")
            if node.op_type == "If":
                return self._branch(node, inputs[0], values)
            if node.op_type not in OPERATORS:
                raise UnsupportedError("the operator is not known")
            unmade = [name for name in node.input if name and name not in values]
            if unmade:  # which is not to leave out an input
                names = ", ".join(map(repr, unmade))
                raise UnsupportedError(f"it reads {names}, which no node before it makes")
            call = Call(
                node.op_type,
                self._own_name(node.name),
                {item.name: self._attribute(item) for item in node.attribute},
                [name if self.reads[name] else "" for name in node.output],
                [self.reads[name] == 1 for name in node.input],
                self.opsets.get("", self.opsets.get("ai.onnx", 1)),
                self.context,
            )
            if node.op_type != "MaxUnpool" and any(isinstance(v, Indices) for v in inputs):
                raise UnsupportedError("the indices of a MaxPool are for a MaxUnpool alone")
            with quiet():
                results = OPERATORS[node.op_type](call, *inputs)
            results = results if isinstance(results, tuple) else (results,)
            if any(map(call.wants, range(len(results), len(node.output)))):
                raise UnsupportedError(f"of its outputs {len(results)} can be had")
        except (IndexError, KeyError, TypeError, ValueError) as error:
            # Unsupported, what a layer says of its arguments, or a node that is none of ONNX's.
            reason = str(error) if isinstance(error, ValueError) else self._flaw(node)
            if reason is None:
                raise
            self.problems.append((node.op_type, node.name or f"-> {node.output[0]}", reason))
            return missing
        # What NumPy makes of arrays without axes is a number of its own kind.
        return [np.asarray(value) if isinstance(value, np.generic) else value for value in results]

    def _flaw(self, node: onnx.NodeProto) -> str | None:
        """Return what its operator does not allow: inputs or attributes, too few or too many."""
        rules = onnx.checker.C.CheckerContext()
        rules.ir_version, rules.opset_imports = self.ir_version, self.opsets
        try:
            onnx.checker.check_node(node, rules)
        except onnx.checker.ValidationError as error:
            return str(error).strip().rstrip(".")
        return None

    def _own_name(self, name: str) -> str:
        """Return a node's name as layers are called: without a "/", and each but once."""
        stem = name = legal(name)
        for number in count(1):
            if name not in self.taken:
                break
            name = f"{stem}_{number}"
        if name:
            self.taken.add(name)
        return name

    def _attribute(self, attribute: onnx.AttributeProto) -> Any:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, onnx.TensorProto):
            return self.array(value)
        return value

    def _branch(
        self, node: onnx.NodeProto, condition: Value, values: dict[str, Value]
    ) -> Sequence[Value]:
        """Take the branch of an ``If`` whose condition is known, as a constant or a size is."""
        if not hasattr(condition, "dtype"):
            raise UnsupportedError("the condition must be known when the model is loaded")
        holds = bool(self.context.backend.to_numpy(condition).all())
        side = "then_branch" if holds else "else_branch"
        graph = next(item.g for item in node.attribute if item.name == side)
        return self.run(graph, dict(values))


def _read(graph: onnx.GraphProto) -> Iterator[str]:
    """Yield the name of a value each time that somebody reads it, in branches too."""
    yield from (item.name for item in graph.output)
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _read(attribute.g)
