"""What each ONNX operator does, by its name: functions of a ``Call`` and its inputs.

An input that the node leaves out is None. Where versions of an operator differ, its function asks
for ``call.opset``: attributes became inputs (Squeeze's axes in 13), defaults changed (Softmax's
axis in 13). Versions are those of https://onnx.ai/onnx/operators.
"""

from . import (
    activation,
    arithmetic,
    arrange,
    convolution,
    logic,
    matrix,
    normalization,
    pooling,
    quantization,
    reduction,
    resize,
    shape,
)
from .registry import OPERATORS

__all__ = [
    "OPERATORS",
    "activation",
    "arithmetic",
    "arrange",
    "convolution",
    "logic",
    "matrix",
    "normalization",
    "pooling",
    "quantization",
    "reduction",
    "resize",
    "shape",
]
