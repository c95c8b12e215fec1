"""A node of a model with its inputs, and what operators are made of.

An input is an array, or a value of the graph that is being made: a ``gpucnn.network.Node``. Every
operator is written once, of the functions here, and so serves three ends: on arrays it computes, in
ONNX's backend interface and for all that a model computes of constants; on nodes it adds layers.

A node's ``shape`` leaves out the batch. Where numbers are computed from shapes, a batch of
``Context.batch`` samples stands for all; no other size of the model has that number, unless the
model itself fixes the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import functional as F
from ..backends.base import Array, Backend
from ..layers import Arithmetic, Constant, Elementwise, Flatten, Layer, Permute, Reduce, Reshape
from ..layers import merge as merging
from ..layers.base import inference_mode
from ..network import Node
from ..shapes import check_sample
from .errors import UnsupportedError

Value = Any  # an array or a Node

MERGING = {
    "add": merging.Add,
    "subtract": merging.Subtract,
    "multiply": merging.Multiply,
    "divide": merging.Divide,
    "power": merging.Power,
    "maximum": merging.Maximum,
    "minimum": merging.Minimum,
}
# What a reduction makes of a single number, where that is another one.
OF_ONE = {"l1": "abs", "l2": "abs", "log_sum": "log", "sum_square": "square"}


@dataclass(frozen=True)
class Context:
    """What all nodes of a model have in common.

    Attributes:
        backend: whose arrays are computed with; the host's, where a graph is made.
        target: where a graph's parameters lie; None where arrays are computed with.
        batch: the batch that stands for all in a graph to be.
        dtype: of a graph's parameters; None where arrays are computed with, which have their own.
    """

    backend: Backend
    target: Backend | None = None
    batch: int = 1
    dtype: np.dtype | None = None


class Call:
    """A node: its operator, attributes and context.

    Attributes:
        kind: the operator's name, such as "Conv".
        name: the node's, perhaps "".
        opset: the version of ONNX's operators that the model was written for.
        outputs: the names of its outputs, "" for one that nobody reads.
        alone: for each input, whether nobody else reads it.
    """

    def __init__(
        self, kind: str, name: str, attributes: dict[str, Any], outputs: Sequence[str],
        alone: Sequence[bool], opset: int, context: Context,
    ) -> None:  # fmt: skip
        self.kind, self.name, self.attributes = kind, name, attributes
        self.outputs, self.alone = list(outputs), list(alone)
        self.opset, self.context = opset, context
        self._named = False

    @property
    def label(self) -> str:
        return f"{self.kind} {self.name!r}"

    @property
    def xp(self) -> Any:
        return self.context.backend.xp

    def get(self, name: str, default: Any = None) -> Any:
        """Return an attribute, or the default where the node leaves it out."""
        return self.attributes.get(name, default)

    def refuse(self, reason: str) -> UnsupportedError:
        """Return the error that this node is not supported, to be raised."""
        return UnsupportedError(reason)

    def wants(self, index: int) -> bool:
        """Return whether the node's output of this index is read."""
        return index < len(self.outputs) and bool(self.outputs[index])

    # ---- inputs ----------------------------------------------------------------------------------

    def integers(self, value: Value, what: str) -> list[int]:
        """Return the numbers of an array, which must be known by now."""
        return [int(number) for number in self.known(value, what).ravel()]

    def number(self, value: Value, what: str) -> float:
        """Return the only number of an array, which must be known by now."""
        return float(self.known(value, what).reshape(()))

    def known(self, value: Value, what: str) -> np.ndarray:
        """Return an array on the host; raise where it is a value of the graph."""
        if isinstance(value, Node):
            raise self.refuse(f"{what} must be known when the model is loaded")
        if isinstance(value, np.ndarray):
            return value
        return self.context.backend.to_numpy(value)

    def sizes(self, x: Value) -> tuple[int, ...]:
        """Return a value's shape with the batch."""
        return (self.context.batch, *x.shape) if isinstance(x, Node) else tuple(x.shape)

    def axis(self, x: Value, axis: int) -> int:
        """Return an axis counted from the front; raise where it is the batch of a node."""
        rank = len(self.sizes(x))
        place = axis + rank if axis < 0 else axis
        if not 0 <= place < rank:
            raise self.refuse(f"axis {axis} of a value of {rank} axes")
        if place == 0 and isinstance(x, Node):
            raise self.refuse("the samples of a batch would be mixed")
        return place

    # ---- layers ----------------------------------------------------------------------------------

    def apply(self, layer: Layer, *inputs: Value, **weights: Array) -> Value:
        """Run a layer on arrays, or add it to the graph; fill it with weights by name."""
        x = list(inputs) if layer.takes_many else inputs[0]
        if isinstance(inputs[0], Node):
            self._give_name(layer)
            if weights:
                fill(layer, inputs[0].shape, self.context.dtype, self.context.target, weights)
            # Layers that take any input leave an empty one to their functions.
            check_sample(layer.label, (1, *inputs[0].shape))
            return layer(x)
        with inference_mode():
            if weights:
                first = inputs[0]
                fill(layer, first.shape[1:], first.dtype, self.context.backend, weights)
            return layer.forward(x)

    def _give_name(self, layer: Layer) -> None:
        """Name the first of a node's layers, which has the weights, if any, as the node."""
        if self.name and not self._named:
            layer.name, layer.given_name, self._named = self.name, True, True

    # ---- what operators are made of --------------------------------------------------------------

    def unary(self, function: str, x: Value) -> Value:
        """Return a function of ``functional.elementwise_forward`` of x."""
        if isinstance(x, Node):
            return self.apply(Elementwise(function), x)
        return F.elementwise_forward(x, function, owner=self.label)

    def binary(self, function: str, a: Value, b: Value) -> Value:
        """Return a function of ``functional.arithmetic_forward`` of a and b, or of a number."""
        if isinstance(a, (int, float)):
            a = self.constant(a, b)
        if isinstance(b, (int, float)):
            b = self.constant(b, a)
        if isinstance(a, Node) and isinstance(b, Node):
            if len(a.shape) != len(b.shape):
                raise self.refuse(f"values of {len(a.shape) + 1} and {len(b.shape) + 1} axes")
            return self.apply(MERGING[function](), a, b)
        if not isinstance(a, Node) and not isinstance(b, Node):
            return F.arithmetic_forward(a, b, function, owner=self.label)
        x, operand = (a, b) if isinstance(a, Node) else (b, a)
        operand = self.per_sample(operand, len(x.shape))
        operand = operand.reshape(()) if operand.size == 1 else operand
        layer = Arithmetic(function, operand.shape, reverse=x is b, learned=operand.size > 1)
        return self.apply(layer, x, operand=operand)

    def constant(self, number: float, like: Value) -> Array:
        """Return a number as an array that goes with a value."""
        if isinstance(like, Node):
            return np.asarray(number, self.context.dtype)
        return self.xp.asarray(number, like.dtype)

    def as_node(self, array: Array, beside: Node) -> Node:
        """Return an array as a value of the graph, the same for each sample."""
        rank = len(beside.shape)
        operand = self.per_sample(array, rank)
        if array.ndim != rank + 1:
            raise self.refuse(f"a constant of shape {array.shape} beside values of {rank + 1} axes")
        layer = Constant(operand.shape, learned=operand.size > 1)
        return self.apply(layer, beside, operand=operand)

    def per_sample(self, operand: Array, rank: int) -> np.ndarray:
        """Return an array as each sample of ``rank`` axes meets it: without a batch axis."""
        operand = self.known(operand, "an operand")
        if operand.ndim <= rank:
            return operand
        if operand.ndim > rank + 1 or operand.shape[0] not in (1, self.context.batch):
            raise self.refuse(f"an operand of shape {operand.shape} for samples of {rank} axes")
        if (operand != operand[:1]).any():
            raise self.refuse("an operand with other numbers for each sample of a batch")
        return operand[0]

    def reduce(self, x: Value, mode: str, axes: Sequence[int], keepdims: bool = True) -> Value:
        """Return ``functional.reduce_forward`` of x."""
        if isinstance(x, Node):
            places = [self.axis(x, axis) for axis in axes]
            if not places:  # each number by itself
                return self.unary(OF_ONE[mode], x) if mode in OF_ONE else x
            return self.apply(Reduce(mode, places, keepdims=keepdims), x)
        options = {"keepdims": keepdims, "owner": self.label}
        return F.reduce_forward(x, mode, axes, **options)

    def reshape(self, x: Value, target: Sequence[int]) -> Value:
        """Return x in another shape, in which one size may be -1."""
        target = list(map(int, target))
        if not isinstance(x, Node):
            return x.reshape(target)
        count = self.context.batch * math.prod(x.shape)
        known = math.prod(size for size in target if size != -1)
        if -1 in target:
            target[target.index(-1)] = count // max(known, 1)
        if not target or target[0] != self.context.batch or math.prod(target) != count:
            raise self.refuse(
                f"a reshape of {self.sizes(x)} to {tuple(target)} would mix the samples of a batch"
            )
        sample = tuple(target[1:])
        if sample == tuple(x.shape):
            return x
        return self.apply(Flatten() if len(sample) == 1 else Reshape(sample), x)

    def transpose(self, x: Value, order: Sequence[int]) -> Value:
        """Return x with its axes in another order."""
        order = [axis % len(self.sizes(x)) for axis in order]
        if not isinstance(x, Node):
            return self.xp.transpose(x, order)
        if order[0] != 0:
            raise self.refuse("the samples of a batch would no longer lie first")
        return x if order == sorted(order) else self.apply(Permute(order[1:]), x)


def fill(
    layer: Layer, sample: Sequence[int], dtype: Any, backend: Backend, weights: dict[str, Array]
) -> None:
    """Build a layer with these parameters and states in place of initial ones."""
    values = {
        name: array if isinstance(array, np.ndarray) else backend.to_numpy(array)
        for name, array in weights.items()
    }
    usual = {}
    for name, value in values.items():
        initializer = f"{name}_initializer"
        if hasattr(layer, initializer):
            usual[initializer] = getattr(layer, initializer)
            setattr(layer, initializer, lambda shape, generator, value=value: value)
    layer.build(tuple(sample), dtype, backend)
    vars(layer).update(usual)  # what a twin of the layer, from its config, is drawn by
    for name in layer.state.keys() & values.keys():
        layer.state[name] = backend.asarray(values[name].astype(layer.state[name].dtype))
