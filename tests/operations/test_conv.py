"""Convolution in its three directions, on every backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest

from tests import reference
from tests.cases import CONVS, DTYPES, in_layout, random
from tests.operations.conftest import Runner
from tests.tolerance import assert_close


@pytest.fixture
def run(run: Runner, request: pytest.FixtureRequest) -> Runner:
    """As everywhere, but that the checked emulator runs float32, and float16 with channels last."""
    given = request.node.callspec.params
    runs = "float16" if given.get("channels_last", True) else "float32"
    if given["every_backend"] == "checked" and given.get("dtype", runs) not in (runs, "float32"):
        pytest.skip("every algorithm of this dtype is checked in test_algorithms.py")
    return run


@cache
def problem(
    name: str, dtype: str, taken: Callable[[np.ndarray], np.ndarray] = np.asarray
) -> SimpleNamespace:
    """Inputs, exact results and the sums of their terms' magnitudes, all with channels last.

    ``taken`` is what the numbers of a product are rounded to before they are multiplied.
    """
    s = CONVS[name]
    p = SimpleNamespace(
        x=random(f"{name} x", s.x_shape, DTYPES[dtype]),
        w=random(f"{name} w", s.w_shape, DTYPES[dtype]),
        b=random(f"{name} b", (s.filters,), DTYPES[dtype]),
        b_dx=random(f"{name} b_dx", (s.channels,), DTYPES[dtype]),
        dy=random(f"{name} dy", s.y_shape, DTYPES[dtype]),
    )
    x, w, dy = map(taken, (p.x, p.w, p.dy))

    def solve(direction: Callable, *arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return direction(*arrays, s), direction(*map(np.abs, arrays), s)

    p.y, p.y_terms = solve(reference.conv_fprop, x, w, p.b)
    p.dx, p.dx_terms = solve(reference.conv_dgrad, dy, w, p.b_dx)
    p.dw, p.dw_terms = solve(reference.conv_wgrad, x, dy)
    return p


def every_case(without: str):
    """All cases but those that are large for the sake of another direction's tiles."""
    names = [name for name in CONVS if not name.endswith(without)]

    def parametrized(test):
        test = pytest.mark.parametrize("name", names)(test)
        test = pytest.mark.parametrize("dtype", DTYPES)(test)
        return pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])(test)

    return parametrized


@every_case(without="wide_filters")
def test_fprop(run, name, dtype, channels_last):
    p, s = problem(name, dtype), replace(CONVS[name], channels_last=channels_last)
    x, y, terms = (in_layout(a, channels_last) for a in (p.x, p.y, p.y_terms))
    reduction = s.taps * (s.channels // s.groups) + 1
    got = run("conv_fprop", x, p.w, p.b, s)
    assert_close(got, y, dtype=DTYPES[dtype], reduction=reduction, magnitude=terms)


@every_case(without="wide_filters")
def test_dgrad(run, name, dtype, channels_last):
    p, s = problem(name, dtype), replace(CONVS[name], channels_last=channels_last)
    dy, dx, terms = (in_layout(a, channels_last) for a in (p.dy, p.dx, p.dx_terms))
    reduction = s.taps * (s.filters // s.groups) + 1
    got = run("conv_dgrad", dy, p.w, p.b_dx, s)
    assert_close(got, dx, dtype=DTYPES[dtype], reduction=reduction, magnitude=terms)


@every_case(without="wide_tiles")
def test_wgrad(run, name, dtype, channels_last):
    p, s = problem(name, dtype), replace(CONVS[name], channels_last=channels_last)
    x, dy = (in_layout(a, channels_last) for a in (p.x, p.dy))
    got = run("conv_wgrad", x, dy, s)
    assert_close(
        got, p.dw, dtype=DTYPES[dtype], reduction=s.batch * math.prod(s.output),
        magnitude=p.dw_terms,
    )  # fmt: skip


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_is_applied_on_the_way(run, dtype, channels_last):
    p, s = problem("everything", dtype), replace(CONVS["everything"], channels_last=channels_last)
    x, w = in_layout(p.x, channels_last).copy(), p.w.copy()
    y = run("conv_fprop", x, w, p.b, s)
    assert (np.sign(y.astype(np.float32)) == -1).any()
    assert (run("conv_fprop", x, w, p.b, s, "relu") == np.maximum(y, 0)).all()
    w[1] = np.nan  # a filter: one channel of the output
    spoilt = run("conv_fprop", x, w, None, s, "relu").astype(np.float32)
    channel = spoilt[..., 1] if channels_last else spoilt[:, 1]
    assert np.isnan(channel).any() and np.isnan(spoilt).sum() == np.isnan(channel).sum()


@pytest.mark.parametrize("channels_last", [True, False])
def test_without_a_bias(run, channels_last):
    p, s = problem("everything", "float32"), CONVS["everything"]
    zero = np.zeros(s.filters, np.float32), np.zeros(s.channels, np.float32)
    s = replace(s, channels_last=channels_last)
    x, dy = (in_layout(a, channels_last) for a in (p.x, p.dy))
    for operation, given, b in (("conv_fprop", x, zero[0]), ("conv_dgrad", dy, zero[1])):
        assert (run(operation, given, p.w, None, s) == run(operation, given, p.w, b, s)).all()


@pytest.mark.parametrize("name", ["many_tiles", "everything", "depthwise", "3d_everything"])
def test_directions_are_transposes_of_one_another(run, name):
    """<conv(x, w), dy> = <x, dgrad(dy, w)> = <w, wgrad(x, dy)>."""
    p, s = problem(name, "float64"), CONVS[name]
    y = run("conv_fprop", p.x, p.w, None, s)
    dx, dw = run("conv_dgrad", p.dy, p.w, None, s), run("conv_wgrad", p.x, p.dy, s)
    product, terms = np.sum(y * p.dy), np.sum(p.y_terms * np.abs(p.dy))
    count = s.multiply_adds
    for other in (np.sum(p.x * dx), np.sum(p.w * dw)):
        assert_close(other, product, reduction=count, magnitude=terms)


@pytest.mark.parametrize("channels_last", [True, False])
def test_an_empty_batch(run, channels_last):
    s = replace(CONVS["everything"], batch=0, channels_last=channels_last)
    p = problem("everything", "float32")
    x, dy = np.zeros(s.x_shape, np.float32), np.zeros(s.y_shape, np.float32)
    assert_close(run("conv_fprop", x, p.w, p.b, s), dy)
    assert_close(run("conv_dgrad", dy, p.w, None, s), x)
    assert_close(run("conv_wgrad", x, dy, s), np.zeros(s.w_shape, np.float32))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_nan_reaches_all_that_it_should_and_nothing_else(run, dtype, channels_last):
    """What lies beside a tile is left out, not multiplied by zero."""
    s = CONVS["asymmetric_padding"]
    given = replace(s, channels_last=channels_last)
    x, w, dy = (np.zeros(shape, DTYPES[dtype]) for shape in (s.x_shape, s.w_shape, s.y_shape))
    zero = dy.copy()
    x[0, 0, 3, 1] = dy[0, 1, 2, 3] = np.nan
    x_given, dy_given, zero_given = (in_layout(a, channels_last) for a in (x, dy, zero))
    for got, expected in (
        (
            run("conv_fprop", x_given, w, None, given),
            in_layout(reference.conv_fprop(x, w, None, s), channels_last),
        ),
        (
            run("conv_dgrad", dy_given, w, None, given),
            in_layout(reference.conv_dgrad(dy, w, None, s), channels_last),
        ),
        (run("conv_wgrad", x_given, zero_given, given), reference.conv_wgrad(x, zero, s)),
    ):
        assert 0 < np.isnan(expected).sum() < expected.size
        assert_close(got, expected, dtype=x.dtype)
