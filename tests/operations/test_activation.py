"""Activations, PReLU and softmax, on every backend."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from gpucnn.backends.base import ACTIVATIONS, FROM_OUTPUT
from gpucnn.backends.cuda import CudaBackend
from gpucnn.shapes import NormShape
from tests import reference
from tests.cases import DTYPES, random
from tests.operations.conftest import Runner, inside_another
from tests.tolerance import assert_close, unit_roundoff

# Roundings in one value of f or f': the longest, the slope of mish, has two exponentials of two
# units each, a logarithm, a tangent, a quotient and ten sums and products.
ROUNDINGS = 20
ALPHA = 0.3
KINDS = sorted(ACTIVATIONS)
SHAPE = (3, 7, 53)  # an odd number of elements, more than one block of threads
MANY = 131  # copies of them: more than a backend takes in one go


def inputs(dtype: str) -> np.ndarray:
    """Numbers of every size: about 0, on both sides of every bend, and far out."""
    x = random("x", SHAPE, np.float64, -8, 8)
    x[1] *= random("small", SHAPE[1:], np.float64, 0, 0.1)
    far = 6e4 if dtype == "float16" else 1e12
    x[2, 0, :18] = [s * v for v in (0, 2.99, 3.01, 5.9, 6.1, 20, 90, 4e3, far) for s in (1, -1)]
    return x.astype(DTYPES[dtype])


def test_the_reference_and_the_contract_name_the_same_kinds():
    names = list(reference.elementwise.FORWARD)
    assert set(names) == ACTIVATIONS
    assert set(names[: names.index("softplus")]) == FROM_OUTPUT


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_forward(run, kind, dtype):
    x = inputs(dtype)
    got = run("activation_forward", x, kind, ALPHA)
    expected = reference.activation_forward(x, kind, ALPHA)
    assert_close(got, expected, dtype=x.dtype, reduction=ROUNDINGS, magnitude=size(x, expected))


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [SHAPE, (1,), (16, 64), (0, 3)])
def test_add(run, shape, dtype, activation):
    a, b = (random(name, shape, DTYPES[dtype], -3, 3) for name in "ab")
    a.ravel()[5:6], b.ravel()[6:7] = np.nan, np.inf
    expected = a.astype(np.float64) + b.astype(np.float64)
    expected = np.maximum(expected, 0) if activation == "relu" else expected
    assert_close(run("add", a, b, activation), expected, dtype=a.dtype, reduction=1)


def test_add_where_an_array_lies_anywhere(every_backend):
    a, b = (random(name, (16, 64), np.float32) for name in "ab")
    got = every_backend.add(inside_another(every_backend, a), every_backend.asarray(b), "relu")
    assert_close(every_backend.to_numpy(got), np.maximum(a + b, 0), magnitude=0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_backward(run, kind, dtype):
    x = inputs(dtype)
    y = reference.activation_forward(x, kind, ALPHA).astype(x.dtype)
    dy = random("dy", SHAPE, x.dtype)
    saved = y if kind in FROM_OUTPUT else x
    got = run("activation_backward", dy, saved, kind, ALPHA)
    expected = reference.activation_backward(dy, saved, kind, ALPHA)
    magnitude = np.abs(dy.astype(np.float64)) * size(saved, 1.0)
    assert_close(got, expected, dtype=x.dtype, reduction=ROUNDINGS, magnitude=magnitude)


def every_number(run: Runner, dtype: str) -> np.ndarray:
    """All of 16 bits; NumPy's sigmoid keeps the digits of small results of float16 only."""
    x = np.arange(2**16, dtype=np.uint16).view(DTYPES[dtype])
    least = -np.inf if isinstance(run.backend, CudaBackend) or dtype == "float16" else -4
    with np.errstate(invalid="ignore"):  # of which an Arm warns where it converts a signalling NaN
        wide = x.astype(np.float32)
    return x[np.isfinite(wide) & (wide >= least)]


@pytest.mark.parametrize("kind", ["gelu", "mish", "sigmoid", "silu"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_16_bit_number(run, kind, dtype):
    """A backend may take a shorter way to 16 bits: 1/16 of what rounding adds may come on top.

    A GPU has zero for what is below the smallest normal number of float32, also as one of two
    terms, or as a factor beside x.
    """
    x = every_number(run, dtype)
    expected = reference.activation_forward(x, kind, ALPHA)
    smallest = float(np.finfo(np.float32).tiny)
    last_place = np.exp2(np.floor(np.log2(np.maximum(np.abs(expected), smallest))))
    last_place *= 2 * unit_roundoff(x.dtype)
    subnormal = float(ml_dtypes.finfo(x.dtype).smallest_subnormal)
    allowed = (0.5 + 1 / 32) * np.maximum(last_place, subnormal)
    allowed += smallest * np.maximum(np.abs(x.astype(np.float64)), 1)
    got = run("activation_forward", x, kind, ALPHA).astype(np.float64)
    assert (np.abs(got - expected) <= allowed).all()


@pytest.mark.parametrize("kind", ["gelu", "mish", "silu"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_slope_at_every_16_bit_number(run, kind, dtype):
    """The same of the slope's terms, which cancel where the function is least."""
    x = every_number(run, dtype)
    expected = reference.activation_backward(np.ones_like(x), x, kind, ALPHA)
    got = run("activation_backward", np.ones_like(x), x, kind, ALPHA).astype(np.float64)
    near = np.abs(x.astype(np.float64)) < 4
    terms = np.where(near, np.maximum(np.abs(expected), 0.25), np.abs(expected))
    unit, smallest = unit_roundoff(x.dtype), ml_dtypes.finfo(x.dtype).smallest_subnormal
    allowed = unit * (np.abs(expected) + terms / 16) + float(smallest) / 2
    allowed += 2.0**-126 * (1 + np.abs(x.astype(np.float64)))  # as above
    assert (np.abs(got - expected) <= allowed).all()


@pytest.mark.parametrize("kind", ["relu", "gelu"])
def test_many_elements(run, kind):
    x = inputs("float32")
    many, dy = np.tile(x, (MANY, 1, 1)), np.ones((MANY * SHAPE[0], *SHAPE[1:]), np.float32)
    saved = np.maximum(many, 0) if kind == "relu" else many
    for got, expected in (
        (run("activation_forward", many, kind, 0.0), reference.activation_forward(x, kind, 0.0)),
        (
            run("activation_backward", dy, saved, kind, 0.0),
            reference.activation_backward(dy[:3], saved[:3], kind, 0.0),
        ),
    ):
        magnitude = size(x, expected)
        expected, magnitude = (np.tile(a, (MANY, 1, 1)) for a in (expected, magnitude))
        assert_close(got, expected, dtype=x.dtype, reduction=ROUNDINGS, magnitude=magnitude)


def size(x: np.ndarray, result: np.ndarray | float) -> np.ndarray:
    """The terms of f and f' that cancel, 1 + tanh in a GELU for one, are as large as 1 or x."""
    near = np.minimum(np.abs(x.astype(np.float64)), 10)  # beyond, f is 0, x or a constant
    return np.maximum(1 + near, np.abs(result))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_goes_through(run, kind, dtype):
    x = np.array([1, np.nan, -1], np.float64).astype(DTYPES[dtype])
    y = run("activation_forward", x, kind, ALPHA).astype(np.float64)
    assert np.isnan(y).tolist() == [False, True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_to_do(run, kind):
    empty = np.zeros((0, 5), np.float32)
    assert_close(run("activation_forward", empty, kind, ALPHA), empty)
    assert_close(run("activation_backward", empty, empty, kind, ALPHA), empty)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("x_shape", [(3, 5, 7, 37), (65, 3), (1, 4, 600, 2), (5, 71, 97, 2)])
def test_prelu(run, dtype, channels_last, x_shape):
    s = NormShape.of(x_shape, channels_last=channels_last)
    x, dy = (random(name, x_shape, DTYPES[dtype]) for name in ("x", "dy"))
    x.ravel()[:3] = 0  # where x is 0 its slope is the channel's
    slope = random("slope", (s.channels,), DTYPES[dtype])
    y = run("prelu_forward", x, slope, s)
    assert_close(y, reference.prelu_forward(x, slope, s), dtype=x.dtype)
    dx, dslope = run("prelu_backward", dy, x, slope, s)
    exact_dx, exact_dslope = reference.prelu_backward(dy, x, slope, s)
    _, terms = reference.prelu_backward(np.abs(dy), -np.abs(x), slope, s)
    assert_close(dx, exact_dx, dtype=x.dtype)
    assert_close(
        dslope, exact_dslope, dtype=x.dtype, reduction=s.batch * s.length, magnitude=-terms
    )


ROWS = {
    "digits": (5, 10), "one_class": (4, 1), "one_row": (1, 33), "hundreds": (3, 301),
    "wide": (3, 1029), "many": (135, 1001),
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", ROWS)
def test_softmax(run, name, log, dtype):
    shape = ROWS[name]
    x = random(name, shape, DTYPES[dtype], -9, 9)
    exact = x.astype(np.float64)
    y, log_y = reference.softmax_forward(x), reference.softmax_forward(x, log=True)
    # an error of the exponent x - max is a relative one of its power
    exponent = np.abs(exact) + np.abs(exact.max(axis=1, keepdims=True)) + np.abs(log_y)
    got = run("softmax_forward", x, log)
    assert_close(
        got, log_y if log else y, dtype=x.dtype, reduction=shape[1] + 8,
        magnitude=exponent + 1 if log else y * (exponent + 1),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("name", ["digits", "one_class", "one_row", "hundreds"])
def test_softmax_backward(run, name, log, dtype):
    shape = ROWS[name]
    y = reference.softmax_forward(random(name, shape, np.float64, -4, 4), log).astype(DTYPES[dtype])
    dy = random("dy", shape, y.dtype)
    got = run("softmax_backward", dy, y, log)
    p, size = y.astype(np.float64), np.abs(dy.astype(np.float64))
    if log:
        terms = size + np.exp(p) * (1 + np.abs(p)) * size.sum(axis=1, keepdims=True)
    else:
        terms = p * (size + (size * p).sum(axis=1, keepdims=True))
    assert_close(
        got, reference.softmax_backward(dy, y, log), dtype=y.dtype, reduction=shape[1] + 8,
        magnitude=terms,
    )  # fmt: skip


@pytest.mark.parametrize("log", [False, True])
def test_softmax_of_large_and_masked_numbers(run, log):
    x = np.array([[1e4, -1e4, 0], [-3e38, -3e38, -3e38], [-np.inf, 1, 2]], np.float32)
    expected = reference.softmax_forward(x, log)
    got = run("softmax_forward", x, log)
    assert_close(got, expected, dtype=x.dtype, reduction=16, magnitude=np.abs(expected) + 2)


@pytest.mark.parametrize("log", [False, True])
def test_softmax_of_no_rows(run, log):
    empty = np.zeros((0, 5), np.float32)
    assert_close(run("softmax_forward", empty, log), empty)
    assert_close(run("softmax_backward", empty, empty, log), empty)
