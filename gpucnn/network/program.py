"""A network written down as a list of operations, for inference: weights folded, layers gone.

Where ``plan`` says which layers of a chain run as one, a program is what is left of a whole network
once its weights are final: operations that read numbered values and make one each. On the way

    batch norm   after a convolution or dense layer goes into its weights, w * scale and
                 b * scale + shift (Jacob et al. 2018, section 3.2)
    ReLU, ReLU6  end the operation that makes what they read
    dropout      vanishes

Called with arrays it runs on any backend, operation by operation. A backend may bind it to given
shapes instead (``Backend.bind``).
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from .. import functional as F
from ..backends.base import FUSED, NORM_FUSED, Array, accumulator
from ..layers.activation import (
    Activation,
    HardSigmoid,
    HardSiLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Tanh,
)
from ..layers.base import Layer, Shape
from ..layers.conv import Conv
from ..layers.dense import Dense
from ..layers.dropout import Dropout
from ..layers.elementwise import Arithmetic
from ..layers.merge import (
    Add,
    Concatenate,
    Divide,
    Maximum,
    Minimum,
    Multiply,
    Subtract,
)
from ..layers.norm import BatchNorm
from ..layers.pool import GlobalPool, Pool
from ..layers.reshape import Reshape
from ..shapes import ConvShape, PoolShape
from .base import Network
from .graph import Graph
from .plan import channel_axis, is_as_written, is_conv, is_max_pool, is_relu
from .sequential import Residual, Sequential
from .stages import WithActivation


@dataclass(eq=False)
class Operation:
    """value[result] = f(value[sources])

    Attributes:
        kind: "conv", "dense", "scale" (x * w + b, channel by channel), "sum", "arithmetic", "pool",
            "activation", "reshape", "concatenate", or "layer" for what only its layer knows.
        name: the layers', as in a plan: "conv2d+batch_norm+re_lu".
        layer: the first one; a copy where it may have to run, or its parameters are asked for.
        geometry: the record of a "conv" or "pool" for the shape of x.
        w, b: the weights: (K, *kernel, C / groups) and (K,), or (C,) each; b may be None. Of what
            was folded they are float32 or float64. Of "arithmetic" w is the layer's own operand.
        activation, alpha: that end it: "linear", "relu" or "relu6". Where ``joining`` has been at
            work, of a "conv" or "dense" any one; a second source of theirs is added before it.
        alike: of a "sum" whether its sources are of one shape.
        pool: of a "conv", where ``joining`` has been at work, the record of the max-pool behind it
            for the shape of its output; or None.
    """

    kind: str
    name: str
    sources: list[int]
    result: int
    layer: Layer
    geometry: Callable[[Shape], ConvShape | PoolShape] | None = None
    w: Array | None = None
    b: Array | None = None
    activation: str = "linear"
    alpha: float | None = None
    alike: bool = False
    pool: Callable[[Shape], PoolShape] | None = None

    def cast(self, dtype: np.dtype) -> Operation:
        """Return the operation with the weights that a product takes in a dtype."""
        if self.kind not in ("conv", "dense"):
            return self
        b = None if self.b is None else self.b.astype(dtype, copy=False)
        return replace(self, w=self.w.astype(dtype, copy=False), b=b)

    def run(self, *xs: Array) -> Array:
        """Compute the operation on its backend."""
        x, w, b = xs[0], self.w, self.b
        if self.kind in ("conv", "dense"):
            return self._weighted(*xs)
        if self.kind == "sum" and self.alike and len(xs) == 2 and self.activation in FUSED:
            return F.add(*xs, activation=self.activation)
        if self.kind == "scale":
            ones = (1,) * (x.ndim - 2) if self.layer.axis == 1 else ()
            y = x * w.reshape(-1, *ones) + b.reshape(-1, *ones)
            y = y.astype(x.dtype, copy=False)
        elif self.kind == "pool" and self.activation == "relu" and is_max_pool(self.layer):
            return WithActivation(self.layer, ReLU()).forward(x)
        else:
            y = self.layer.forward(list(xs) if self.layer.takes_many else xs[0])
        return y if self.activation == "linear" else F.activation_forward(y, self.activation)

    def _weighted(self, x: Array, residual: Array | None = None) -> Array:
        w = self.w.astype(x.dtype, copy=False)
        b = None if self.b is None else self.b.astype(x.dtype, copy=False)
        options = {"activation": self.activation, "math": self.layer.math, "owner": self.name}
        if self.pool:
            conv = self.geometry(x.shape)
            shapes = conv, self.pool(conv.y_shape)
            return F.conv_pool_forward(x, w, b, with_index=False, shapes=shapes, **options)[0]
        options |= {"alpha": self.alpha, "residual": residual}
        if self.kind == "conv":
            return F.conv_forward(x, w, b, shape=self.geometry(x.shape), **options)
        return F.dense_forward(x, w, b, **options)

    def __str__(self) -> str:
        sources = ", ".join(f"v{source}" for source in self.sources)
        last = "" if self.pool is None else " pool"
        last += "" if self.activation == "linear" else f" {self.activation}"
        return f"v{self.result} = {self.kind}{last}({sources})  # {self.name}"


@dataclass
class Program:
    """The operations of a network in the order in which they run.

    Values are numbered: the inputs first, then what each operation makes.
    """

    inputs: int
    operations: list[Operation] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def __call__(self, inputs: Sequence[Array]) -> list[Array]:
        """Compute the outputs, one operation after the other."""
        values = dict(enumerate(inputs))
        left = self.readers()
        for operation in self.operations:
            values[operation.result] = operation.run(*(values[i] for i in operation.sources))
            left.subtract(operation.sources)
            for source in operation.sources:
                if not left[source]:
                    values.pop(source, None)
        return [values[output] for output in self.outputs]

    def cast(self, dtype: np.dtype) -> Program:
        """Return the program with its weights in the dtype of the inputs, once for all calls."""
        return replace(self, operations=[operation.cast(dtype) for operation in self.operations])

    def readers(self) -> Counter[int]:
        """Return how often each value is read; to be an output counts as well."""
        reads = Counter(self.outputs)
        for operation in self.operations:
            reads.update(operation.sources)
        return reads

    def __str__(self) -> str:
        return "\n".join(map(str, self.operations))


def record(network: Network) -> Program:
    """Return the program of a built network, with copies of its weights.

    >>> from gpucnn import BatchNorm, Conv2D, Dropout, ReLU
    >>> layers = [Conv2D(8, 3, use_bias=False), BatchNorm(), ReLU(), Dropout(0.5)]
    >>> print(record(Sequential(layers, input_shape=(8, 8, 1))))
    v3 = conv relu(v0)  # conv2d+batch_norm+re_lu
    """
    count = len(network.inputs) if isinstance(network, Graph) else 1
    recorder = _Recorder(Program(count))
    outputs = recorder.record(network, list(range(count)))
    recorder.program.outputs = outputs
    _fold(recorder.program)
    return recorder.program


_ACTIVATIONS = (Activation, HardSigmoid, HardSiLU, ReLU, Sigmoid, SiLU, Tanh)


class _Recorder:
    """Walks through a network as its forward pass does, and writes down what it meets."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.values = program.inputs

    def record(self, layer: Layer, sources: list[int]) -> list[int]:
        """Write down a layer that reads these values; return those that it makes."""
        if is_as_written(layer, Sequential):
            return self._chain(layer.layers, sources)
        if is_as_written(layer, Residual):
            ways = [self._chain(way, sources)[0] for way in (layer.body, layer.shortcut)]
            total = self._add("sum", Add(name=layer.name), ways, alike=True)
            return [total] if layer.activation is None else self.record(layer.activation, [total])
        if is_as_written(layer, Graph):
            return self._graph(layer, sources)
        if is_as_written(layer, Dropout):
            return sources
        return [self._layer(layer, sources)]

    def _chain(self, layers: Sequence[Layer], sources: list[int]) -> list[int]:
        for layer in layers:
            sources = self.record(layer, sources)
        return sources

    def _graph(self, graph: Graph, sources: list[int]) -> list[int]:
        values = {id(node): source for node, source in zip(graph.inputs, sources, strict=True)}
        for node in graph.nodes[len(sources) :]:
            (value,) = self.record(node.layer, [values[id(read)] for read in node.inputs])
            values[id(node)] = value
            last = self.program.operations[-1:]
            if last and (last[0].kind, last[0].result) == ("sum", value):
                last[0].alike = len({read.shape for read in node.inputs}) == 1
        return [values[id(node)] for node in graph.outputs]

    def _layer(self, layer: Layer, sources: list[int]) -> int:
        real = layer.dtype is None or layer.dtype.kind != "c"
        if real and is_conv(layer):
            return self._weighted("conv", layer, sources, geometry=_geometry_of(layer))
        if real and is_as_written(layer, Dense) and not layer.output_dtype:
            return self._weighted("dense", layer, sources)
        if real and is_as_written(layer, BatchNorm):
            return self._norm(layer, sources)
        if is_as_written(layer, Add):
            return self._add("sum", layer, sources)
        if is_as_written(layer, Subtract, Multiply, Divide, Maximum, Minimum):
            return self._add("arithmetic", layer, sources)
        if is_as_written(layer, Arithmetic):
            operand = (layer.params if layer.learned else layer.state)["operand"]
            return self._add("arithmetic", layer, sources, w=operand.copy())
        if is_as_written(layer, *_ACTIVATIONS):
            return self._add("activation", layer, sources)
        if is_as_written(layer, Concatenate):
            return self._add("concatenate", layer, sources)
        if is_as_written(layer, Pool, GlobalPool):
            return self._add("pool", layer, sources, geometry=_geometry_of(layer))
        if is_as_written(layer, Reshape):
            return self._add("reshape", layer, sources)
        return self._add("layer", layer, sources)

    def _add(self, kind: str, layer: Layer, sources: list[int], **options: Any) -> int:
        result = self.values
        self.values += 1
        if kind not in ("conv", "dense", "scale"):  # it may be run, beside the network's own
            layer = copy.deepcopy(layer)
        self.program.operations.append(
            Operation(kind, layer.name, sources, result, layer, **options)
        )
        return result

    def _weighted(self, kind: str, layer: Layer, sources: list[int], **options: Any) -> int:
        w, b = (layer.params.get(name) for name in ("kernel", "bias"))
        b = None if b is None else b.copy()
        return self._activated(kind, layer, sources, w=w.copy(), b=b, **options)

    def _norm(self, layer: BatchNorm, sources: list[int]) -> int:
        xp, dtype = layer.backend.xp, accumulator(layer.dtype)
        gamma, beta = (layer.params[name].astype(dtype) for name in ("gamma", "beta"))
        mean, variance = (layer.state[name] for name in ("moving_mean", "moving_variance"))
        scale = gamma / xp.sqrt(variance + dtype.type(layer.epsilon))
        return self._activated("scale", layer, sources, w=scale, b=beta - mean * scale)

    def _activated(self, kind: str, layer: Layer, sources: list[int], **options: Any) -> int:
        """Add an operation, and another one for its layer's own activation if need be."""
        value = self._add(kind, layer, sources, **options)
        if layer.activation == "linear":
            return value
        if layer.activation in NORM_FUSED:
            self.program.operations[-1].activation = layer.activation
            return value
        softmax = layer.activation == "softmax"
        last = Softmax(layer.softmax_axis) if softmax else Activation(layer.activation)
        return self._layer(last, [value])


def _geometry_of(layer: Conv | Pool | GlobalPool) -> Callable[[Shape], ConvShape | PoolShape]:
    if not isinstance(layer, GlobalPool):
        return layer._geometry
    return partial(F.global_pool_shape, mode=layer.mode, data_format=layer.data_format)


def _fold(program: Program) -> None:
    """Put batch norms into the weights before them, and activations at the end of operations."""
    readers = program.readers()
    makers: dict[int, Operation] = {}
    kept = []
    for operation in program.operations:
        maker = makers.get(operation.sources[0])
        alone = maker is not None and readers[maker.result] == 1
        if alone and maker.activation == "linear" and _folds(operation, maker):
            maker.name += f"+{operation.name}"
            maker.result = operation.result
            makers[operation.result] = maker
            continue
        if alone and operation.kind == "pool" and _is_max_pool(operation.layer):
            # a ReLU goes behind the pool, where there are fewer numbers
            operation.activation, maker.activation = maker.activation, "linear"
        makers[operation.result] = operation
        kept.append(operation)
    program.operations = kept


def _is_max_pool(layer: Pool | GlobalPool) -> bool:
    return is_max_pool(layer) or (is_as_written(layer, GlobalPool) and layer.mode == "max")


def _folds(operation: Operation, maker: Operation) -> bool:
    """Fold an operation into the one whose result it alone reads; return whether it could be."""
    layer = operation.layer
    if is_relu(layer, ("relu", "relu6")):
        if maker.kind in ("activation", "concatenate", "reshape") or maker.layer.output_dtype:
            return False
        maker.activation = layer.kind
        return True
    if operation.kind != "scale" or maker.kind not in ("conv", "dense"):
        return False
    if layer.axis != channel_axis(maker.layer):
        return False
    scale = operation.w
    maker.w = maker.w * scale.reshape(-1, *(1,) * (maker.w.ndim - 1))
    maker.b = operation.b if maker.b is None else maker.b * scale + operation.b
    maker.activation = operation.activation
    return True
