"""The network of airbench94, which learns CIFAR-10 in ten epochs."""

from __future__ import annotations

from typing import Any

from ..layers import GELU, Arithmetic, BatchNorm, Conv2D, Dense, Flatten, Layer, MaxPool2D
from ..layers.base import Shape
from ..network import Sequential
from .whitening import LAYER

WIDTHS = (64, 256, 256)


def airbench94(
    classes: int, input_shape: Shape, dtype: Any = None, widths: tuple[int, ...] = WIDTHS
) -> Sequential:
    """Return a whitening convolution, three blocks of two, and one dense layer.

    Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU", 2024, section 3.1; after Page, "How
    to train your ResNet", 2018-2019, and tysam-code/hlb-CIFAR10, 2023. The filters of the first
    layer come from ``whiten`` and are not trained, nor are the scales of the batch norms.

    Args:
        widths: the filters of each block.
    """
    filters = 2 * 2 * 2 * input_shape[-1]  # the patches' eigenvectors and their negatives
    whitening = Conv2D(filters, 2, name=LAYER)
    whitening.frozen = ("kernel",)
    blocks = [_block(f"block{place}", width) for place, width in enumerate(widths, 1)]
    return Sequential(
        [
            whitening,
            GELU(),
            *blocks,
            MaxPool2D(3),
            Flatten(),
            Dense(classes, use_bias=False, kernel_initializer="torch_uniform", name="classifier"),
            Arithmetic("multiply", (), learned=False, operand_initializer=1 / 9, name="scale"),
        ],
        name="airbench94", input_shape=input_shape, dtype=dtype,
    )  # fmt: skip


def _block(name: str, filters: int) -> Sequential:
    layers: list[Layer] = []
    for place in (1, 2):
        norm = BatchNorm(epsilon=1e-12, momentum=0.6, name=f"norm{place}")
        norm.frozen = ("gamma",)
        convolution = Conv2D(
            filters, 3, padding=1, use_bias=False, kernel_initializer="dirac", name=f"conv{place}"
        )
        pool = [MaxPool2D(2)] if place == 1 else []  # before the norm, which has less to do then
        layers += [convolution, *pool, norm, GELU()]
    return Sequential(layers, name=name)
