"""Masks of one bit a number: the same numbers as with the output itself, on every backend."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.backends.base import FROM_OUTPUT, MASKABLE, Backend
from gpucnn.backends.numpy import NumpyBackend
from tests import reference
from tests.cases import DTYPES, random
from tests.operations.conftest import Runner, inside_another, same_bits

# In whole bytes, with a tail, of less than one byte; more than a block of threads, and of NumPy's.
SHAPES = [(4, 64), (3, 7, 53), (5,), (300_001,)]
KINDS = {"relu": 0.0, "relu6": 0.0, "clipped_relu": 2.5, "leaky_relu": 0.25}
RATE, SEED, OFFSET = 0.3, 11, 5

every_kind = pytest.mark.parametrize("kind", KINDS)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


def inputs(shape: tuple[int, ...], dtype: str, name: str = "x") -> np.ndarray:
    """Numbers on all sides of every bend, at the bends, and those that are none."""
    x = random(name, shape, np.float64, -8, 8)
    special = [np.nan, -1e-7, 6, np.inf, 0.0, -0.0, 2.5, -np.inf, 1e-30, 1e-7]
    x.flat[: len(special)] = special[: x.size]
    return x.astype(DTYPES[dtype])


def same_numbers(a: np.ndarray, b: np.ndarray) -> bool:
    """The same bits, but for what a NaN has besides."""
    nan = np.isnan(a.astype(np.float64))
    return np.array_equal(nan, np.isnan(b.astype(np.float64))) and same_bits(a[~nan], b[~nan])


def test_what_has_a_mask_tells_its_derivative_by_its_output():
    assert set(KINDS) == MASKABLE < FROM_OUTPUT


@every_kind
@every_dtype
@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.filterwarnings("ignore:invalid value|overflow:RuntimeWarning")
def test_forward_and_back(run: Runner, shape, dtype, kind):
    x, alpha = inputs(shape, dtype), KINDS[kind]
    y, mask = run("activation_masked", x, kind, alpha)
    assert same_numbers(y, run("activation_forward", x, kind, alpha))
    assert np.array_equal(mask, reference.activation_mask(y, kind, KINDS[kind]))
    assert np.array_equal(run("activation_mask", y, kind, alpha), mask)

    dy = inputs(shape, dtype, "dy")[..., ::-1].copy()
    slope = alpha if kind == "leaky_relu" else 0.0
    dx = run("mask_backward", dy, mask, tuple(range(y.ndim)), slope, 1.0)
    assert same_numbers(dx, run("activation_backward", dy, y, kind, alpha))


@every_dtype
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_of_a_sum(run: Runner, dtype):
    x, residual = (inputs(SHAPES[1], dtype, name) for name in ("x", "residual"))
    y, mask = run("activation_masked", x, "relu", 0.0, residual[::-1].copy())
    assert same_numbers(y, run("add", x, residual[::-1].copy(), "relu"))
    assert np.array_equal(mask, reference.activation_mask(y, "relu", 0.0))


@every_dtype
@pytest.mark.parametrize("kind", ["relu", "relu6"])
@pytest.mark.parametrize("shape", SHAPES[:3])
@pytest.mark.filterwarnings("ignore:invalid value|overflow:RuntimeWarning")
def test_one_for_an_activation_and_a_dropout(run: Runner, shape, dtype, kind):
    x, draws = reference.activation_forward(inputs(shape, dtype), kind, 0.0), (RATE, SEED, OFFSET)
    x = x.astype(DTYPES[dtype])
    y, mask = run("dropout_masked", x, kind, 0.0, *draws)
    assert same_numbers(y, run("dropout", x, *draws))
    lives = reference.dropout(np.ones(shape), *draws) > 0
    assert np.array_equal(mask, reference.activation_mask(np.where(lives, x, 0), kind, KINDS[kind]))

    dy = inputs(shape, dtype, "dy")[..., ::-1].copy()
    dx = run("mask_backward", dy, mask, tuple(range(y.ndim)), 0.0, 1 / (1 - RATE))
    assert same_numbers(dx, run("activation_backward", run("dropout", dy, *draws), x, kind, 0.0))


def test_of_many_numbers(run: Runner):
    x = inputs(SHAPES[3], "float32")
    y, mask = run("activation_masked", x, "relu", 0.0)
    expected = np.packbits(y > 0, bitorder="little")
    assert np.array_equal(mask, expected)
    assert np.array_equal(run("activation_mask", y, "relu", 0.0), expected)
    assert same_numbers(run("mask_backward", x, mask, (0,), 0.0, 1.0), np.where(y > 0, x, 0))


def test_of_none(run: Runner):
    x = np.zeros((0, 3), np.float32)
    y, mask = run("activation_masked", x, "relu", 0.0)
    assert (y.shape, mask.shape) == ((0, 3), (0,))
    assert run("mask_backward", x, mask, (0, 1), 0.0, 1.0).shape == (0, 3)


def test_where_an_array_lies_anywhere(every_backend: Backend):
    x = random("x", (16, 60), np.float32, -1, 1)
    inside = inside_another(every_backend, x)
    y, mask = every_backend.activation_masked(inside, "relu", 0.0, inside)
    y, mask = every_backend.to_numpy(y), every_backend.to_numpy(mask)
    assert np.array_equal(y, np.maximum(2 * x, 0))
    assert np.array_equal(mask, reference.activation_mask(y, "relu", 0.0))
    there = every_backend.asarray(mask)
    dx = every_backend.mask_backward(inside, there, (0, 1), 0.0, 1.0)
    assert np.array_equal(every_backend.to_numpy(dx), np.maximum(x, 0))


@pytest.mark.parametrize("axes", [(0, 2, 3, 1), (1, 0, 2, 3)])
def test_a_mask_lies_as_its_array_does(axes):
    """On NumPy an activation may lie in memory in another order than its gradient."""
    backend, shape = NumpyBackend(), (3, 5, 4, 7)
    lying = tuple(shape[axis] for axis in axes)
    x = inputs(lying, "float32").transpose(np.argsort(axes))
    dy = random("dy", shape, np.float32)
    with np.errstate(invalid="ignore"):
        y, mask = backend.activation_masked(x, "relu", 0.0)
    assert np.array_equal(mask, reference.activation_mask(y.transpose(axes), "relu", 0.0))
    assert np.array_equal(backend.activation_mask(y, "relu", 0.0), mask)
    dx = backend.mask_backward(dy, mask, axes, 0.0, 1.0)
    assert dx.strides == y.strides
    assert np.array_equal(dx, np.where(y > 0, dy, 0))
    z, mask = backend.dropout_masked(y, "relu", 0.0, RATE, SEED, OFFSET)
    assert z.strides == y.strides
    with np.errstate(invalid="ignore"):
        assert np.array_equal(mask, reference.activation_mask(z.transpose(axes), "relu", 0.0))
