"""The NumPy backend's pooling of a convolution in the cache: that nobody can tell from the numbers.

The numbers are coarse, so that maxima are often equal, and some are NaN or infinite.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gpucnn.backends import get_backend
from gpucnn.backends.base import Backend, pool_activates
from gpucnn.backends.numpy import conv_fused, workers
from gpucnn.backends.numpy.conv_fused import folds_of
from gpucnn.backends.numpy.convolution import (
    Finish,
    choose,
    few_channels_plan,
    winograd,
    winograd_tiles,
)
from gpucnn.backends.numpy.pool_windows import axes_of, folds_within
from gpucnn.shapes import ConvShape, PoolShape
from tests.cases import CONVS, DTYPES, POOLS, pool
from tests.operations.conftest import same_bits
from tests.test_numpy_backend import peak

backend = get_backend("numpy")
conv = ConvShape.of
Shapes = tuple[ConvShape, PoolShape]

# Constants by which work is cut, so that small cases have several blocks.
FINE = {
    winograd_tiles: {"ALONE": 0, "COMPONENT_BYTES": 60_000, "MIN_TILES": 2},
    few_channels_plan: {"PARTS": 5, "PART_WORK": 1},
}


def forget_plans() -> None:
    for plan in (choose, winograd_tiles.plan, few_channels_plan.parts_of, folds_of):
        plan.cache_clear()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pool small outputs, too, of several blocks, and convolve them by Winograd's algorithm."""
    monkeypatch.setattr(conv_fused, "SMALL", 0)
    monkeypatch.setattr(conv_fused, "INDEXED", 0)
    monkeypatch.setattr(winograd.Winograd, "pays", lambda *_: True)
    for module, constants in FINE.items():
        for name, value in constants.items():
            monkeypatch.setattr(module, name, value)
    forget_plans()
    yield
    monkeypatch.undo()
    forget_plans()


def pooled(s: ConvShape, size: Any = 2, mode: str = "max", **geometry: Any) -> Shapes:
    return s, replace(pool(s.y_shape, size, **geometry), mode=mode)


TILES = conv((3, 14, 17, 16), (18, 3, 3, 16), padding=1)
DEEP = conv((3, 21, 14, 16), (17, 3, 3, 16))
LINE = conv((9, 97, 16), (18, 3, 16), padding=1)
FEW = conv((3, 13, 18, 1), (6, 5, 5, 1), padding=2)
STEM = conv((2, 23, 18, 3), (9, 3, 3, 3), strides=2)

FUSED: dict[str, Shapes] = {
    "winograd": pooled(TILES),
    "winograd, ceil": pooled(TILES, ceil_mode=True),
    "winograd, fours": pooled(DEEP, (4, 2), padding="same"),
    "winograd, gaps": pooled(DEEP, (3, 1), strides=(4, 2)),
    "winograd, dilated windows": pooled(DEEP, 2, strides=4, dilation=(3, 1)),
    "winograd, minimum": pooled(TILES, mode="min"),
    "winograd, strided": pooled(conv((2, 26, 33, 17), (16, 3, 3, 17), strides=2)),
    "winograd, 1-D": pooled(LINE),
    "few channels": pooled(FEW),
    "few channels, threes": pooled(FEW, 3),
    "few channels, fives": pooled(FEW, (5, 4), ceil_mode=True),
    "few channels, whole rows": pooled(FEW, (2, 3), strides=(2, 1), padding=((0, 1), (1, 1))),
    "few channels, strided": pooled(STEM),
    "few channels, 1-D": pooled(conv((3, 43, 3), (5, 4, 3))),
}  # fmt: skip
APART: dict[str, Shapes] = {
    "winograd, threes": pooled(TILES, 3),
    "winograd, overlapping": pooled(TILES, 3, strides=2, padding=1),
    "winograd, shifted": pooled(TILES, padding=1),
    "winograd, dilated": pooled(conv((2, 14, 17, 16), (18, 3, 3, 16), dilation=2)),
    "few channels, overlapping": pooled(FEW, 3, strides=2),
    "few channels, windows of nothing": pooled(
        conv((2, 1, 6, 3), (4, 1, 1, 3), padding=((0, 0), (0, 1))), 2, strides=1,
        padding=((1, 1), (0, 0)), dilation=2,
    ),
    "average": pooled(TILES, mode="average"),
    "few channels, 1-D in threes": pooled(conv((3, 43, 3), (5, 4, 3)), 3),
    "taps": pooled(conv((2, 14, 17, 16), (18, 5, 5, 16))),
    "groups": pooled(conv((2, 14, 17, 16), (18, 3, 3, 8), groups=2)),
}  # fmt: skip


def coarse(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).integers(-3, 3, shape) / 4).astype(dtype)


def inputs(s: ConvShape, dtype: Any = np.float32) -> tuple[np.ndarray, ...]:
    """Return x, with a NaN and an infinity, w, by which sums are rounded, and b."""
    x = coarse(*s.x_shape, dtype=dtype)
    flat = x.reshape(-1)
    flat[flat.size // 3], flat[2 * flat.size // 3] = np.nan, np.inf
    w = (0.3 * coarse(*s.w_shape, seed=1)).astype(dtype)
    return x, w, coarse(s.filters, dtype=dtype, seed=2)


def assert_same(y: np.ndarray, expected: np.ndarray) -> None:
    assert y.dtype == expected.dtype
    np.testing.assert_array_equal(*(array.astype(np.float64) for array in (y, expected)))


def check(s: ConvShape, p: PoolShape, dtype: Any, activation: str, with_index: bool = True) -> None:
    arrays = inputs(s, dtype)
    y, index = backend.conv_pool_forward(*arrays, s, p, activation, with_index)
    whole = backend.conv_fprop(*arrays, s, activation)
    expected, first = backend.pool_forward(whole, p, with_index)
    assert_same(y, expected)
    if first is None:
        assert index is None
        return
    assert index.dtype == first.dtype
    passes = np.ones(y.shape, bool) if activation == "linear" else y.astype(np.float32) > 0
    assert (index == first)[passes].all()
    assert (index == p.taps)[~passes].all() or not pool_activates(p)


@pytest.mark.parametrize("name", FUSED)
def test_which_are_one_pass(name):
    s, p = FUSED[name]
    algorithm = choose("fprop", s, np.dtype(np.float32))
    assert algorithm.name.startswith("winograd" if "winograd" in name else "few_channels")
    assert len(algorithm.places(s, np.dtype(np.float32), p.strides[0])) > 1
    assert folds_of(s, p, np.dtype(np.float32), "strict", True) is not None


@pytest.mark.parametrize("name", APART)
def test_which_are_not(name):
    assert folds_of(*APART[name], np.dtype(np.float32), "strict", True) is None


@pytest.mark.parametrize(
    ("s", "with_index", "without"),
    [
        (conv((32, 28, 28, 1), (16, 3, 3, 1)), False, False),
        (conv((128, 28, 28, 1), (32, 3, 3, 1)), True, True),
        (conv((32, 28, 28, 32), (32, 3, 3, 32)), False, False),
        (conv((64, 32, 32, 32), (32, 3, 3, 32), padding=1), False, True),
    ],
)
def test_small_outputs_are_pooled_as_a_whole_and_small_blocks_without_an_index(
    monkeypatch, s, with_index, without
):
    monkeypatch.undo()
    forget_plans()
    for wanted, fused in ((True, with_index), (False, without)):
        found = folds_of(*pooled(s), np.dtype(np.float32), "strict", wanted)
        assert (found is not None) == fused


@pytest.mark.parametrize("activation", ["linear", "relu"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUSED | APART)
def test_the_numbers_of_both(name, dtype, activation):
    check(*(FUSED | APART)[name], DTYPES[dtype], activation)


@pytest.mark.parametrize("name", FUSED)
def test_the_numbers_of_both_without_an_index_and_with_channels_first(name):
    s, p = (replace(shape, channels_last=False) for shape in FUSED[name])
    check(s, p, np.float32, "relu", with_index=False)
    check(s, p, np.float16, "relu")


@pytest.mark.parametrize("name", ["winograd", "winograd, ceil", "winograd, 1-D"])
def test_the_numbers_where_components_are_computed_row_by_row(monkeypatch, name):
    monkeypatch.setattr(winograd_tiles, "MANY_FILTERS", {"fprop": 0})
    s, p = FUSED[name]
    assert winograd_tiles.plan(s, "fprop", 4, np.dtype(np.float32)).by_components == (s.rank == 2)
    check(s, p, np.float32, "relu")


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("activation", ["linear", "relu", "relu6"])
@pytest.mark.parametrize("name", [*FUSED, "winograd, overlapping", "average"])
def test_the_numbers_with_a_batch_norm_between(name, activation, dtype):
    """Also where a channel's scale is negative, and its largest number becomes the smallest."""
    (s, p), dtype = (FUSED | APART)[name], DTYPES[dtype]
    gamma, beta = (coarse(s.filters, dtype=dtype, seed=seed) for seed in (3, 4))
    mean, var = coarse(s.filters, seed=5), 1 + coarse(s.filters, seed=6)
    given = *inputs(s, dtype), s, gamma, beta, mean, var, 0.1, activation
    y = backend.conv_norm_infer(*given, "strict", p)
    whole = backend.conv_norm_infer(*given)
    assert gamma.min() < 0 and np.isfinite(y).any()
    assert_same(y, backend.pool_forward(whole, p, with_index=False)[0])


@pytest.mark.parametrize("name", FUSED)
def test_any_number_of_threads_gives_the_same_bits(monkeypatch, name):
    s, p = FUSED[name]
    results = []
    for threads in (1, 2, 4):
        monkeypatch.setattr(workers, "thread_count", lambda threads=threads: threads)
        monkeypatch.setattr(workers, "_workers", None)
        results.append(backend.conv_pool_forward(*inputs(s), s, p, "relu"))
    for other in results[1:]:
        assert all(map(same_bits, results[0], other))


def test_where_a_bias_rounds_two_numbers_to_one_the_first_is_chosen():
    """Of 0.5 and 0.75, at 2^24, where a step is 2."""
    s, p = pooled(conv((2, 8, 8, 1), (4, 1, 2, 1), padding=((0, 0), (0, 1))))
    x, w = np.full(s.x_shape, 0.5, np.float32), np.zeros(s.w_shape, np.float32)
    x[:, 1::2, 1::2], w[:, :, 0] = 0.75, 1
    b = np.full(s.filters, 2**24, np.float32)
    assert folds_of(s, p, x.dtype, "strict", True) is not None
    assert not backend.conv_pool_forward(x, w, b, s, p)[1].any()
    assert (backend.conv_pool_forward(x, w, 0 * b, s, p)[1] == 3).all()


def test_the_output_of_the_convolution_is_never_in_memory(monkeypatch):
    monkeypatch.undo()
    forget_plans()
    monkeypatch.setattr(workers, "thread_count", lambda: 2)
    for channels in (3, 16):
        s, p = pooled(conv((8, 160, 160, channels), (64, 3, 3, channels), padding=1))
        x, w, b = (np.ones(shape, np.float32) for shape in (s.x_shape, s.w_shape, 64))
        y = math.prod(s.y_shape) * x.itemsize
        indexed = channels == 3
        assert peak(backend.conv_pool_forward, x, w, b, s, p, "relu", indexed) < 0.75 * y
        norm = b, b, b, b, 0.1
        assert peak(backend.conv_norm_infer, x, w, b, s, *norm, "relu", "strict", p) < 0.75 * y
        assert peak(Backend.conv_pool_forward, backend, x, w, b, s, p, "relu") > y


# ---- blocks --------------------------------------------------------------------------------------


class Recorded(Finish):
    """A finish that notes the places that it gets, and how large their memory is."""

    def __init__(self, s: ConvShape, multiple: int) -> None:
        super().__init__(s.batch)
        self.multiple, self.places = multiple, []

    def __call__(self, block: np.ndarray, place: tuple[slice, ...]) -> None:
        self.places.append(place)
        assert block.shape[:-1] == tuple(len(range(p.start, p.stop, p.step or 1)) for p in place)


@pytest.mark.parametrize("by_components", [False, True])
@pytest.mark.parametrize("multiple", [1, 2, 3])
@pytest.mark.parametrize("name", CONVS | {"tiles": TILES, "deep": DEEP, "line": LINE})
def test_an_algorithm_hands_over_the_places_that_it_promises(
    monkeypatch, name, multiple, by_components
):
    """Each pixel once."""
    s = (CONVS | {"tiles": TILES, "deep": DEEP, "line": LINE})[name]
    if by_components:
        monkeypatch.setattr(winograd_tiles, "MANY_FILTERS", {"fprop": 0})
    algorithm = choose("fprop", s, np.dtype(np.float32))
    places = algorithm.places(s, np.dtype(np.float32), multiple)
    if places is None:
        assert not algorithm.name.startswith(("winograd", "few"))
        return
    x, w = (np.ones(shape, np.float32) for shape in (s.x_shape, s.w_shape))
    x = np.ascontiguousarray(np.moveaxis(x, 0, -2))
    y = np.zeros((*s.output, s.batch, s.filters), np.float32)
    finish = Recorded(s, multiple)
    monkeypatch.setattr(workers, "thread_count", lambda: 1)
    algorithm.fprop(x, w, y, s, finish)
    assert sorted(map(str, finish.places)) == sorted(map(str, places))
    covered = np.zeros((1, *y.shape) if len(places[0]) > y.ndim - 1 else y.shape, int)
    for place in places:
        covered[place] += 1
    assert (covered == 1).all()
    if algorithm.name == "few_channels":
        assert all(place[0].start % multiple == 0 for place in places)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("name", POOLS)
def test_windows_within_blocks(name, size):
    """Against a list of what each window reads."""
    p = POOLS[name]
    cuts = [[slice(i, min(i + size, n)) for i in range(0, n, size)] for n in p.input]
    longest = max(map(len, cuts))
    blocks = [tuple(axis[min(i, len(axis) - 1)] for axis in cuts) for i in range(longest)]
    found = folds_within(p, blocks)
    crosses = False
    for axis, pieces in zip(axes_of(p), cuts, strict=True):
        for output in range(axis.output):
            reads = {axis.read(output, tap) for tap in range(axis.window)} & {*range(axis.size)}
            crosses |= not any(reads and reads <= {*range(c.start, c.stop)} for c in pieces)
    assert (found is None) == crosses
    for axis, pieces in zip(axes_of(p), found or (), strict=bool(found)):
        outputs = [o for f in pieces.values() if f for o in range(f.outputs.start, f.outputs.stop)]
        assert outputs == [*range(axis.output)]
