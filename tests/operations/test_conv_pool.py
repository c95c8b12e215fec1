"""A convolution and the pooling behind it as one operation, on every backend.

Numbers are -1, 0 and 1 where a result must be exact: all sums are, many outputs are equal, and so
the index says whether the first of them was taken.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.cuda.algorithms import Problem
from gpucnn.backends.cuda.algorithms.direct_tiles import (
    PATCH,
    SLICE,
    WGRAD_SLICE,
    patch_of,
    wgrad_channels,
)
from gpucnn.backends.cuda.conv_pool import fused
from gpucnn.shapes import ConvShape, PoolShape
from tests import reference
from tests.cases import DTYPES, conv, in_layout, pool, random
from tests.operations.conftest import inside_another
from tests.tolerance import assert_close

Shapes = tuple[ConvShape, PoolShape]


def pooled(s: ConvShape, size: int = 2, mode: str = "max", **geometry) -> Shapes:
    return s, replace(pool(s.y_shape, size, **geometry), mode=mode)


FUSED: dict[str, Shapes] = {
    "odd": pooled(conv((3, 9, 13, 1), (6, 3, 3, 1))),
    "even": pooled(conv((1, 10, 12, 2), (32, 3, 3, 2), padding=1)),
    "ceil": pooled(conv((1, 9, 38, 3), (37, 3, 3, 3), padding=1), ceil_mode=True),
    "5x5": pooled(conv((1, 12, 9, 1), (5, 5, 5, 1), padding=((2, 0), (1, 3)))),
    "strided": pooled(conv((1, 10, 9, 4), (8, 3, 3, 4), strides=2, padding=1), padding="same"),
    "7x7": pooled(conv((1, 15, 17, 3), (9, 7, 7, 3), strides=2, padding=3)),
    "one_pixel": pooled(conv((3, 4, 4, 1), (1, 3, 3, 1))),
}
OTHERS: dict[str, Shapes] = {
    "overlapping": pooled(conv((1, 9, 9, 3), (4, 3, 3, 3)), 3, strides=2, padding=1),
    "shifted": pooled(conv((1, 9, 9, 3), (4, 3, 3, 3)), padding=1),
    "minimum": pooled(conv((1, 9, 9, 3), (4, 3, 3, 3)), mode="min"),
    "channels": pooled(conv((1, 7, 6, 5), (4, 3, 3, 5))),
    "groups": pooled(conv((1, 7, 6, 4), (6, 3, 3, 2), groups=2)),
    "dilated": pooled(conv((1, 9, 9, 1), (4, 3, 3, 1), dilation=2)),
    "oblong": pooled(conv((1, 9, 9, 1), (4, 3, 2, 1))),
    "1d": pooled(conv((3, 19, 2), (5, 3, 2))),
    "tensor_cores": pooled(conv((2, 7, 10, 16), (20, 3, 3, 16), padding=1)),
}
CASES = FUSED | OTHERS
# What is composed of other operations needs no more dtypes than one.
RUNS = [
    *((name, dtype) for name in FUSED for dtype in ("float16", "bfloat16", "float32")),
    *((name, "float32") for name in OTHERS),
    ("tensor_cores", "bfloat16"),
    ("odd", "float64"),
]


def whole(name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """-1, 0 and 1."""
    return np.round(random(name, shape, np.float64, -1.4, 1.4)).astype(DTYPES[dtype])


def laid_out(shapes: Shapes, channels_last: bool) -> Shapes:
    s, p = (replace(shape, channels_last=channels_last) for shape in shapes)
    return s, p


def forward(x, w, b, s: ConvShape, p: PoolShape, activation: str) -> tuple[np.ndarray, np.ndarray]:
    z = reference.conv_fprop(x, w, b, s)
    return reference.pool_forward(np.maximum(z, 0) if activation == "relu" else z, p)


def backward(dy, y, index, x, s: ConvShape, p: PoolShape, activation: str) -> list[np.ndarray]:
    if activation == "relu":
        dy = reference.activation_backward(dy, y, "relu", 0.0)
    dz = reference.pool_backward(dy, index, p)
    axes = tuple(axis for axis in range(dz.ndim) if axis != (dz.ndim - 1 if s.channels_last else 1))
    return [reference.conv_wgrad(x, dz, s), dz.sum(axes)]


@pytest.mark.parametrize(("name", "dtype"), RUNS)
@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
def test_whole_numbers(run, name, activation, dtype, channels_last):
    s, p = laid_out(CASES[name], channels_last)
    last = replace(s, channels_last=True), replace(p, channels_last=True)
    x = in_layout(whole("x", last[0].x_shape, dtype), channels_last)
    w, b = whole("w", s.w_shape, dtype), whole("b", (s.filters,), dtype)
    dy = in_layout(whole("dy", last[1].y_shape, dtype), channels_last)
    y, index = forward(x, w, b, s, p, activation)
    got, place = run("conv_pool_forward", x, w, b, s, p, activation)
    assert_close(got, y, dtype=x.dtype, magnitude=0)
    assert place.dtype == p.index_dtype and place.shape == y.shape
    passes = (y > 0) | (activation == "linear")
    assert passes.any() and (place == np.where(passes, index, p.taps)).all()
    dw, db = backward(dy, y, index, x, s, p, activation)
    got = run("conv_pool_backward", dy, got, place, x, s, p, activation)
    for gradient, exact, what in zip(got, (dw, db), ("dw", "db"), strict=True):
        assert_close(gradient, exact, dtype=x.dtype, magnitude=0, what=what)


@pytest.mark.parametrize(("name", "dtype"), RUNS)
def test_random_numbers(run, name, dtype):
    """The gradients are those of the outputs that the forward pass itself says it has chosen."""
    s, p = CASES[name]
    x, w, b, dy = (
        random(what, shape, DTYPES[dtype])
        for what, shape in (("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)),
                            ("dy", p.y_shape))
    )  # fmt: skip
    reduction = s.taps * (s.channels // s.groups) + 1
    y, _ = forward(x, w, b, s, p, "linear")
    terms, _ = forward(*map(np.abs, (x, w, b)), s, replace(p, mode="max"), "linear")
    got, index = run("conv_pool_forward", x, w, b, s, p)
    assert_close(got, y, dtype=x.dtype, reduction=reduction, magnitude=terms)
    gradients = run("conv_pool_backward", dy, got, index, x, s, p)
    exact = backward(dy, got, index, x, s, p, "linear")
    terms = backward(np.abs(dy), got, index, np.abs(x), s, p, "linear")
    for gradient, *expected in zip(gradients, exact, terms, strict=True):
        assert_close(
            gradient, expected[0], dtype=x.dtype, reduction=s.batch * math.prod(s.output),
            magnitude=expected[1],
        )  # fmt: skip


@pytest.mark.parametrize("mode", ["average", "sum"])
def test_a_pooling_without_an_index(run, mode):
    s, p = pooled(conv((1, 7, 8, 2), (5, 3, 3, 2)), mode=mode)
    x, w = whole("x", s.x_shape, "float32"), whole("w", s.w_shape, "float32")
    y, index = run("conv_pool_forward", x, w, None, s, p, "relu")
    assert index is None
    assert_close(y, forward(x, w, None, s, p, "relu")[0], dtype=x.dtype, magnitude=0)
    dy = whole("dy", p.y_shape, "float32")
    got = run("conv_pool_backward", dy, y, None, x, s, p)
    for gradient, exact in zip(got, backward(dy, y, None, x, s, p, "linear"), strict=True):
        assert_close(gradient, exact, dtype=x.dtype, magnitude=0)


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_first_nan_wins(run, dtype, activation):
    s, p = FUSED["ceil"]
    x, w = whole("x", s.x_shape, dtype), whole("w", s.w_shape, dtype)
    x[0, 3, 5, 1] = x[0, 8, 30, 0] = np.nan
    y, index = forward(x, w, None, s, p, activation)
    got, place = run("conv_pool_forward", x, w, None, s, p, activation)
    assert 0 < np.isnan(y).sum() < y.size
    assert_close(got, y, dtype=x.dtype, magnitude=0)
    passes = (y > 0) | (activation == "linear")
    assert (place == np.where(passes, index, p.taps)).all()


def test_infinities_are_numbers(run):
    s, p = FUSED["odd"]
    x, w = np.full(s.x_shape, -np.inf, np.float32), np.ones(s.w_shape, np.float32)
    x[0, 4, 4, 0] = 1
    y, index = run("conv_pool_forward", x, w, None, s, p)
    assert (y == -np.inf).all() and not index.any()


def test_where_equal_halves_round_alike_the_first_is_chosen(run):
    """As the unfused pooling sees them: rounded to 16 bits, in which a step at 2048 is 2."""
    s, p = pooled(conv((1, 4, 4, 1), (1, 3, 3, 1)))
    x, w = np.zeros(s.x_shape, np.float16), np.zeros(s.w_shape, np.float16)
    w[0, 0, 0, 0], w[0, 1, 1, 0] = 1, 1
    x[0, :2, :2, 0] = 2048  # z is 2048 plus one of the x in the middle
    x[0, 1:3, 1:3, 0] += np.array([[0, 0.5], [0.25, 0.75]], np.float16)
    x[0, 1, 1, 0], x[0, 0, 0, 0] = 1, 2048
    y, index = run("conv_pool_forward", x, w, None, s, p)
    z = reference.conv_fprop(x, w, None, s).astype(np.float16)
    expected, first = reference.pool_forward(z, p)
    assert_close(y, expected, dtype=np.float16, magnitude=0)
    assert (index == first).all()


def test_what_is_not_wanted_or_not_there(run):
    s, p = FUSED["even"]
    x, w, b = (
        whole(n, a, "float32") for n, a in (("x", s.x_shape), ("w", s.w_shape), ("b", (32,)))
    )
    y, _ = run("conv_pool_forward", x, w, b, s, p)
    same, index = run("conv_pool_forward", x, w, b, s, p, "linear", False)
    assert index is None and (same == y).all()
    without, _ = run("conv_pool_forward", x, w, None, s, p)
    assert (without + b == y).all()


@pytest.mark.parametrize("name", ["odd", "groups"])
def test_an_empty_batch(run, name):
    s, p = (replace(shape, batch=0) for shape in CASES[name])
    x, w, y = (np.zeros(a, np.float32) for a in (s.x_shape, s.w_shape, p.y_shape))
    got, index = run("conv_pool_forward", x, w, None, s, p, "relu")
    assert got.shape == index.shape == y.shape
    dw, db = run("conv_pool_backward", y, y, index, x, s, p, "relu")
    assert_close(dw, w)
    assert_close(db, np.zeros(s.filters, np.float32))


def test_gradients_that_begin_inside_another_vector(run):
    s, p = FUSED["even"]
    x, w = whole("x", s.x_shape, "float32"), whole("w", s.w_shape, "float32")
    y, index = run("conv_pool_forward", x, w, None, s, p)
    dy = whole("dy", p.y_shape, "float32")
    there = run.backend.asarray
    apart_dy, apart_index = (inside_another(run.backend, array) for array in (dy, index))
    got = run.backend.conv_pool_backward(apart_dy, there(y), apart_index, there(x), s, p)
    for gradient, same in zip(got, run("conv_pool_backward", dy, y, index, x, s, p), strict=True):
        assert (run.backend.to_numpy(gradient) == same).all()


# ---- plans: without a GPU ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CASES)
def test_where_it_is_one_pass(name: str, dtype: str) -> None:
    s, p = CASES[name]
    for direction in ("fprop", "wgrad"):
        plan = fused(Problem(direction, s, dtype), p)
        assert (plan is not None) == (name in FUSED and dtype != "float64")
        assert fused(Problem(direction, replace(s, batch=0), dtype), p) is None
        assert fused(Problem("dgrad", s, dtype), p) is None


def test_a_pooling_of_something_else_is_not_fused() -> None:
    s, p = FUSED["odd"]
    assert fused(Problem("fprop", s, "float32"), replace(p, input=(8, 11))) is None


@pytest.mark.parametrize("direction", ["fprop", "wgrad"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("size", [(8, 9), (28, 28), (31, 500), (500, 5), (224, 224)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize(("taps", "stride"), [(3, 1), (5, 1), (3, 2), (7, 2)])
def test_tiles_cover_the_map_and_fit(taps, stride, channels, size, dtype, direction) -> None:
    for batch, filters in ((1, 5), (128, 64)):
        s, p = pooled(
            conv((batch, *size, channels), (filters, taps, taps, channels), strides=stride,
                 padding=taps // 2)
        )  # fmt: skip
        plan = fused(Problem(direction, s, dtype), p)
        block = plan.settings
        down, across = (-(-n // q) for n, q in zip(p.output, block.quads, strict=True))
        assert plan.grid[1] * (SLICE if direction == "fprop" else WGRAD_SLICE) >= filters
        assert (plan.grid[0] - 1) * block.tiles_per_block < batch * down * across
        assert plan.grid[0] * block.tiles_per_block >= batch * down * across
        assert channels * patch_of(s, block.quads)[1] <= PATCH
        units = 1 if direction == "fprop" else channels // wgrad_channels(s)
        assert block.lanes * units * block.slots <= plan.threads <= 128
