"""Winograd's algorithms of the NumPy backend, called directly on pixel-major arrays."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from gpucnn.backends.numpy import blas_probe, workers
from gpucnn.backends.numpy.convolution import (
    Finish,
    choose,
    winograd,
    winograd_filters,
    winograd_tiles,
    winograd_transforms,
    winograd_wgrad,
)
from gpucnn.backends.numpy.convolution import workspace as workspace_module
from gpucnn.backends.numpy.convolution.cook_toom import (
    cook_toom,
    dense,
    strided,
    strided_gradient,
    turned,
)
from gpucnn.backends.numpy.convolution.winograd import Winograd
from gpucnn.backends.numpy.convolution.workspace import workspace
from gpucnn.backends.numpy.memory import as_activation, pixel_major
from gpucnn.shapes import ConvShape
from profiling.cpu import errors
from tests import reference
from tests.cases import random
from tests.tolerance import assert_close

conv = ConvShape.of

SHAPES = {
    "same": conv((2, 8, 12, 16), (17, 3, 3, 16), padding=1),
    "ragged": conv((3, 9, 11, 17), (18, 3, 3, 17), padding=((0, 1), (1, 2))),
    "valid": conv((5, 5, 7, 33), (16, 3, 3, 33)),
    "wide_padding": conv((3, 6, 5, 40), (48, 3, 3, 40), padding=((2, 1), (0, 2))),
    "panels": conv((2, 7, 6, 96), (128, 3, 3, 96), padding=1),
    "dilated": conv((2, 13, 12, 16), (18, 3, 3, 16), padding=((2, 4), (0, 3)), dilation=(2, 3)),
    "strided": conv((3, 9, 10, 18), (16, 3, 3, 18), strides=2, padding=1),
    "strided_ends": conv((4, 10, 8, 17), (16, 3, 3, 17), strides=2, padding=((0, 1), (2, 0))),
    "strided_once": conv((2, 8, 11, 16), (18, 3, 3, 16), strides=(1, 2), padding=1),
    "1d": conv((3, 37, 16), (18, 3, 16), padding=((2, 1),)),
    "1d_dilated": conv((3, 26, 18), (16, 3, 18), padding="causal", dilation=2),
    "1d_strided": conv((8, 18, 16), (17, 3, 16), strides=2, padding=1),
}  # fmt: skip
DIRECTIONS = ("fprop", "dgrad", "wgrad")

# Constants by which the work is cut, so small that small cases have many parts.
FINE = {
    winograd: {"FOLDED_BYTES": 1},
    winograd_filters: {"ALONE": 0, "CHUNK": 100, "PANEL": 16, "SMALL": 300, "NARROW": 5},
    winograd_tiles: {"ALONE": 0, "COMPONENT_BYTES": 9000, "MIN_TILES": 2, "TERMS": {2: 5, 4: 7}},
    winograd_transforms: {"RUN": 100},
    winograd_wgrad: {"CHUNK": 50},
}


@pytest.fixture(params=["whole", "fine", "by_components"])
def parts(request, monkeypatch):
    """The parts as they are, many small ones, and rows of components of many small ones."""
    if request.param != "whole":
        cut_finely(monkeypatch, by_components=request.param == "by_components")
    winograd_tiles.plan.cache_clear()
    yield
    winograd_tiles.plan.cache_clear()


def cut_finely(monkeypatch, by_components: bool) -> None:
    for module, constants in FINE.items():
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(winograd_filters, "small_products_pay", lambda: True)
    many = 0 if by_components else math.inf
    monkeypatch.setattr(winograd_tiles, "MANY_FILTERS", dict.fromkeys(DIRECTIONS, many))


def compute(algorithm, direction: str, s: ConvShape, *arrays: np.ndarray, relu=False) -> np.ndarray:
    """Return y, dx or dw of arrays in channels-last order; what is not filled would be seen."""
    first, second = (pixel_major(a, True) if a.shape != s.w_shape else a for a in arrays[:2])
    if direction == "wgrad":
        return algorithm.wgrad(first, second, s)
    shape = s.y_shape if direction == "fprop" else s.x_shape
    out = pixel_major(np.full(shape, 7e7, first.dtype), True)
    finish = Finish(s.batch, arrays[2], "relu" if relu else "linear")
    getattr(algorithm, direction)(first, second, out, s, finish)
    return as_activation(out, True)


def problem(direction: str, s: ConvShape, dtype) -> tuple[list[np.ndarray], int]:
    """Return the arrays of a direction, and how many terms its sums have."""
    x, w, dy = (
        random(name, shape, dtype)
        for name, shape in (("x", s.x_shape), ("w", s.w_shape), ("dy", s.y_shape))
    )
    if direction == "fprop":
        return [x, w, random("b", (s.filters,), dtype)], s.taps * s.channels + 1
    if direction == "dgrad":
        return [dy, w, random("b_dx", (s.channels,), dtype)], s.taps * s.filters + 1
    return [x, dy], s.batch * math.prod(s.output)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_every_direction(parts, name, direction, m, dtype):
    s, algorithm = SHAPES[name], Winograd(m)
    assert algorithm.computes(direction, s)
    arrays, terms = problem(direction, s, dtype)
    function = getattr(reference, f"conv_{direction}")
    expected, magnitude = function(*arrays, s), function(*map(np.abs, arrays), s)
    got = compute(algorithm, direction, s, *arrays)
    assert_close(got, expected, dtype=dtype, reduction=terms, magnitude=magnitude)
    if direction != "wgrad":
        got = compute(algorithm, direction, s, *arrays, relu=True)
        expected = np.maximum(expected, 0)
        assert_close(got, expected, dtype=dtype, reduction=terms, magnitude=magnitude)


@pytest.mark.parametrize("by_components", [False, True])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_the_order_of_the_parts_does_not_matter(monkeypatch, direction, by_components):
    """Any number of threads gives the same bits: each part starts from nothing but its inputs."""
    cut_finely(monkeypatch, by_components)
    s = SHAPES["dilated"]
    arrays, _ = problem(direction, s, np.float32)
    winograd_tiles.plan.cache_clear()
    forwards = compute(Winograd(4), direction, s, *arrays)
    counts = []

    def backwards(function, parts):
        counts.append(parts)
        for part in reversed(range(parts)):
            function(part)
            for name, memory in workspace.memory.items():
                if name in ("winograd points", "winograd gradients", "winograd strip"):
                    memory[:] = 255  # NaN, whatever the dtype

    monkeypatch.setattr(workers, "run", backwards)
    np.testing.assert_array_equal(compute(Winograd(4), direction, s, *arrays), forwards)
    winograd_tiles.plan.cache_clear()
    assert min(counts) > 1


def root_mean_square(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


def in_one_piece(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(rows, terms) @ (terms, columns), summed term by term in the dtype of the arrays."""
    total = np.zeros((len(left), right.shape[1]), left.dtype)
    for column, row in zip(left.T, right, strict=True):
        total += column[:, None] * row
    return total


# Of the root mean square error beside that of a sum in one piece, by channels. Products sum pieces
# of the channels, which is why the multiples fall. The BLAS adds up a piece in its own way: those
# of F(4x4, 3x3) are 1.3 times as large on Arm as on x86.
PROMISES = {2: {16: 1, 64: 0.7, 128: 0.5, 512: 0.33}, 4: {16: 2.6, 64: 2, 128: 1.8, 512: 1}}


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("channels", [16, 64, 128, 512])
def test_error_beside_a_sum_in_one_piece(channels, m, strides):
    size = 10 * strides + 3 - strides
    s = conv((1, size, size, channels), (24, 3, 3, channels), strides=strides)
    rng = np.random.default_rng(0)
    x, w = (rng.standard_normal(shape, np.float32) for shape in (s.x_shape, s.w_shape))
    windows = np.lib.stride_tricks.sliding_window_view(x[0], (3, 3), (0, 1))[::strides, ::strides]
    # (P, Q, C, R, S) -> (P * Q, R * S * C)
    columns = windows.transpose(0, 1, 3, 4, 2).reshape(100, -1)
    filters = w.reshape(24, -1).T
    exact = columns.astype(np.float64) @ filters.astype(np.float64)
    got = compute(Winograd(m), "fprop", s, x, w, None).reshape(100, 24)
    ratio = root_mean_square(got - exact) / root_mean_square(in_one_piece(columns, filters) - exact)
    promise = PROMISES[m][channels] * (1 if strides == 1 or m == 2 else 2 / 3)
    assert promise / 3 < ratio < promise


def test_the_table_of_errors(tmp_path, capsys):
    assert errors.main(["--channels", "16", "--out", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert {(row["data"], row["direction"]) for row in rows} == {*product(errors.DATA, DIRECTIONS)}
    for row in rows:
        found = row["errors"]
        assert 0 < found["columns"] < 1e-6
        assert found["taps"] < 1.1 * found["columns"] and found["winograd2"] < found["winograd4"]
        assert found["winograd4"] < 5 * found["columns"]
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(rows)


@pytest.mark.parametrize("m", [2, 4])
def test_error_of_the_gradient_of_the_filters(m):
    """As above, over 900 pixels of many blocks."""
    s = conv((4, 32, 32, 16), (16, 3, 3, 16))
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal(shape, np.float32) for shape in (s.x_shape, s.y_shape))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    # (N, P, Q, C, R, S) -> (N * P * Q, R * S * C)
    columns = windows.transpose(0, 1, 2, 4, 5, 3).reshape(3600, -1)
    rows = dy.reshape(3600, -1).T
    exact = rows.astype(np.float64) @ columns.astype(np.float64)
    got = compute(Winograd(m), "wgrad", s, x, dy).reshape(16, -1)
    ratio = root_mean_square(got - exact) / root_mean_square(in_one_piece(rows, columns) - exact)
    assert ratio < {2: 1, 4: 2}[m]


def test_what_is_not_finite_stays_in_its_tile():
    """And overflows and NaNs come without a warning, which would be an error here."""
    s = SHAPES["same"]
    (x, w, b), _ = problem("fprop", s, np.float32)
    finite = compute(Winograd(4), "fprop", s, x, w, b)
    x[0, 0, 0, 3] = np.inf
    with np.errstate(invalid="ignore"):  # as the backend has it around every call
        got = compute(Winograd(4), "fprop", s, x, w, b)
    assert not np.isfinite(got[0, :2, :2]).any()
    got[0, :4, :4] = finite[0, :4, :4]
    np.testing.assert_array_equal(got, finite)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_little_work_is_done_by_one_thread(monkeypatch, direction):
    """To wake another would take as long, and where the core is busy many times that."""
    s, counts = layer(1, 14, 64), []

    def run(function, parts):
        counts.append(parts)
        [*map(function, range(parts))]

    monkeypatch.setattr(workers, "run", run)
    compute(Winograd(4), direction, s, *problem(direction, s, np.float32)[0])
    assert set(counts) == {1}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_large_layer_needs_little_scratch_memory(monkeypatch, direction):
    """But for the filters; all of its tiles at once would be many times that."""
    s = conv((8, 56, 56, 64), (64, 3, 3, 64), padding=1)
    assert 2 * math.prod(s.x_shape) * 4 > 5 * winograd_tiles.COMPONENT_BYTES
    arrays, _ = problem(direction, s, np.float32)
    monkeypatch.setattr(workers, "run", lambda function, parts: [*map(function, range(parts))])
    workspace.memory.clear()
    compute(Winograd(4), direction, s, *arrays)
    sizes = {name: memory.size for name, memory in workspace.memory.items()}
    assert len(sizes) > 3
    del sizes["winograd filters"]
    assert max(sizes.values()) < 1.1 * winograd_tiles.COMPONENT_BYTES


def test_the_workspace_keeps_a_bounded_amount(monkeypatch):
    monkeypatch.setattr(workspace, "memory", {})
    monkeypatch.setattr(workspace_module, "KEPT_BYTES", 100)
    first = workspace.take("a", (3, 4), np.dtype(np.float32))
    assert np.shares_memory(first, workspace.take("a", (2, 2), np.dtype(np.float64)))
    assert workspace.take("b", (14,), np.dtype(np.float32)).shape == (14,)
    assert set(workspace.memory) == {"a"}
    assert workspace.take("a", (25,), np.dtype(np.float32)).shape == (25,)
    assert workspace.memory["a"].size == 100


@pytest.mark.parametrize(
    ("library", "pays"),
    [
        ({"internal_api": "openblas", "architecture": "SkylakeX"}, True),
        ({"internal_api": "openblas", "architecture": "Haswell"}, False),
        ({"internal_api": "mkl"}, False),
    ],
)
def test_small_products_pay_with_kernels_for_them(monkeypatch, library, pays):
    monkeypatch.setattr("threadpoolctl.threadpool_info", lambda: [library])
    blas_probe.small_products_pay.cache_clear()
    assert blas_probe.small_products_pay() == pays
    blas_probe.small_products_pay.cache_clear()


@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize(
    "s",
    [
        conv((9, 16, 16, 16), (16, 3, 2, 16)),
        conv((9, 16, 16, 16), (16, 5, 5, 16)),
        conv((9, 16, 16, 15), (16, 3, 3, 15)),
        conv((9, 16, 16, 16), (15, 3, 3, 16)),
        conv((9, 16, 16, 64), (64, 3, 3, 32), groups=2),
        conv((9, 16, 16, 16), (16, 3, 3, 16), strides=3),
        conv((9, 16, 16, 16), (16, 3, 3, 16), strides=2, dilation=2),
        conv((9, 16, 16, 16), (16, 3, 3, 16), padding=3),
        conv((9, 16, 16, 16), (16, 3, 3, 16), padding=4, dilation=(2, 1)),
        conv((9, 16, 4, 16), (16, 3, 3, 16)),
        conv((9, 16, 2, 16), (16, 3, 3, 16), padding=1),
        conv((0, 16, 16, 16), (16, 3, 3, 16)),
        conv((9, 8, 8, 8, 16), (16, 3, 3, 3, 16)),
    ],
    ids=[
        "3x2", "5x5", "few channels", "few filters", "groups", "strides", "dilated strides",
        "windows of padding", "dilated windows of padding", "narrow result", "narrow map",
        "no images", "3-D",
    ],
)  # fmt: skip
def test_what_it_does_not_suit(direction, s):
    assert not Winograd(4).computes(direction, s)
    assert not Winograd(4).suits(direction, s, np.dtype(np.float32))


def test_a_sum_of_few_pixels_is_left_to_others():
    s = conv((7, 5, 5, 16), (16, 3, 3, 16))
    assert Winograd(4).computes("fprop", s)
    assert not Winograd(4).computes("wgrad", s)


def layer(images: int, size: int, channels: int, strides: int = 1) -> ConvShape:
    x, w = (images, size, size, channels), (channels, 3, 3, channels)
    return conv(x, w, strides=strides, padding=1)


@pytest.mark.parametrize(
    ("s", "names"),
    [
        # of fprop, dgrad and wgrad; what was quickest, or within a tenth of it
        (layer(1, 56, 16), ("taps", "taps", "taps")),
        (layer(1, 14, 32), ("taps", "taps", "taps")),
        (layer(1, 28, 32), ("winograd4", "winograd4", "winograd4")),
        (layer(1, 7, 64), ("taps", "taps", "taps")),
        (layer(1, 14, 64), ("winograd4", "winograd4", "winograd4")),
        (layer(1, 7, 128), ("taps", "taps", "taps")),
        (layer(1, 14, 256), ("winograd4", "winograd4", "winograd4")),
        (layer(1, 7, 512), ("taps", "winograd2", "taps")),
        (layer(1, 14, 512), ("winograd4", "winograd4", "winograd2")),
        (layer(8, 4, 512), ("taps", "winograd2", "winograd2")),
        (layer(8, 7, 512), ("winograd4", "winograd4", "winograd4")),
        (layer(8, 8, 16), ("winograd4", "winograd4", "winograd4")),
        (layer(64, 4, 32), ("winograd4", "winograd4", "winograd4")),
        (layer(1, 28, 64, strides=2), ("taps", "taps", "taps")),
        (layer(1, 28, 128, strides=2), ("winograd2", "winograd2", "winograd2")),
        (layer(8, 56, 64, strides=2), ("winograd4", "winograd4", "winograd4")),
        (layer(8, 56, 128, strides=2), ("winograd4", "winograd4", "winograd2")),
        (layer(16, 28, 256, strides=2), ("winograd2", "winograd2", "winograd2")),
        (layer(8, 8, 256, strides=2), ("taps", "taps", "taps")),
        (layer(32, 16, 32, strides=2), ("winograd4", "winograd4", "winograd4")),
    ],
    ids=lambda value: "x".join(map(str, value.x_shape)) if isinstance(value, ConvShape) else "",
)  # fmt: skip
def test_the_quickest_is_chosen(s, names):
    for channels_last in (True, False):
        s = replace(s, channels_last=channels_last)
        chosen = tuple(choose(each, s, np.dtype(np.float32)).name for each in DIRECTIONS)
        assert chosen == names


def sparse(rng: np.random.Generator, shape: tuple[int, ...], is_sparse: bool) -> np.ndarray:
    array = rng.standard_normal(shape, np.float32)
    return array * (rng.random(shape) < 0.5) if is_sparse else array


@pytest.mark.parametrize("after_relu", [False, True])
@pytest.mark.parametrize("channels", [16, 64, 256, 512])
def test_exact_is_no_less_exact_than_a_product_over_columns(channels, after_relu):
    """By root mean square, in every direction, for normal numbers and with half of them 0."""
    s, rng = layer(2, 9, channels), np.random.default_rng(channels)
    x, dy = (sparse(rng, shape, after_relu) for shape in (s.x_shape, s.y_shape))
    w = rng.standard_normal(s.w_shape, np.float32)
    wide = [array.astype(np.float64) for array in (x, dy, w)]

    def products(x, dy, w):
        """y, dx and dw as (N * P * Q, T * C) @ (T * C, K) and alike."""
        yield columns(x) @ w.reshape(channels, -1).T
        yield columns(dy) @ w[:, ::-1, ::-1].transpose(1, 2, 0, 3).reshape(-1, channels)
        yield dy.reshape(-1, channels).T @ columns(x)

    cases = zip(
        DIRECTIONS, ((x, w, None), (dy, w, None), (x, dy)), products(x, dy, w), products(*wide),
        strict=True,
    )  # fmt: skip
    for direction, arrays, plain, expected in cases:
        algorithm = choose(direction, s, np.dtype(np.float32), "exact")
        got = compute(algorithm, direction, s, *arrays).reshape(expected.shape)
        error = root_mean_square(got - expected)
        assert 0 < error < 1.05 * root_mean_square(plain - expected)


def columns(x: np.ndarray) -> np.ndarray:
    """Return the windows of 3x3 pixels, padded by one, as (N * P * Q, R * S * C)."""
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (1, 2)
    )
    # (N, P, Q, C, R, S) -> (N * P * Q, R * S * C)
    return windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, 9 * x.shape[-1])


@pytest.mark.parametrize("m", [1, 2, 3, 4, 5])
def test_matrices_of_a_dense_axis(m):
    """Whatever the points are."""
    rng = np.random.default_rng(m)
    algorithm = cook_toom(m, 3, (0, 1, -1, 1 / 2, -2, 3)[: m + 1])
    x, w = rng.standard_normal(m + 2), rng.standard_normal(3)
    got = algorithm.outputs @ ((algorithm.filters @ w) * (algorithm.inputs @ x))
    np.testing.assert_allclose(got, np.correlate(x, w), rtol=0, atol=1e-12)


@pytest.mark.parametrize("m", [2, 4])
def test_turned_taps(m):
    rng = np.random.default_rng(m)
    x, w, algorithm = rng.standard_normal(m + 2), rng.standard_normal(3), turned(dense(m))
    got = algorithm.outputs @ ((algorithm.filters @ w) * (algorithm.inputs @ x))
    np.testing.assert_allclose(got, np.correlate(x, w[::-1]), rtol=0, atol=1e-13)


@pytest.mark.parametrize("m", [2, 4])
def test_matrices_of_a_strided_axis(m):
    rng = np.random.default_rng(0)
    x, w, algorithm = rng.standard_normal(2 * m + 1), rng.standard_normal(3), strided(m)
    got = algorithm.outputs @ ((algorithm.filters @ w) * (algorithm.inputs @ x))
    np.testing.assert_allclose(got, np.correlate(x, w)[::2], rtol=0, atol=1e-13)


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("pad", [0, 1, 2])
def test_matrices_of_the_gradient_of_a_strided_axis(pad, m):
    """Tile 1 of a long axis: every y sends its products back to the three x under its window."""
    rng = np.random.default_rng(0)
    dy, w = rng.standard_normal(4 * m), rng.standard_normal(3)
    algorithm = strided_gradient(m, pad == 1)
    dx = np.zeros(2 * len(dy) + 1)
    for o, k in np.ndindex(len(dy), 3):
        if 2 * o + k >= pad:
            dx[2 * o + k - pad] += dy[o] * w[k]
    first = (pad - 1) // 2 + algorithm.step
    window = dy[first : first + m + 1]
    got = algorithm.outputs @ ((algorithm.filters @ w) * (algorithm.inputs @ window))
    np.testing.assert_allclose(got, dx[2 * m : 4 * m], rtol=0, atol=1e-13)
