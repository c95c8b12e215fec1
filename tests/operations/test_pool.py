"""Pooling, forward with its index and backward, on every backend."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from gpucnn.backends.cuda import columns, norm_pool
from gpucnn.shapes import NormShape, PoolShape
from tests import reference
from tests.cases import DTYPES, POOLS, in_layout, random
from tests.operations.conftest import inside_another, same_bits
from tests.tolerance import assert_close

MODES = ("max", "min", "average", "sum")


@cache
def forward(name: str, mode: str, dtype: str) -> tuple[np.ndarray, ...]:
    """x, y, index and the sums of |x| under each window, all with channels last."""
    s = replace(POOLS[name], mode=mode)
    x = random(f"{name} x", s.x_shape, DTYPES[dtype])
    y, index = reference.pool_forward(x, s)
    return x, y, index, reference.pool_forward(np.abs(x), s)[0]


@cache
def backward(name: str, mode: str, dtype: str) -> tuple[np.ndarray, ...]:
    """dy, dx and the sums of |terms| of each dx, all with channels last."""
    s = replace(POOLS[name], mode=mode)
    index = forward(name, mode, dtype)[2]
    dy = random(f"{name} dy", index.shape, DTYPES[dtype])
    return dy, *(reference.pool_backward(g, index, s) for g in (dy, np.abs(dy)))


def every_case(test):
    test = pytest.mark.parametrize("name", POOLS)(test)
    test = pytest.mark.parametrize("mode", MODES)(test)
    test = pytest.mark.parametrize("dtype", DTYPES)(test)
    return pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])(test)


def check_forward(run, x: np.ndarray, s: PoolShape) -> None:
    """Compare y and the index with the reference's, of any input in the layout of ``s``."""
    y, index = reference.pool_forward(x, s)
    terms = y if s.mode in ("max", "min") else reference.pool_forward(np.abs(x), s)[0]
    got, place = run("pool_forward", x, s)
    assert_close(got, y, dtype=x.dtype, reduction=s.taps + 1, magnitude=np.abs(terms))
    if s.mode in ("max", "min"):
        assert_close(place, index, dtype=s.index_dtype, what="index")
    else:
        assert place is None


@every_case
def test_forward(run, name, mode, dtype, channels_last):
    s = replace(POOLS[name], mode=mode, channels_last=channels_last)
    x, y, index, terms = (in_layout(a, channels_last) for a in forward(name, mode, dtype))
    got, place = run("pool_forward", x, s)
    if mode in ("max", "min"):
        assert_close(got, y.astype(x.dtype), magnitude=0)
        assert_close(place, index, dtype=s.index_dtype, what="index")
    else:
        assert_close(got, y, dtype=x.dtype, reduction=s.taps + 1, magnitude=terms)
        assert place is None


@every_case
def test_backward(run, name, mode, dtype, channels_last):
    s = replace(POOLS[name], mode=mode, channels_last=channels_last)
    index = in_layout(forward(name, mode, dtype)[2], channels_last).astype(s.index_dtype)
    dy, dx, terms = (in_layout(a, channels_last) for a in backward(name, mode, dtype))
    got = run("pool_backward", dy, index if mode in ("max", "min") else None, s)
    windows_over_one_input = math.prod(
        -(-(d * (r - 1) + 1) // u) for r, d, u in zip(s.window, s.dilation, s.strides, strict=True)
    )
    assert_close(got, dx, dtype=dy.dtype, reduction=2 * windows_over_one_input, magnitude=terms)


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
def test_relu_cuts_and_the_index_leaves_out_what_it_cuts(run, name, mode, channels_last):
    s = replace(POOLS[name], mode=mode, channels_last=channels_last)
    x, y, index, _ = (in_layout(a, channels_last) for a in forward(name, mode, "float32"))
    got, place = run("pool_forward", x, s, True, "relu")
    assert_close(got, np.maximum(y, 0).astype(x.dtype), magnitude=0)
    assert_close(place, np.where(y > 0, index, s.taps), dtype=s.index_dtype, what="index")
    dy = random(f"{name} dy", y.shape, x.dtype)
    through = run("pool_backward", dy, place, s)
    masked = run("pool_backward", np.where(y > 0, dy, 0).astype(x.dtype), place, s)
    assert_close(through, masked, magnitude=0)


def test_relu_lets_a_nan_be_but_not_its_gradient(run):
    for name in ("overlapping", "units", "halves", "global", "global_long"):
        s = replace(POOLS[name], mode="max")
        x = np.full(s.x_shape, np.nan, np.float32)
        y, index = run("pool_forward", x, s, True, "relu")
        whole, _ = run("pool_forward", x, s)
        assert_close(np.isnan(y), np.isnan(whole))
        assert (index == s.taps).all()


@pytest.mark.parametrize("name", ["overlapping", "ceil_padded", "3d", "units", "halves"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
def test_a_norm_and_its_pool_give_what_the_two_give(
    run, monkeypatch, name, dtype, activation, channels_last
):
    """Bit for bit."""
    monkeypatch.setattr(columns, "MOST_ROWS", 0)
    monkeypatch.setattr(norm_pool, "THREADS_WANTED", 40)  # several units each
    s = replace(POOLS[name], mode="max", channels_last=channels_last)
    norm = NormShape.of(s.x_shape, channels_last=channels_last)
    x = random(f"{name} x", s.x_shape, DTYPES[dtype], -2, 1)
    gamma, beta = (random(a, (s.channels,), x.dtype) for a in ("gamma", "beta"))
    y, mean, var = run("batch_norm_train", x, gamma, beta, 1e-3, norm)
    expected = (*run("pool_forward", y, s, True, activation), mean, var)
    got = run("batch_norm_pool_train", x, gamma, beta, 1e-3, norm, s, activation)
    assert all(map(same_bits, got, expected))
    y, index, *_ = run("batch_norm_pool_train", x, gamma, beta, 1e-3, norm, s, activation, False)
    assert same_bits(y, expected[0]) and index is None


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_the_first_of_equal_ones_is_chosen(run, mode, channels_last):
    for name in ("overlapping", "ceil_padded", "3d", "units", "halves", "global", "global_long"):
        s = replace(POOLS[name], mode=mode, channels_last=channels_last)
        x = np.round(random(name, s.x_shape, np.float32))  # -1, 0, -0.0 and 1
        y, index = reference.pool_forward(x, s)
        got, place = run("pool_forward", x, s)
        assert_close(got, y, dtype=x.dtype, magnitude=0)
        assert_close(place, index, dtype=s.index_dtype)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["padded", "units", "strips", "halves", "global"])
def test_nan_wins_and_infinity_is_a_number(run, name, mode, dtype):
    s = replace(POOLS[name], mode=mode, channels_last=name != "strips")
    x = random("x", s.x_shape, np.float64)
    kind = random("kind", s.x_shape, np.float64, 0, 10)
    x[kind < 1.5], x[kind > 8.5], x[(kind > 5) & (kind < 5.5)] = -np.inf, np.inf, np.nan
    with np.errstate(invalid="ignore"):  # inf - inf
        check_forward(run, x.astype(DTYPES[dtype]), s)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("name", ["padded", "units", "strips", "global_long"])
def test_an_input_of_infinities_has_places_inside_it(run, name, mode):
    s = replace(POOLS[name], mode=mode, channels_last=name != "strips")
    x = np.full(s.x_shape, -np.inf if mode == "max" else np.inf, np.float32)
    check_forward(run, x, s)


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(
    "name", ["padded", "strips", "asymmetric_padding", "ceil_padded", "3d", "dilated"]
)
def test_an_average_that_counts_padding(run, name, channels_last):
    s = replace(POOLS[name], mode="average", count_padding=True, channels_last=channels_last)
    x, dy = random("x", s.x_shape, np.float64), random("dy", s.y_shape, np.float64)
    terms = reference.pool_forward(np.abs(x), s)[0]
    y, _ = run("pool_forward", x, s)
    assert_close(y, reference.pool_forward(x, s)[0], reduction=s.taps + 1, magnitude=terms)
    dx, terms = (reference.pool_backward(g, None, s) for g in (dy, np.abs(dy)))
    assert_close(run("pool_backward", dy, None, s), dx, reduction=2 * s.taps, magnitude=terms)


@pytest.mark.parametrize("name", ["plain", "ceil_padded", "units", "global"])
def test_the_index_can_be_left_out(run, name):
    s = POOLS[name]
    x = random("x", s.x_shape, np.float32)
    y, index = run("pool_forward", x, s, False)
    assert index is None
    assert_close(y, run("pool_forward", x, s)[0], magnitude=0)


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("window", [(65537,), (258, 257), (41, 42, 40)])
def test_a_window_of_many_taps_has_a_wide_index(run, window, channels_last, mode):
    """Two windows, one step apart along the last axis; the extreme is the last of the first."""
    x = np.zeros((1, *window[:-1], window[-1] + 1, 1), np.float32)
    x[(0, *(n - 1 for n in window), 0)] = 1 if mode == "max" else -1
    x = in_layout(x, channels_last)
    s = PoolShape.of(
        x.shape, window, strides=1, mode=mode, rank=len(window), channels_last=channels_last
    )
    assert s.index_dtype == "uint32"
    y, index = run("pool_forward", x, s)
    assert y.ravel().tolist() == [x.sum()] * 2
    assert index.ravel().tolist() == [s.taps - 1, s.taps - 2]
    dy = np.array([3, 4], x.dtype).reshape(y.shape)
    assert (run("pool_backward", dy, index, s) == 7 * np.abs(x)).all()


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_map_of_many_inputs_has_a_wide_index(run, mode):
    window = (257, 4, 67)
    x = np.zeros((1, *window, 1), np.float32)
    x[0, -1, -1, -1] = 1 if mode == "max" else -1
    whole = PoolShape.of(x.shape, window, mode=mode, rank=3)
    for channels_last in (True, False):
        s, x = replace(whole, channels_last=channels_last), x.reshape(whole.x_shape)
        x = in_layout(x, channels_last)
        y, index = run("pool_forward", x, s)
        assert (y.item(), index.item(), index.dtype) == (x.sum(), s.taps - 1, "uint32")
        dy = np.full(y.shape, 3, x.dtype)
        assert (run("pool_backward", dy, index, s) == 3 * np.abs(x)).all()


@pytest.mark.parametrize("mode", ["max", "average"])
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("name", ["units", "strips", "halves", "units_dense", "global"])
def test_arrays_that_begin_inside_others(every_backend, name, mode, channels_last):
    """The same bits as with arrays that begin on the addresses that memory likes."""
    s = replace(POOLS[name], mode=mode, channels_last=channels_last)
    x, dy = random("x", s.x_shape, np.float16), random("dy", s.y_shape, np.float16)
    whole = every_backend.asarray
    y, index = every_backend.pool_forward(whole(x), s)
    y_inside, index_inside = every_backend.pool_forward(inside_another(every_backend, x), s)
    assert same_bits(*map(every_backend.to_numpy, (y, y_inside)))
    dx = every_backend.pool_backward(whole(dy), index, s)
    if index is not None:
        index, index_inside = map(every_backend.to_numpy, (index, index_inside))
        assert same_bits(index, index_inside)
        index = inside_another(every_backend, index)
    dx_inside = every_backend.pool_backward(inside_another(every_backend, dy), index, s)
    assert same_bits(*map(every_backend.to_numpy, (dx, dx_inside)))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize(("name", "copies"), [("ceil_padded", 451), ("large_window", 191)])
def test_many_images(run, name, copies, mode, channels_last):
    """More elements than a backend takes in one go."""
    s = replace(POOLS[name], mode=mode, channels_last=channels_last)
    batch = replace(s, batch=s.batch * copies)
    x, y, index, y_terms, dy, dx, dx_terms = (
        np.concatenate([in_layout(a, channels_last)] * copies)
        for a in forward(name, mode, "float32") + backward(name, mode, "float32")
    )
    got, place = run("pool_forward", x, batch)
    assert_close(got, y, dtype=x.dtype, reduction=s.taps + 1, magnitude=y_terms)
    if mode in ("max", "min"):
        assert_close(place, index, dtype=s.index_dtype, what="index")
    got = run("pool_backward", dy, place, batch)
    assert_close(got, dx, dtype=x.dtype, reduction=2 * s.taps, magnitude=dx_terms)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["padded", "global"])
def test_an_empty_batch(run, name, mode):
    s = replace(POOLS[name], mode=mode, batch=0)
    x, dy = np.zeros(s.x_shape, np.float32), np.zeros(s.y_shape, np.float32)
    y, index = run("pool_forward", x, s)
    assert_close(y, dy)
    if mode in ("max", "min"):
        assert_close(index, np.zeros(s.y_shape, s.index_dtype))
    assert_close(run("pool_backward", dy, index, s), x)
