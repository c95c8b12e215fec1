"""Networks with names, for the command line and as starting points.

Each is a function ``(classes, input_shape, dtype=None) -> Sequential`` whose output is logits
(batch, classes). ``gpucnn.set_seed`` settles the initial weights.

>>> model = make("lenet5", classes=10, input_shape=(28, 28, 1))
>>> model.parameter_count()
61932

small       digits_cnn, lenet5, vgg_small, resnet20, mobilenet_v2_small: pictures of 8x8 to 32x32
cifar       resnet18_cifar, resnet50_cifar, vgg11_cifar to vgg16_cifar, mobilenet_v2_cifar: those
            below in the form for pictures of 32x32
airbench    airbench94, which learns CIFAR-10 in seconds; ``whiten`` gives it its first filters
imagenet    resnet18 to resnet50, vgg11 and vgg16 with batch norm and without, mobilenet_v2:
            pictures of 224x224, and the weights of torchvision's (``interop.load_state_dict``)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..arguments import as_choice
from ..layers.base import Shape
from ..network import Sequential
from .airbench import airbench94
from .cifar import (
    mobilenet_v2_cifar,
    resnet18_cifar,
    resnet50_cifar,
    vgg11_cifar,
    vgg13_cifar,
    vgg16_cifar,
)
from .imagenet import (
    mobilenet_v2,
    resnet18,
    resnet34,
    resnet50,
    vgg11,
    vgg11_bn,
    vgg16,
    vgg16_bn,
)
from .small import digits_cnn, lenet5, mobilenet_v2_small, resnet20, vgg_small
from .whitening import whiten as whiten
from .whitening import whitening_filters as whitening_filters
from .whitening import whitening_layer as whitening_layer

MODELS: dict[str, Callable[..., Sequential]] = {
    model.__name__: model
    for model in (
        digits_cnn, lenet5, vgg_small, resnet20, mobilenet_v2_small, airbench94,
        resnet18_cifar, resnet50_cifar, vgg11_cifar, vgg13_cifar, vgg16_cifar, mobilenet_v2_cifar,
        resnet18, resnet34, resnet50, vgg11, vgg11_bn, vgg16, vgg16_bn, mobilenet_v2,
    )
}  # fmt: skip

# The shape of the images that each was made for.
USUAL: dict[str, Shape] = {
    name: (224, 224, 3) if model.__module__.endswith("imagenet") else (32, 32, 3)
    for name, model in MODELS.items()
} | {"digits_cnn": (8, 8, 1), "lenet5": (28, 28, 1)}


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
