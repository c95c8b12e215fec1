"""The NumPy backend's algorithms for convolution, each called directly on pixel-major arrays."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.numpy.convolution import (
    base,
    depthwise,
    depthwise_rows,
    few_channels,
    few_channels_dgrad,
    few_channels_plan,
    pointwise,
    taps,
)
from gpucnn.backends.numpy.convolution.workspace import workspace
from gpucnn.backends.numpy.memory import as_activation, pixel_major
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import CONVS, DTYPES
from tests.operations.test_conv import problem
from tests.tolerance import assert_close

ALGORITHMS = {
    algorithm.name: algorithm
    for algorithm in (
        taps.Taps(),
        pointwise.Pointwise(),
        few_channels.FewChannels(),
        depthwise.Depthwise(),
        depthwise_rows.DepthwiseRows(),
    )
}

DIRECTIONS = ("fprop", "dgrad", "wgrad")

# Constants by which an algorithm cuts its work: so small that small cases have many parts.
FINE = {
    taps: {"COLUMN_BYTES": 2000, "RESULT_BYTES": 1500, "ROWS": 8, "SHORT": 4, "SMALL": 900}
    | {"MANY_ROWS": 1, "PART_WORK": 1, "PRODUCT_WORK": 1},
    pointwise: {"PARTS": 4, "PART_WORK": 1, "PART_BYTES": 900, "MANY_ROWS": 20, "SMALL": 3000}
    | {"PANEL": 16, "FEW_ROWS": 4, "small_products_pay": lambda: True},
    few_channels: {"PARTS": 5},
    few_channels_plan: {"PARTS": 5, "PART_WORK": 1, "COLUMN_BYTES": 2000, "SHORT": 2, "SMALL": 900}
    | {"small_products_pay": lambda: True},
    few_channels_dgrad: {"PRODUCT_BYTES": 3000},
    depthwise: {"SHORT": 0, "STRIDED": 0, "PARTS": 5, "PART_WORK": 1, "RUN": 40},
    depthwise_rows: {"RUN": 40, "PATCH": 300},
}


def finish(bias: np.ndarray | None, shape: ConvShape, relu: bool = False) -> base.Finish:
    return base.Finish(shape.batch, bias, "relu" if relu else "linear")


def filled(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A pixel-major result whose numbers would be seen, were they left."""
    return pixel_major(np.full(shape, 7e7, dtype), True)


def fprop(algorithm: base.Algorithm, x: np.ndarray, w: np.ndarray, shape: ConvShape, b=None):
    y = filled(shape.y_shape, x.dtype)
    algorithm.fprop(pixel_major(x, True), w, y, shape, finish(b, shape))
    return as_activation(y, True)


def dgrad(algorithm: base.Algorithm, dy: np.ndarray, w: np.ndarray, shape: ConvShape, b=None):
    dx = filled(shape.x_shape, dy.dtype)
    algorithm.dgrad(pixel_major(dy, True), w, dx, shape, finish(b, shape))
    return as_activation(dx, True)


def wgrad(algorithm: base.Algorithm, x: np.ndarray, dy: np.ndarray, shape: ConvShape):
    return algorithm.wgrad(pixel_major(x, True), pixel_major(dy, True), shape)


def suited(direction: str, without: str):
    """Each algorithm with each case that it suits, in both dtypes."""
    cases = [
        pytest.param(ALGORITHMS[name], case, dtype, id=f"{name}-{case}-{dtype}")
        for name in ALGORITHMS
        for case in CONVS
        for dtype in ("float32", "float64")
        if not case.endswith(without)
        and ALGORITHMS[name].suits(direction, CONVS[case], DTYPES[dtype])
    ]
    return pytest.mark.parametrize(("algorithm", "case", "dtype"), cases)


def forget_plans() -> None:
    """Forget what was worked out for a shape, with other constants."""
    few_channels_plan.parts_of.cache_clear()
    few_channels_plan.regions_of.cache_clear()
    depthwise._plan.cache_clear()
    depthwise_rows._plan.cache_clear()


@pytest.fixture
def fine(monkeypatch):
    """Cut work into many small parts."""
    for module, constants in FINE.items():
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
    forget_plans()
    yield
    forget_plans()


@pytest.fixture(params=["whole", "fine"])
def parts(request):
    """The parts as they are, and many small ones."""
    if request.param == "fine":
        request.getfixturevalue("fine")


@suited("fprop", without="wide_filters")
def test_fprop(parts, algorithm, case, dtype):
    p, s = problem(case, dtype), CONVS[case]
    got = fprop(algorithm, p.x, p.w, s, p.b)
    reduction = s.taps * (s.channels // s.groups) + 1
    assert_close(got, p.y, dtype=DTYPES[dtype], reduction=reduction, magnitude=p.y_terms)


@suited("dgrad", without="wide_filters")
def test_dgrad(parts, algorithm, case, dtype):
    p, s = problem(case, dtype), CONVS[case]
    got = dgrad(algorithm, p.dy, p.w, s, p.b_dx)
    reduction = s.taps * (s.filters // s.groups) + 1
    assert_close(got, p.dx, dtype=DTYPES[dtype], reduction=reduction, magnitude=p.dx_terms)


@suited("wgrad", without="wide_tiles")
def test_wgrad(parts, algorithm, case, dtype):
    p, s = problem(case, dtype), CONVS[case]
    got = wgrad(algorithm, p.x, p.dy, s)
    reduction = s.batch * math.prod(s.output)
    assert_close(got, p.dw, dtype=DTYPES[dtype], reduction=reduction, magnitude=p.dw_terms)


def suited_case(algorithm: base.Algorithm, condition) -> tuple[str, ConvShape]:
    """Return the first case that an algorithm suits in every direction and that is as asked."""
    return next(
        (case, s)
        for case, s in CONVS.items()
        if all(algorithm.suits(direction, s, np.float32) for direction in DIRECTIONS)
        and condition(s)
    )


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_order_of_the_parts_does_not_matter(fine, monkeypatch, name):
    """Any number of threads gives the same bits: each part starts from nothing but its inputs."""
    algorithm, module = ALGORITHMS[name], sys.modules[type(ALGORITHMS[name]).__module__]
    numbers = set()

    def backwards(function, parts):
        numbers.add(parts)
        for part in reversed(range(parts)):
            workspace.memory.clear()
            function(part)

    suited = [(c, s) for c, s in CONVS.items() if algorithm.suits("wgrad", s, np.float32)]
    case, s = max(
        suited, key=lambda case: min(case[1].multiply_adds, 10**6 - case[1].multiply_adds)
    )
    p = problem(case, "float32")
    calls = [
        lambda: fprop(algorithm, p.x, p.w, s, p.b),
        lambda: dgrad(algorithm, p.dy, p.w, s, p.b_dx),
        lambda: wgrad(algorithm, p.x, p.dy, s),
    ]
    expected = [call() for call in calls]
    for each in {module, few_channels_dgrad}:
        monkeypatch.setattr(each, "run", backwards)
    for call, result in zip(calls, expected, strict=True):
        np.testing.assert_array_equal(call(), result)
    assert min(numbers) > 1


@pytest.mark.parametrize("name", ALGORITHMS)
def test_an_empty_batch(name):
    algorithm = ALGORITHMS[name]
    _, s = suited_case(algorithm, lambda s: True)
    w, s = np.ones(s.w_shape, np.float32), replace(s, batch=0)
    x, dy = np.zeros(s.x_shape, np.float32), np.zeros(s.y_shape, np.float32)
    assert fprop(algorithm, x, w, s).shape == s.y_shape
    assert dgrad(algorithm, dy, w, s).shape == s.x_shape
    assert (wgrad(algorithm, x, dy, s) == np.zeros_like(w)).all()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_nan_reaches_all_that_it_should_and_nothing_else(name):
    algorithm = ALGORITHMS[name]
    _, s = suited_case(algorithm, lambda s: s.rank == 2 and min(s.output) > 4)
    x, w, dy = (np.zeros(shape, np.float32) for shape in (s.x_shape, s.w_shape, s.y_shape))
    zero = dy.copy()
    x[0, 3, 4, 1] = dy[0, 2, 3, 2] = np.nan
    for got, expected in (
        (fprop(algorithm, x, w, s), reference.conv_fprop(x, w, None, s)),
        (dgrad(algorithm, dy, w, s), reference.conv_dgrad(dy, w, None, s)),
        (wgrad(algorithm, x, zero, s), reference.conv_wgrad(x, zero, s)),
    ):
        assert 0 < np.isnan(expected).sum() < expected.size
        assert_close(got, expected, dtype=x.dtype)


@pytest.mark.parametrize("way", ["rows", "taps"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case", [c for c, s in CONVS.items() if ALGORITHMS["few_channels"].suits("dgrad", s, None)]
)
def test_both_ways_to_dgrad_of_few_channels(parts, monkeypatch, case, dtype, way):
    monkeypatch.setattr(few_channels_dgrad, "_few_filters", lambda shape: way == "rows")
    p, s = problem(case, dtype), CONVS[case]
    got = dgrad(ALGORITHMS["few_channels"], p.dy, p.w, s, p.b_dx)
    reduction = s.taps * (s.filters // s.groups) + 1
    assert_close(got, p.dx, dtype=DTYPES[dtype], reduction=reduction, magnitude=p.dx_terms)


def test_dgrad_of_pixels_that_no_window_reads(fine, monkeypatch):
    monkeypatch.setattr(few_channels_plan, "COLUMN_BYTES", 1)  # a region a pixel
    s = ConvShape.of((2, 7, 8, 1), (3, 2, 2, 1), strides=3)
    dy, w = np.ones(s.y_shape, np.float32), np.ones(s.w_shape, np.float32)
    dx = dgrad(ALGORITHMS["few_channels"], dy, w, s, np.ones(1, np.float32))
    np.testing.assert_array_equal(dx, reference.conv_dgrad(dy, w, np.ones(1), s))


def test_few_filters_are_those_of_lenet():
    def few(*sizes: int, **geometry: int) -> bool:
        size, channels, filters, window = sizes
        s = ConvShape.of((2, size, size, channels), (filters, window, window, channels), **geometry)
        return few_channels_dgrad._few_filters(s)

    assert few(28, 1, 6, 5, padding=2)
    assert few(14, 6, 16, 5)
    assert not few(32, 3, 64, 3, padding=1)
    assert not few(224, 3, 64, 7, strides=2, padding=3)


@pytest.mark.parametrize(
    ("name", "x_shape", "w_shape"),
    [
        ("pointwise", (64, 1, 400), (120, 1, 400)),
        ("pointwise", (1, 32, 32, 16), (96, 1, 1, 16)),
        ("few_channels", (1, 28, 28, 1), (6, 5, 5, 1)),
        ("few_channels", (1, 14, 14, 6), (16, 5, 5, 6)),
    ],
)
def test_a_small_problem_is_one_part(monkeypatch, name, x_shape, w_shape):
    algorithm, numbers = ALGORITHMS[name], []

    def counted(function, parts):
        numbers.append(parts)
        for part in range(parts):
            function(part)

    for module in (sys.modules[type(algorithm).__module__], few_channels_dgrad):
        monkeypatch.setattr(module, "run", counted)
    s = ConvShape.of(x_shape, w_shape)
    x, w, dy = (np.ones(shape, np.float32) for shape in (x_shape, w_shape, s.y_shape))
    fprop(algorithm, x, w, s)
    dgrad(algorithm, dy, w, s)
    wgrad(algorithm, x, dy, s)
    assert set(numbers) == {1}


def test_a_product_of_one_row():
    s = ConvShape.of((1, 1, 5), (3, 1, 5))
    x, dy = np.arange(5, dtype=np.float32), np.arange(2, 5, dtype=np.float32)
    dw = wgrad(ALGORITHMS["pointwise"], x.reshape(s.x_shape), dy.reshape(s.y_shape), s)
    np.testing.assert_array_equal(dw[:, 0], [[k * c for c in range(5)] for k in (2, 3, 4)])


@pytest.mark.parametrize("images", [1, 90])
def test_finish_adds_the_bias_and_keeps_a_nan(images):
    """Of blocks with short and with long runs, with gaps, and of some of the images."""
    bias = np.array([1, -2, 3], np.float32)
    y = np.linspace(-4, 4, 4 * 5 * images * 3, dtype=np.float32).reshape(4, 5, images, 3)
    y[1, 1, 0, 1] = np.nan
    expected = y.copy()
    some = slice(images // 2, images)
    expected[1:3, 1:4, some] = np.maximum(expected[1:3, 1:4, some] + bias, 0)
    base.Finish(images, bias, "relu")(y[1:3, 1:4, some], (some,))
    np.testing.assert_array_equal(y, expected)
