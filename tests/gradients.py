"""Gradients against central differences, for any layer, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpucnn.backends.base import Array, Backend
from gpucnn.layers import Layer

STEP = 1e-5
# Of the sum of the magnitudes that enter: the difference's own error is STEP^2 f''' / 6, and the
# rounding of two sums over STEP, both near 1e-10.
TOLERANCE = 1e-8


def distinct(rng: np.random.Generator, shape: tuple[int, ...], reach: float = 4.0) -> np.ndarray:
    """Return evenly spaced numbers in (-reach, reach), shuffled: no ties, and none at 0.

    A maximum then keeps its place, and an activation its side of a kink, under a small step.
    """
    count = int(np.prod(shape))
    values = (np.arange(count) + 0.5 + 0.1 * (count % 2)) / count * 2 - 1
    return (rng.permutation(values) * reach).reshape(shape)


def inputs(rng: np.random.Generator, x_shape: tuple | list) -> Any:
    """Return an input, or for a list of shapes a list of them."""
    if isinstance(x_shape, list):
        return [distinct(rng, shape) for shape in x_shape]
    return distinct(rng, x_shape)


def randomise(layer: Layer, rng: np.random.Generator, scale: float = 0.5) -> None:
    """Give a built layer parameters that are neither 0 nor 1 nor alike."""
    for name, array in layer.params.items():
        values = rng.uniform(-scale, scale, array.shape)
        layer.params[name] = layer.backend.asarray(values, array.dtype)


def prepared(
    layer: Layer, x_shape: tuple | list, backend: Backend, seed: int = 0
) -> tuple[np.random.Generator, Any]:
    """Build a layer in float64 with random parameters; return the generator and an input."""
    rng = np.random.default_rng(seed)
    x = inputs(rng, x_shape)
    shapes = tuple(a.shape[1:] for a in x) if isinstance(x, list) else x.shape[1:]
    layer.build(shapes, "float64", backend)
    randomise(layer, rng)
    return rng, [backend.asarray(a) for a in x] if isinstance(x, list) else backend.asarray(x)


def check_gradients(
    layer: Layer, x_shape: tuple | list, backend: Backend, *, training: bool, directions: int = 3
) -> None:
    """Compare backward with (f(t + hv) - f(t - hv)) / 2h along random v, for x and each parameter.

    f is the sum of dy * y for a random dy. A wrong element of a gradient shows along any v.
    """
    rng, x = prepared(layer, x_shape, backend)
    counters = dict(layer.counters)
    y = layer.forward(x, training)
    dy = backend.asarray(rng.standard_normal(y.shape))
    dx = layer.backward(dy)
    xs, dxs = (x, dx) if layer.takes_many else ([x], [dx])
    assert set(layer.grads) == set(layer.params)

    targets = [(f"x[{i}]", a, g) for i, (a, g) in enumerate(zip(xs, dxs, strict=True))]
    targets += [(name, a, layer.grads[name]) for name, a in layer.params.items()]
    for name, array, gradient in targets:
        assert gradient.shape == array.shape and gradient.dtype == array.dtype, name

        def loss(shift: Array, array: Array = array) -> np.ndarray:
            """Return the terms of f with ``array`` shifted, in place and back."""
            kept = array.copy()
            array += shift
            layer.counters.update(counters)
            terms = backend.to_numpy(layer.forward(x, training) * dy)
            array[...] = kept
            return terms

        for _ in range(directions):
            v = rng.standard_normal(array.shape)
            step = backend.asarray(STEP * v)
            ahead, behind = loss(step), loss(-step)
            products = backend.to_numpy(gradient) * v
            numeric = (ahead.sum() - behind.sum()) / (2 * STEP)
            magnitude = np.abs(products).sum() + np.abs(ahead).sum()
            error = abs(numeric - products.sum())
            assert error <= TOLERANCE * magnitude, (name, numeric, products.sum(), magnitude)
