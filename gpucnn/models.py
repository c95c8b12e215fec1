"""Small networks with names, for the command line and as starting points.

Each is a function ``(classes, input_shape, dtype=None) -> Sequential`` whose output is logits
(batch, classes). ``gpucnn.set_seed`` settles the initial weights.

>>> model = make("lenet5", classes=10, input_shape=(28, 28, 1))
>>> model.parameter_count()
61932
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .arguments import as_choice
from .layers import (
    BatchNorm,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    Layer,
    MaxPool2D,
    ReLU,
)
from .layers.base import Shape
from .network import Residual, Sequential


def digits_cnn(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """Two convolutions and one dense layer, for pictures of about 8x8."""
    return Sequential(
        [
            *_conv3(16),
            *_conv3(32),
            MaxPool2D(2),
            Flatten(),
            Dropout(0.3),
            Dense(classes),
        ],
        name="digits_cnn",
        input_shape=input_shape,
        dtype=dtype,
    )


def lenet5(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """LeNet-5 in today's form, with ReLU, batch norm and max pooling: for pictures of about 28x28.

    LeCun et al., "Gradient-based learning applied to document recognition", 1998, figure 2; its
    32x32 input is MNIST's 28x28 with a border of 2, hence "same" in the first layer.
    """
    return Sequential(
        [
            *_norm_relu(Conv2D(6, 5, padding="same", use_bias=False)),
            MaxPool2D(2),
            *_norm_relu(Conv2D(16, 5, use_bias=False)),
            MaxPool2D(2),
            Flatten(),
            *_norm_relu(Dense(120, use_bias=False)),
            *_norm_relu(Dense(84, use_bias=False)),
            Dense(classes),
        ],
        name="lenet5",
        input_shape=input_shape,
        dtype=dtype,
    )


def vgg_small(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """Three pairs of 3x3 convolutions with batch norm: for pictures of 32x32 and more.

    The pattern of Simonyan & Zisserman, "Very deep convolutional networks for large-scale image
    recognition", 2015, with a mean over the last maps in place of its dense layers.
    """
    pairs: list[Layer] = []
    for filters in (32, 64, 128):
        pairs += [*_conv3(filters), *_conv3(filters), MaxPool2D(2)]
    return Sequential(
        [*pairs, GlobalAveragePool2D(), Dropout(0.3), Dense(classes)],
        name="vgg_small",
        input_shape=input_shape,
        dtype=dtype,
    )


def resnet20(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """ResNet-20 for CIFAR-10: three stages of three residual blocks.

    He et al., "Deep residual learning for image recognition", 2016, section 4.2, with 1x1
    convolutions as the shortcuts between stages.
    """
    blocks: list[Layer] = []
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        blocks += [_block(filters, strides), _block(filters), _block(filters)]
    return Sequential(
        [*_conv3(16), *blocks, GlobalAveragePool2D(), Dense(classes)],
        name="resnet20",
        input_shape=input_shape,
        dtype=dtype,
    )


def mobilenet_v2_small(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """MobileNetV2 with fewer and narrower blocks, for pictures of 32x32.

    Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018, table 2; as is
    usual for pictures of this size, the strides of its first layers are 1.
    """
    blocks: list[Layer] = []
    channels = 16
    for expansion, filters, repeats, strides in (
        (1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 2, 2), (6, 64, 2, 2), (6, 96, 1, 1),
    ):  # fmt: skip
        for repeat in range(repeats):
            blocks += _inverted(channels, expansion, filters, 1 if repeat else strides)
            channels = filters
    return Sequential(
        [
            *_norm_relu6(Conv2D(16, 3, padding="same", use_bias=False)),
            *blocks,
            *_norm_relu6(Conv2D(384, 1, use_bias=False)),
            GlobalAveragePool2D(),
            Dense(classes),
        ],
        name="mobilenet_v2_small",
        input_shape=input_shape,
        dtype=dtype,
    )


def _norm_relu(layer: Layer) -> list[Layer]:
    """A layer without a bias, for which the shift of its batch norm stands, and a ReLU."""
    return [layer, BatchNorm(), ReLU()]


def _conv3(filters: int, strides: int = 1) -> list[Layer]:
    return _norm_relu(Conv2D(filters, 3, strides=strides, padding="same", use_bias=False))


def _block(filters: int, strides: int = 1) -> Residual:
    """Two 3x3 convolutions beside the identity, or beside a 1x1 convolution with the strides."""
    resized = [Conv2D(filters, 1, strides=strides, use_bias=False), BatchNorm()]
    return Residual(
        [*_conv3(filters, strides), *_conv3(filters)[:-1]],
        shortcut=resized if strides > 1 else None,
        activation="relu",
    )


def _norm_relu6(layer: Layer) -> list[Layer]:
    return [layer, BatchNorm(), ReLU(max_value=6)]


def _inverted(channels: int, expansion: int, filters: int, strides: int) -> list[Layer]:
    """A 1x1 convolution that widens, a depthwise one, and a 1x1 one that narrows, with no ReLU.

    Beside the identity where the block keeps the shape; one that does not widen has no first part.
    """
    wide = channels * expansion
    layers = [
        *(_norm_relu6(Conv2D(wide, 1, use_bias=False)) if expansion > 1 else ()),
        *_norm_relu6(DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)),
        Conv2D(filters, 1, use_bias=False),
        BatchNorm(),
    ]
    return [Residual(layers)] if strides == 1 and channels == filters else layers


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return a classifier's outputs (N, classes) as probabilities in float32.

    Logits go through the softmax; rows that are probabilities already stay as they are.

    >>> probabilities(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]], dtype=float32)
    """
    outputs = outputs.astype(np.float32)
    if (outputs >= 0).all() and np.allclose(outputs.sum(axis=-1), 1.0, atol=1e-3):
        return outputs
    powers = np.exp(outputs - outputs.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


MODELS: dict[str, Callable[..., Sequential]] = {
    model.__name__: model for model in (digits_cnn, lenet5, vgg_small, resnet20, mobilenet_v2_small)
}

# The shape of the images that each was made for.
USUAL: dict[str, Shape] = {
    "digits_cnn": (8, 8, 1),
    "lenet5": (28, 28, 1),
    "vgg_small": (32, 32, 3),
    "resnet20": (32, 32, 3),
    "mobilenet_v2_small": (32, 32, 3),
}


def make(name: str, classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """Return the network called ``name``, one of ``MODELS`` or "auto" (see ``fitting``).

    Raises:
        ValueError: there is no such network, or the pictures are too small for it.
    """
    as_choice("make", "name", name, ("auto", *MODELS))
    return MODELS[fitting(input_shape) if name == "auto" else name](classes, input_shape, dtype)


def fitting(input_shape: Shape) -> str:
    """Return the name of the network for pictures of this shape (H, W, C).

    >>> fitting((28, 28, 1))
    'lenet5'
    """
    side = min(input_shape[:2])
    if side < 16:
        return "digits_cnn"
    return "lenet5" if side < 32 else "vgg_small"
