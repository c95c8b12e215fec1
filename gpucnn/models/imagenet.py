"""Networks for ImageNet's pictures of 224x224, layer by layer as torchvision has them.

So they take its weights: see ``gpucnn.interop.load_state_dict``, whose table says which layer is
which. The strides of a bottleneck lie in its 3x3 convolution ("version 1.5"), batch norms have
PyTorch's epsilon, and padding is the same on both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
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

VGG11 = (64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")
VGG16 = (
    64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M",
)  # fmt: skip


def resnet18(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """He et al., "Deep residual learning for image recognition", 2016, table 1, 18 layers."""
    return resnet("resnet18", (2, 2, 2, 2), False, classes, input_shape, dtype)


def resnet34(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """The same with 34 layers."""
    return resnet("resnet34", (3, 4, 6, 3), False, classes, input_shape, dtype)


def resnet50(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """The same with 50 layers, in blocks of three."""
    return resnet("resnet50", (3, 4, 6, 3), True, classes, input_shape, dtype)


def vgg11(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """Simonyan & Zisserman, "Very deep convolutional networks", 2015, table 1, column A."""
    return vgg("vgg11", VGG11, False, classes, input_shape, dtype)


def vgg11_bn(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """The same with batch norm."""
    return vgg("vgg11_bn", VGG11, True, classes, input_shape, dtype)


def vgg16(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """Simonyan & Zisserman, "Very deep convolutional networks", 2015, table 1, column D."""
    return vgg("vgg16", VGG16, False, classes, input_shape, dtype)


def vgg16_bn(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """The same with batch norm."""
    return vgg("vgg16_bn", VGG16, True, classes, input_shape, dtype)


def mobilenet_v2(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """Sandler et al., "MobileNetV2: inverted residuals and linear bottlenecks", 2018, table 2."""
    return mobilenet("mobilenet_v2", 2, (1, 2, 2, 2, 1, 2, 1), classes, input_shape, dtype)


def mobilenet(
    name: str, stem: int, strides: Iterable[int], classes: int, input_shape: Shape,
    dtype: Any = None,
) -> Sequential:  # fmt: skip
    """Return a MobileNetV2 with these strides of its first convolution and of its seven stages."""
    blocks: list[Layer] = []
    channels = 32
    stages = (
        (1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1),
    )  # fmt: skip
    for (expansion, filters, repeats), first in zip(stages, strides, strict=True):
        for repeat in range(repeats):
            block, step = f"block_{len(blocks) + 1}", 1 if repeat else first
            blocks.append(_inverted(block, channels, expansion, filters, step))
            channels = filters
    return Sequential(
        [
            *_norm("stem_bn", _conv("stem", 32, 3, stem)), ReLU(6),
            *blocks,
            *_norm("head_bn", _conv("head", 1280, 1)), ReLU(6),
            GlobalAveragePool2D(),
            Dropout(0.2),
            Dense(classes, name="classifier_1"),
        ],
        name=name, input_shape=input_shape, dtype=dtype,
    )  # fmt: skip


def vgg(
    name: str, plan: Iterable[int | str], with_norm: bool, classes: int, input_shape: Shape,
    dtype: Any = None, width: int = 4096,
) -> Sequential:  # fmt: skip
    """Return 3x3 convolutions of so many filters, "M" for a pool, and three dense layers.

    Layers with weights are numbered as torchvision numbers them: "features_0", "classifier_6".
    ``width`` is the size of the dense layers; 0 leaves out all but the last. Where torchvision
    pools maps of another size to 7x7, there is nothing here: its weights fit pictures of 224 to 255
    pixels a side.
    """
    features: list[Layer] = []
    for filters in plan:
        if filters == "M":
            features.append(MaxPool2D(2))
            continue
        place = len(features)
        features.append(Conv2D(filters, 3, padding=1, name=f"features_{place}"))
        if with_norm:
            features.append(_batch_norm(f"features_{place + 1}"))
        features.append(ReLU())
    classifier = [
        Dense(width, name="classifier_0"), ReLU(), Dropout(0.5),
        Dense(width, name="classifier_3"), ReLU(), Dropout(0.5),
    ] if width else []  # fmt: skip
    layers = [*features, Flatten(), *classifier, Dense(classes, name="classifier_6")]
    return Sequential(layers, name=name, input_shape=input_shape, dtype=dtype)


def resnet(
    name: str, repeats: Iterable[int], deep: bool, classes: int, input_shape: Shape,
    dtype: Any = None, stem: int = 7,
) -> Sequential:  # fmt: skip
    """Return four stages of so many blocks, of two layers or, if ``deep``, of three.

    ``stem`` is the window of the first convolution: 7, with stride 2 and a pool behind it, or 3
    with neither.
    """
    blocks: list[Layer] = []
    for stage, (count, filters) in enumerate(zip(repeats, (64, 128, 256, 512), strict=True)):
        for place in range(count):
            strides = 2 if stage and not place else 1
            resized = not place and (deep or stage > 0)
            blocks.append(_block(f"layer{stage + 1}_{place}", filters, strides, deep, resized))
    return Sequential(
        [
            *_norm("bn1", _conv("conv1", 64, stem, 2 if stem > 3 else 1)), ReLU(),
            *([MaxPool2D(3, strides=2, padding=1)] if stem > 3 else []),
            *blocks,
            GlobalAveragePool2D(),
            Dense(classes, name="fc"),
        ],
        name=name, input_shape=input_shape, dtype=dtype,
    )  # fmt: skip


def _block(name: str, filters: int, strides: int, deep: bool, resized: bool) -> Residual:
    """Two 3x3 convolutions, or 1x1, 3x3 and 1x1 to four times the filters, beside a shortcut."""
    widths = (filters, filters, 4 * filters) if deep else (filters, filters)
    windows, steps = ((1, 3, 1), (1, strides, 1)) if deep else ((3, 3), (strides, 1))
    layers: list[Layer] = []
    for place, (width, window, step) in enumerate(zip(widths, windows, steps, strict=True), 1):
        layers += [*_norm(f"bn{place}", _conv(f"conv{place}", width, window, step)), ReLU()]
    shortcut = _norm("shortcut_bn", _conv("shortcut", widths[-1], 1, strides)) if resized else None
    return Residual(layers[:-1], shortcut, activation="relu", name=name)


def _inverted(name: str, channels: int, expansion: int, filters: int, strides: int) -> Layer:
    """As in ``small``; a chain where the block changes the shape."""
    layers: list[Layer] = []
    if expansion > 1:
        layers += [*_norm("expand_bn", _conv("expand", channels * expansion, 1)), ReLU(6)]
    depthwise = DepthwiseConv2D(3, strides=strides, padding=1, use_bias=False, name="depthwise")
    layers += [*_norm("depthwise_bn", depthwise), ReLU(6)]
    layers += _norm("project_bn", _conv("project", filters, 1))
    kind = Residual if strides == 1 and channels == filters else Sequential
    return kind(layers, name=name)


def _conv(name: str, filters: int, window: int, strides: int = 1) -> Conv2D:
    return Conv2D(filters, window, strides=strides, padding=window // 2, use_bias=False, name=name)


def _norm(name: str, layer: Layer) -> list[Layer]:
    return [layer, _batch_norm(name)]


def _batch_norm(name: str) -> BatchNorm:
    return BatchNorm(epsilon=1e-5, momentum=0.9, name=name)
