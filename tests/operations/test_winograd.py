"""Winograd's algorithms beyond the cases of all: F(4x4, 3x3), and the error that they promise."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, DIRECTIONS, Problem, tiles, winograd4
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import in_layout, random
from tests.conftest import make_backend
from tests.operations.conftest import poisoned
from tests.tolerance import assert_close

# Each has 512 output pixels or a few less, the least that a split of wgrad sums.
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
    monkeypatch.setattr(tiles, "TERMS_PER_SPLIT", winograd4.MIN_PIXELS)  # as with large maps
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


@pytest.mark.parametrize(
    ("direction", "algorithm", "promise"),
    [
        ("fprop", "winograd", 1),
        ("wgrad", "winograd", 1),
        ("fprop", "winograd4", 2),
        ("wgrad", "winograd4", 2),
    ],
)
def test_error_beside_the_direct_sum(direction, algorithm, promise, monkeypatch) -> None:
    """With the fewest channels or pixels for which F(4x4, 3x3) is offered."""
    monkeypatch.setattr(tiles, "TERMS_PER_SPLIT", winograd4.MIN_PIXELS)
    x_shape = {"fprop": (1, 12, 12, 128), "wgrad": (2, 16, 16, 20)}[direction]
    s = ConvShape.of(x_shape, (24, 3, 3, x_shape[-1]), padding=1)
    rng = np.random.default_rng(3)
    x, w, dy = (rng.standard_normal(size, np.float32) for size in (s.x_shape, s.w_shape, s.y_shape))
    arrays = {"fprop": (x, w, None), "wgrad": (x, dy)}[direction]
    exact = getattr(reference, f"conv_{direction}")(*arrays, s)
    problem, backend = Problem(direction, s, "float32"), make_backend("emulated")
    direct, fast = (
        root_mean_square(run(backend, name, problem, *arrays) - exact)
        for name in ("implicit_gemm", algorithm)
    )
    assert direct / 4 < fast < promise * direct


@pytest.mark.parametrize(
    "shape",
    [
        ConvShape.of((9, 16, 16, 127), (128, 3, 3, 127), padding=1),
        ConvShape.of((9, 16, 16, 128), (128, 3, 3, 128), padding=3),
        ConvShape.of((99, 16, 2, 128), (128, 3, 3, 128), padding=1),
        ConvShape.of((9, 16, 16, 256), (256, 3, 3, 128), padding=1, groups=2),
        ConvShape.of((9, 16, 16, 128), (128, 3, 3, 128), strides=2),
    ],
    ids=["few channels", "windows of padding", "narrow map", "groups", "strides"],
)
def test_f4_is_not_offered(shape: ConvShape) -> None:
    assert not list(ALGORITHMS["winograd4"].plans(Problem("fprop", shape, "float32")))
