"""Layers, with Keras's names and arguments.

Each is parameters and saved tensors around a pair of ``gpucnn.functional``; ``base.Layer`` says
what all have in common.
"""

from __future__ import annotations

from typing import Any

from .activation import (
    ELU,
    GELU,
    SELU,
    Activation,
    HardSigmoid,
    HardSiLU,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Softsign,
    Tanh,
)
from .arrange import Pad, Slice, Take, Tile
from .base import Layer, inference_mode
from .conv import Conv1D, Conv2D, Conv3D
from .conv_transpose import Conv1DTranspose, Conv2DTranspose, Conv3DTranspose
from .dense import Dense
from .dropout import Dropout
from .elementwise import Arithmetic, Clip, Constant, Elementwise, Shrink
from .merge import (
    Add,
    Average,
    Concatenate,
    Divide,
    MatMul,
    Maximum,
    Minimum,
    Multiply,
    Power,
    Subtract,
)
from .norm import (
    BatchNorm,
    BatchNormalization,
    GroupNorm,
    GroupNormalization,
    InstanceNorm,
    LayerNorm,
    LayerNormalization,
    LocalResponseNorm,
)
from .pool import (
    AveragePool1D,
    AveragePool2D,
    AveragePool3D,
    AveragePooling1D,
    AveragePooling2D,
    AveragePooling3D,
    GlobalAveragePool1D,
    GlobalAveragePool2D,
    GlobalAveragePool3D,
    GlobalAveragePooling1D,
    GlobalAveragePooling2D,
    GlobalAveragePooling3D,
    GlobalMaxPool1D,
    GlobalMaxPool2D,
    GlobalMaxPool3D,
    GlobalMaxPooling1D,
    GlobalMaxPooling2D,
    GlobalMaxPooling3D,
    GlobalMinPool1D,
    GlobalMinPool2D,
    GlobalMinPool3D,
    GlobalSumPool1D,
    GlobalSumPool2D,
    GlobalSumPool3D,
    MaxPool1D,
    MaxPool2D,
    MaxPool3D,
    MaxPooling1D,
    MaxPooling2D,
    MaxPooling3D,
    MinPool1D,
    MinPool2D,
    MinPool3D,
    SumPool1D,
    SumPool2D,
    SumPool3D,
)
from .reduce import ArgMax, Reduce
from .reshape import Flatten, Permute, Reshape
from .resize import Resize
from .separable import (
    DepthwiseConv1D,
    DepthwiseConv2D,
    DepthwiseConv3D,
    SeparableConv1D,
    SeparableConv2D,
)
from .unpool import MaxUnpool1D, MaxUnpool2D, MaxUnpool3D

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "Activation",
    "Add",
    "ArgMax",
    "Arithmetic",
    "Average",
    "AveragePool1D",
    "AveragePool2D",
    "AveragePool3D",
    "AveragePooling1D",
    "AveragePooling2D",
    "AveragePooling3D",
    "BatchNorm",
    "BatchNormalization",
    "Clip",
    "Concatenate",
    "Constant",
    "Conv1D",
    "Conv1DTranspose",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "DepthwiseConv1D",
    "DepthwiseConv2D",
    "DepthwiseConv3D",
    "Divide",
    "Dropout",
    "Elementwise",
    "Flatten",
    "GlobalAveragePool1D",
    "GlobalAveragePool2D",
    "GlobalAveragePool3D",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPool1D",
    "GlobalMaxPool2D",
    "GlobalMaxPool3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "GlobalMinPool1D",
    "GlobalMinPool2D",
    "GlobalMinPool3D",
    "GlobalSumPool1D",
    "GlobalSumPool2D",
    "GlobalSumPool3D",
    "GroupNorm",
    "GroupNormalization",
    "HardSiLU",
    "HardSigmoid",
    "InstanceNorm",
    "Layer",
    "LayerNorm",
    "LayerNormalization",
    "LeakyReLU",
    "LocalResponseNorm",
    "LogSoftmax",
    "MatMul",
    "MaxPool1D",
    "MaxPool2D",
    "MaxPool3D",
    "MaxPooling1D",
    "MaxPooling2D",
    "MaxPooling3D",
    "MaxUnpool1D",
    "MaxUnpool2D",
    "MaxUnpool3D",
    "Maximum",
    "MinPool1D",
    "MinPool2D",
    "MinPool3D",
    "Minimum",
    "Mish",
    "Multiply",
    "PReLU",
    "Pad",
    "Permute",
    "Power",
    "ReLU",
    "Reduce",
    "Reshape",
    "Resize",
    "SeparableConv1D",
    "SeparableConv2D",
    "Shrink",
    "SiLU",
    "Sigmoid",
    "Slice",
    "Softmax",
    "Softplus",
    "Softsign",
    "Subtract",
    "SumPool1D",
    "SumPool2D",
    "SumPool3D",
    "Take",
    "Tanh",
    "Tile",
    "from_config",
    "inference_mode",
    "to_config",
]

# The classes that ``from_config`` knows, by name. A layer of your own takes part after
# ``gpucnn.layers.LAYERS["Mine"] = Mine``.
LAYERS: dict[str, type[Layer]] = {
    kind.__name__: kind
    for kind in map(globals().get, __all__)
    if isinstance(kind, type) and kind is not Layer
}


def to_config(layer: Layer) -> dict[str, Any]:
    """Return a layer's class and arguments as JSON values; ``from_config`` makes a twin of them.

    Raises:
        ValueError: an argument is a function, which JSON cannot hold.
    """
    description = {"class": type(layer).__name__, "config": layer.config()}
    if not layer.trainable:
        description["trainable"] = False
    if layer.frozen:
        description["frozen"] = list(layer.frozen)
    return description


def from_config(description: dict[str, Any]) -> Layer:
    """Return the layer that ``to_config`` described, without its weights.

    Raises:
        ValueError: the class is not known.

    Example:
        >>> from_config({"class": "Dense", "config": {"units": 10}}).units
        10
    """
    kind = description.get("class")
    if kind not in LAYERS:
        raise ValueError(
            f"from_config: the class must be one of {', '.join(sorted(LAYERS))}. Received: {kind!r}"
        )
    layer = LAYERS[kind].from_config(description["config"])
    layer.trainable = description.get("trainable", True)
    layer.frozen = tuple(description.get("frozen", ()))
    return layer
