"""The ONNX graph that is being made, and where each array's axes lie in its tensors.

ONNX's convolutions, pools and norms take channels first, gpucnn's by default last. No exporter
transposes to and fro: a ``Value`` says which axis of the array lies where in the tensor, an
elementwise layer leaves that as it is, and ``Builder`` transposes where a layer asks for another
order. A network of maps with channels last so takes one transpose, at its input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...backends.base import accumulator
from ...layers.base import Layer, Shape
from .registry import exporter_of

# What any runtime of the last years reads; bfloat16 convolutions and pools came later.
OPSET, OPSET_BFLOAT16 = 18, 22


@dataclass(frozen=True)
class Value:
    """A tensor of the ONNX graph, and the array of the network that it holds.

    Attributes:
        name: the tensor's.
        shape: the array's, without the batch axis.
        order: the array's axis at each axis of the tensor: (0, 3, 1, 2) where a map with its
            channels last is held with them first. The batch stays in front.
        columns: for what was flattened out of another order, the array's column at each column of
            the tensor; None where each is at its own place.
        dtype: where it is not the network's.
    """

    name: str
    shape: Shape
    order: tuple[int, ...]
    columns: np.ndarray | None = None
    dtype: np.dtype | None = None

    @classmethod
    def of(cls, name: str, shape: Shape) -> Value:
        """Return a tensor whose axes lie as the array's."""
        return cls(name, shape, tuple(range(len(shape) + 1)))

    @property
    def rank(self) -> int:
        """The axes, the batch's too."""
        return len(self.order)

    def place(self, axis: int) -> int:
        """Return the tensor's axis at which an axis of the array lies."""
        return self.order.index(axis % self.rank)


def channels_first_order(rank: int, axis: int = -1) -> tuple[int, ...]:
    """Return the order of axes that brings ``axis`` to the place behind the batch.

    >>> channels_first_order(4)
    (0, 3, 1, 2)
    """
    if rank < 3:
        return tuple(range(rank))
    axis %= rank
    return (0, axis, *(place for place in range(1, rank) if place != axis))


class Builder:
    """Collects nodes and initializers, called by the path of the layer that they belong to.

    Attributes:
        dtype: of the network.
        accumulator: what the backends sum such numbers in, float32 or float64.
        opset: the version of ONNX's operations that are used.
    """

    def __init__(self, dtype: np.dtype) -> None:
        self.dtype = dtype
        self.opset = OPSET_BFLOAT16 if dtype.name == "bfloat16" else OPSET
        self.accumulator = accumulator(dtype)
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self._path: tuple[str, ...] = ()
        self._names: set[str] = set()
        self._outputs: dict[str, str] = {}  # the names of tensors that became outputs
        self._arranged: dict[tuple[str, Any], Value] = {}

    # ---- layers ----------------------------------------------------------------------------------

    def run(self, layer: Layer, x: Value | list[Value]) -> Value | list[Value]:
        """Export a layer of a network, under its name."""
        with self._inside(layer.name):
            return self.run_whole(layer, x)

    def run_whole(self, layer: Layer, x: Value | list[Value]) -> Value | list[Value]:
        return exporter_of(layer)(self, layer, x)

    @contextmanager
    def _inside(self, name: str) -> Iterator[None]:
        outside = self._path
        self._path = (*outside, name)
        try:
            yield
        finally:
            self._path = outside

    # ---- nodes and constants ---------------------------------------------------------------------

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Add an operation and return the name of its output."""
        return self.nodes_of(op, 1, *inputs, **attributes)[0]

    def nodes_of(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Add an operation of several outputs and return their names."""
        from onnx import helper

        names = [self._unique(op) for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, names[0], **attributes))
        return names

    def apply(self, op: str, x: Value, *others: str, **attributes: Any) -> Value:
        """Add an operation on a value that keeps its shape and the order of its axes."""
        return replace(x, name=self.node(op, x.name, *others, **attributes))

    def constant(self, key: str, array: np.ndarray) -> str:
        """Add an array and return its name: a parameter's is its path in ``state_dict``."""
        name = self._unique(key)
        self.initializers[name] = tensor(name, array)
        return name

    def parameter(
        self, layer: Layer, key: str, change: Callable[[np.ndarray], np.ndarray] | None = None
    ) -> str:
        """Add a layer's parameter or state, brought to another form by ``change``."""
        array = layer.backend.to_numpy(layer.params.get(key, layer.state.get(key)))
        return self.constant(key, array if change is None else change(array))

    def reshaped(self, x: Value, shape: Sequence[int]) -> str:
        """Add a Reshape of each sample, whatever the batch; return the name of the tensor."""
        return self.node("Reshape", x.name, self.constant("shape", np.array([0, *shape])))

    def number(self, value: float, dtype: np.dtype | None = None) -> str:
        """Add a constant once, of the accumulator's dtype if no other is given."""
        array = np.array(value).astype(dtype or self.accumulator)
        name = f"constant/{array.dtype.name}/{value!r}"
        if name not in self.initializers:
            self._names.add(name)
            self.initializers[name] = tensor(name, array)
        return name

    def holds(self, value: float) -> bool:
        """Return whether ONNX's attributes, which are float32, hold a number well enough."""
        return self.dtype != np.float64 or float(np.float32(value)) == value

    def input(self, x: Value) -> Value:
        """Keep the name of one of the graph's inputs from all others."""
        self._names.add(x.name)
        return x

    def output(self, x: Value, key: str) -> Value:
        """Return a value under the name of one of the graph's outputs."""
        name = self._unique(key)
        made = any(x.name in node.output for node in self.nodes)
        if not made or x.name in self._outputs:  # an input, or an output of another name already
            x = self.apply("Identity", replace(x, name=self._outputs.get(x.name, x.name)))
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [name if old == x.name else old for old in names]
        self._outputs[x.name] = name
        return replace(x, name=name)

    def _unique(self, key: str) -> str:
        stem = name = "/".join((*self._path, key))
        number = 0
        while name in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name)
        return name

    # ---- the order of axes -----------------------------------------------------------------------

    def arranged(self, x: Value, order: Sequence[int] | None = None) -> Value:
        """Return a value with its axes in this order, by default the array's own."""
        order = tuple(range(x.rank)) if order is None else tuple(order)
        if x.order == order and x.columns is None:
            return x
        key = x.name, order
        if key not in self._arranged:
            if x.columns is not None:
                places = self.constant("columns", np.argsort(x.columns))
                name = self.node("Gather", x.name, places, axis=1)
            else:
                name = self.node("Transpose", x.name, perm=[x.order.index(a) for a in order])
            self._arranged[key] = replace(x, name=name, order=order, columns=None)
        return self._arranged[key]

    def channels_first(self, x: Value, axis: int) -> Value:
        """Return a value with the channels, ``axis`` of the array, behind the batch."""
        return self.arranged(x, channels_first_order(x.rank, axis))

    def alike(self, values: Sequence[Value]) -> list[Value]:
        """Return values of one rank in the order that most of them have."""
        order = Counter(x.order for x in values).most_common(1)[0][0]
        return [self.arranged(x, order) for x in values]

    # ---- precision -------------------------------------------------------------------------------

    def widened(self, x: Value, compute: Callable[[Value], Value]) -> Value:
        """Compute several steps in the accumulator's dtype and round once, as the backends do."""
        if self.dtype == self.accumulator:
            return compute(x)
        return self.cast(compute(self.cast(x, self.accumulator)), self.dtype)

    def cast(self, x: Value, dtype: np.dtype) -> Value:
        return self.apply("Cast", x, to=element_type(dtype))


def element_type(dtype: np.dtype) -> int:
    """Return ONNX's number of a dtype.

    >>> element_type(np.dtype("float32"))
    1
    """
    from onnx import TensorProto

    names = {"float16": "FLOAT16", "float32": "FLOAT", "float64": "DOUBLE"}
    return TensorProto.DataType.Value(names.get(dtype.name, dtype.name.upper()))


def tensor(name: str, array: np.ndarray) -> Any:
    """Return an array as ONNX's TensorProto, bfloat16 too."""
    from onnx import helper

    return helper.make_tensor(
        name, element_type(array.dtype), array.shape, array.tobytes(), raw=True
    )
