"""Values that several layers read: who comes last on the way back adds the others' gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpucnn.functional as F
from gpucnn import layers as L
from gpucnn.backends import get_backend, use_backend
from gpucnn.backends.base import Backend
from gpucnn.initializers import set_seed
from gpucnn.network import Graph, Input, Network, Residual, Sequential

from .step_launches import step_of


def residual(
    body: Callable[[], list], shortcut: Callable[[], list] = list, activation: str | None = None
) -> Callable[[], Residual]:
    return lambda: Residual(body(), shortcut(), activation, input_shape=(6, 6, 4))


def inception() -> Graph:
    """Four readers of a value, of which the pool adds nothing; and it is an output as well."""
    x = Input((6, 6, 4))
    h = L.Conv2D(4, 1)(x)
    ways = [L.Conv2D(3, 1)(h), L.Conv2D(2, 3, padding="same")(h)]
    ways.append(L.MaxPool2D(3, strides=1, padding="same")(h))
    ways.append(Sequential([L.Conv2D(2, 1, activation="relu"), L.Conv2D(3, 1)])(h))
    return Graph(x, [L.Concatenate()(ways), h])


def sums() -> Graph:
    """A sum whose two sides are one value, and a value that a norm and a dense layer read."""
    x = Input((4,))
    h = L.Add()([L.Dense(4)(x), x])
    return Graph(x, L.Add()([L.BatchNorm()(h), L.Dense(4, "relu")(h)]))


CASES: dict[str, Callable[[], Network]] = {
    "identity": residual(
        lambda: [L.Conv2D(4, 3, padding="same"), L.BatchNorm(), L.ReLU(), L.Conv2D(4, 1)],
        activation="relu",
    ),
    "projection": residual(
        lambda: [L.Conv2D(8, 3, strides=2, padding="same", activation="relu"), L.Conv2D(8, 1)],
        lambda: [L.Conv2D(8, 1, strides=2), L.BatchNorm()], "relu",
    ),
    "pooled shortcut": residual(
        lambda: [L.Conv2D(4, 1), L.ReLU(), L.MaxPool2D(2)], lambda: [L.AveragePool2D(2)], "relu"
    ),
    "conv and pool": residual(
        lambda: [L.Conv2D(4, 1), L.MaxPool2D(2), L.Conv2D(4, 1)], lambda: [L.AveragePool2D(2)]
    ),
    "separable": residual(lambda: [L.SeparableConv2D(4, 3, padding="same"), L.ReLU()]),
    "depthwise": residual(lambda: [L.DepthwiseConv2D(3, padding="same"), L.BatchNorm()]),
    "transposed": residual(
        lambda: [L.Conv2DTranspose(4, 3, padding="same", activation="tanh"), L.AveragePool2D(1)]
    ),
    "norm first": residual(lambda: [L.BatchNorm(), L.ReLU(), L.Conv2D(4, 3, padding="same")]),
    "nested": residual(lambda: [Sequential([L.Conv2D(4, 1, activation="relu"), L.ReLU()])]),
    "dense": lambda: Residual([L.Dense(4, "relu"), L.Dense(4)], input_shape=(4,)),
    "inception": inception,
    "sums": sums,
}  # fmt: skip


class Case:
    """A network, forward through a batch, and what goes back."""

    def __init__(self, name: str, backend: Backend, fuses: bool) -> None:
        rng = np.random.default_rng(1)
        set_seed(0)
        with use_backend(backend):
            self.network = network = CASES[name]().astype("float64")
            network.fuses = fuses
            x = rng.standard_normal((3, *network.input_shape))
            y = network.forward(backend.asarray(x), training=True)
            given = y if network.gives_many else [y]
            self.dys = [backend.asarray(rng.standard_normal(each.shape)) for each in given]

    def backward(self) -> list[Any]:
        """Return dx, then the gradients of all parameters."""
        dx = self.network.backward(self.dys if self.network.gives_many else self.dys[0])
        layers = [layer for _, layer in self.network.walk()]
        assert all(layer.others_gradient is None for layer in layers)
        return [dx, *(gradient for layer in layers for gradient in layer.grads.values())]


@pytest.mark.parametrize("name", CASES)
def test_as_layer_by_layer(name: str, backend: Backend) -> None:
    ways = (Case(name, backend, fuses).backward() for fuses in (True, False))
    for got, want in zip(*ways, strict=True):
        got, want = map(backend.to_numpy, (got, want))
        np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12)


# Sums at forks that are an operation of their own, and how many there are without plans.
LEFT = {"norm first": (1, 1), "depthwise": (1, 1), "inception": (1, 4), "sums": (1, 2)}


@pytest.mark.parametrize("name", CASES)
def test_how_many_sums_are_left(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    add, counts = F.add, []
    for fuses in (True, False):
        case, calls = Case(name, get_backend("numpy"), fuses), []
        with monkeypatch.context() as patch:
            patch.setattr(F, "add", lambda *xs, calls=calls, **_: calls.append(1) or add(*xs))
            case.backward()
        counts.append(len(calls))
    assert tuple(counts) == LEFT.get(name, (0, 1))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["resnet20", "resnet50_cifar", "mobilenet_v2_small"])
def test_no_launch_adds_gradients(name: str, dtype: str) -> None:
    """But one behind the depthwise convolution that a block of MobileNetV2 begins with."""
    adding = [k for k in step_of(name, 64, dtype, optimizer="sgd").kernels if "add" in k]
    assert len(adding) == (name == "mobilenet_v2_small")


def test_a_way_back_of_ones_own_is_added_to() -> None:
    """A subclass that knows nothing of the gradients of others."""

    class Doubling(L.Conv2D):
        def _backward(self, dy: np.ndarray, *saved: object) -> np.ndarray:
            return 2 * dy

    block = Residual([Doubling(4, 1, use_bias=False)], input_shape=(2, 2, 4))
    dy = np.ones((1, 2, 2, 4), np.float32)
    block.forward(dy, training=True)
    np.testing.assert_array_equal(block.backward(dy), 3 * dy)
    assert block.layers[0].others_gradient is None


def test_an_error_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    block = Residual([L.Conv2D(4, 1), L.BatchNorm()], input_shape=(2, 2, 4))
    x = np.random.default_rng(0).standard_normal((1, 2, 2, 4), np.float32)
    block.forward(x, training=True)
    with monkeypatch.context() as patch:
        patch.setattr(L.Conv2D, "_gradients", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            block.backward(x)
    assert block.layers[0].others_gradient is None
