"""The networks that the tests of networks share, and the backend that they run on."""

from collections.abc import Iterator

import numpy as np
import pytest

from gpucnn.backends import use_backend
from gpucnn.initializers import set_seed
from gpucnn.layers import (
    Add,
    BatchNorm,
    Concatenate,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    MaxPool2D,
    ReLU,
)
from gpucnn.network import Graph, Input, Residual, Sequential


@pytest.fixture(autouse=True)
def numpy_backend() -> Iterator[None]:
    set_seed(7)
    with use_backend("numpy"):
        yield


def lenet(**options) -> Sequential:
    return Sequential(
        [
            Conv2D(4, 3, activation="relu"),
            MaxPool2D(2),
            Conv2D(6, (3, 2)),
            BatchNorm(),
            ReLU(),
            Flatten(),
            Dropout(0.25),
            Dense(5),
        ],
        **options,
    )


def block(**options) -> Residual:
    return Residual(
        [Conv2D(6, 3, strides=2, padding="same", activation="tanh"), Conv2D(6, 3, padding="same")],
        shortcut=Conv2D(6, 1, strides=2),
        activation="sigmoid",
        **options,
    )


def two_headed(**options) -> Graph:
    left, right = Input((6, 5, 2), name="left"), Input((6, 5, 3))
    stem = Conv2D(4, 3, padding="same", activation="tanh")(left)
    side = Conv2D(4, 1)(right)
    joined = Concatenate()([stem, Add()([stem, side]), side])
    pooled = GlobalAveragePool2D()(joined)
    return Graph([left, right], [Dense(3)(pooled), stem], **options)


def images(seed: int, *shape: int, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)
