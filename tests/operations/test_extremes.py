"""Infinities and overflow: what a formula taken literally would turn into NaN."""

from __future__ import annotations

import numpy as np
import pytest

from gpucnn.backends.base import ACTIVATIONS, FROM_INPUT
from gpucnn.shapes import NormShape
from tests import reference
from tests.cases import DTYPES
from tests.tolerance import assert_close

INF = np.inf
ALPHA = 0.25

# kind -> f at minus infinity and at infinity
LIMITS = {
    "clipped_relu": (0, ALPHA), "elu": (-ALPHA, INF), "gelu": (0, INF), "gelu_tanh": (0, INF),
    "hard_sigmoid": (0, 1), "hard_silu": (0, INF), "leaky_relu": (-INF, INF), "mish": (0, INF),
    "relu": (0, INF), "relu6": (0, 6), "selu": (-1.7580993408473766, INF), "sigmoid": (0, 1),
    "silu": (0, INF), "softplus": (0, INF), "softsign": (np.nan, np.nan), "tanh": (-1, 1),
}  # fmt: skip
# The limits of f', for those whose f' is a function of x.
SLOPES = {
    "gelu": (0, 1), "gelu_tanh": (0, 1), "hard_sigmoid": (0, 0), "hard_silu": (0, 1),
    "mish": (0, 1), "silu": (0, 1), "softplus": (0, 1), "softsign": (0, 0),
}  # fmt: skip


def test_every_kind_has_its_limits():
    assert set(LIMITS) == ACTIVATIONS
    assert set(SLOPES) == FROM_INPUT


@pytest.mark.parametrize("kind", LIMITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_activations_of_infinities(run, kind, dtype):
    x = np.array([-INF, INF], DTYPES[dtype])
    got = run("activation_forward", x, kind, ALPHA)
    assert_close(got, np.array(LIMITS[kind], np.float64), dtype=x.dtype, reduction=2, magnitude=2)


@pytest.mark.parametrize("kind", SLOPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_slopes_of_infinities_and_of_what_overflows_when_squared(run, kind, dtype):
    large = 6e4 if dtype == "float16" else 1e38
    x = np.array([-INF, -large, -large / 1e18, large / 1e18, large, INF], DTYPES[dtype])
    x = x[np.abs(x) > 1e4]
    got = run("activation_backward", np.ones_like(x), x, kind, ALPHA)
    left, right = SLOPES[kind]
    expected = np.where(x < 0, left, right).astype(np.float64)
    assert_close(got, expected, dtype=x.dtype, reduction=2, magnitude=2)


def test_an_infinite_gradient_above_zero_leaves_the_slope_of_prelu_alone(run):
    x, dy = np.array([[2.0], [-3.0]], np.float32), np.array([[INF], [5.0]], np.float32)
    slope, shape = np.array([0.5], np.float32), NormShape.of((2, 1))
    dx, dslope = run("prelu_backward", dy, x, slope, shape)
    assert dx.tolist() == [[INF], [2.5]]
    assert dslope.tolist() == [-15]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_masked_class_of_probability_zero_costs_nothing(run, smoothing):
    """But with smoothing every class has a share, and its cost is infinite."""
    logits = np.array([[-INF, 1, 2], [0.5, -INF, 3]], np.float32)
    targets = np.array([[0, 0.25, 0.75], [1, 0, 0]], np.float32)
    losses, dlogits, _ = run("softmax_cross_entropy", logits, targets, smoothing, 1.0)
    exact = reference.softmax_forward(logits) - (1 - smoothing) * targets - smoothing / 3
    assert_close(dlogits, exact, dtype=np.float32, reduction=8, magnitude=2)
    if smoothing:
        assert losses.tolist() == [INF, INF]
    else:
        exact = reference.softmax_cross_entropy(logits, targets, 0.0, 1.0)[0]
        assert_close(losses, exact, dtype=np.float32, reduction=8, magnitude=4)


@pytest.mark.parametrize("log", [False, True])
def test_softmax_of_rows_without_classes(run, log):
    empty = np.zeros((3, 0), np.float32)
    assert_close(run("softmax_forward", empty, log), empty)
    assert_close(run("softmax_backward", empty, empty, log), empty)


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_the_norm_of_numbers_whose_squares_leave_float32(run, size):
    arrays = [np.full((5, 7), size, np.float32), np.full(300, -size, np.float32)]
    expected = np.array(reference.global_norm(arrays))
    assert_close(run("gradient_scale", arrays)[0], expected, reduction=335)
