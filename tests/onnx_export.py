"""What the tests of the export to ONNX share: random weights, runtimes, and exact answers."""

from __future__ import annotations

from copy import deepcopy
from math import prod

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

import gpucnn.onnx
from gpucnn.layers.base import Layer, as_dtype

from .tolerance import assert_close


def randomised(layer: Layer) -> Layer:
    """Draw all parameters and statistics: what is 0 or 1 at first would hide a mistake."""
    rng = np.random.default_rng(5)
    for _, part in layer.walk():
        for arrays in (part.params, part.state):
            for key, array in arrays.items():
                fan = prod(array.shape[1:]) if "kernel" in key else 9
                drawn = rng.standard_normal(array.shape) / np.sqrt(fan)
                if key in ("gamma", "moving_variance"):
                    drawn = np.abs(drawn) + 0.5
                arrays[key] = np.array(drawn, array.dtype)
    return layer


def samples(shapes, batch: int, dtype="float32") -> list[np.ndarray]:
    rng = np.random.default_rng(batch)
    dtype = as_dtype("samples", dtype)
    return [rng.standard_normal((batch, *shape)).astype(dtype) for shape in shapes]


def checked(layer: Layer, *arguments, **options) -> onnx.ModelProto:
    model = gpucnn.onnx.export(layer, *arguments, **options)
    onnx.checker.check_model(model, full_check=True)
    return model


def in_runtime(model: onnx.ModelProto, xs: list[np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    return session.run(None, dict(zip(names, xs, strict=True)))


def in_reference(model: onnx.ModelProto, xs: list[np.ndarray]) -> list[np.ndarray]:
    names = [value.name for value in model.graph.input]
    return ReferenceEvaluator(model).run(None, dict(zip(names, xs, strict=True)))


def forward(layer: Layer, xs: list[np.ndarray]) -> np.ndarray:
    return layer.forward(xs if layer.takes_many else xs[0])


def exact(layer: Layer, xs: list[np.ndarray]) -> np.ndarray:
    """The layer's output for the same numbers in float64."""
    return forward(deepcopy(layer).astype("float64"), [x.astype("float64") for x in xs])


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def assert_same(network: Layer, model: onnx.ModelProto, xs: list[np.ndarray]) -> None:
    """Compare all outputs, up to the roundings of as many operations as a network has."""
    expected = exact(network, xs)
    got = in_runtime(model, xs)
    for y, exact_y in zip(got, expected if network.gives_many else [expected], strict=True):
        assert_close(y, exact_y, dtype="float32", reduction=2000, magnitude=np.abs(exact_y).max())
