"""The filters' gradient on Hopper's tensor cores: where that applies, what it gives, its splits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from gpucnn.backends.base import Backend
from gpucnn.backends.cuda.algorithms import ALGORITHMS, Plan, Problem, wgmma_wgrad
from gpucnn.backends.cuda.launch import ceil_div
from gpucnn.shapes import ConvShape
from tests import reference
from tests.cases import DTYPES, random
from tests.operations.conftest import inside_another, poisoned, same_bits
from tests.operations.test_wgmma import backend_of
from tests.tolerance import assert_close

WGRAD = ALGORITHMS["wgmma_wgrad"]
LARGE = ConvShape.of((32, 56, 56, 64), (64, 3, 3, 64), padding=1)
of = ConvShape.of

# Ends of channels, filters and pixels inside a tile, several tiles of each, more steps than stages.
SHAPES = {
    "strided": of((2, 33, 31, 72), (136, 3, 2, 72), strides=(2, 1), padding=((2, 1), (0, 3))),
    "dilated": of((1, 17, 19, 64), (72, 2, 3, 64), padding=((0, 3), (2, 1)), dilation=(3, 2)),
    "patches": of((2, 15, 46, 136), (72, 3, 3, 136), padding=((1, 2), (2, 2))),
    "one_by_one": of((3, 17, 15, 200), (72, 1, 1, 200)),
    "one_by_one_strided": of((2, 15, 14, 64), (136, 1, 1, 64), strides=(2, 3)),
    "dense": of((260, 1, 1, 264), (72, 1, 1, 264)),
    "1d": of((2, 137, 64), (72, 4, 64), strides=2, padding=((3, 1),)),
}
PATCHED = SHAPES["patches"]


@pytest.fixture(params=["emulated", "checked", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> Backend:
    return backend_of(request.param)


def plans(backend: Backend, shape: ConvShape, dtype: str) -> tuple[Problem, list[Plan]]:
    architecture = backend.launcher.architecture
    if architecture != 90:
        pytest.skip("wgmma is Hopper's")
    problem = Problem("wgrad", shape, dtype, architecture=architecture)
    found = list(WGRAD.plans(problem))
    assert found
    return problem, found


def arrays(s: ConvShape, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    return random("x", s.x_shape, DTYPES[dtype]), random("dy", s.y_shape, DTYPES[dtype])


# The checked emulator is slow; and on the CPU bfloat16 differs from float16 in rounding alone.
RUNS = [
    pytest.param(name, dtype, backend, id=f"{backend}-{name}-{dtype}", marks=marks)
    for backend, marks in (("emulated", ()), ("checked", ()), ("cuda", pytest.mark.gpu))
    for name in SHAPES
    for dtype in ("float16", "bfloat16")
    if dtype == "float16" or backend == "cuda" or (backend == "emulated" and name == "patches")
]


@pytest.mark.parametrize(("name", "dtype", "backend_name"), RUNS)
def test_every_plan(name: str, dtype: str, backend_name: str) -> None:
    s, backend = SHAPES[name], backend_of(backend_name)
    problem, found = plans(backend, s, dtype)
    given = arrays(s, dtype)
    expected = reference.conv_wgrad(*given, s)
    terms = reference.conv_wgrad(*map(np.abs, given), s)
    on_device = tuple(map(backend.asarray, given))
    for plan in found:
        assert plan.is_legal() and WGRAD.cost(problem, plan) > 0
        with poisoned(backend.xp):
            results = [
                backend.to_numpy(WGRAD.run(backend, problem, plan, *on_device))
                for _ in range(2 if backend_name == "cuda" else 1)
            ]
        assert all(same_bits(results[0], result) for result in results), "two runs differ"
        assert_close(
            results[0], expected, dtype=DTYPES[dtype], reduction=s.batch * math.prod(s.output),
            magnitude=terms, what=str(plan),
        )  # fmt: skip


def test_a_nan_reaches_all_that_it_should_and_nothing_else(backend: Backend) -> None:
    """At the corners of an image, which four of nine taps see."""
    s = of((2, 8, 16, 72), (64, 3, 3, 72), padding=1)
    problem, found = plans(backend, s, "float16")
    assert any(plan.settings.tile.patches for plan in found)
    for corner in (np.s_[0, 0, 0, 3], np.s_[1, -1, -1, 71]):
        x, dy = arrays(s, "float16")
        x[corner] = np.nan
        expected = np.isnan(reference.conv_wgrad(x, dy, s))
        assert expected[0].sum() == 4
        given = tuple(map(backend.asarray, (x, dy)))
        for plan in found:
            got = backend.to_numpy(WGRAD.run(backend, problem, plan, *given))
            assert (np.isnan(got) == expected).all(), plan


def test_arrays_that_begin_inside_another(backend: Backend) -> None:
    s = SHAPES["one_by_one"]
    problem, found = plans(backend, s, "float16")
    given = arrays(s, "float16")
    inside = tuple(inside_another(backend, array) for array in given)
    whole = tuple(map(backend.asarray, given))
    for plan in found:
        got, expected = (
            backend.to_numpy(WGRAD.run(backend, problem, plan, *a)) for a in (inside, whole)
        )
        assert same_bits(got, expected)


def found(shape: ConvShape, direction: str = "wgrad", **given) -> list[Plan]:
    return list(WGRAD.plans(Problem(direction, shape, **{"dtype": "float16", **given})))


def test_16_bit_numbers_on_sm_90_with_channels_last() -> None:
    for dtype in DTYPES:
        for architecture in (75, 80, 89, 90, 100, 120):
            applies = dtype in ("float16", "bfloat16") and architecture == 90
            assert bool(found(LARGE, dtype=dtype, architecture=architecture)) == applies
    assert not found(LARGE, "fprop") and not found(LARGE, "dgrad")
    assert not found(replace(LARGE, channels_last=False)) and not found(replace(LARGE, batch=0))
    assert not found(of((1, 4, 4, 128), (128, 1, 1, 64), groups=2))
    for channels, fits in ((56, False), (64, True), (68, False), (72, True)):
        assert bool(found(replace(LARGE, channels=channels))) == fits
        assert bool(found(replace(LARGE, filters=channels))) == fits


def test_patches_are_for_whole_patches_of_windows_of_3x3() -> None:
    def patched(shape: ConvShape) -> bool:
        return any(plan.settings.tile.patches for plan in found(shape))

    assert patched(LARGE) and patched(PATCHED)
    assert not patched(replace(LARGE, strides=(1, 2)))
    assert not patched(replace(LARGE, dilation=(2, 1), padding=((2, 2), (1, 1))))
    assert not patched(replace(LARGE, padding=((1, 1), (1, 0))))
    assert not patched(replace(LARGE, padding=((0, 1), (1, 1))))
    assert not patched(of((1, 10, 10, 64), (64, 3, 1, 64)))


@pytest.mark.parametrize("tile", wgmma_wgrad.TILES, ids=lambda t: f"{t.filters}x{t.weights}")
def test_a_multiprocessor_holds_a_block(tile: wgmma_wgrad.Tile) -> None:
    family = wgmma_wgrad.PATCHES if tile.patches else wgmma_wgrad.GATHERED
    assert family("bfloat16", tile).dynamic_bytes == tile.dynamic_bytes <= 227 * 1024
    sums = tile.filters * tile.weights // (tile.threads - 32)  # a thread's
    assert sums <= 128 and tile.threads * (sums + 40) <= 65536


@pytest.mark.parametrize("shape", [LARGE, *SHAPES.values()], ids=str)
def test_splits_cover_every_step_once(shape: ConvShape) -> None:
    for plan in found(shape):
        steps = ceil_div(shape.batch * math.prod(shape.output), plan.settings.tile.pixels)
        each, splits = plan.settings.steps_per_split, plan.grid[2]
        assert (splits - 1) * each < steps <= splits * each
        assert splits == 1 or each >= wgmma_wgrad.STEPS_PER_SPLIT


def test_splits_fill_the_gpu() -> None:
    largest = max(math.prod(plan.grid) for plan in found(LARGE) if plan.settings.tile.patches)
    assert largest > 0.95 * 132
