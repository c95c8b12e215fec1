"""Small networks, for pictures of 8x8 to 32x32."""

from __future__ import annotations

from typing import Any

from ..layers import (
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
from ..layers.base import Shape
from ..network import Residual, Sequential


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
