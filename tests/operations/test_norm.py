"""Batch and group normalisation and the bias gradient, on every backend."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gpucnn.backends.base import accumulator
from gpucnn.shapes import NormShape
from tests import reference
from tests.cases import DTYPES, NORMS, in_layout, random
from tests.tolerance import assert_close

EPSILON = 1e-3
ROUNDINGS = 8  # of the arithmetic on one element, beside the sums


def every_case(test):
    test = pytest.mark.parametrize("name", NORMS)(test)
    test = pytest.mark.parametrize("dtype", DTYPES)(test)
    return pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])(test)


def problem(s: NormShape, dtype: np.dtype, offset: float = 2.0) -> SimpleNamespace:
    """x and dy (N, L, C), every channel of x with a mean and a spread of its own; gamma, beta."""
    spread = random("spread", (s.channels,), np.float64, 0.5, 2)
    centre = random("centre", (s.channels,), np.float64, -offset, offset)
    shape = (s.batch, s.length, s.channels)
    return SimpleNamespace(
        x=(random("x", shape, np.float64) * spread + centre).astype(dtype),
        dy=random("dy", shape, dtype),
        gamma=random("gamma", (s.channels,), dtype),
        beta=random("beta", (s.channels,), dtype),
    )


def magnitudes(
    p: SimpleNamespace, s: NormShape, mean: np.ndarray, var: np.ndarray, groups: int,
    axes: tuple[int, ...],
) -> SimpleNamespace:  # fmt: skip
    """The sums of the terms' magnitudes, for statistics over ``axes`` of (N, L, groups, C/groups).

    Normal values are differences from a mean that has the error of a sum over all |x|.
    """
    view = (s.batch, s.length, groups, s.channels // groups)
    x, dy = (np.abs(a.astype(np.float64)).reshape(view) for a in (p.x, p.dy))
    gamma, beta = (np.abs(a.astype(np.float64)).reshape(view[2:]) for a in (p.gamma, p.beta))
    mean, var = (a.astype(np.float64).reshape(-1, 1, groups, 1) for a in (mean, var))
    deviation = np.sqrt(var + EPSILON)
    normal = (x + x.mean(axis=axes, keepdims=True) + np.abs(mean)) / deviation
    dnormal = dy * gamma
    through = dnormal.mean(axis=axes, keepdims=True)
    through = through + normal * (dnormal * normal).mean(axis=axes, keepdims=True)
    activation = (s.batch, s.length, s.channels)
    return SimpleNamespace(
        y=(gamma * normal + beta).reshape(activation),
        dx=((dnormal + through) / deviation).reshape(activation),
        dx_constant=(dnormal / deviation).reshape(activation),
        dgamma=(dy * normal).sum(axis=(0, 1)).ravel(),
        dbeta=dy.sum(axis=(0, 1)).ravel(),
    )


def check_batch_norm(run, s: NormShape, p: SimpleNamespace, channels_last: bool) -> None:
    """Forward in training, with running statistics, and backward in both."""
    dtype, accum = p.x.dtype, accumulator(p.x.dtype)
    given = replace(s, channels_last=channels_last)
    x, dy = (in_layout(a, channels_last) for a in (p.x, p.dy))
    count = s.batch * s.length + ROUNDINGS

    y, mean, var = run("batch_norm_train", x, p.gamma, p.beta, EPSILON, given)
    exact, exact_mean, exact_var = reference.batch_norm_train(p.x, p.gamma, p.beta, EPSILON, s)
    terms = magnitudes(p, s, exact_mean, exact_var, s.channels, (0, 1, 3))
    size = np.abs(p.x.astype(np.float64)).mean(axis=(0, 1))
    assert_close(mean, exact_mean, dtype=accum, reduction=count, magnitude=size, what="mean")
    assert_close(var, exact_var, dtype=accum, reduction=count, what="var")
    exact, most = in_layout(exact, channels_last), in_layout(terms.y, channels_last)
    assert_close(y, exact, dtype=dtype, reduction=count, magnitude=most, what="y")

    mean, var = exact_mean.astype(accum), exact_var.astype(accum)
    for training in (True, False):
        results = run("batch_norm_backward", dy, x, p.gamma, mean, var, EPSILON, training, given)
        dx, dgamma, dbeta = reference.batch_norm_backward(
            p.dy, p.x, p.gamma, mean, var, EPSILON, training, s
        )
        dx, most = (
            in_layout(a, channels_last) for a in (dx, terms.dx if training else terms.dx_constant)
        )
        for what, got, exact, magnitude in zip(
            ("dx", "dgamma", "dbeta"), results, (dx, dgamma, dbeta),
            (most, terms.dgamma, terms.dbeta), strict=True,
        ):  # fmt: skip
            assert_close(got, exact, dtype=dtype, reduction=count, magnitude=magnitude, what=what)


@every_case
def test_batch_norm(run, name, dtype, channels_last):
    s = NORMS[name]
    check_batch_norm(run, s, problem(s, DTYPES[dtype]), channels_last)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_large_mean_leaves_the_variance_its_digits(run, channels_last):
    """The mean of x^2 less the square of the mean would lose them all."""
    s = NORMS["long"]
    check_batch_norm(run, s, problem(s, np.dtype(np.float32), offset=2000), channels_last)


@every_case
def test_batch_norm_with_given_statistics(run, name, dtype, channels_last):
    s = NORMS[name]
    p, accum = problem(s, DTYPES[dtype]), accumulator(DTYPES[dtype])
    mean, var = random("mean", (s.channels,), accum), random("var", (s.channels,), accum, 0.1, 3)
    given, x = replace(s, channels_last=channels_last), in_layout(p.x, channels_last)
    got = run("batch_norm_infer", x, p.gamma, p.beta, mean, var, EPSILON, given)
    exact = reference.batch_norm_infer(p.x, p.gamma, p.beta, mean, var, EPSILON, s)
    terms = magnitudes(p, s, mean, var, s.channels, (0, 1, 3)).y
    assert_close(
        got, in_layout(exact, channels_last), dtype=p.x.dtype, reduction=ROUNDINGS,
        magnitude=in_layout(terms, channels_last),
    )  # fmt: skip


def check_group_norm(run, s: NormShape, p: SimpleNamespace, channels_last: bool) -> None:
    accum = accumulator(p.x.dtype)
    given = replace(s, channels_last=channels_last)
    x, dy = (in_layout(a, channels_last) for a in (p.x, p.dy))
    count = s.length * (s.channels // s.groups) + ROUNDINGS

    y, mean, var = run("group_norm_forward", x, p.gamma, p.beta, EPSILON, given)
    exact, exact_mean, exact_var = reference.group_norm_forward(p.x, p.gamma, p.beta, EPSILON, s)
    terms = magnitudes(p, s, exact_mean, exact_var, s.groups, (1, 3))
    size = np.abs(p.x.astype(np.float64)).reshape(s.batch, s.length, s.groups, -1)
    assert_close(
        mean, exact_mean, dtype=accum, reduction=count, magnitude=size.mean(axis=(1, 3)),
        what="mean",
    )  # fmt: skip
    assert_close(var, exact_var, dtype=accum, reduction=count, what="var")
    exact, most = (in_layout(a, channels_last) for a in (exact, terms.y))
    assert_close(y, exact, dtype=p.x.dtype, reduction=count, magnitude=most, what="y")

    mean, var = exact_mean.astype(accum), exact_var.astype(accum)
    dx, dgamma, dbeta = run("group_norm_backward", dy, x, p.gamma, mean, var, EPSILON, given)
    exact = reference.group_norm_backward(p.dy, p.x, p.gamma, mean, var, EPSILON, s)
    exact_dx, most = (in_layout(a, channels_last) for a in (exact[0], terms.dx))
    assert_close(dx, exact_dx, dtype=p.x.dtype, reduction=count, magnitude=most, what="dx")
    count = s.batch * s.length + ROUNDINGS
    for what, got, value, most in (
        ("dgamma", dgamma, exact[1], terms.dgamma), ("dbeta", dbeta, exact[2], terms.dbeta),
    ):  # fmt: skip
        assert_close(got, value, dtype=p.x.dtype, reduction=count, magnitude=most, what=what)


@every_case
def test_group_norm(run, name, dtype, channels_last):
    s = NORMS[name]
    check_group_norm(run, s, problem(s, DTYPES[dtype]), channels_last)


LARGE = [(5, 97, 71, 4), (1, 301, 229, 2)]  # several blocks of work; one sample of several


@pytest.mark.parametrize("x_shape", LARGE)
@pytest.mark.parametrize("channels_last", [True, False])
def test_many_elements(run, x_shape, channels_last):
    s = NormShape.of(x_shape, groups=2)
    p = problem(s, np.dtype(np.float32))
    check_batch_norm(run, s, p, channels_last)
    check_group_norm(run, s, p, channels_last)


@every_case
def test_bias_grad(run, name, dtype, channels_last):
    s = NORMS[name]
    dy = problem(s, DTYPES[dtype]).dy
    terms = reference.bias_grad(np.abs(dy), s)
    got = run("bias_grad", in_layout(dy, channels_last), replace(s, channels_last=channels_last))
    assert_close(
        got, reference.bias_grad(dy, s), dtype=dy.dtype, reduction=s.batch * s.length,
        magnitude=terms,
    )  # fmt: skip


@pytest.mark.parametrize("channels_last", [True, False])
def test_an_empty_batch(run, channels_last):
    s = replace(NORMS["image"], batch=0, channels_last=channels_last)
    x, gamma = np.zeros(s.axes, np.float32), np.ones(s.channels, np.float32)
    zero, none = np.zeros(s.channels, np.float32), np.zeros((0, s.groups), np.float32)
    assert_close(run("bias_grad", x, s), zero)
    assert_close(run("batch_norm_infer", x, gamma, gamma, zero, gamma, EPSILON, s), x)
    for got, expected in zip(
        run("group_norm_forward", x, gamma, gamma, EPSILON, s), (x, none, none), strict=True
    ):
        assert_close(got, expected)
    for got, expected in zip(
        run("group_norm_backward", x, x, gamma, none, none, EPSILON, s), (x, zero, zero),
        strict=True,
    ):  # fmt: skip
        assert_close(got, expected)
