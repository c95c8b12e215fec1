"""Winograd's algorithms beyond the cases of all: F(4x4, 3x3), and the error that they promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Problem, tiles, winograd4
from gpucnn.backends.cuda.launch import ceil_div
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import in_layout, random
from tests.conftest import make_backend
from tests.operations.conftest import poisoned
from tests.tolerance import assert_close

# Each has 512 output pixels or a few less: the direct wgrad sums them in one split.
SHAPES = {
    "ragged": ConvShape.of((3, 12, 14, 17), (18, 3, 3, 17), padding=((1, 2), (0, 1))),
    "rows_of_packs": ConvShape.of((7, 9, 8, 33), (5, 3, 3, 33), padding=1),
    # deep, for a sum of one tap has the error of its whole tile
    "wide_padding": ConvShape.of((8, 7, 8, 130), (8, 3, 3, 130), padding=((2, 0), (1, 2))),
}


@pytest.fixture(params=["emulated", "checked", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    try:
        return make_backend(request.param)
    except RuntimeError as error:
        pytest.skip(str(error))


def run(backend: Backend, algorithm: str, problem: Problem, *arrays: np.ndarray) -> np.ndarray:
    """Return what the algorithm's first plan gives, in its layout."""
    plan = next(ALGORITHMS[algorithm].plans(problem))
    with poisoned(backend.xp):
        given = (None if a is None else backend.asarray(a) for a in arrays)
        return backend.to_numpy(ALGORITHMS[algorithm].run(backend, problem, plan, *given))


@pytest.mark.parametrize("channels_last", [True, False], ids=["nhwc", "nchw"])
@pytest.mark.parametrize("direction", DIRECTIONS)
@pytest.mark.parametrize("name", SHAPES)
def test_f4_of_any_depth(name, direction, channels_last, backend, monkeypatch) -> None:
    monkeypatch.setattr(winograd4, "MIN_DEPTH", 1)
    monkeypatch.setattr(winograd4, "WORKSPACE", 60_000)  # the batch goes in parts
    monkeypatch.setattr(winograd4, "MIN_PIXELS", 512)
    monkeypatch.setattr(tiles, "TERMS_PER_SPLIT", 512)  # as with large maps
    s = SHAPES[name]
    shape = replace(s, channels_last=channels_last)
    x, w, b, dy, b_dx = (
        random(letter, size, np.float32)
        for letter, size in (
            ("x", s.x_shape), ("w", s.w_shape), ("b", (s.filters,)), ("dy", s.y_shape),
            ("b_dx", (s.channels,)),
        )
    )  # fmt: skip
    function, arrays, terms = {
        "fprop": (reference.conv_fprop, (x, w, b), 9 * s.channels + 1),
        "dgrad": (reference.conv_dgrad, (dy, w, b_dx), 9 * s.filters + 1),
        "wgrad": (reference.conv_wgrad, (x, dy), s.batch * math.prod(s.output)),
    }[direction]
    expected, magnitude = function(*arrays, s), function(*map(np.abs, arrays), s)
    moved = [in_layout(a, channels_last) if a.ndim == 4 and a is not w else a for a in arrays]
    if direction != "wgrad":
        expected, magnitude = (in_layout(a, channels_last) for a in (expected, magnitude))
    for activation in ("linear", "relu") if direction == "fprop" else ("linear",):
        got = run(backend, "winograd4", Problem(direction, shape, "float32", activation), *moved)
        want = np.maximum(expected, 0) if activation == "relu" else expected
        assert_close(got, want, dtype=np.float32, reduction=terms, magnitude=magnitude)


def root_mean_square(error: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(error, dtype=np.float64))))


def errors(
    direction: str, algorithm: str, s: ConvShape, *arrays: np.ndarray
) -> tuple[float, float]:
    """Return the direct sum's error and the algorithm's, in the emulator."""
    exact = getattr(reference, f"conv_{direction}")(*arrays, s)
    problem, backend = Problem(direction, s, "float32"), make_backend("emulated")
    direct, fast = (
        root_mean_square(run(backend, name, problem, *arrays) - exact)
        for name in ("implicit_gemm", algorithm)
    )
    return direct, fast


@pytest.mark.parametrize("direction", ["fprop", "wgrad"])
def test_error_of_f2_is_below_the_direct_sums(direction, monkeypatch) -> None:
    monkeypatch.setattr(tiles, "TERMS_PER_SPLIT", 512)
    x_shape = {"fprop": (1, 12, 12, 128), "wgrad": (2, 16, 16, 20)}[direction]
    s = ConvShape.of(x_shape, (24, 3, 3, x_shape[-1]), padding=1)
    rng = np.random.default_rng(3)
    x, w, dy = (rng.standard_normal(size, np.float32) for size in (s.x_shape, s.w_shape, s.y_shape))
    arrays = {"fprop": (x, w, None), "wgrad": (x, dy)}[direction]
    direct, fast = errors(direction, "winograd", s, *arrays)
    assert direct / 4 < fast < direct


@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("data", ["normal", "relu"])
@pytest.mark.parametrize("direction", DIRECTIONS)
def test_error_of_f4_is_within_twice_the_direct_sums(direction, data, padding, monkeypatch) -> None:
    """With the fewest channels or pixels for which it is offered."""
    monkeypatch.setattr(tiles, "TERMS_PER_SPLIT", 2**20)  # a direct sum is in one piece
    depth, pixels = winograd4.MIN_DEPTH, winograd4.MIN_PIXELS
    channels, filters = {"fprop": (depth, 24), "dgrad": (24, depth), "wgrad": (20, 24)}[direction]
    size = 8 if padding else 14  # of whole tiles, which leave their border no room
    batch = ceil_div(pixels, (size - 2 + 2 * padding) ** 2) if direction == "wgrad" else 2
    s = ConvShape.of((batch, size, size, channels), (filters, 3, 3, channels), padding=padding)
    rng = np.random.default_rng(3)
    x, w, dy = (rng.standard_normal(size, np.float32) for size in (s.x_shape, s.w_shape, s.y_shape))
    if data == "relu":  # before and behind it
        x, dy = np.maximum(x, 0), np.where(rng.random(s.y_shape) < 0.5, dy, np.float32(0))
    arrays = {"fprop": (x, w, None), "dgrad": (dy, w, None), "wgrad": (x, dy)}[direction]
    direct, fast = errors(direction, "winograd4", s, *arrays)
    assert direct / 2 < fast < 2 * direct


@pytest.mark.parametrize(
    ("direction", "shape"),
    [
        ("fprop", ConvShape.of((9, 16, 16, 255), (256, 3, 3, 255), padding=1)),
        ("dgrad", ConvShape.of((9, 16, 16, 256), (255, 3, 3, 256), padding=1)),
        ("wgrad", ConvShape.of((4, 16, 16, 256), (256, 3, 3, 256), padding=1)),
        ("fprop", ConvShape.of((9, 16, 16, 256), (256, 3, 3, 256), padding=3)),
        ("fprop", ConvShape.of((9, 16, 4, 256), (256, 3, 3, 256), padding=1)),
        ("dgrad", ConvShape.of((9, 16, 13, 256), (256, 3, 3, 256))),
        ("fprop", ConvShape.of((9, 16, 16, 512), (512, 3, 3, 256), padding=1, groups=2)),
        ("fprop", ConvShape.of((9, 16, 16, 256), (256, 3, 3, 256), strides=2)),
    ],
    ids=[
        "few channels", "few filters", "few pixels", "windows of padding", "narrow map",
        "narrow gradient", "groups", "strides",
    ],
)  # fmt: skip
def test_f4_is_not_offered(direction: str, shape: ConvShape) -> None:
    assert not list(ALGORITHMS["winograd4"].plans(Problem(direction, shape, "float32")))
