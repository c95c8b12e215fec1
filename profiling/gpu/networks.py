"""The layers of well-known networks, walked from each network's own definition.

A walk carries a batch of maps from layer to layer and notes the geometry of each, all with channels
last. ``distinct`` folds the layers of one geometry into one that knows how often it occurs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from gpucnn.shapes import ConvShape, PoolShape


@dataclass(frozen=True)
class Layer:
    """A convolution or pooling of a network.

    Attributes:
        name: as in the network's paper, or its first one's of several alike.
        shape: its geometry.
        pool: the 2x2 pooling right behind a convolution (and its ReLU), if there is one.
        count: how many layers of the network have this geometry.
    """

    name: str
    shape: ConvShape | PoolShape
    pool: PoolShape | None = None
    count: int = 1


class Walk:
    """Carries maps of (batch, *size, channels) through a network, layer by layer."""

    def __init__(self, batch: int, channels: int, *size: int) -> None:
        self.batch, self.channels, self.size = batch, channels, size
        self.layers: list[Layer] = []

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.batch, *self.size, self.channels)

    def conv(
        self, name: str, filters: int, kernel: int, stride: int = 1, *, pad: int | None = None,
        groups: int = 1,
    ) -> None:  # fmt: skip
        """A convolution with a cubic window; by default padded so that stride 1 keeps the size."""
        rank = len(self.size)
        shape = ConvShape.of(
            self.x_shape,
            (filters, *(kernel,) * rank, self.channels // groups),
            strides=stride,
            padding=(kernel - 1) // 2 if pad is None else pad,
            groups=groups,
        )
        self.layers.append(Layer(name, shape))
        self.channels, self.size = filters, shape.output

    def pool(
        self, name: str, window: int | Sequence[int], stride: int | None = None, pad: int = 0,
        mode: str = "max",
    ) -> None:  # fmt: skip
        shape = PoolShape.of(
            self.x_shape, window, mode=mode, rank=len(self.size), strides=stride, padding=pad
        )
        if self.layers and mode == "max" and shape.window == shape.strides == (2, 2):
            self.layers[-1] = replace(self.layers[-1], pool=shape)
        self.layers.append(Layer(name, shape))
        self.size = shape.output


def convolutions(layers: Iterable[Layer]) -> list[Layer]:
    return [layer for layer in layers if isinstance(layer.shape, ConvShape)]


def pools(layers: Iterable[Layer]) -> list[Layer]:
    return [layer for layer in layers if isinstance(layer.shape, PoolShape)]


def distinct(layers: Iterable[Layer]) -> list[Layer]:
    """Fold layers of one geometry into the first of them, with their number."""
    found: dict[ConvShape | PoolShape, Layer] = {}
    for layer in layers:
        first = found.get(layer.shape)
        found[layer.shape] = replace(first, count=first.count + layer.count) if first else layer
    return list(found.values())


def resnet50(batch: int, groups: int = 1, width: int = 64) -> list[Layer]:
    """ResNet-50 (He et al. 2016), with the stride in the 3x3 layers as today's versions have it.

    ResNeXt-50 32x4d (Xie et al. 2017) is ``groups=32, width=4``: width channels a group in the
    first stage.
    """
    walk = Walk(batch, 3, 224, 224)
    walk.conv("conv1", 64, 7, 2)
    walk.pool("pool1", 3, 2, 1)
    for stage, blocks in enumerate((3, 4, 6, 3), start=2):
        inner, outer = groups * width << (stage - 2), 256 << (stage - 2)
        for block in range(1, blocks + 1):
            stride = 2 if block == 1 and stage > 2 else 1
            name, entry = f"conv{stage}_{block}", (walk.channels, walk.size)
            walk.conv(f"{name}.1x1a", inner, 1)
            walk.conv(f"{name}.3x3", inner, 3, stride, groups=groups)
            walk.conv(f"{name}.1x1b", outer, 1)
            if block == 1:
                walk.channels, walk.size = entry
                walk.conv(f"{name}.shortcut", outer, 1, stride)
    walk.pool("global", walk.size, mode="average")
    return walk.layers


def resnext50(batch: int) -> list[Layer]:
    return resnet50(batch, groups=32, width=4)


def vgg16(batch: int, size: int = 224) -> list[Layer]:
    """VGG-16, configuration D (Simonyan & Zisserman 2015); of ``size`` 32 as used for CIFAR."""
    walk = Walk(batch, 3, size, size)
    for stage, (blocks, filters) in enumerate(
        ((2, 64), (2, 128), (3, 256), (3, 512), (3, 512)), start=1
    ):
        for block in range(1, blocks + 1):
            walk.conv(f"conv{stage}_{block}", filters, 3)
        walk.pool(f"pool{stage}", 2)
    return walk.layers


def mobilenet_v2(batch: int) -> list[Layer]:
    """MobileNetV2 (Sandler et al. 2018, table 2)."""
    walk = Walk(batch, 3, 224, 224)
    walk.conv("stem", 32, 3, 2)
    block = 0
    for expansion, filters, repeats, first_stride in (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):  # fmt: skip
        for repeat in range(repeats):
            block += 1
            inner = walk.channels * expansion
            if expansion > 1:
                walk.conv(f"block{block}.expand", inner, 1)
            stride = first_stride if repeat == 0 else 1
            walk.conv(f"block{block}.depthwise", inner, 3, stride, groups=inner)
            walk.conv(f"block{block}.project", filters, 1)
    walk.conv("head", 1280, 1)
    return walk.layers


def lenet(batch: int) -> list[Layer]:
    """LeNet-5's convolutions (LeCun et al. 1998) on 28x28 pictures, with max pooling."""
    walk = Walk(batch, 1, 28, 28)
    walk.conv("conv1", 6, 5)
    walk.pool("pool1", 2)
    walk.conv("conv2", 16, 5, pad=0)
    walk.pool("pool2", 2)
    return walk.layers


def m5(batch: int) -> list[Layer]:
    """M5 on raw sound of length 16,000 (Dai et al. 2017, "Very deep CNNs for raw waveforms")."""
    walk = Walk(batch, 1, 16_000)
    walk.conv("conv1", 128, 80, 4, pad=0)
    for stage, filters in enumerate((128, 256, 512), start=2):
        walk.pool(f"pool{stage - 1}", 4)
        walk.conv(f"conv{stage}", filters, 3, pad=0)
    return walk.layers


def c3d(batch: int) -> list[Layer]:
    """C3D on video of 16 pictures of 112x112 (Tran et al. 2015)."""
    walk = Walk(batch, 3, 16, 112, 112)
    for stage, (blocks, filters) in enumerate(
        ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)), start=1
    ):
        for block in range(blocks):
            walk.conv(f"conv{stage}{'ab'[block] if blocks > 1 else 'a'}", filters, 3)
        if stage < 5:
            walk.pool(f"pool{stage}", (1, 2, 2) if stage == 1 else 2)
    return walk.layers


def resnet50_parameters() -> tuple[tuple[int, ...], ...]:
    """The shapes of all parameters: each convolution's, its batch norm's pair, the dense layer's.

    >>> from math import prod
    >>> len(resnet50_parameters()), sum(map(prod, resnet50_parameters()))
    (161, 25557032)
    """
    shapes: list[tuple[int, ...]] = []
    for layer in convolutions(resnet50(1)):
        shapes += [layer.shape.w_shape, (layer.shape.filters,), (layer.shape.filters,)]
    return (*shapes, (1000, 2048), (1000,))


def vgg16_parameters() -> tuple[tuple[int, ...], ...]:
    """The shapes of all parameters: weights and biases of 13 convolutions and 3 dense layers.

    >>> from math import prod
    >>> len(vgg16_parameters()), sum(map(prod, vgg16_parameters()))
    (32, 138357544)
    """
    shapes: list[tuple[int, ...]] = []
    for layer in convolutions(vgg16(1)):
        shapes += [layer.shape.w_shape, (layer.shape.filters,)]
    for inputs, outputs in ((512 * 7 * 7, 4096), (4096, 4096), (4096, 1000)):
        shapes += [(outputs, inputs), (outputs,)]
    return tuple(shapes)
