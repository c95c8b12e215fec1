"""The networks whose steps are measured: the zoo's small ones, and two without batch norm.

Those two are what textbooks draw, convolutions with ReLU and max-pooling, where a convolution, its
bias, ReLU and pool can run as one operation.
"""

from __future__ import annotations

from .. import models
from ..initializers import set_seed
from ..layers import Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU
from ..layers.base import Shape
from ..network import Sequential

CLASSES = 10


def lenet5_plain() -> list[Layer]:
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling, and no batch norm."""
    return [
        Conv2D(6, 5, padding="same"), ReLU(), MaxPool2D(2), Conv2D(16, 5), ReLU(), MaxPool2D(2),
        Flatten(), Dense(120), ReLU(), Dense(84), ReLU(), Dense(CLASSES),
    ]  # fmt: skip


def vgg_plain() -> list[Layer]:
    """3x3 convolutions of 64 to 256 filters with ReLU, and a pool behind each size of map."""
    made: list[Layer] = [Conv2D(64, 3, padding="same"), ReLU()]
    for filters in (64, 128, 256):
        made += [Conv2D(filters, 3, padding="same"), ReLU(), MaxPool2D(2)]
    return [*made, Flatten(), Dense(CLASSES)]


PLAIN = {"lenet5_plain": (lenet5_plain, (28, 28, 1)), "vgg_plain": (vgg_plain, (32, 32, 3))}


def image_shape(name: str) -> Shape:
    """Return the shape of the pictures that a network takes."""
    return PLAIN[name][1] if name in PLAIN else models.USUAL[name]


def make(name: str) -> Sequential:
    """Return a network, with the same weights in every process."""
    set_seed(0)
    if name in PLAIN:
        return Sequential(PLAIN[name][0](), name=name, input_shape=image_shape(name))
    return models.make(name, CLASSES, image_shape(name))
