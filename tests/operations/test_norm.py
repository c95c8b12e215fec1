"""Batch and group normalisation and the bias gradient, on every backend."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from gpucnn.backends.base import accumulator
from gpucnn.backends.cuda import columns, norm
from gpucnn.shapes import NormShape
from tests import reference
from tests.cases import DTYPES, NORMS, in_layout, random
from tests.operations.conftest import inside_another, same_bits
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


def check_gradients(
    results: tuple, expected: tuple, terms: SimpleNamespace, training: bool, s: NormShape,
    channels_last: bool, dtype: np.dtype,
) -> None:  # fmt: skip
    """Hold dx, dgamma, dbeta and dresidual of batch norm to the reference's, in (N, L, C)."""
    dx, dgamma, dbeta, dresidual = expected
    dx, most = (
        in_layout(a, channels_last) for a in (dx, terms.dx if training else terms.dx_constant)
    )
    for what, got, exact, magnitude in zip(
        ("dx", "dgamma", "dbeta"), results[:3], (dx, dgamma, dbeta),
        (most, terms.dgamma, terms.dbeta), strict=True,
    ):  # fmt: skip
        assert_close(
            got, exact, dtype=dtype, reduction=s.batch * s.length + ROUNDINGS,
            magnitude=magnitude, what=what,
        )  # fmt: skip
    if dresidual is None:
        assert results[3] is None
    else:
        assert_close(results[3], in_layout(dresidual, channels_last), dtype=dtype, what="dresidual")


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
        expected = reference.batch_norm_backward(
            p.dy, p.x, p.gamma, mean, var, EPSILON, training, s
        )
        check_gradients(results, expected, terms, training, s, channels_last, dtype)


@every_case
def test_batch_norm(run, name, dtype, channels_last):
    s = NORMS[name]
    check_batch_norm(run, s, problem(s, DTYPES[dtype]), channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["image", "layer", "long"])
def test_moving_statistics_follow_in_place(every_backend, name, dtype):
    """And nothing else changes by it."""
    s = NORMS[name]
    p = problem(s, DTYPES[dtype])
    accum = accumulator(p.x.dtype)
    x, gamma, beta = map(every_backend.asarray, (p.x, p.gamma, p.beta))
    before = [random(what, (s.channels,), accum, 0.5, 3) for what in ("moving mean", "moving var")]
    moving = tuple(map(every_backend.asarray, [array.copy() for array in before]))
    alone = every_backend.batch_norm_train(x, gamma, beta, EPSILON, s)
    got = every_backend.batch_norm_train(x, gamma, beta, EPSILON, s, moving=moving, momentum=0.9)
    for a, b in zip(alone, got, strict=True):
        assert same_bits(*map(every_backend.to_numpy, (a, b)))
    for old, new, batch in zip(before, moving, got[1:], strict=True):
        old, batch = old.astype(np.float64), every_backend.to_numpy(batch).astype(np.float64)
        assert_close(
            every_backend.to_numpy(new), old + (1 - 0.9) * (batch - old), dtype=accum,
            reduction=ROUNDINGS, magnitude=np.abs(old) + np.abs(batch),
        )  # fmt: skip


def test_an_empty_batch_moves_no_statistics(every_backend):
    s = NormShape(0, 3, 4, 1, True)
    x, ones = every_backend.asarray(np.ones((0, 4, 3), np.float32)), np.ones(3, np.float32)
    moving = tuple(every_backend.asarray(ones.copy()) for _ in range(2))
    given = map(every_backend.asarray, (ones, ones))
    every_backend.batch_norm_train(x, *given, EPSILON, s, moving=moving, momentum=0.5)
    assert all((every_backend.to_numpy(array) == 1).all() for array in moving)


@pytest.mark.parametrize("channels_last", [True, False])
def test_a_large_mean_leaves_the_variance_its_digits(run, channels_last):
    """The mean of x^2 less the square of the mean would lose them all."""
    s = NORMS["long"]
    check_batch_norm(run, s, problem(s, np.dtype(np.float32), offset=2000), channels_last)


@pytest.mark.parametrize("distance", [0, 1, 3.9, 4.1, 300])
@pytest.mark.parametrize("name", ["image", "long"])
def test_means_near_zero_and_far_from_it(run, name, distance):
    """In standard deviations: sums may be taken of x itself or of x less its mean."""
    s = NORMS[name]
    p = problem(s, np.dtype(np.float32), offset=0)
    p.x = (p.x / p.x.std(axis=(0, 1)) + np.float32(distance)).astype(np.float32)
    check_batch_norm(run, s, p, True)


@pytest.mark.parametrize("name", ["image", "long"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
def test_the_first_number_is_far_from_all_others(run, name, channels_last):
    """Sums may be taken of the differences from it: as exact as the deviation that it makes."""
    s = NORMS[name]
    p = problem(s, np.dtype(np.float32))
    p.x[0, 0] += 1e4
    given, count = replace(s, channels_last=channels_last), s.batch * s.length + ROUNDINGS
    got = run("batch_norm_train", in_layout(p.x, channels_last), p.gamma, p.beta, EPSILON, given)
    y, mean, var = reference.batch_norm_train(p.x, p.gamma, p.beta, EPSILON, s)
    normal = np.abs(p.x - mean) / np.sqrt(var + EPSILON)
    for value, exact, magnitude in zip(
        got, (in_layout(y, channels_last), mean, var),
        (in_layout(normal + 2, channels_last), np.sqrt(var), var), strict=True,
    ):  # fmt: skip
        assert_close(value, exact, dtype=np.float32, reduction=count, magnitude=magnitude)


@pytest.mark.parametrize("name", ["image", "long", "volume"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
def test_arrays_that_begin_inside_another_give_the_same_bits(
    every_backend, name, dtype, channels_last
):
    s, backend = replace(NORMS[name], channels_last=channels_last), every_backend
    p = problem(s, DTYPES[dtype])
    x, dy, r = (in_layout(a, channels_last) for a in (p.x, p.dy, random("r", p.x.shape, p.x.dtype)))
    gamma, beta = map(backend.asarray, (p.gamma, p.beta))

    def results(place) -> list[np.ndarray]:
        x_, dy_, r_ = map(place, (x, dy, r))
        y, mean, var = backend.batch_norm_train(x_, gamma, beta, EPSILON, s, "relu", r_)
        shared = gamma, mean, var, EPSILON, True, s, "relu"
        found = [y, mean, var, *backend.batch_norm_backward(dy_, x_, *shared, None, y)]
        found += backend.batch_norm_backward(dy_, x_, *shared, beta)[:3]
        return [backend.to_numpy(array) for array in found]

    apart = results(lambda array: inside_another(backend, array))
    assert all(map(same_bits, results(backend.asarray), apart))


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


TIE = 1e-3  # from zero: a sum that is nearer may round to either side of it
NEAR_SIX = {"bfloat16": 0.1, "float16": 0.01, "float32": TIE, "float64": TIE}  # the same
FUSED = ("image", "layer", "long", "volume")


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
def test_batch_norm_with_residual_and_relu(run, name, dtype, channels_last):
    """Both of them, and each alone."""
    s, dtype = NORMS[name], DTYPES[dtype]
    given, count = replace(s, channels_last=channels_last), s.batch * s.length + ROUNDINGS
    p = problem(s, dtype)
    other = random("residual", p.x.shape, dtype)
    exact, mean, var = reference.batch_norm_train(p.x, p.gamma, p.beta, EPSILON, s)
    mean, var = (a.astype(accumulator(dtype)) for a in (mean, var))
    size = magnitudes(p, s, mean, var, s.channels, (0, 1, 3)).y
    x, residual = (in_layout(a, channels_last) for a in (p.x, other))
    for activation, r in (
        ("relu", None), ("relu", residual), ("linear", residual), ("relu6", None),
        ("relu6", residual),
    ):  # fmt: skip
        before = exact if r is None else exact + other.astype(np.float64)
        after = before if activation == "linear" else np.maximum(before, 0)
        after = np.minimum(after, 6) if activation == "relu6" else after
        most = size if r is None else size + np.abs(other.astype(np.float64))
        train = run("batch_norm_train", x, p.gamma, p.beta, EPSILON, given, activation, r)
        infer = run(
            "batch_norm_infer", x, p.gamma, p.beta, mean, var, EPSILON, given, activation, r
        )
        for got in (train[0], infer):
            assert_close(
                got, in_layout(after, channels_last), dtype=dtype, reduction=count,
                magnitude=in_layout(most, channels_last),
            )  # fmt: skip
        if activation == "linear":
            continue
        at_an_edge = (np.abs(before) < TIE) | (np.abs(before - 6) < NEAR_SIX[dtype.name])
        dy = np.where(at_an_edge, 0, p.dy).astype(dtype)
        y = None if r is None else after.astype(dtype)
        beta = p.beta if r is None else None
        terms = magnitudes(
            SimpleNamespace(**{**vars(p), "dy": dy}), s, mean, var, s.channels, (0, 1, 3)
        )
        for training in (True, False):
            results = run(
                "batch_norm_backward", in_layout(dy, channels_last), x, p.gamma, mean, var,
                EPSILON, training, given, activation, beta,
                None if y is None else in_layout(y, channels_last),
            )  # fmt: skip
            expected = reference.batch_norm_backward(
                dy, p.x, p.gamma, mean, var, EPSILON, training, s, activation, beta, y
            )
            check_gradients(results, expected, terms, training, s, channels_last, dtype)


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("most_rows", [0, 10**6], ids=["many", "few"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", ["relu", "relu6"])
def test_the_backward_pass_finds_out_what_relu_let_through(
    run, monkeypatch, dtype, most_rows, channels_last, activation
):
    """From x alone, as exactly as from y, for results around zero that round to it, too."""
    monkeypatch.setattr(columns, "MOST_ROWS", most_rows)
    s, dtype = replace(NORMS["long"], channels_last=channels_last), DTYPES[dtype]
    x, dy = (in_layout(a, channels_last) for a in (problem(s, dtype).x, problem(s, dtype).dy))
    var = np.ones(s.channels, accumulator(dtype))
    mean = np.full(s.channels, x.astype(np.float64).mean(), var.dtype)
    tiny = np.finfo(np.float16).smallest_subnormal if dtype == np.float16 else 1e-4
    gamma, beta = np.full(s.channels, tiny, dtype), np.zeros(s.channels, dtype)
    if activation == "relu6":  # around six, some of it a rounding below
        gamma, beta = np.full(s.channels, 0.02, dtype), np.full(s.channels, 6, dtype)
    y = run("batch_norm_infer", x, gamma, beta, mean, var, EPSILON, s, activation)
    passed = (y > 0) & ((y < 6) | (activation == "relu"))
    assert 0.2 < passed.mean() < 0.8
    shared = dy, x, gamma, mean, var, EPSILON, True, s, activation
    from_x = run("batch_norm_backward", *shared, beta)
    from_y = run("batch_norm_backward", *shared, None, y)
    for ours, theirs in zip(from_x[:3], from_y[:3], strict=True):
        assert same_bits(ours, theirs)


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
def test_many_elements(run, monkeypatch, x_shape, channels_last):
    """Threads take several packs, and those of a channel are summed by several blocks."""
    monkeypatch.setattr(norm, "THREADS_WANTED", 1)
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


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("most_rows", [0, 10**6], ids=["many", "few"])
def test_channels_of_few_numbers_by_the_kernels_for_many_and_back(
    run, monkeypatch, name, dtype, most_rows
):
    monkeypatch.setattr(columns, "MOST_ROWS", most_rows)
    test_batch_norm(run, name, dtype, True)
    test_batch_norm_with_residual_and_relu(run, name, dtype, True)
    test_bias_grad(run, name, dtype, True)


@pytest.mark.parametrize("channels_last", [True, False])
def test_an_empty_batch(run, channels_last):
    s = replace(NORMS["image"], batch=0, channels_last=channels_last)
    x, gamma = np.zeros(s.axes, np.float32), np.ones(s.channels, np.float32)
    zero, none = np.zeros(s.channels, np.float32), np.zeros((0, s.groups), np.float32)
    assert_close(run("bias_grad", x, s), zero)
    assert_close(run("batch_norm_infer", x, gamma, gamma, zero, gamma, EPSILON, s), x)
    *grads, dresidual = run(
        "batch_norm_backward", x, x, gamma, zero, gamma, EPSILON, True, s, "relu", None, x
    )
    for got, expected in zip((*grads, dresidual), (x, zero, zero, x), strict=True):
        assert_close(got, expected)
    for got, expected in zip(
        run("group_norm_forward", x, gamma, gamma, EPSILON, s), (x, none, none), strict=True
    ):
        assert_close(got, expected)
    for got, expected in zip(
        run("group_norm_backward", x, x, gamma, none, none, EPSILON, s), (x, zero, zero),
        strict=True,
    ):  # fmt: skip
        assert_close(got, expected)
