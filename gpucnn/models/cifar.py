"""ImageNet's networks in the form that they take for CIFAR's pictures of 32x32.

A ResNet starts with a 3x3 convolution and no pool, a VGG ends with one dense layer, a MobileNet has
fewer strides: as in https://github.com/kuangliu/pytorch-cifar, whose numbers of parameters they
have (but MobileNetV2, where its shortcuts have weights).
"""

from __future__ import annotations

from typing import Any

from ..layers.base import Shape
from ..network import Sequential
from .imagenet import VGG11, VGG16, mobilenet, resnet, vgg

_VGG13 = (64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M")


def resnet18_cifar(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """``resnet18`` with a 3x3 first layer."""
    return resnet("resnet18_cifar", (2, 2, 2, 2), False, classes, input_shape, dtype, stem=3)


def resnet50_cifar(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """``resnet50`` with a 3x3 first layer."""
    return resnet("resnet50_cifar", (3, 4, 6, 3), True, classes, input_shape, dtype, stem=3)


def vgg11_cifar(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """Simonyan & Zisserman 2015, table 1, column A, with batch norm and one dense layer."""
    return vgg("vgg11_cifar", VGG11, True, classes, input_shape, dtype, width=0)


def vgg13_cifar(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """The same, column B."""
    return vgg("vgg13_cifar", _VGG13, True, classes, input_shape, dtype, width=0)


def vgg16_cifar(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """The same, column D."""
    return vgg("vgg16_cifar", VGG16, True, classes, input_shape, dtype, width=0)


def mobilenet_v2_cifar(classes: int, input_shape: Shape, dtype: Any = None) -> Sequential:
    """``mobilenet_v2`` without the strides of its first layer and of its second stage."""
    strides = (1, 1, 2, 2, 1, 2, 1)
    return mobilenet("mobilenet_v2_cifar", 1, strides, classes, input_shape, dtype)
