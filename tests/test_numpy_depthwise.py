"""Depthwise convolution on NumPy: both of its algorithms, and the choice between them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gpucnn.backends.numpy.convolution import base, depthwise, depthwise_rows
from gpucnn.backends.numpy.memory import as_activation, pixel_major
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import random
from tests.tolerance import assert_close

conv = ConvShape.of

# What neither the cases of all backends nor chance would find soon
CASES = {
    "one_tap_and_a_stride": conv((2, 7, 9, 3), (3, 1, 3, 1), strides=(2, 1), padding=1, groups=3),
    "one_tap_of_the_last": conv((2, 6, 9, 3), (3, 3, 1, 1), strides=(1, 3), padding=1, groups=3),
    "window_beyond_the_map": conv((1, 2, 2, 4), (8, 5, 5, 1), padding=2, groups=4),
    "only_padding": conv((2, 1, 2, 2), (4, 1, 2, 1), padding=3, strides=2, groups=2),
    "vector": conv((1, 50, 4), (4, 7, 1), padding="same", dilation=2, groups=4),
    "volume": conv((2, 5, 4, 6, 3), (6, 3, 3, 3, 1), padding=1, strides=(1, 2, 2), groups=3),
}


def random_shape(seed: int) -> ConvShape:
    """Any options, but small; the map is as large as the window at least."""
    rng = np.random.default_rng(seed)
    rank = int(rng.integers(1, 4))
    kernel = rng.integers(1, 5, rank)
    dilation = rng.integers(1, 3, rank)
    extra = rng.integers(0, 9 if rank < 3 else 4, rank)
    channels, times = int(rng.integers(2, 6)), int(rng.integers(1, 4))
    return conv(
        (int(rng.integers(1, 4)), *(dilation * (kernel - 1) + 1 + extra).tolist(), channels),
        (channels * times, *kernel.tolist(), 1),
        strides=rng.integers(1, 4, rank).tolist(),
        padding=[tuple(pair) for pair in rng.integers(0, 4, (rank, 2)).tolist()],
        dilation=dilation.tolist(),
        groups=channels,
    )


SHAPES = [pytest.param(shape, id=name) for name, shape in CASES.items()]
SHAPES += [pytest.param(random_shape(seed), id=f"random{seed}") for seed in range(24)]


def forget() -> None:
    """Forget the plans, which follow from constants that are changed here."""
    depthwise._plan.cache_clear()
    depthwise_rows._plan.cache_clear()


@pytest.fixture(params=["runs", "rows", "few_rows"])
def algorithm(request, monkeypatch):
    """Runs of pixels, rows of them, and rows in many blocks."""
    forget()
    for name in ("SHORT", "STRIDED"):
        monkeypatch.setattr(depthwise, name, 0 if request.param == "runs" else 1 << 30)
    if request.param == "few_rows":
        monkeypatch.setattr(depthwise_rows, "RUN", 24)
        monkeypatch.setattr(depthwise_rows, "PATCH", 100)
    yield depthwise.Depthwise()
    forget()


@pytest.mark.parametrize("s", SHAPES)
def test_against_the_reference(algorithm, s):
    def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
        return random(f"depthwise {name}", shape, np.dtype(np.float32))

    def like(shape: tuple[int, ...]) -> np.ndarray:
        """A result whose numbers would be seen, were they left."""
        return pixel_major(np.full(shape, 7e7, np.float32), True)

    x, w, dy = drawn("x", s.x_shape), drawn("w", s.w_shape), drawn("dy", s.y_shape)
    b, b_dx = drawn("b", (s.filters,)), drawn("b_dx", (s.channels,))
    y, dx = like(s.y_shape), like(s.x_shape)
    algorithm.fprop(pixel_major(x, True), w, y, s, base.Finish(s.batch, b))
    algorithm.dgrad(pixel_major(dy, True), w, dx, s, base.Finish(s.batch, b_dx))
    dw = algorithm.wgrad(pixel_major(x, True), pixel_major(dy, True), s)
    assert dw.flags.c_contiguous
    filters = s.filters // s.groups
    for got, function, inputs, reduction in (
        (as_activation(y, True), reference.conv_fprop, (x, w, b), s.taps + 1),
        (as_activation(dx, True), reference.conv_dgrad, (dy, w, b_dx), s.taps * filters + 1),
        (dw, reference.conv_wgrad, (x, dy), s.batch * math.prod(s.output)),
    ):
        magnitude = function(*(np.abs(a) for a in inputs), s)
        expected = function(*inputs, s)
        assert_close(got, expected, dtype=got.dtype, reduction=reduction, magnitude=magnitude)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("enough", [False, True])
def test_rows_are_for_short_runs(monkeypatch, stride, enough):
    called = []
    monkeypatch.setattr(depthwise_rows.DepthwiseRows, "fprop", lambda *_: called.append("rows"))
    monkeypatch.setattr(depthwise, "_gather", lambda *_: called.append("runs"))
    lanes = {1: depthwise.SHORT, 2: depthwise.STRIDED}[stride] - (not enough)
    s = conv((1, 4, 4, lanes), (lanes, 3, 3, 1), strides=stride, groups=lanes)
    depthwise.Depthwise().fprop(None, np.empty(s.w_shape), None, s, None)
    assert called == ["runs" if enough else "rows"]


def test_a_small_convolution_is_one_block():
    s = conv((1, 16, 16, 96), (96, 3, 3, 1), padding=1, groups=96)
    assert [len(blocks) for _, blocks in depthwise_rows._plan("fprop", s)] == [1]


@pytest.mark.parametrize("direction", ["fprop", "dgrad"])
@pytest.mark.parametrize(
    "s",
    [
        conv((1, 112, 112, 32), (32, 3, 3, 1), padding=1, groups=32),
        conv((7, 56, 56, 144), (144, 5, 5, 1), padding=2, strides=2, groups=144),
        conv((1, 64, 64, 1000), (1000, 7, 7, 1), padding=3, groups=1000),
        conv((4, 16000, 64), (64, 9, 1), padding="causal", dilation=4, groups=64),
        conv((2, 32, 32, 32, 48), (48, 3, 3, 3, 1), padding=1, groups=48),
    ],
    ids=["large_map", "strided", "wide_window", "vector", "volume"],
)
def test_copies_are_bounded(s, direction):
    for _, blocks in depthwise_rows._plan(direction, s):
        for block in blocks:
            assert 4 * math.prod(block.extents) * s.batch * s.filters <= 2 << 20
